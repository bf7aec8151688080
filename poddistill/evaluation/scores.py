"""The test cases of each method, and every figure that is computed from them."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from data_modules.errors import InputError
from poddistill.evaluation import statistics
from poddistill.evaluation.bootstrap import (
    percentile_interval,
    resample_patients,
    resampled_auroc,
    resampled_mean,
    resampled_sensitivity,
)
from poddistill.evaluation.calibration import brier, expected_calibration_error
from poddistill.evaluation.folds import Fold
from poddistill.evaluation.runs import Run, read_predictions
from poddistill.evaluation.statistics import FloatArray

AT_95 = "sensitivity_at_95_specificity"
METRICS = ("auroc", "auprc", "sensitivity", "specificity", "brier", "ece", AT_95)
INTERVALS = ("auroc", "sensitivity", "specificity", "brier", AT_95)


@dataclass(frozen=True)
class ScoredFold:
    """One test fold of one method, scored by each of its seeds.

    Attributes:
        cases: the labelled test cases, columns case_id, patient_id, label, sorted by case_id; the same for all seeds.
        runs: the S runs, by seed.
        fold: labels, patients and scores (S, N) as the statistics take them.
        thresholds: (S,), each run's own, from its validation cases.
        metrics: name in `METRICS` -> (S,).
        resamples: name in `INTERVALS` -> (S, B), the metric on each bootstrap resample of the patients.
    """

    cases: pd.DataFrame
    runs: list[Run]
    fold: Fold
    thresholds: FloatArray
    metrics: dict[str, FloatArray]
    resamples: dict[str, FloatArray]


@dataclass(frozen=True)
class Method:
    """A training recipe with all its test folds.

    Attributes:
        name: of its stage folders.
        folds: number of the test fold -> what was scored on it.
        bootstrap_seed: the resamples follow from it, so that methods on the same cases are resampled alike.
    """

    name: str
    folds: dict[int, ScoredFold]
    bootstrap_seed: int

    @cached_property
    def cases(self) -> pd.DataFrame:
        """All test cases, over the folds."""
        return pd.concat([scored.cases for scored in self.folds.values()], ignore_index=True)

    @property
    def runs(self) -> list[Run]:
        """All runs, over folds and seeds."""
        return [run for scored in self.folds.values() for run in scored.runs]

    def mean(self, metric: str) -> float:
        """Return a metric averaged over seeds within each fold, then over folds."""
        return float(np.mean([scored.metrics[metric].mean() for scored in self.folds.values()]))

    def worst_seed(self) -> float:
        """Return the lowest AUROC of a seed, each averaged over the folds that it was run on."""
        by_seed: dict[int, list[float]] = defaultdict(list)
        for scored in self.folds.values():
            for run, auroc in zip(scored.runs, scored.metrics["auroc"], strict=True):
                by_seed[run.seed].append(float(auroc))
        return float(np.min([np.mean(values) for values in by_seed.values()]))

    def interval(self, metric: str) -> tuple[float, float]:
        """Return the metric's 95 % percentile interval over resampled patients and seeds.

        (nan, nan) where all resamples agree, as at a sensitivity of 1: they then cannot tell how uncertain it is.
        """
        low, high = percentile_interval(self.resampled(metric, {j: s.runs for j, s in self.folds.items()}))
        return (low, high) if low < high else (float("nan"), float("nan"))

    def resampled(self, metric: str, runs: dict[int, list[Run]]) -> FloatArray:
        """Return a metric on every resample of patients and, where there are several, of seeds.

        Args:
            metric: a name in `INTERVALS`.
            runs: fold -> the runs of this method to use.

        Returns:
            (B,). Equal for equal cases and equal numbers of seeds, whichever the method: paired differences may be
            taken.
        """
        total = np.zeros(1)
        for number, chosen in runs.items():
            scored = self.folds[number]
            values = scored.resamples[metric][[scored.runs.index(run) for run in chosen]]  # (S, B)
            rng = np.random.default_rng([self.bootstrap_seed, number, 1])
            seeds = rng.integers(len(values), size=values.shape)
            total = total + np.take_along_axis(values, seeds, axis=0).mean(axis=0)
        return total / len(runs)


def score_methods(runs: Sequence[Run], resamples: int, bootstrap_seed: int) -> tuple[list[Method], list[str]]:
    """Score every run that has predictions.

    Args:
        runs: from `find_runs`.
        resamples: B, the number of bootstrap resamples.
        bootstrap_seed: makes them repeatable.

    Returns:
        The methods in the runs' order, and a sentence for each thing the reader must know of (no threshold, one
        class).

    Raises:
        InputError: a file is faulty, a run has no labelled test case, the seeds of a fold were tested on different
            cases, or a case was tested in two folds.
    """
    grouped: dict[str, dict[int, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if run.predictions.exists():
            grouped[run.method][run.fold].append(run)
    methods, notes = [], []
    for name, by_fold in grouped.items():
        folds = {}
        for number, members in sorted(by_fold.items()):
            rng = np.random.default_rng([bootstrap_seed, number, 0])
            folds[number], fold_notes = _score_fold(members, resamples, rng)
            notes += fold_notes
        method = Method(name, folds, bootstrap_seed)
        twice = method.cases["case_id"].duplicated()
        if twice.any():
            case = method.cases["case_id"][twice].iloc[0]
            raise InputError(f"{name}: case {case} is tested in two folds; compare runs of one cohort and one split")
        methods.append(method)
    return methods, notes


def _score_fold(runs: list[Run], resamples: int, rng: np.random.Generator) -> tuple[ScoredFold, list[str]]:
    notes: list[str] = []
    scores: list[FloatArray] = []
    thresholds: list[float] = []
    cases = pd.DataFrame()
    for run in runs:
        table = read_predictions(run.predictions)
        labelled = table[table["label"].notna()]
        test = labelled[labelled["split"] == "test"]
        val = labelled[labelled["split"] == "val"]
        if test.empty:
            raise InputError(f"{run.predictions}: no labelled case in the test split; predict the test split first")
        own_cases = test[["case_id", "patient_id", "label"]].reset_index(drop=True)
        if scores and not own_cases.equals(cases):
            raise InputError(
                f"{run.predictions} and {runs[0].predictions} have different test cases or labels; "
                "seeds of one fold must be tested on the same"
            )
        cases = own_cases
        threshold = statistics.youden_threshold(_labels(val), val["probability"].to_numpy())
        if np.isnan(threshold):
            threshold = 0.5
            notes.append(f"{_where(run)}: no labelled validation cases of both classes, so the threshold is 0.5.")
        if test["label"].nunique() < 2:
            notes.append(f"{_where(run)}: the test cases have one class only, so its AUROC and AUPRC are undefined.")
        scores.append(test["probability"].to_numpy())
        thresholds.append(threshold)
    fold = Fold(_labels(cases), cases["patient_id"].to_numpy(), np.vstack(scores))
    weights = resample_patients(fold.patients, fold.labels, resamples, rng)
    per_run = [_metrics(fold, s, t) for s, t in zip(fold.scores, thresholds, strict=True)]
    resampled = [_resampled(fold, s, t, weights) for s, t in zip(fold.scores, thresholds, strict=True)]
    scored = ScoredFold(
        cases=cases,
        runs=runs,
        fold=fold,
        thresholds=np.array(thresholds),
        metrics={name: np.array([row[name] for row in per_run]) for name in METRICS},
        resamples={name: np.array([row[name] for row in resampled]) for name in INTERVALS},
    )
    return scored, notes


def _metrics(fold: Fold, scores: FloatArray, threshold: float) -> dict[str, float]:
    return {
        "auroc": statistics.auroc(fold.labels, scores),
        "auprc": statistics.auprc(fold.labels, scores),
        "sensitivity": statistics.sensitivity(fold.labels, scores, threshold),
        "specificity": statistics.specificity(fold.labels, scores, threshold),
        "brier": brier(fold.labels, scores),
        "ece": expected_calibration_error(fold.labels, scores),
        AT_95: statistics.sensitivity_at_specificity(fold.labels, scores, 0.95),
    }


def _resampled(fold: Fold, scores: FloatArray, threshold: float, weights: FloatArray) -> dict[str, FloatArray]:
    called_positive = (scores >= threshold).astype(float)
    positive, negative = fold.labels == 1, fold.labels == 0
    return {
        "auroc": resampled_auroc(fold.labels, scores, weights),
        "sensitivity": resampled_mean(called_positive[positive], weights[:, positive]),
        "specificity": resampled_mean(1 - called_positive[negative], weights[:, negative]),
        "brier": resampled_mean((scores - fold.labels) ** 2, weights),
        AT_95: resampled_sensitivity(fold.labels, scores, weights, 0.95),
    }


def _labels(cases: pd.DataFrame) -> statistics.IntArray:
    return cases["label"].to_numpy().astype(np.int64)


def _where(run: Run) -> str:
    return f"{run.method}, seed {run.seed}, fold {run.fold}"
