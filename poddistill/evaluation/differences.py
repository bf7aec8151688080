"""Paired differences in AUROC: which methods may be paired, by how much they differ, and what that shows."""

from collections.abc import Sequence
from itertools import combinations

import pandas as pd

from data_modules.errors import InputError
from poddistill.evaluation.bootstrap import bootstrap_p_value, percentile_interval
from poddistill.evaluation.decisions import equivalence_p, holm, shows
from poddistill.evaluation.folds import Estimate, Fold, auroc_difference
from poddistill.evaluation.power import patients_needed, seeds_needed
from poddistill.evaluation.runs import Run
from poddistill.evaluation.scores import Method

DIFFERENCE_COLUMNS = ["method_a", "method_b", "difference", "low", "high", "p"]
DIFFERENCE_COLUMNS += ["bootstrap_low", "bootstrap_high", "bootstrap_p", "n", "seeds"]
DIFFERENCE_COLUMNS += ["p_holm", "p_equivalence", "shows", "margin", "seeds_needed", "patients_needed"]

Pairs = dict[int, list[tuple[Run, Run]]]


def paired_differences(
    methods: Sequence[Method], baseline: str | None = None, margin: float = 0.01
) -> tuple[pd.DataFrame, list[str]]:
    """Return the paired differences, and a sentence for each pair that had to be left out though it shares cases.

    Two methods are paired where they have runs of the same seed and fold on the same cases, over those runs alone.

    Args:
        methods: the scored methods.
        baseline: the method to subtract from every other one; without it, all pairs in the methods' order.
        margin: the difference in AUROC that matters, in (0, 1): for equivalence and for the numbers needed.

    Returns:
        A row a pair, columns `DIFFERENCE_COLUMNS`. Holm's adjustment is over these rows.

    Raises:
        InputError: the baseline is no method, or the margin is no difference in AUROC.
    """
    if not 0 < margin < 1:
        raise InputError(f"--margin must be a difference in AUROC between 0 and 1, such as 0.01, not {margin:g}")
    names = [method.name for method in methods]
    if baseline is not None and baseline not in names:
        raise InputError(f"--baseline {baseline}: no such method with predictions; choose one of {', '.join(names)}")
    pairs = list(combinations(methods, 2))
    if baseline is not None:
        chosen = methods[names.index(baseline)]
        pairs = [(method, chosen) for method in methods if method is not chosen]
    estimates: list[Estimate] = []
    rows: list[dict[str, object]] = []
    notes: list[str] = []
    for a, b in pairs:
        shared, note = _shared_runs(a, b)
        notes += note
        if shared:
            estimate, row = _difference(a, b, shared, margin)
            estimates.append(estimate)
            rows.append(row)
    adjusted = holm([estimate.p for estimate in estimates])
    for row, estimate, p_holm in zip(rows, estimates, adjusted, strict=True):
        row["p_holm"] = float(p_holm)
        row["shows"] = shows(estimate, float(p_holm), margin)
    return pd.DataFrame(rows, columns=DIFFERENCE_COLUMNS), notes


def _shared_runs(a: Method, b: Method) -> tuple[Pairs, list[str]]:
    """Fold -> the pairs of runs of equal seed, if their cases are equal too; else a note, unless no case is shared."""
    shared = {}
    for number in sorted(a.folds.keys() & b.folds.keys()):
        theirs = {run.seed: run for run in b.folds[number].runs}
        pairs = [(run, theirs[run.seed]) for run in a.folds[number].runs if run.seed in theirs]
        if pairs:
            shared[number] = pairs
    if shared and all(a.folds[j].cases.equals(b.folds[j].cases) for j in shared):
        return shared, []
    common = len(set(a.cases["case_id"]) & set(b.cases["case_id"]))
    if not common:
        return {}, []
    reason = "their test cases or labels differ" if shared else "they have no run of the same seed and fold"
    return {}, [f"{a.name} and {b.name} are not compared: {reason} ({common} cases in common)."]


def _difference(a: Method, b: Method, shared: Pairs, margin: float) -> tuple[Estimate, dict[str, object]]:
    runs_a = {number: [pair[0] for pair in pairs] for number, pairs in shared.items()}
    runs_b = {number: [pair[1] for pair in pairs] for number, pairs in shared.items()}
    estimate = auroc_difference(_folds(a, runs_a), _folds(b, runs_b))
    resampled = a.resampled("auroc", runs_a) - b.resampled("auroc", runs_b)
    low, high = percentile_interval(resampled)
    patients = sum(a.folds[number].cases["patient_id"].nunique() for number in shared)
    parts = estimate.components
    return estimate, {
        "method_a": a.name,
        "method_b": b.name,
        "difference": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "p": estimate.p,
        "bootstrap_low": low,
        "bootstrap_high": high,
        "bootstrap_p": bootstrap_p_value(resampled),
        "n": sum(len(a.folds[number].cases) for number in shared),
        "seeds": len({run.seed for members in runs_a.values() for run in members}),
        "p_equivalence": equivalence_p(estimate, margin),
        "margin": margin,
        "seeds_needed": seeds_needed(parts, margin) if parts else float("nan"),
        "patients_needed": patients_needed(parts, patients, margin) if parts else float("nan"),
    }


def _folds(method: Method, runs: dict[int, list[Run]]) -> list[Fold]:
    folds = []
    for number, members in runs.items():
        scored = method.folds[number]
        rows = [scored.runs.index(run) for run in members]
        folds.append(Fold(scored.fold.labels, scored.fold.patients, scored.fold.scores[rows]))
    return folds
