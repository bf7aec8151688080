import math

import numpy as np
import pytest


@pytest.fixture
def growth_fit(script):
    return script("growth_fit")


def test_an_exact_power_law_is_recovered_with_no_margin(growth_fit):
    x = [1.0, 2.0, 4.0, 8.0]
    law = growth_fit.power_law(x, [3 * value**1.5 for value in x])
    assert (law.exponent, law.low, law.high, law.factor, law.last) == pytest.approx((1.5, 1.5, 1.5, 3, 1.5))
    assert law(np.array(x)) == pytest.approx([3 * value**1.5 for value in x])


def test_exponent_and_interval_are_those_of_the_normal_equations(growth_fit):
    x, y = [512, 1024, 2048, 4096, 8192], [1.1, 2.4, 4.3, 9.9, 19.0]
    design = np.stack([np.ones(5), np.log(x)], axis=1)
    coefficients = np.linalg.solve(design.T @ design, design.T @ np.log(y))
    residuals = np.log(y) - design @ coefficients
    variance = residuals @ residuals / 3 * np.linalg.inv(design.T @ design)[1, 1]
    margin = 3.182446305284263 * math.sqrt(variance)  # Student's t, 3 degrees of freedom, 97.5%
    law = growth_fit.power_law(x, y)
    assert law.exponent == pytest.approx(coefficients[1])
    assert (law.low, law.high) == pytest.approx((coefficients[1] - margin, coefficients[1] + margin))
    assert law.last == pytest.approx(math.log2(19.0 / 9.9))


def test_95_of_100_intervals_hold_the_true_exponent(growth_fit):
    rng = np.random.default_rng(0)
    x = 2.0 ** np.arange(6)
    laws = [growth_fit.power_law(x, 2 * x * np.exp(rng.normal(0, 0.1, 6))) for _ in range(2000)]
    assert np.mean([law.low <= 1 <= law.high for law in laws]) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(("x", "y"), [([1], [1]), ([1, 2], [0, 1]), ([1, 2, 4], [1, 2])])
def test_what_has_no_power_law_is_refused(growth_fit, x, y):
    with pytest.raises(ValueError, match="two or more points above 0"):
        growth_fit.power_law(x, y)
