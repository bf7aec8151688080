"""Replicates: against scipy's t-test, and by simulated studies whose patients and trainings are all drawn anew."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from poddistill.evaluation.delong import logit_interval
from poddistill.evaluation.folds import Fold, auroc_difference, mean_auroc
from poddistill.evaluation.power import patients_needed, seeds_needed
from poddistill.evaluation.replicates import replicated_auroc, replicated_difference

LABELS, PATIENTS = np.repeat([1, 0], [16, 24]), np.arange(40)


def draw_cohort(rng: np.random.Generator, separations: np.ndarray, spread: float = 0.4) -> list[Fold]:
    """A cohort as methods of these separations see it, a seed each; the training moves a separation by ``spread``."""
    shared = 0.7 * rng.normal(size=40)
    quality = rng.normal(separations, spread)
    scores = quality[:, None] * LABELS + shared + 0.7 * rng.normal(size=(len(separations), 40))
    return [Fold(LABELS, PATIENTS, row[None]) for row in scores]


def draw_pairs(rng: np.random.Generator, separations: list[float], cohorts: int, spread: float = 0.4):
    drawn = (draw_cohort(rng, np.array(separations), spread) for _ in range(cohorts))
    return [([a], [b]) for a, b in drawn]


def test_the_difference_is_the_t_test_over_the_cohorts():
    pairs = draw_pairs(np.random.default_rng(0), [1.5, 1.0], 6)
    differences = [auroc_difference(a, b).value for a, b in pairs]
    expected = stats.ttest_1samp(differences, 0)
    estimate = replicated_difference(pairs)
    assert estimate.value == pytest.approx(np.mean(differences))
    assert estimate.p == pytest.approx(expected.pvalue)
    assert estimate.freedom == pytest.approx(5)
    assert (estimate.low, estimate.high) == pytest.approx(tuple(expected.confidence_interval()))
    wide, narrow = replicated_difference(pairs, 0.99), tuple(expected.confidence_interval(0.99))
    assert (wide.low, wide.high) == pytest.approx(narrow)


def test_folds_and_seeds_are_averaged_within_a_cohort_first():
    """A cohort of three folds and two seeds weighs as much as one of a single run."""
    rng = np.random.default_rng(1)
    large = [Fold(LABELS, PATIENTS, np.vstack([f.scores for f in draw_cohort(rng, np.ones(2))])) for _ in range(3)]
    other = [Fold(fold.labels, fold.patients, fold.scores + rng.normal(size=(2, 40))) for fold in large]
    (small,) = draw_pairs(rng, [1.0, 0.8], 1)
    estimate = replicated_difference([(large, other), small])
    each = [auroc_difference(large, other).value, auroc_difference(*small).value]
    assert estimate.value == pytest.approx(np.mean(each))
    assert estimate.p == pytest.approx(stats.ttest_1samp(each, 0).pvalue)
    values = [mean_auroc(large).value, mean_auroc(small[0]).value]
    interval = logit_interval(np.mean(values), np.var(values, ddof=1) / 2, degrees_of_freedom=1)
    auroc = replicated_auroc([large, small[0]])
    assert (auroc.value, auroc.low, auroc.high) == pytest.approx((np.mean(values), *interval))


def test_one_cohort_is_what_its_folds_say():
    ((a, b),) = draw_pairs(np.random.default_rng(2), [1.5, 1.0], 1)
    assert replicated_auroc([a]) == mean_auroc(a)
    found, expected = replicated_difference([(a, b)]), auroc_difference(a, b)
    assert (found.value, found.low, found.high, found.p) == (expected.value, expected.low, expected.high, expected.p)


@pytest.mark.parametrize(("cohorts", "studies"), [(5, 500), (10, 300)])
def test_false_positive_rate_and_coverage(cohorts, studies):
    """The truth is that of the two recipes: over all patients and all trainings."""
    rng = np.random.default_rng(cohorts)
    spread = 0.4
    truth = [float(stats.norm.cdf(rng.normal(mean, spread, 100_000) / 1.4).mean()) for mean in (1.6, 1.0)]
    rejected = covered = covered_auroc = 0
    for _ in range(studies):
        drawn = [draw_cohort(rng, np.array([1.6, 1.0, 1.0]), spread) for _ in range(cohorts)]
        good, fair, equal = ([[folds[method]] for folds in drawn] for method in range(3))
        rejected += replicated_difference(list(zip(fair, equal, strict=True))).p < 0.05
        estimate = replicated_difference(list(zip(good, fair, strict=True)))
        covered += estimate.low <= truth[0] - truth[1] <= estimate.high
        estimate = replicated_auroc(good)
        covered_auroc += estimate.low <= truth[0] <= estimate.high
    assert 0.025 <= rejected / studies <= 0.08
    assert 0.92 <= covered / studies <= 0.975
    assert 0.92 <= covered_auroc / studies <= 0.975


def test_the_cohorts_needed_follow_the_t_test():
    pairs = draw_pairs(np.random.default_rng(3), [1.5, 1.0], 8)
    estimate = replicated_difference(pairs)
    spread = np.std([auroc_difference(a, b).value for a, b in pairs], ddof=1)
    expected = TTestPower().solve_power(0.05 / spread, power=0.8, alpha=0.05, alternative="two-sided")
    assert seeds_needed(estimate.components, 0.05) == math.ceil(expected)


def test_the_variance_is_split_into_delongs_part_and_the_rest():
    """Without noise of training, patients explain nearly all of it; with much of it, they do not."""
    shares = []
    for spread in (0.0, 1.5):
        rng = np.random.default_rng(4)
        parts = []
        for _ in range(40):
            pairs = draw_pairs(rng, [1.2, 1.2], 20, spread)
            estimate = replicated_difference(pairs)
            delong = np.mean(np.nan_to_num([auroc_difference(a, b).error ** 2 for a, b in pairs]))
            (share,), (rest,) = estimate.components.interaction, estimate.components.between
            assert share == pytest.approx(delong)
            assert rest == pytest.approx(max(0, 20 * estimate.error**2 - delong))
            parts.append((share, rest))
        share, rest = np.mean(parts, axis=0)
        shares.append(share / (share + rest))
    assert shares[0] > 0.85
    assert shares[1] < 0.3
    assert patients_needed(replicated_difference(pairs).components, 800, 0.001) == math.inf


def test_too_close_an_agreement_is_told_as_rarely_as_stated():
    """Where the patients are all that varies it is so in at most one study of ten."""
    rng = np.random.default_rng(6)
    told = 0
    for _ in range(300):
        estimate = replicated_difference(draw_pairs(rng, [1.2, 1.2], 4, 0.0))
        total = 4 * estimate.error**2
        (over_patients,) = estimate.components.interaction
        if estimate.by_patients:
            told += 1
            half = stats.norm.ppf(0.975) * np.sqrt(over_patients / 4)
            assert estimate.by_patients == pytest.approx((estimate.value - half, estimate.value + half))
            assert total < over_patients / 4
    assert 0.02 < told / 300 < 0.14


def test_identical_rankings_in_every_cohort_differ_by_nothing():
    cohorts = [folds for folds, _ in draw_pairs(np.random.default_rng(5), [1.0, 1.0], 3)]
    estimate = replicated_difference([(folds, folds) for folds in cohorts])
    assert (estimate.value, estimate.low, estimate.high, estimate.p, estimate.error) == (0, 0, 0, 1, 0)


def test_cohorts_that_agree_by_chance_have_no_test():
    """Each cohort's methods differ, by the same amount: that is no proof, and not 'no difference' either."""
    (pair,) = draw_pairs(np.random.default_rng(6), [1.5, 0.5], 1)
    estimate = replicated_difference([pair, pair])
    assert estimate.value == pytest.approx(auroc_difference(*pair).value)
    assert math.isnan(estimate.p)
    assert math.isnan(estimate.error)
    auroc = replicated_auroc([pair[0], pair[0]])
    assert auroc.low < auroc.value < auroc.high


def test_perfect_separation_in_every_cohort_rests_on_the_number_of_patients():
    perfect = [Fold(LABELS, PATIENTS, LABELS[None] + 0.0)]
    one, three = (replicated_auroc([perfect] * count) for count in (1, 3))
    assert one.high == three.high == 1
    assert 0.8 < one.low < three.low < 1


def test_a_missing_class_gives_nan():
    empty = Fold(np.zeros(5, dtype=int), np.arange(5), np.random.default_rng(7).random((1, 5)))
    (pair,) = draw_pairs(np.random.default_rng(7), [1.0, 1.0], 1)
    assert math.isnan(replicated_auroc([pair[0], [empty]]).value)
    assert math.isnan(replicated_difference([pair, ([empty], [empty])]).p)
