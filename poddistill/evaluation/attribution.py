"""What a gain comes from: a method named ``<method>--<control>`` is the method with something taken from it."""

from collections.abc import Sequence

import pandas as pd

from poddistill.evaluation.decisions import ALPHA

SEPARATOR = "--"


def controlled(name: str, names: Sequence[str]) -> str | None:
    """Return the method whose control a method is: ``student`` for ``student--constant``, if it is there; else None."""
    method, separator, _ = name.partition(SEPARATOR)
    return method if separator and method in names else None


def attributions(differences: pd.DataFrame, baseline: str) -> list[str]:
    """Say of every method that has controls what its gain over the baseline comes from.

    A gain comes from what the controls take away only if the method is better than the baseline and than each control,
    every one of these differences with a p-value below 0.05 after Holm's adjustment.

    Args:
        differences: From `differences.paired_differences` with this baseline.
        baseline: The method that all others are compared with.

    Returns:
        A sentence a method, in the order of the differences.
    """
    better = differences["difference"].gt(0) & differences["p_holm"].lt(ALPHA)
    against = differences["method_b"]
    sentences = []
    for name in differences.loc[against.str.contains(SEPARATOR, regex=False), "method_a"].unique():
        own = differences["method_a"].eq(name)
        if not better[own & against.eq(baseline)].any():
            sentences.append(f"{name} shows no gain over {baseline}.")
            continue
        controls = own & against.str.contains(SEPARATOR, regex=False)
        beaten, left = (
            [control.partition(SEPARATOR)[2] for control in against[controls & chosen]] for chosen in (better, ~better)
        )
        if left:
            some = f" and over its controls {', '.join(beaten)}" if beaten else ""
            sentences.append(
                f"{name} gains over {baseline}{some}, but is not shown to be better than its controls: "
                f"{', '.join(left)}. The gain may have nothing to do with what the latter take away."
            )
        else:
            count = f"{sum(controls)} control" + "s" * (sum(controls) > 1)
            sentences.append(f"{name} gains over {baseline} and over its {count}: it comes from what these take away.")
    return sentences
