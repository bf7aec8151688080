"""How many seeds or test patients a difference would need to be shown.

The variance of a difference has a part that only more test patients make smaller, one that only more seeds do, and one
that both do (`folds.Components`). At S' seeds in every fold and r times as many test patients it is

    V = sum_j patients_j / r + (between_j + interaction_j / r) / S'

and the t-test of a true difference d has the noncentral t distribution with shift d / sqrt(V) and the degrees of
freedom of `folds` (Hillis, Obuchowski & Berbaum, Acad. Radiol. 2011). The parts are themselves estimates, rough ones
with two or three seeds: read the numbers as orders of magnitude. Over several cohorts (`replicates`) these take the
place of seeds, with patients_j = 0: no test patients are common to them.
"""

import math

import numpy as np
from scipy import stats

from poddistill.evaluation.folds import Components
from poddistill.evaluation.statistics import FloatArray

# Every number up to 100, then in steps of 1 %. From 2 on: one seed or patient has no variance.
CANDIDATES = np.unique(np.round(np.geomspace(2, 1e6, 1400)))
MANY = 1e6  # degrees of freedom: Student's t is then the normal distribution, and the noncentral one needs a number


def power(
    components: Components, difference: float, seeds: FloatArray, times: FloatArray, level: float = 0.95
) -> FloatArray:
    """Return the chance that the two-sided test shows a true difference.

    Args:
        components: of the difference's variance.
        difference: the true one, in AUROC.
        seeds: S', (Q, K) or what broadcasts to it, a column a fold.
        times: r, likewise.
        level: 1 - the test's error of the first kind.

    Returns:
        (Q,), in [0, 1].
    """
    variance, freedom = components.spread(seeds, times)
    freedom = np.minimum(freedom, MANY)
    shift = np.minimum(abs(difference) / np.sqrt(variance), 30.0)
    critical = stats.t.ppf(0.5 + level / 2, freedom)
    chance = stats.nct.sf(critical, freedom, shift) + stats.nct.cdf(-critical, freedom, shift)
    # scipy's noncentral t is nan far out, where the normal approximation is good: a power of all but 1.
    return np.where(np.isnan(chance), stats.norm.sf(critical - shift), chance)


def seeds_needed(components: Components, difference: float, target: float = 0.8) -> float:
    """Return the smallest number of seeds a fold, on the same test patients, that reaches the power ``target``.

    Returns:
        A whole number from 2 on (above 100 to 1 %); inf where a million do not suffice, since the patients are too
        few; nan where a fold has one seed, which tells nothing of the others.
    """
    if np.any(components.seeds < 2):
        return math.nan
    return _first(power(components, difference, CANDIDATES[:, None], np.ones((1, 1))) >= target)


def patients_needed(components: Components, patients: int, difference: float, target: float = 0.8) -> float:
    """Return the smallest number of test patients, with the same seeds, that reaches the power ``target``.

    Args:
        components: of the difference's variance.
        patients: the number that it comes from, over all folds; the share of positive ones is to stay the same.
        difference: the true one, in AUROC.
        target: the power.

    Returns:
        A whole number from 2 on (above 100 to 1 %); inf where a million do not suffice, since the seeds are too few.
        With one seed, a number for that one trained model.
    """
    times = CANDIDATES[:, None] / patients
    return _first(power(components, difference, components.seeds[None], times) >= target)


def _first(suffices: np.ndarray) -> float:
    return float(CANDIDATES[np.argmax(suffices)]) if suffices.any() else math.inf
