"""AUROC and paired difference over replicates: studies that were repeated on new patients, with new trainings.

Each of R cohorts has its own patients (tested, trained on, pre-trained on, of the teacher) and its own trainings, so
its value v_c, as `folds` defines it, is an independent draw of what the whole study might have found. Hence

    value    = 1/R sum_c v_c
    variance = M / R,   M = 1/(R - 1) sum_c (v_c - value)^2,   with R - 1 degrees of freedom

which for a difference is the one-sample t-test over the R differences. M holds every source of chance, those too that
one cohort cannot tell of (pre-training, the teacher, which patients were trained on), and no model of any of them is
needed; the number of seeds and folds within a cohort only makes M smaller. For the numbers needed M is split into

    D = 1/R sum_c D_c     the share of the test patients, D_c being DeLong's variance of v_c: falls with their number
    max(0, M - D)         all else: falls with the number of cohorts alone

A few cohorts may by chance agree more closely than their test patients make likely; M is then far below D, and the
interval too narrow. `replicated_difference` tells where fewer than one in ten such studies would agree so, by the
chi-squared distribution of (R - 1) M / D in case all of the variance is the patients'.

One cohort has no M: value, interval and test are then those of `folds`.

In simulated studies of 3, 5 and 10 cohorts of 40 test patients, with any share of the variance due to the training, the
test at 5 % rejects equal methods in 4 to 5 %, and 95 % intervals cover the truth in 94 to 96 %.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import stats

from poddistill.evaluation.folds import (
    ROUNDING,
    Components,
    Estimate,
    Fold,
    auroc_difference,
    logit_estimate,
    mean_auroc,
    mean_metric,
    t_estimate,
    unit_estimate,
)
from poddistill.evaluation.statistics import FloatArray

TOO_CLOSE = 0.1  # the chance that cohorts agree as closely, below which a difference tells so


def replicated_auroc(cohorts: Sequence[Sequence[Fold]], level: float = 0.95) -> Estimate:
    """Return the AUROC over cohorts, with an interval that is symmetric on the logit scale.

    Args:
        cohorts: the folds of each cohort.
        level: nominal coverage.

    Returns:
        `folds.mean_auroc` for one cohort; where all cohorts agree exactly (perfect separation), the interval of
        `delong.score_interval`, which rests on the numbers of patients; all nan where a fold lacks a class.
    """
    if len(cohorts) == 1:
        return mean_auroc(cohorts[0], level)
    values = np.array([mean_auroc(folds).value for folds in cohorts])
    variance = float(values.var(ddof=1)) / len(values)
    everyone = [fold for folds in cohorts for fold in folds]
    return logit_estimate(float(values.mean()), variance, len(values) - 1, everyone, level)


def replicated_metric(cohorts: Sequence[Sequence[tuple[FloatArray, FloatArray]]], level: float = 0.95) -> Estimate:
    """Return another metric in [0, 1] over cohorts, with an interval that is symmetric on the logit scale.

    Args:
        cohorts: of each cohort its folds, as for `folds.mean_metric`, which it is for one cohort.
        level: nominal coverage.
    """
    if len(cohorts) == 1:
        return mean_metric(cohorts[0], level)
    values = np.array([mean_metric(folds).value for folds in cohorts])
    return unit_estimate(float(values.mean()), float(values.var(ddof=1)) / len(values), len(values) - 1, level)


def replicated_difference(cohorts: Sequence[tuple[Sequence[Fold], Sequence[Fold]]], level: float = 0.95) -> Estimate:
    """Return the paired difference in AUROC over cohorts, the first of each pair minus the second.

    Args:
        cohorts: of each cohort the folds of the two methods, as for `folds.auroc_difference`.
        level: of the interval.

    Returns:
        `folds.auroc_difference` for one cohort. Identical rankings in every cohort give 0, interval (0, 0) and p = 1;
        interval and p are nan where differences agree exactly otherwise, or one is undefined.
    """
    each = [auroc_difference(mine, theirs, level) for mine, theirs in cohorts]
    if len(each) == 1 or all(estimate.error == 0 for estimate in each):
        return each[0]
    values = np.array([estimate.value for estimate in each])
    value, total = float(values.mean()), float(values.var(ddof=1))
    if not total > ROUNDING:
        return Estimate(value, math.nan, math.nan)
    over_patients = float(np.mean([_over_patients(estimate) for estimate in each]))
    # Cohorts take the place of seeds, and no patients are common to them: all that varies is divided by R.
    tested, needed = (
        Components(*np.array([[0.0], [share], [rest], [len(each)]]))
        for share, rest in ((0.0, total), (over_patients, max(0.0, total - over_patients)))
    )
    estimate = replace(t_estimate(value, tested, level), components=needed)
    chance = stats.chi2.cdf((len(each) - 1) * total / over_patients, len(each) - 1) if over_patients > 0 else 1.0
    if chance >= TOO_CLOSE:
        return estimate
    half = stats.norm.ppf(0.5 + level / 2) * math.sqrt(over_patients / len(each))
    return replace(estimate, by_patients=(value - half, value + half))


def _over_patients(estimate: Estimate) -> float:
    """DeLong's variance of one cohort's difference; undefined with a single patient of a class, and counted as 0."""
    return estimate.components.over_patients if estimate.components else 0.0
