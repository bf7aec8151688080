"""Seeds and patients needed: against statsmodels in the case it knows, and by simulated studies."""

import math

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from poddistill.evaluation.folds import Components, auroc_difference
from poddistill.evaluation.power import patients_needed, power, seeds_needed


def components(patients: float, interaction: float, between: float, seeds: int) -> Components:
    return Components(*(np.array([value]) for value in (patients, interaction, between, float(seeds))))


def true_components(draw, rng: np.random.Generator, separations: list[float], seeds: int, patients: int) -> Components:
    """Components of large studies, brought back to the patients of a small one."""
    pairs = (draw(rng, separations, 30, 0.2, 600) for _ in range(20))
    parts = [auroc_difference([a], [b]).components for a, b in pairs]
    return components(
        np.mean([part.patients for part in parts]) * 600 / patients,
        np.mean([part.interaction for part in parts]) * 600 / patients,
        np.mean([part.between for part in parts]),
        seeds,
    )


def test_power_grows_to_1_and_is_defined_everywhere():
    parts = components(0.01**2, 0.01**2, 0.02**2, 3)
    chances = power(parts, 0.2, np.geomspace(2, 1e6, 400)[:, None], np.ones((1, 1)))
    assert not np.isnan(chances).any()
    assert chances[-1] == pytest.approx(1)
    assert seeds_needed(parts, 0.4) == 2


def test_without_variance_over_patients_it_is_the_power_of_the_t_test():
    parts, spread = components(0, 0, 0.02**2, 4), 0.02
    for seeds in (3, 5, 20):
        expected = TTestPower().power(0.03 / spread, nobs=seeds, alpha=0.05, alternative="two-sided")
        found = power(parts, 0.03, np.array([[float(seeds)]]), np.ones((1, 1)))
        assert found[0] == pytest.approx(expected, abs=1e-6)
    expected = math.ceil(TTestPower().solve_power(0.03 / spread, power=0.8, alpha=0.05, alternative="two-sided"))
    assert seeds_needed(parts, 0.03) == expected


def test_without_variance_between_seeds_patients_follow_the_normal_formula():
    parts = components(0.03**2, 0, 0, 1)
    assert patients_needed(parts, 100, 0.01) == pytest.approx(100 * (1.95996 + 0.84162) ** 2 * 9, rel=0.011)


def test_no_number_suffices_where_the_other_source_of_chance_is_too_large():
    parts = components(0.02**2, 0.01**2, 0.02**2, 3)
    assert seeds_needed(parts, 0.01) == math.inf
    assert patients_needed(parts, 100, 0.01) == math.inf
    assert 2 <= seeds_needed(parts, 0.1) < math.inf
    assert 2 <= patients_needed(parts, 100, 0.1) < math.inf


def test_one_seed_says_nothing_of_the_seeds_needed():
    assert math.isnan(seeds_needed(components(0.01**2, 0, 0, 1), 0.1))


def test_the_components_add_up_to_the_standard_error(draw_methods):
    rng = np.random.default_rng(0)
    for seeds in (1, 2, 5):
        for _ in range(30):
            folds = [draw_methods(rng, [1.5, 1.2], seeds) for _ in range(2)]
            estimate = auroc_difference([a for a, _ in folds], [b for _, b in folds])
            parts = estimate.components
            total = np.sum(parts.patients + (parts.interaction + parts.between) / seeds)
            assert total == pytest.approx(estimate.error**2)
            assert min(parts.patients) >= 0
            assert min(parts.between) >= 0


def test_components_recover_what_shrinks_with_what(draw_methods):
    """Twice the patients halve the first two parts and leave the third."""
    rng = np.random.default_rng(1)
    few, many = (
        [
            auroc_difference([a], [b]).components
            for a, b in (draw_methods(rng, [1.3, 1.3], 12, 0.5, n) for _ in range(60))
        ]
        for n in (100, 200)
    )
    for name, ratio in (("patients", 2), ("interaction", 2), ("between", 1)):
        first, second = (np.mean([getattr(part, name) for part in parts]) for parts in (few, many))
        assert first / second == pytest.approx(ratio, rel=0.15)


def test_the_seeds_and_patients_needed_give_80_percent_power(draw_methods):
    rng = np.random.default_rng(2)
    separations, patients, spread = [1.6, 1.15], 100, 0.2
    pairs = (draw_methods(rng, separations, 60, spread, 500) for _ in range(40))
    difference = float(np.mean([auroc_difference([a], [b]).value for a, b in pairs]))
    parts = true_components(draw_methods, rng, separations, 8, patients)
    seeds = int(seeds_needed(parts, difference))
    cohort = int(patients_needed(parts, patients, difference))
    for number, size in ((seeds, patients), (8, cohort)):
        shown = [
            auroc_difference([a], [b]).p < 0.05
            for a, b in (draw_methods(rng, separations, number, spread, size) for _ in range(600))
        ]
        planned = power(parts, difference, np.array([[float(number)]]), np.array([[size / patients]]))[0]
        assert 0.8 <= planned < 0.9
        assert np.mean(shown) == pytest.approx(planned, abs=0.06)
