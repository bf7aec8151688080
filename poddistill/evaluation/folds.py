"""AUROC of a training recipe: over its test folds and its seeds, with an interval that knows both.

Scores of different models are never pooled: each run is scored by itself, then seeds are averaged within a fold and
folds averaged with equal weight:

    AUROC = 1/K sum_j 1/S_j sum_s AUROC_sj          K folds, S_j seeds of fold j

Two things make it uncertain, the patients that happened to be tested and the seeds that happened to be trained with:

    var(AUROC) = 1/K^2 sum_j ( D_j + T_j / S_j )

    C_j   DeLong covariance (S_j, S_j) of the seeds' AUROCs over the test patients of fold j
    D_j = 1' C_j 1 / S_j^2, which is DeLong's variance of the seed-averaged placement values
    M_j   sample variance of the S_j AUROCs
    T_j = max(0, M_j - (mean variance - mean covariance in C_j)), the variance between seeds: what is subtracted is
          the part of M_j that the finite test set explains, and that D_j already holds

This is the random-reader analysis of Obuchowski & Rockette (Commun. Stat. Simul. 1995) with seeds as readers.
Intervals use Student's t with the degrees of freedom of Hillis (Stat. Med. 2007), var^2 / sum_j (M_j / (S_j K^2))^2 /
(S_j - 1), with T_j + mean variance - mean covariance for M_j, which is what var holds of it: many when the patients
dominate, few when two or three seeds disagree. One seed tells nothing of the
variance between seeds: T_j = 0, and the interval then speaks of the patients alone. Runs of different folds count as
independent (their test patients are others); that their training patients overlap is not modelled (Bengio &
Grandvalet, JMLR 2004: no unbiased estimate exists). Whole studies that were repeated on new patients are the matter of
`replicates`.

In simulated studies of 60 patients whose AUROC varies between seeds with a standard deviation of 0.06 to 0.09, 95 %
intervals cover the truth in 95 to 97 % with two to five seeds, and the paired test at 5 % rejects equal methods in 0 to
5 %. With 300 and more patients, where the seeds are most of the variance, it rejects them in 5 % with ten seeds, but in
6 to 7 % with two to five, and in up to 9 % with two seeds and 1,000 patients: seeds that agree by chance make the
variance small and its degrees of freedom many. The test over several cohorts (`replicates`) has no such fault.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from poddistill.evaluation.delong import delong_covariance, logit_interval, score_interval
from poddistill.evaluation.statistics import FloatArray, IntArray

ROUNDING = 1e-15  # a variance below it is 0: rounding leaves about 1e-18


@dataclass(frozen=True)
class Fold:
    """The labelled test cases of one fold as the seeds of one method scored them.

    Attributes:
        labels: int (N,), 0 or 1.
        patients: (N,), patient of each case.
        scores: float (S, N), a row a seed.
    """

    labels: IntArray
    patients: np.ndarray
    scores: FloatArray


@dataclass(frozen=True)
class Components:
    """What the variance of a mean over folds consists of, by what makes it smaller; divided by K^2 already.

    Attributes:
        patients: (K,), mean covariance in C_j: falls with the number of test patients.
        interaction: (K,), mean variance - mean covariance in C_j: falls with test patients and with seeds.
        between: (K,), T_j: falls with the number of seeds.
        seeds: (K,), S_j. With one seed all of C_j counts as patients.
    """

    patients: FloatArray
    interaction: FloatArray
    between: FloatArray
    seeds: FloatArray

    @property
    def over_patients(self) -> float:
        """The part of the variance that falls with the number of test patients."""
        return float(np.sum(self.patients + self.interaction / self.seeds))

    def spread(self, seeds: FloatArray, times: FloatArray | float = 1.0) -> tuple[FloatArray, FloatArray]:
        """Return variance and degrees of freedom with other numbers of seeds and of test patients.

            variance = sum_j patients_j / r + (interaction_j / r + between_j) / S'_j

        Args:
            seeds: S', (..., K).
            times: r, how many times as many test patients as there were, (..., 1).

        Returns:
            (...) each; at `seeds` and r = 1 they are those of the estimate.
        """
        by_seed = (self.between + self.interaction / times) / seeds
        variance = np.sum(self.patients / times + by_seed, axis=-1)
        uncertainty = np.sum(by_seed**2 / np.maximum(seeds - 1, 1), axis=-1)
        freedom = np.full_like(variance, np.inf)
        np.divide(variance**2, uncertainty, out=freedom, where=uncertainty > 0)
        return variance, freedom


@dataclass(frozen=True)
class Estimate:
    """A value with its interval and, for a difference, what its tests need (else nan and None).

    Attributes:
        value: the estimate.
        low: lower limit, at 95 % unless another level was asked for.
        high: upper limit.
        p: two-sided, of "the difference is 0".
        error: standard error; interval and p-value are those of Student's t with it and `freedom`.
        freedom: degrees of freedom, infinite for the normal distribution.
        components: what error^2 consists of, or over several cohorts should consist of at least, for the numbers
            needed; None where it is 0 or undefined.
        by_patients: the interval from the variance over test patients alone, where cohorts agree more closely than that
            makes likely (`replicates`); else None.
    """

    value: float
    low: float
    high: float
    p: float = math.nan
    error: float = math.nan
    freedom: float = math.nan
    components: Components | None = None
    by_patients: tuple[float, float] | None = None


def mean_auroc(folds: Sequence[Fold], level: float = 0.95) -> Estimate:
    """Return the AUROC over folds and seeds, with the interval described above.

    The interval is `delong.logit_interval`, or `delong.score_interval` where DeLong's variance is 0 or undefined
    (perfect separation, a single patient of a class). All nan where a fold lacks a class.
    """
    parts = [delong_covariance(fold.labels, fold.scores, fold.patients) for fold in folds]
    value, variance, freedom, _ = _combine(parts)
    return logit_estimate(value, variance, freedom, folds, level)


def mean_metric(folds: Sequence[tuple[FloatArray, FloatArray]], level: float = 0.95) -> Estimate:
    """Return another metric in [0, 1] over folds and seeds, with an interval that is symmetric on the logit scale.

    In simulated studies of a sensitivity that differs much between seeds (0.81, standard deviation 0.12), 95 %
    intervals cover the truth in 95 % with 40 positive patients and two to five seeds; with 200 in 94 % with five seeds,
    93 % with three and 90 % with two.

    Args:
        folds: of each fold the seeds' values (S,) and their covariance over the test patients (S, S), such as that of
            a bootstrap, which takes the place of DeLong's in the formula above.
        level: nominal coverage.

    Returns:
        Limits are nan where the value is 0 or 1, or nothing varies: how uncertain it is then cannot be told.
    """
    value, variance, freedom, _ = _combine(folds)
    return unit_estimate(value, variance, freedom, level)


def unit_estimate(value: float, variance: float, freedom: float, level: float) -> Estimate:
    """Return a value in [0, 1] with the interval that `mean_metric` describes."""
    if 0 < value < 1 and variance > ROUNDING:
        return Estimate(value, *logit_interval(value, variance, degrees_of_freedom=freedom, level=level))
    return Estimate(value, math.nan, math.nan)


def logit_estimate(value: float, variance: float, freedom: float, folds: Sequence[Fold], level: float) -> Estimate:
    """Return an AUROC with the interval that `mean_auroc` describes; the folds serve where the variance does not."""
    if math.isnan(value):
        return Estimate(math.nan, math.nan, math.nan)
    estimate = unit_estimate(value, variance, freedom, level)
    if not math.isnan(estimate.low):
        return estimate
    return Estimate(value, *score_interval(value, [_patients_by_class(fold) for fold in folds], level))


def auroc_difference(folds: Sequence[Fold], other: Sequence[Fold], level: float = 0.95) -> Estimate:
    """Return the paired difference in AUROC of two methods on the same cases, ``folds`` minus ``other``.

    Fold by fold, the cases and the seeds of the two are the same and in the same order. The formula above holds with
    the AUROCs' differences in place of AUROCs; the interval is difference +- t * SE, and p that of DeLong's test.
    Identical rankings, seed by seed, give 0, interval (0, 0) and p = 1. Any other difference whose variance is 0 or
    undefined has interval and p nan: AUROCs of few patients may be equal by chance.
    """
    parts = []
    for mine, theirs in zip(folds, other, strict=True):
        aurocs, covariance = delong_covariance(mine.labels, np.vstack([mine.scores, theirs.scores]), mine.patients)
        seeds = len(mine.scores)
        contrast = np.hstack([np.eye(seeds), -np.eye(seeds)])  # (S, 2S): a difference a seed
        parts.append((contrast @ aurocs, contrast @ covariance @ contrast.T))
    value, variance, _, components = _combine(parts)
    if math.isnan(variance) or variance < ROUNDING:
        if not math.isnan(value) and all(map(_rank_alike, folds, other)):
            return Estimate(0.0, 0.0, 0.0, 1.0, 0.0, math.inf)
        return Estimate(value, math.nan, math.nan)
    return t_estimate(value, components, level)


def t_estimate(value: float, components: Components, level: float) -> Estimate:
    """Return a difference with the interval and the p-value of Student's t, from what its variance consists of."""
    variance, freedom = (float(figure) for figure in components.spread(components.seeds))
    error = math.sqrt(variance)
    half = stats.t.ppf(0.5 + level / 2, freedom) * error
    p = 2 * stats.t.sf(abs(value) / error, freedom)
    return Estimate(value, float(value - half), float(value + half), float(p), error, freedom, components)


def _combine(parts: Sequence[tuple[FloatArray, FloatArray]]) -> tuple[float, float, float, Components]:
    """Value, variance, degrees of freedom and components of the mean over folds.

    Each part is a fold: the seeds' values (S,) and their covariance over patients (S, S).
    """
    value, rows = 0.0, []
    for values, covariance in parts:
        seeds = len(values)
        value += float(values.mean()) / len(parts)
        patients, interaction, between = float(covariance.mean()), 0.0, 0.0
        if seeds > 1:
            over_patients = patients
            mean_variance = float(np.trace(covariance)) / seeds
            mean_covariance = (float(covariance.sum()) - seeds * mean_variance) / (seeds * (seeds - 1))
            between = max(0.0, float(values.var(ddof=1)) - (mean_variance - mean_covariance))
            # A mean covariance below 0 is chance; what the seeds' mean varies over patients is the interaction's then.
            patients = mean_covariance if not mean_covariance < 0 else 0.0
            interaction = seeds * (over_patients - patients)
        rows.append((patients, interaction, between, seeds * len(parts) ** 2))
    components = Components(*(np.array(rows).T / len(parts) ** 2))
    variance, freedom = components.spread(components.seeds)
    return value, float(variance), float(freedom), components


def _rank_alike(fold: Fold, other: Fold) -> bool:
    return np.array_equal(stats.rankdata(fold.scores, axis=1), stats.rankdata(other.scores, axis=1))


def _patients_by_class(fold: Fold) -> tuple[int, int]:
    positive, negative = (len(np.unique(fold.patients[fold.labels == label])) for label in (1, 0))
    return positive, negative
