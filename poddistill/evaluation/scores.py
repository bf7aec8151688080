"""The test cases of each method, and every figure that is computed from them."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TypeVar

import numpy as np
import pandas as pd

from data_modules.errors import InputError
from poddistill.evaluation import statistics
from poddistill.evaluation.bootstrap import (
    resample_patients,
    resample_rows,
    resampled_auroc,
    resampled_mean,
    resampled_sensitivity,
)
from poddistill.evaluation.calibration import brier, expected_calibration_error
from poddistill.evaluation.folds import Fold
from poddistill.evaluation.replicates import replicated_metric
from poddistill.evaluation.runs import Run, read_predictions
from poddistill.evaluation.statistics import FloatArray

AT_95 = "sensitivity_at_95_specificity"
METRICS = ("auroc", "auprc", "sensitivity", "specificity", "brier", "ece", AT_95)
RESAMPLED = ("auroc", "sensitivity", "specificity", "brier", AT_95)

SAME_PATIENTS = 10  # cases in common, from which on cohorts whose labels agree, too, count as one
Key = tuple[int, int]  # cohort, fold
T = TypeVar("T")


@dataclass(frozen=True)
class ScoredFold:
    """One test fold of one method in one cohort, scored by each of its seeds.

    Attributes:
        cases: the labelled test cases, columns case_id, patient_id, label, sorted by case_id; the same for all seeds.
        runs: the S runs, by seed.
        fold: labels, patients and scores (S, N) as the statistics take them.
        thresholds: (S,), each run's own, from its validation cases.
        metrics: name in `METRICS` -> (S,).
        resamples: name in `RESAMPLED` -> (S, B), the metric on each bootstrap resample of the patients.
    """

    cases: pd.DataFrame
    runs: list[Run]
    fold: Fold
    thresholds: FloatArray
    metrics: dict[str, FloatArray]
    resamples: dict[str, FloatArray]


@dataclass(frozen=True)
class Method:
    """A training recipe with all its test folds, of one cohort or of several replicates.

    Attributes:
        name: of its stage folders.
        folds: (cohort, number of the test fold) -> what was scored on it.
        bootstrap_seed: the resamples follow from it, so that methods on the same cases are resampled alike.
    """

    name: str
    folds: dict[Key, ScoredFold]
    bootstrap_seed: int

    @cached_property
    def cases(self) -> pd.DataFrame:
        """All test cases, over cohorts and folds, with a column cohort: a case is known by cohort and case_id."""
        parts = [scored.cases.assign(cohort=cohort) for (cohort, _), scored in self.folds.items()]
        return pd.concat(parts, ignore_index=True)

    @property
    def cohorts(self) -> dict[int, list[ScoredFold]]:
        """Cohort -> its folds."""
        return by_cohort(self.folds)

    @property
    def runs(self) -> list[Run]:
        """All runs, over cohorts, folds and seeds."""
        return [run for scored in self.folds.values() for run in scored.runs]

    @property
    def several_seeds(self) -> bool:
        """Whether any fold was run with more than one seed, without which nothing is known of other trainings."""
        return any(len(scored.runs) > 1 for scored in self.folds.values())

    def average(self, seed_mean: Callable[[ScoredFold], FloatArray]) -> FloatArray:
        """Return what a function gives for each fold, averaged over the folds of each cohort, then over cohorts."""
        cohorts = [np.mean([seed_mean(scored) for scored in folds], axis=0) for folds in self.cohorts.values()]
        return np.mean(cohorts, axis=0)

    def mean(self, metric: str) -> float:
        """Return a metric averaged over seeds within each fold, then over folds, then over cohorts."""
        return float(self.average(lambda scored: scored.metrics[metric].mean()))

    def worst_seed(self) -> float:
        """Return the lowest AUROC of a seed in a cohort, each averaged over the folds that it was run on."""
        by_seed: dict[tuple[int, int], list[float]] = defaultdict(list)
        for scored in self.folds.values():
            for run, auroc in zip(scored.runs, scored.metrics["auroc"], strict=True):
                by_seed[run.cohort, run.seed].append(float(auroc))
        return float(np.min([np.mean(values) for values in by_seed.values()]))

    def interval(self, metric: str) -> tuple[float, float]:
        """Return the 95 % interval of a metric in `RESAMPLED`, from the variance over its patients and its seeds.

        That over patients is the bootstrap's. Several cohorts: from the variance between them. (nan, nan) where nothing
        varies, as at a sensitivity of 1: it then cannot be told how uncertain it is.
        """
        cohorts = [
            [(s.metrics[metric], _covariance(s.resamples[metric])) for s in folds] for folds in self.cohorts.values()
        ]
        estimate = replicated_metric(cohorts)
        return estimate.low, estimate.high

    def resampled(self, runs: dict[Key, list[Run]]) -> FloatArray:
        """Return the AUROC on every resample of cohorts, of their patients and of their seeds, if there are several.

        Args:
            runs: (cohort, fold) -> the runs of this method to use.

        Returns:
            (B,). Equal for equal cases and equal numbers of seeds, whichever the method: paired differences may be
            taken.
        """
        folds = {}
        for (cohort, number), chosen in runs.items():
            scored = self.folds[cohort, number]
            values = scored.resamples["auroc"][[scored.runs.index(run) for run in chosen]]  # (S, B)
            rng = np.random.default_rng([self.bootstrap_seed, number, 1, cohort])
            seeds = rng.integers(len(values), size=values.shape)
            folds[cohort, number] = np.take_along_axis(values, seeds, axis=0).mean(axis=0)
        cohorts = np.array([np.mean(members, axis=0) for members in by_cohort(folds).values()])  # (R, B)
        return resample_rows(cohorts, np.random.default_rng([self.bootstrap_seed, len(cohorts), 2]))


def by_cohort(folds: Mapping[Key, T]) -> dict[int, list[T]]:
    """Group what belongs to (cohort, fold) by cohort, in the order given."""
    grouped: dict[int, list[T]] = defaultdict(list)
    for (cohort, _), member in folds.items():
        grouped[cohort].append(member)
    return grouped


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
        InputError: a file is faulty, a run has no labelled test case, the seeds of a fold of a cohort were tested on
            different cases, or a patient was tested in two folds of a cohort, or in two cohorts.
    """
    grouped: dict[str, dict[Key, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if run.predictions.exists():
            grouped[run.method][run.cohort, run.fold].append(run)
    methods, notes = [], []
    for name, members in grouped.items():
        folds = {}
        for cohort, number in sorted(members):
            # numpy takes a trailing 0 for nothing, so that runs without cohorts keep their resamples.
            rng = np.random.default_rng([bootstrap_seed, number, 0, cohort])
            folds[cohort, number], fold_notes = _score_fold(members[cohort, number], resamples, rng)
            notes += fold_notes
        method = Method(name, folds, bootstrap_seed)
        tested = pd.concat(s.cases.assign(cohort=c, fold=f) for (c, f), s in folds.items())
        tested = tested.drop_duplicates(["cohort", "fold", "patient_id"])
        twice = tested.duplicated(["cohort", "patient_id"])
        if twice.any():
            patient, cohort = tested.loc[twice, ["patient_id", "cohort"]].iloc[0]
            where = f"{name}, cohort {cohort}" if len(method.cohorts) > 1 else name
            raise InputError(
                f"{where}: patient {patient} is tested in two folds; compare runs of one cohort and one split"
            )
        _check_replicates(method)
        methods.append(method)
    return methods, notes


def _check_replicates(method: Method) -> None:
    """Raises where two cohorts are of the same patients: as many as ten in common, every label of theirs the same.

    Hospitals that number their patients alike have some names in common, but not all the labels.
    """
    cases = list(method.cases.groupby("cohort"))
    for (cohort, table), (other, theirs) in combinations(cases, 2):
        common = table.merge(theirs, on=["case_id", "patient_id"], suffixes=("", "_other"))
        if len(common) >= SAME_PATIENTS and (common["label"] == common["label_other"]).all():
            raise InputError(
                f"{method.name}: cohort{cohort} and cohort{other} test the same patients, such as "
                f"{common['patient_id'].iloc[0]}; cohorts must be of different ones, or intervals are far too narrow: "
                "compare one of them, or train several seeds on one split (seed<s>-fold<k>)"
            )


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
                "seeds of one fold must be tested on the same; runs on other patients go into cohort<c>/"
            )
        cases = own_cases
        threshold = statistics.youden_threshold(_labels(val), val["probability"].to_numpy())
        if np.isnan(threshold):
            threshold = 0.5
            notes.append(f"{run.name}: no labelled validation cases of both classes, so the threshold is 0.5.")
        if test["label"].nunique() < 2:
            notes.append(
                f"{run.name}: the test cases have one class only, so its AUROC and AUPRC are undefined, and every mean "
                "that it is part of; leave it out, or ingest with fewer folds."
            )
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
        resamples={name: np.array([row[name] for row in resampled]) for name in RESAMPLED},
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


def _covariance(resamples: FloatArray) -> FloatArray:
    """The covariance (S, S) of resampled values (S, B), over the resamples in which each has one; nan without two."""
    defined = resamples[:, ~np.isnan(resamples).any(axis=0)]
    if defined.shape[1] < 2:
        return np.full((len(resamples), len(resamples)), np.nan)
    return np.atleast_2d(np.cov(defined))


def _labels(cases: pd.DataFrame) -> statistics.IntArray:
    return cases["label"].to_numpy().astype(np.int64)
