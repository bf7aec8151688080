import math

import numpy as np
import pytest
from scipy import stats

from poddistill.evaluation.delong import delong_covariance, logit_interval
from poddistill.evaluation.folds import Fold, auroc_difference, mean_auroc, mean_metric
from poddistill.evaluation.statistics import auroc

PATIENTS = np.arange(60)
LABELS = np.repeat([1, 0], [24, 36])


def draw_fold(rng: np.random.Generator, separations: np.ndarray, spread: float = 0.7, seed_noise: float = 0.7) -> Fold:
    """Scores of seeds (S,) that share the patients' difficulty; a seed's AUROC is Phi(separation / sqrt(2 var))."""
    shared = spread * rng.normal(size=60)
    own = seed_noise * rng.normal(size=(len(separations), 60))
    return Fold(LABELS, PATIENTS, separations[:, None] * LABELS + shared + own)


def true_auroc(separation: float | np.ndarray, spread: float = 0.7, seed_noise: float = 0.7) -> float | np.ndarray:
    return stats.norm.cdf(separation / np.sqrt(2 * (spread**2 + seed_noise**2)))


def test_one_run_is_plain_delong():
    fold = draw_fold(np.random.default_rng(0), np.array([1.2]))
    aurocs, covariance = delong_covariance(fold.labels, fold.scores)
    estimate = mean_auroc([fold])
    assert estimate.value == pytest.approx(auroc(fold.labels, fold.scores[0]))
    assert (estimate.low, estimate.high) == pytest.approx(logit_interval(aurocs[0], covariance[0, 0]))


def test_runs_are_averaged_and_never_pooled():
    """A model whose scores all lie higher must not change the mean of the AUROCs."""
    rng = np.random.default_rng(1)
    folds = [draw_fold(rng, np.array([1.0, 1.4])) for _ in range(3)]
    shifted = [Fold(f.labels, f.patients, f.scores + 10 * j) for j, f in enumerate(folds)]
    expected = np.mean([auroc(f.labels, row) for f in folds for row in f.scores])
    assert mean_auroc(folds).value == pytest.approx(expected)
    assert mean_auroc(shifted) == mean_auroc(folds)


def test_identical_seeds_add_nothing():
    """The same model twice is one model: neither a narrower nor a wider interval."""
    fold = draw_fold(np.random.default_rng(2), np.array([1.0]))
    repeated = Fold(fold.labels, fold.patients, np.repeat(fold.scores, 4, axis=0))
    one, four = mean_auroc([fold]), mean_auroc([repeated])
    assert (four.low, four.high) == pytest.approx((one.low, one.high))


def test_disagreeing_seeds_widen_the_interval():
    rng = np.random.default_rng(3)
    agree = mean_auroc([draw_fold(rng, np.array([1.0, 1.0, 1.0]))])
    disagree = mean_auroc([draw_fold(rng, np.array([0.2, 1.0, 2.2]))])
    assert disagree.high - disagree.low > 1.5 * (agree.high - agree.low)


def test_seeds_are_random_readers():
    """Obuchowski & Rockette: variance MS / S + mean covariance between readers, degrees of freedom of Hillis."""
    fold = draw_fold(np.random.default_rng(3), np.array([0.2, 1.0, 2.2]))
    aurocs, covariance = delong_covariance(fold.labels, fold.scores)
    between = np.var(aurocs, ddof=1) / 3
    variance = between + covariance[np.triu_indices(3, 1)].mean()
    freedom = variance**2 / (between**2 / 2)
    estimate = mean_auroc([fold])
    expected = logit_interval(aurocs.mean(), variance, degrees_of_freedom=freedom)
    assert (estimate.low, estimate.high) == pytest.approx(expected)


def test_perfect_separation_is_no_certainty():
    fold = Fold(LABELS, PATIENTS, (LABELS + 0.0)[None])
    estimate = mean_auroc([fold])
    assert estimate.value == estimate.high == 1.0
    assert 0.8 < estimate.low < 0.98


def test_coverage_with_several_seeds():
    """The truth is the AUROC of the training recipe: over all seeds and all patients."""
    rng = np.random.default_rng(4)
    truth = float(np.mean(true_auroc(rng.normal(1.0, 0.5, 100_000))))
    estimates = [mean_auroc([draw_fold(rng, rng.normal(1.0, 0.5, 4))]) for _ in range(1500)]
    covered = np.mean([estimate.low <= truth <= estimate.high for estimate in estimates])
    assert 0.93 <= covered <= 0.97


def test_coverage_over_folds():
    rng = np.random.default_rng(5)
    truth = float(true_auroc(1.3))
    estimates = [mean_auroc([draw_fold(rng, np.full(1, 1.3)) for _ in range(3)]) for _ in range(1200)]
    covered = np.mean([estimate.low <= truth <= estimate.high for estimate in estimates])
    assert 0.93 <= covered <= 0.97


def test_paired_difference_is_delongs_test():
    fold = draw_fold(np.random.default_rng(6), np.array([1.5, 0.7]))
    a, b = (Fold(fold.labels, fold.patients, fold.scores[[row]]) for row in (0, 1))
    aurocs, covariance = delong_covariance(fold.labels, fold.scores)
    z = (aurocs[0] - aurocs[1]) / np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    estimate = auroc_difference([a], [b])
    assert estimate.value == pytest.approx(aurocs[0] - aurocs[1])
    assert estimate.p == pytest.approx(2 * stats.norm.sf(abs(z)))
    swapped = auroc_difference([b], [a])
    assert (swapped.value, swapped.low, swapped.high) == pytest.approx((-estimate.value, -estimate.high, -estimate.low))
    assert swapped.p == pytest.approx(estimate.p)


def test_variance_of_a_difference_equals_that_of_explicit_placements():
    """Pair by pair and seed by seed: D of the seed-averaged placement values, T of what DeLong leaves unexplained."""
    rng = np.random.default_rng(9)
    fold = draw_fold(rng, np.array([0.5, 1.4, 2.0, 1.0, 0.3, 0.9]))
    fold.scores[:3] += rng.normal(size=60)  # patients who are hard for one method alone
    v10, v01 = np.zeros((6, 24)), np.zeros((6, 36))
    for row, scores in enumerate(fold.scores):
        won = np.array([[(x > y) + (x == y) / 2 for y in scores[24:]] for x in scores[:24]])
        v10[row], v01[row] = won.mean(axis=1), won.mean(axis=0)
    d10, d01 = v10[:3] - v10[3:], v01[:3] - v01[3:]
    over_patients = d10.mean(axis=0).var(ddof=1) / 24 + d01.mean(axis=0).var(ddof=1) / 36
    covariance = np.cov(d10) / 24 + np.cov(d01) / 36
    explained = np.diag(covariance).mean() - covariance[np.triu_indices(3, 1)].mean()
    between = d10.mean(axis=1).var(ddof=1)
    variance = over_patients + (between - explained) / 3
    a, b = (Fold(LABELS, PATIENTS, rows) for rows in np.split(fold.scores, 2))
    estimate = auroc_difference([a], [b])
    assert between > explained
    assert covariance[np.triu_indices(3, 1)].mean() > 0
    assert estimate.error**2 == pytest.approx(variance)
    assert estimate.freedom == pytest.approx(variance**2 / ((between / 3) ** 2 / 2))
    assert estimate.p == pytest.approx(2 * stats.t.sf(abs(d10.mean()) / np.sqrt(variance), estimate.freedom))


@pytest.mark.parametrize("seeds", [1, 3])
def test_false_positive_rate_of_the_paired_test(seeds):
    """Two recipes of equal quality, seeds that vary: p < 0.05 in about 5 % of studies, fewer with few seeds."""
    rng = np.random.default_rng(7)
    seed_spread = 0.5 if seeds > 1 else 0.0  # one seed cannot know the variance between seeds
    studies, rejected = 1500, 0
    for _ in range(studies):
        fold = draw_fold(rng, rng.normal(1.3, seed_spread, 2 * seeds))
        a, b = (Fold(fold.labels, fold.patients, rows) for rows in np.split(fold.scores, 2))
        rejected += auroc_difference([a], [b]).p < 0.05
    assert 0.02 <= rejected / studies <= 0.065


@pytest.mark.parametrize(("seeds", "patients", "most"), [(2, 1000, 0.11), (2, 300, 0.09), (10, 300, 0.07)])
def test_false_positive_rate_where_the_seeds_are_most_of_the_variance(seeds, patients, most):
    """As the module's documentation says of many patients: 5 % with ten seeds, up to 9 % with two."""
    rng = np.random.default_rng(seeds + patients)
    labels, ids = (np.arange(patients) < 0.4 * patients).astype(int), np.arange(patients)
    studies, rejected = 1000, 0
    for _ in range(studies):
        shared = 0.9 * rng.normal(size=patients)
        separations = rng.normal(1.3, 0.5, 2 * seeds)[:, None]
        scores = separations * labels + shared + 0.3 * rng.normal(size=(2 * seeds, patients))
        a, b = (Fold(labels, ids, rows) for rows in np.split(scores, 2))
        rejected += auroc_difference([a], [b]).p < 0.05
    assert 0.035 <= rejected / studies <= most


def test_identical_rankings_differ_by_nothing():
    fold = draw_fold(np.random.default_rng(8), np.array([1.0, 1.2]))
    estimate = auroc_difference([fold], [Fold(fold.labels, fold.patients, np.exp(fold.scores))])
    assert (estimate.value, estimate.low, estimate.high, estimate.p) == (0, 0, 0, 1)


@pytest.mark.parametrize("positive", [1, 3])
def test_equal_aurocs_of_other_rankings_are_not_the_same(positive):
    labels, patients = np.array([1] * positive + [0] * 4), np.arange(positive + 4)
    apart = np.array([[3.0] * positive + [0.1, 0.2, 0.3, 0.4]])
    estimate = auroc_difference(
        [Fold(labels, patients, apart)], [Fold(labels, patients, apart[:, [*range(positive), *range(-1, -5, -1)]])]
    )
    assert estimate.value == 0
    assert math.isnan(estimate.p) and math.isnan(estimate.error)


def test_a_missing_class_gives_nan():
    fold = Fold(np.zeros(5, dtype=int), np.arange(5), np.random.default_rng(0).random((2, 5)))
    assert math.isnan(mean_auroc([fold]).value)
    assert math.isnan(auroc_difference([fold], [fold]).p)


@pytest.mark.parametrize(
    ("patients", "seeds", "expected"),
    [(40, 2, 0.959), (40, 3, 0.955), (40, 5, 0.951), (200, 2, 0.899), (200, 3, 0.925), (200, 5, 0.945)],
)
def test_intervals_of_other_metrics_know_the_seeds(patients, seeds, expected):
    """Each seed finds another share of the positive patients; what is to be covered is that of all seeds."""
    rng = np.random.default_rng(patients + seeds)
    truth = stats.norm.cdf(1.0 / np.sqrt(1 + 0.5**2))
    covered = 0
    for _ in range(1500):
        difficulty = rng.normal(size=patients)
        thresholds = rng.normal(1.0, 0.5, size=(seeds, 1))
        hits = (0.8 * difficulty + 0.6 * rng.normal(size=(seeds, patients)) < thresholds).astype(float)
        covariance = np.cov(hits) / patients  # of means over patients, as a bootstrap of many resamples has it
        estimate = mean_metric([(hits.mean(axis=1), covariance)])
        covered += bool(estimate.low <= truth <= estimate.high)
    assert covered / 1500 == pytest.approx(expected, abs=0.02)


def test_a_metric_that_does_not_vary_has_no_interval():
    estimate = mean_metric([(np.ones(2), np.zeros((2, 2)))])
    assert estimate.value == 1
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)
