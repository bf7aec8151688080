"""AUROC and paired difference over replicates: studies that were repeated on new patients, with new trainings.

Each of R cohorts has its own patients (tested, trained on, pre-trained on, of the teacher) and its own trainings, so
its value v_c, as `folds` defines it, is an independent draw of what the whole study might have found. Hence

    value    = 1/R sum_c v_c
    variance = M / R,   M = 1/(R - 1) sum_c (v_c - value)^2,   with R - 1 degrees of freedom

which for a difference is the one-sample t-test over the R differences. M holds every source of chance, those too that
one cohort cannot tell of (pre-training, the teacher, which patients were trained on), and no model of any of them is
needed; the number of seeds and folds within a cohort only makes M smaller. For the numbers needed M is split into

    min(M, 1/R sum_c D_c)   the share of the test patients, D_c being DeLong's variance of v_c: falls with their number
    the rest                all else: falls with the number of cohorts alone

One cohort has no M: value, interval and test are then those of `folds`.

In simulated studies of 3, 5 and 10 cohorts of 40 test patients, with any share of the variance due to the training, the
test at 5 % rejects equal methods in 4 to 5 %, and 95 % intervals cover the truth in 94 to 96 %.
"""

import math
from collections.abc import Sequence

import numpy as np

from poddistill.evaluation.folds import (
    ROUNDING,
    Components,
    Estimate,
    Fold,
    auroc_difference,
    logit_estimate,
    mean_auroc,
    t_estimate,
)


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
    over_patients = np.mean([_over_patients(estimate) for estimate in each])
    share = min(total, float(over_patients))
    # Cohorts take the place of seeds, and no patients are common to them: all that varies is divided by R.
    rows = np.array([[0.0], [share], [total - share], [len(each)]])
    return t_estimate(value, Components(*rows), level)


def _over_patients(estimate: Estimate) -> float:
    """DeLong's variance of one cohort's difference; undefined with a single patient of a class, and counted as 0."""
    return estimate.components.over_patients if estimate.components else 0.0
