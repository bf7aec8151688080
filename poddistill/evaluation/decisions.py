"""What a paired difference shows, among many and against a margin: Holm's adjustment, equivalence, the verdict."""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from poddistill.evaluation.folds import Estimate
from poddistill.evaluation.statistics import FloatArray

ALPHA = 0.05


def holm(p_values: ArrayLike) -> FloatArray:
    """Return p-values adjusted so that the chance of *any* false difference stays below the level (Holm 1979).

        adjusted_(i) = min(1, max over k <= i of (m - k + 1) p_(k)),   p_(1) <= ... <= p_(m)

    It needs no independence of the tests, such as differences from one baseline never have (Scand. J. Stat.).

    Args:
        p_values: (M,); a nan is no test, so it is not counted in m and stays nan.
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    steps = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps * p[order]))
    return adjusted


def equivalence_p(estimate: Estimate, margin: float) -> float:
    """Return the p-value of "the true difference is at least the margin, one way or the other".

    The larger of two one-sided t-tests (Schuirmann, J. Pharmacokinet. Biopharm. 1987), with the standard error and
    degrees of freedom of the difference's interval: below 0.05 exactly where the 90 % interval lies inside +- margin.

    Args:
        estimate: of `folds.auroc_difference`.
        margin: the largest difference in AUROC that does not matter, > 0.

    Returns:
        In [0, 1]; 0 for identical rankings; nan where the difference has no standard error.
    """
    if estimate.error == 0:
        return 0.0
    return float(stats.t.sf((margin - abs(estimate.value)) / estimate.error, estimate.freedom))


def shows(estimate: Estimate, p_holm: float, margin: float) -> str:
    """Return what a difference shows, in words.

    "a difference" (p after Holm's adjustment below 0.05), "equivalence within <margin>" (p of equivalence below 0.05),
    "a difference within <margin>" (both), "no difference" (identical rankings), "undecided" (too few patients,
    seeds or cohorts to show any of these), or nothing where there is no test.

    Args:
        estimate: of `folds.auroc_difference`.
        p_holm: its p-value from `holm`.
        margin: as for `equivalence_p`.
    """
    if math.isnan(estimate.error):
        return ""
    if estimate.error == 0:
        return "no difference"
    within = equivalence_p(estimate, margin) < ALPHA
    if p_holm < ALPHA:
        return f"a difference within {margin:g}" if within else "a difference"
    return f"equivalence within {margin:g}" if within else "undecided"
