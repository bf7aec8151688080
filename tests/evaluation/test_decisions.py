"""Holm, equivalence and the verdict, against statsmodels and on simulated studies."""

import math

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from poddistill.evaluation.decisions import equivalence_p, holm, shows
from poddistill.evaluation.folds import Estimate, Fold, auroc_difference


def estimate_of_mean(values: np.ndarray) -> Estimate:
    error = values.std(ddof=1) / np.sqrt(len(values))
    return Estimate(values.mean(), math.nan, math.nan, error=error, freedom=len(values) - 1)


@pytest.mark.parametrize("size", [1, 2, 12])
def test_holm_agrees_with_statsmodels(size):
    p_values = np.random.default_rng(size).random(size) ** 3
    np.testing.assert_allclose(holm(p_values), multipletests(p_values, method="holm")[1], atol=1e-15)


def test_holm_keeps_order_ties_and_the_size_of_the_family():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.01, 0.5]), [0.04, 0.08, 0.04, 0.5])
    np.testing.assert_allclose(
        holm([0.01, math.nan, 0.04]), [0.02, math.nan, 0.04]
    )  # what was not tested is not counted
    assert holm([]).shape == (0,)


def test_equivalence_agrees_with_statsmodels():
    rng = np.random.default_rng(0)
    for size, margin in ((4, 0.02), (10, 0.01), (30, 0.05)):
        values = rng.normal(0.005, 0.02, size)
        expected = DescrStatsW(values).ttost_mean(-margin, margin)[0]
        assert equivalence_p(estimate_of_mean(values), margin) == pytest.approx(expected, abs=1e-12)


def test_equivalence_is_shown_exactly_where_the_90_percent_interval_lies_within_the_margin(draw_methods):
    rng = np.random.default_rng(1)
    outcomes = set()
    for _ in range(300):
        a, b = draw_methods(rng, [1.3, 1.3], seeds=3, spread=0.2)
        narrow = auroc_difference([a], [b], level=0.9)
        inside = narrow.low > -0.08 and narrow.high < 0.08
        assert (equivalence_p(auroc_difference([a], [b]), 0.08) < 0.05) == inside
        outcomes.add(inside)
    assert outcomes == {True, False}


def test_equivalence_is_rarely_shown_for_a_difference_of_the_margin(draw_methods):
    """The true difference is the margin: 5 % of studies at most may call it equivalent."""
    rng = np.random.default_rng(2)
    big = [
        auroc_difference([a], [b]).value for a, b in (draw_methods(rng, [1.6, 1.3], 40, 0.2, 1000) for _ in range(20))
    ]
    margin, studies = float(np.mean(big)), 600
    pairs = (draw_methods(rng, [1.6, 1.3], 4, 0.2, 200) for _ in range(studies))
    assert np.mean([equivalence_p(auroc_difference([a], [b]), margin) < 0.05 for a, b in pairs]) <= 0.06


@pytest.mark.parametrize(
    ("value", "error", "p_holm", "words"),
    [
        (0.05, 0.01, 0.001, "a difference"),
        (0.004, 0.001, 0.001, "a difference within 0.01"),
        (0.001, 0.001, 0.3, "equivalence within 0.01"),
        (0.02, 0.02, 0.3, "undecided"),
        (0.05, 0.02, 0.12, "undecided"),  # 0 is outside the interval, but not after the adjustment
        (0.0, 0.0, 1.0, "no difference"),
        (0.1, math.nan, math.nan, ""),
    ],
)
def test_verdicts(value, error, p_holm, words):
    assert shows(Estimate(value, math.nan, math.nan, error=error, freedom=100), p_holm, 0.01) == words


@pytest.mark.parametrize(
    ("seeds", "spread", "patients", "any_gain", "any_difference"),
    [
        (3, 0.3, 60, 0.03, 0.05),
        (5, 0.5, 60, 0.03, 0.05),
        (3, 0.3, 300, 0.06, 0.12),  # few seeds, known precisely each: folds.py says why
        (10, 0.3, 300, 0.045, 0.065),
    ],
)
def test_arms_that_are_no_better_rarely_seem_better(draw_methods, seeds, spread, patients, any_gain, any_difference):
    """Four recipes as good as the baseline; a teacher that knows nothing is such an arm."""
    rng = np.random.default_rng(3)
    studies, gains, differences, unadjusted = 700, 0, 0, 0
    for _ in range(studies):
        baseline, *arms = draw_methods(rng, [1.3] * 5, seeds, spread, patients)
        estimates = [auroc_difference([arm], [baseline]) for arm in arms]
        adjusted = holm([estimate.p for estimate in estimates])
        found = [
            e.value for e, p in zip(estimates, adjusted, strict=True) if shows(e, p, 0.01).startswith("a difference")
        ]
        differences += bool(found)
        gains += any(value > 0 for value in found)
        unadjusted += any(estimate.p < 0.05 for estimate in estimates)
    assert gains / studies <= any_gain
    assert differences / studies <= any_difference
    assert unadjusted / studies > 0.08  # what the adjustment is there for


@pytest.mark.parametrize("seeds", [3, 5])
def test_coverage_of_a_paired_difference_over_seeds_and_patients(draw_methods, seeds):
    rng = np.random.default_rng(4)
    truth = np.mean(
        [auroc_difference([a], [b]).value for a, b in (draw_methods(rng, [1.6, 1.2], 60, 0.5, 500) for _ in range(60))]
    )
    estimates = [auroc_difference([a], [b]) for a, b in (draw_methods(rng, [1.6, 1.2], seeds) for _ in range(800))]
    covered = np.mean([estimate.low <= truth <= estimate.high for estimate in estimates])
    assert 0.935 <= covered <= 0.975


def test_the_same_scores_show_no_difference():
    fold = Fold(np.array([1, 1, 0, 0]), np.arange(4), np.array([[0.9, 0.4, 0.5, 0.1]]))
    estimate = auroc_difference([fold], [fold])
    assert shows(estimate, holm([estimate.p])[0], 0.01) == "no difference"
    assert equivalence_p(estimate, 0.01) == 0
