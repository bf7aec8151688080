"""Variance and intervals of AUROCs: DeLong, with patients as clusters.

DeLong, DeLong & Clarke-Pearson, Biometrics 1988, computed by midranks (Sun & Xu, IEEE Signal Process. Lett. 2014);
with several cases a patient, the clustered form of Obuchowski, Biometrics 1997, which equals DeLong's at one case a
patient.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from poddistill.evaluation.statistics import FloatArray, IntArray


def delong_covariance(
    labels: IntArray, scores: FloatArray, patients: ArrayLike | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return the AUROCs of several scores of the same cases, and their covariance.

    With m positives x, n negatives y, and psi(x, y) = 1 if x > y, 1/2 if equal, else 0, the placement values are

        V10(x_i) = 1/n sum_j psi(x_i, y_j),    V01(y_j) = 1/m sum_i psi(x_i, y_j)

    and per patient k, A_k = sum over its positives of (V10 - AUROC), B_k = sum over its negatives of (V01 - AUROC):

        cov = K1/(K1-1) sum_k A_k A_k' / m^2  +  K0/(K0-1) sum_k B_k B_k' / n^2
              + K/(K-1) sum_k (A_k B_k' + B_k A_k') / (m n)

    over K patients, K1 of them with a positive, K0 with a negative case.

    Args:
        labels: int (N,), 0 or 1.
        scores: float (C, N), a row for each of C models.
        patients: (N,), a patient's cases are a cluster; without it, every case is a patient of its own.

    Returns:
        AUROCs (C,) and covariance (C, C). All nan where a class is missing; the covariance is nan where a class has
        fewer than two patients.
    """
    curves = len(scores)
    positive, negative = scores[:, labels == 1], scores[:, labels == 0]
    m, n = positive.shape[1], negative.shape[1]
    if m == 0 or n == 0:
        return np.full(curves, np.nan), np.full((curves, curves), np.nan)
    midranks = stats.rankdata(np.concatenate([positive, negative], axis=1), axis=1)  # (C, m + n)
    v10 = (midranks[:, :m] - stats.rankdata(positive, axis=1)) / n  # (C, m)
    v01 = 1 - (midranks[:, m:] - stats.rankdata(negative, axis=1)) / m  # (C, n)
    aurocs = v10.mean(axis=1)

    ids = np.arange(len(labels)) if patients is None else np.asarray(patients)
    unique, cluster = np.unique(ids, return_inverse=True)
    positive_of, negative_of = cluster[labels == 1], cluster[labels == 0]
    with_positive, with_negative = len(np.unique(positive_of)), len(np.unique(negative_of))
    if with_positive < 2 or with_negative < 2:
        return aurocs, np.full((curves, curves), np.nan)
    a, b = np.zeros((len(unique), curves)), np.zeros((len(unique), curves))
    np.add.at(a, positive_of, (v10 - aurocs[:, None]).T / m)
    np.add.at(b, negative_of, (v01 - aurocs[:, None]).T / n)
    cross = a.T @ b
    covariance = (
        _unbiased(with_positive) * (a.T @ a)
        + _unbiased(with_negative) * (b.T @ b)
        + _unbiased(len(unique)) * (cross + cross.T)
    )
    return aurocs, covariance


def logit_interval(
    auroc: float, variance: float, *, degrees_of_freedom: float = math.inf, level: float = 0.95
) -> tuple[float, float]:
    """Return the interval of an AUROC that is symmetric on the logit scale (Pepe 2003, section 5.2.5).

        logit(AUROC) +- t * sqrt(variance) / (AUROC (1 - AUROC)),  mapped back

    It stays inside [0, 1] and keeps its coverage near 1, where the plain interval AUROC +- t * SE leaves [0, 1] and
    falls short: over 4000 samples of 12 positives and 38 negatives from two normal distributions with AUROC 0.95, the
    nominal 95 % interval held the truth in 95 % (logit) and in 83 % (plain).

    Args:
        auroc: strictly inside (0, 1).
        variance: of the AUROC, >= 0.
        degrees_of_freedom: of Student's t; infinite = normal.
        level: nominal coverage.
    """
    t = stats.t.ppf(0.5 + level / 2, degrees_of_freedom)
    centre = math.log(auroc / (1 - auroc))
    half = t * math.sqrt(variance) / (auroc * (1 - auroc))
    return float(stats.logistic.cdf(centre - half)), float(stats.logistic.cdf(centre + half))


def score_interval(auroc: float, counts: Sequence[tuple[int, int]], level: float = 0.95) -> tuple[float, float]:
    """Return the interval of an AUROC from the class sizes alone (Newcombe, Stat. Med. 2006, method 5).

    Perfect separation has a DeLong variance of 0, though ten patients ranked without a mistake do not prove an AUROC
    of 1. This interval takes every AUROC theta that lies within z standard errors of the estimate, where the standard
    error is the one at theta (Hanley & McNeil, Radiology 1982, with exponential scores):

        V(theta) = theta (1 - theta) (1 + N (1 - theta) / (2 - theta) + N theta / (1 + theta)) / (m n)
        N = (m + n) / 2 - 1

    Args:
        auroc: the estimate, in [0, 1]; the mean over folds if there are several.
        counts: (positive patients m, negative patients n) of each fold; the variance is that of the mean over folds.
        level: nominal coverage.
    """
    z = stats.norm.ppf(0.5 + level / 2)

    def excess(theta: float) -> float:
        variance = sum(_exponential_variance(theta, m, n) for m, n in counts) / len(counts) ** 2
        return (auroc - theta) ** 2 - z**2 * variance

    step = 1e-9  # theta = estimate is itself a root where the estimate is 0 or 1
    low = optimize.brentq(excess, 0.0, auroc - step) if auroc > step else 0.0
    high = optimize.brentq(excess, auroc + step, 1.0) if auroc < 1 - step else 1.0
    return float(low), float(high)


def _exponential_variance(theta: float, m: int, n: int) -> float:
    size = (m + n) / 2 - 1
    spread = 1 + size * (1 - theta) / (2 - theta) + size * theta / (1 + theta)
    return theta * (1 - theta) * spread / (m * n)


def _unbiased(size: int) -> float:
    return size / (size - 1)
