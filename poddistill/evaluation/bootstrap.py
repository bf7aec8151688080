"""Patient-clustered bootstrap: whole patients are drawn, so that a patient's several cases never count as independent.

A resample is a row of weights, the number of times each case was drawn. A statistic that takes weights (B, N) and
returns (B,) is evaluated on all resamples at once; on the same weights, two methods' values subtract to a paired
difference.
"""

import numpy as np
from numpy.typing import ArrayLike

from poddistill.evaluation.statistics import FloatArray, IntArray


def resample_patients(
    patients: ArrayLike, labels: IntArray, resamples: int, rng: np.random.Generator, *, stratified: bool = True
) -> FloatArray:
    """Draw patients with replacement.

    Args:
        patients: (N,), the patient of each case.
        labels: int (N,), 0 or 1.
        resamples: B.
        rng: source of randomness; equal generators and cases give equal weights.
        stratified: draw patients with and without a positive case apart, in their original numbers, so that both
            classes are in every resample. Otherwise a resample may lack a class, and its AUROC is nan.

    Returns:
        Weights (B, N), the times each case was drawn: the same for all cases of a patient.
    """
    unique, patient_of = np.unique(np.asarray(patients), return_inverse=True)
    stratum = np.zeros(len(unique), dtype=np.int64)
    if stratified:
        np.maximum.at(stratum, patient_of, labels)
    drawn = np.zeros((resamples, len(unique)))
    for value in np.unique(stratum):
        members = np.flatnonzero(stratum == value)
        drawn[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=resamples)
    return drawn[:, patient_of]


def resample_rows(values: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return the mean over rows that are drawn with replacement, each with a resample of its own.

    The upper level of a bootstrap at two levels: a row is a cohort, and a cohort that is drawn twice comes with two
    independent resamples of its patients (Davison & Hinkley 1997, section 3.8).

    Args:
        values: (R, B), a statistic on B independent resamples of each row's patients.
        rng: source of randomness; equal generators and shapes give equal draws, so that differences may be taken.

    Returns:
        (B,); of a single row, the row as it is; nan where a row has no value at all, as its mean would be.
    """
    rows, resamples = values.shape
    if rows == 1:
        return values[0]
    if np.isnan(values).all(axis=1).any():
        return np.full(resamples, np.nan)
    drawn, of_row = rng.integers(rows, size=values.shape), rng.integers(resamples, size=values.shape)
    return values[drawn, of_row].mean(axis=0)


def resampled_auroc(labels: IntArray, scores: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the AUROC of every resample.

    The negatives are sorted once; the weight below (and half of that beside) each positive is then a look-up in their
    running sum, which costs O(N) a resample.

    Args:
        labels: int (N,), 0 or 1.
        scores: float (N,).
        weights: (B, N) from `resample_patients`.

    Returns:
        (B,); nan where a resample lacks a class.
    """
    negatives = np.flatnonzero(labels == 0)
    negatives = negatives[np.argsort(scores[negatives], kind="stable")]
    positives = np.flatnonzero(labels == 1)
    running = np.concatenate(
        [np.zeros((len(weights), 1)), np.cumsum(weights[:, negatives], axis=1)], axis=1
    )  # (B, n + 1): weight of the lowest k negatives
    below = np.searchsorted(scores[negatives], scores[positives], side="left")
    up_to = np.searchsorted(scores[negatives], scores[positives], side="right")
    wins = np.sum(weights[:, positives] * (running[:, below] + running[:, up_to]) / 2, axis=1)
    return _ratio(wins, weights[:, positives].sum(axis=1) * running[:, -1])


def resampled_sensitivity(labels: IntArray, scores: FloatArray, weights: FloatArray, least: float) -> FloatArray:
    """Return `statistics.sensitivity_at_specificity` of every resample, each at the threshold of its own negatives.

    Args:
        labels: int (N,), 0 or 1.
        scores: float (N,).
        weights: (B, N) from `resample_patients`.
        least: the specificity, in [0, 1).

    Returns:
        (B,); nan where a resample lacks a class.
    """
    negatives = np.flatnonzero(labels == 0)
    negatives = negatives[np.argsort(-scores[negatives], kind="stable")]
    positives = np.flatnonzero(labels == 1)
    positives = positives[np.argsort(-scores[positives], kind="stable")]
    if not len(negatives) or not len(positives):
        return np.full(len(weights), np.nan)
    alarms = np.cumsum(weights[:, negatives], axis=1)  # (B, n): negatives at or above each, with the highest first
    first_too_many = np.argmax(alarms > (1 - least) * alarms[:, -1:] + 1e-9, axis=1)
    above = np.searchsorted(-scores[positives], -scores[negatives], side="left")[first_too_many]
    hits = np.concatenate([np.zeros((len(weights), 1)), np.cumsum(weights[:, positives], axis=1)], axis=1)
    defined = np.where(alarms[:, -1] > 0, hits[:, -1], 0.0)
    return _ratio(np.take_along_axis(hits, above[:, None], axis=1)[:, 0], defined)


def resampled_mean(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Return the mean of a per-case value in every resample, such as a squared error (Brier) or a hit (sensitivity).

    Args:
        values: float (N,).
        weights: (B, N); zero columns leave cases out, such as the negatives for sensitivity.

    Returns:
        (B,); nan where a resample has no case.
    """
    return _ratio(weights @ values, weights.sum(axis=1))


def percentile_interval(values: FloatArray, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of resampled values (B,), leaving nan out; (nan, nan) if all are nan."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_p_value(differences: FloatArray) -> float:
    """Return the two-sided p-value of "the difference is 0", by inverting the percentile interval.

        p = min(1, 2 (1 + min(#{d <= 0}, #{d >= 0})) / (B + 1)),

    never 0, at least 2 / (B + 1) (Davison & Hinkley 1997, chapter 4). nan if all differences are nan.

    Args:
        differences: (B,), resampled paired differences.
    """
    defined = differences[~np.isnan(differences)]
    if not len(defined):
        return float("nan")
    smaller_side = min(np.sum(defined <= 0), np.sum(defined >= 0))
    return float(min(1.0, 2 * (1 + smaller_side) / (len(defined) + 1)))


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)
