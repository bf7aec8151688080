"""Paired differences in AUROC: which methods may be paired, by how much they differ, and what that shows."""

from collections.abc import Sequence
from itertools import combinations

import pandas as pd

from data_modules.errors import InputError
from poddistill.evaluation.attribution import controlled, is_member
from poddistill.evaluation.bootstrap import bootstrap_p_value, percentile_interval
from poddistill.evaluation.decisions import equivalence_p, holm, shows
from poddistill.evaluation.folds import Estimate, Fold
from poddistill.evaluation.power import patients_needed, seeds_needed
from poddistill.evaluation.replicates import replicated_difference
from poddistill.evaluation.runs import Run
from poddistill.evaluation.scores import Key, Method, by_cohort

DIFFERENCE_COLUMNS = ["method_a", "method_b", "difference", "low", "high", "p"]
DIFFERENCE_COLUMNS += ["bootstrap_low", "bootstrap_high", "bootstrap_p", "n", "seeds"]
DIFFERENCE_COLUMNS += ["p_holm", "p_equivalence", "shows", "margin", "seeds_needed", "patients_needed", "cohorts"]

Pairs = dict[Key, list[tuple[Run, Run]]]


def paired_differences(
    methods: Sequence[Method],
    baseline: str | None = None,
    margin: float = 0.01,
    further: Sequence[tuple[str, str]] = (),
) -> tuple[pd.DataFrame, list[str]]:
    """Return the paired differences, and a sentence for each pair that cannot be taken as it stands.

    That is one left out though it shares cases, or one whose cohorts agree too closely.

    Two methods are paired in the cohorts where they have runs of the same seed and fold on the same cases, over those
    runs alone.

    Args:
        methods: the scored methods.
        baseline: the method to subtract from every other one, except that a control, ``<method>--<control>``, is
            subtracted from its method; without a baseline, all pairs in the methods' order. Members of an ensemble,
            ``<method>@<k>``, are the method once more and are in none of these.
        margin: the difference in AUROC that matters, in (0, 1): for equivalence and for the numbers needed.
        further: pairs beside those with the baseline, the second method subtracted from the first.

    Returns:
        A row a pair, columns `DIFFERENCE_COLUMNS`. Holm's adjustment is over these rows.

    Raises:
        InputError: the baseline or a further pair is no method, a pair is there already, or the margin is no difference
            in AUROC.
    """
    if not 0 < margin < 1:
        raise InputError(f"--margin must be a difference in AUROC between 0 and 1, such as 0.01, not {margin:g}")
    names = [method.name for method in methods]
    if baseline is not None and baseline not in names:
        raise InputError(f"--baseline {baseline}: no such method with predictions; choose one of {', '.join(names)}")
    recipes = [method for method in methods if not is_member(method.name)]
    pairs = list(combinations(recipes, 2))
    if baseline is not None:
        chosen = methods[names.index(baseline)]
        pairs = [
            (methods[names.index(arm)], method) if (arm := controlled(method.name, names)) else (method, chosen)
            for method in recipes
            if method is not chosen
        ]
    for pair in further:
        for name in pair:
            if name not in names:
                raise InputError(f"--pair {name}: no such method with predictions; choose among {', '.join(names)}")
        a, b = (methods[names.index(name)] for name in pair)
        if a is b or (a, b) in pairs or (b, a) in pairs:
            raise InputError(f"--pair {a.name} {b.name}: they are one, or are compared already; leave it out")
        pairs.append((a, b))
    estimates: list[Estimate] = []
    rows: list[dict[str, object]] = []
    notes: list[str] = []
    for a, b in pairs:
        shared, note = shared_runs(a, b)
        notes += note
        if shared:
            notes += _other_labels(a, b, shared)
            estimate, row = _difference(a, b, shared, margin)
            estimates.append(estimate)
            rows.append(row)
            if estimate.by_patients:
                low, high = estimate.by_patients
                notes.append(
                    f"{a.name} - {b.name}: by chance the {row['cohorts']} cohorts agree more closely than their test "
                    f"patients make likely, and the interval is too narrow; from these patients it is {low:+.3f} to "
                    f"{high:+.3f}."
                )
    adjusted = holm([estimate.p for estimate in estimates])
    for row, estimate, p_holm in zip(rows, estimates, adjusted, strict=True):
        row["p_holm"] = float(p_holm)
        row["shows"] = shows(estimate, float(p_holm), margin)
    return pd.DataFrame(rows, columns=DIFFERENCE_COLUMNS), notes


def shared_runs(a: Method, b: Method) -> tuple[Pairs, list[str]]:
    """Return the runs that two methods may be compared by, and a sentence on each cohort left out though it might be.

    Returns:
        (cohort, fold) -> the pairs of runs of equal seed, in the cohorts whose cases are equal too. A cohort in which
        the two share no case is left out without a sentence.
    """
    shared: Pairs = {}
    notes = []
    several = len(a.cohorts | b.cohorts) > 1
    for cohort in sorted(a.cohorts.keys() & b.cohorts.keys()):
        pairs: Pairs = {}
        for key in sorted(key for key in a.folds.keys() & b.folds.keys() if key[0] == cohort):
            theirs = {run.seed: run for run in b.folds[key].runs}
            runs = [(run, theirs[run.seed]) for run in a.folds[key].runs if run.seed in theirs]
            if runs:
                pairs[key] = runs
        if pairs and all(a.folds[key].cases.equals(b.folds[key].cases) for key in pairs):
            shared |= pairs
            continue
        common = len(_case_ids(a, cohort) & _case_ids(b, cohort))
        if common:
            where = f" in cohort {cohort}" if several else ""
            reason = "their test cases or labels differ" if pairs else "they have no run of the same seed and fold"
            notes.append(f"{a.name} and {b.name} are not compared{where}: {reason} ({common} cases in common).")
    one_cohort = len({cohort for cohort, _ in shared}) == 1
    if several and one_cohort:
        notes.append(
            f"{a.name} and {b.name} share one cohort: their interval and test know its patients and seeds, "
            "and nothing of other cohorts."
        )
    if one_cohort and (a.several_seeds or b.several_seeds) and min(map(len, shared.values())) == 1:
        notes.append(
            f"{a.name} and {b.name} share a single seed of a fold: their interval and test know its patients, and "
            "nothing of other trainings."
        )
    return shared, notes


def _other_labels(a: Method, b: Method, shared: Pairs) -> list[str]:
    """A sentence where two methods were trained with other labels, by the records of their runs."""
    for mine, theirs in (pair for pairs in shared.values() for pair in pairs):
        used = [mine.labels_used, theirs.labels_used]
        for key in used[0].keys() & used[1].keys():
            here, there = (labels[key].replace("null", "all") for labels in used)
            if here != there:
                return [
                    f"{a.name} and {b.name} were not trained with the same labels ({key} {here} and {there} in "
                    f"{mine.folder.parent}): their difference is of that, too."
                ]
    return []


def _case_ids(method: Method, cohort: int) -> set[str]:
    return {case for scored in method.cohorts[cohort] for case in scored.cases["case_id"]}


def paired_difference(a: Method, b: Method, shared: Pairs) -> tuple[Estimate, int]:
    """Return the paired difference in AUROC, ``a`` - ``b``, over such runs, and the number of their cohorts."""
    cohorts = list(zip(_cohorts(a, _side(shared, 0)), _cohorts(b, _side(shared, 1)), strict=True))
    return replicated_difference(cohorts), len(cohorts)


def _side(shared: Pairs, side: int) -> dict[Key, list[Run]]:
    return {key: [pair[side] for pair in pairs] for key, pairs in shared.items()}


def _difference(a: Method, b: Method, shared: Pairs, margin: float) -> tuple[Estimate, dict[str, object]]:
    runs_a, runs_b = _side(shared, 0), _side(shared, 1)
    estimate, cohorts = paired_difference(a, b, shared)
    resampled = a.resampled(runs_a) - b.resampled(runs_b)
    low, high = percentile_interval(resampled)
    patients = sum(a.folds[key].cases["patient_id"].nunique() for key in shared)
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
        "n": sum(len(a.folds[key].cases) for key in shared),
        "seeds": len({(run.cohort, run.seed) for members in runs_a.values() for run in members}),
        "p_equivalence": equivalence_p(estimate, margin),
        "margin": margin,
        "seeds_needed": seeds_needed(parts, margin) if parts else float("nan"),
        "patients_needed": patients_needed(parts, patients, margin) if parts else float("nan"),
        "cohorts": cohorts,
    }


def _cohorts(method: Method, runs: dict[Key, list[Run]]) -> list[list[Fold]]:
    """The folds of each cohort, with the scores of the chosen runs."""
    folds = {}
    for key, members in runs.items():
        scored = method.folds[key]
        rows = [scored.runs.index(run) for run in members]
        folds[key] = Fold(scored.fold.labels, scored.fold.patients, scored.fold.scores[rows])
    return list(by_cohort(folds).values())
