"""What a gain comes from: a method named ``<method>--<control>`` is the method with something taken from it."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from poddistill.evaluation.decisions import ALPHA

SEPARATOR = "--"
MEMBER = "@"


def controlled(name: str, names: Sequence[str]) -> str | None:
    """Return the method whose control a method is: ``student`` for ``student--constant``, if it is there; else None."""
    method, separator, _ = name.partition(SEPARATOR)
    return method if separator and method in names else None


def is_member(name: str) -> bool:
    """Return whether a method is one more training of another, for an ensemble: ``student-mae@1``."""
    return MEMBER in name


def attributions(differences: pd.DataFrame, baseline: str, methods: Sequence[str]) -> list[str]:
    """Say of every method that has controls what its gain over the baseline comes from.

    A gain comes from what the controls take away only if the method is better than the baseline and than each control,
    every one of these differences with a p-value below 0.05 after Holm's adjustment. A control that could not be
    compared with its method, for want of shared cases, is not beaten.

    Args:
        differences: From `differences.paired_differences` with this baseline.
        baseline: The method that all others are compared with.
        methods: The names of all methods, compared or not.

    Returns:
        A sentence a method with controls, in the methods' order.
    """
    better = differences["difference"].gt(0) & differences["p_holm"].lt(ALPHA)
    pairs = list(zip(differences["method_a"], differences["method_b"], strict=True))
    shown = dict(zip(pairs, better, strict=True))
    rows = dict(zip(pairs, differences.to_dict("records"), strict=True))
    sentences = []
    for name in methods:
        controls = [
            method for method in methods if controlled(method, [name]) and method != baseline and not is_member(method)
        ]
        if not controls or name == baseline:
            continue
        if (name, baseline) not in shown:
            sentences.append(f"{name} could not be compared with {baseline}.")
            continue
        if not shown[name, baseline]:
            sentences.append(_no_gain(name, baseline, rows[name, baseline]))
            continue
        beaten, left = (
            [control.partition(SEPARATOR)[2] for control in controls if shown.get((name, control), False) == chosen]
            for chosen in (True, False)
        )
        if left:
            some = f" and over its controls {', '.join(beaten)}" if beaten else ""
            sentences.append(
                f"{name} gains over {baseline}{some}, but is not shown to be better than its controls: "
                f"{', '.join(left)}. The gain may have nothing to do with what the latter take away."
            )
        else:
            count = f"{len(controls)} control" + "s" * (len(controls) > 1)
            sentences.append(f"{name} gains over {baseline} and over its {count}: it comes from what these take away.")
    return sentences


def _no_gain(name: str, baseline: str, row: Mapping[Hashable, Any]) -> str:
    """What a difference shows that is no gain; only the second of these says that there is none."""
    if row["difference"] < 0 and row["p_holm"] < ALPHA:
        return f"{name} is worse than {baseline}."
    if row["p_equivalence"] < ALPHA:
        return f"{name} is as good as {baseline}, within {row['margin']:g}."
    return f"{name} is not shown to gain over {baseline}."
