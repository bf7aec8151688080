import math

import numpy as np
import pytest

from poddistill.evaluation.calibration import brier, expected_calibration_error, reliability


def test_brier_by_hand():
    assert brier(np.array([1, 0, 1]), np.array([0.8, 0.3, 0.4])) == pytest.approx((0.04 + 0.09 + 0.36) / 3)


def test_ece_by_hand():
    labels = np.array([0, 1, 1, 1])
    probabilities = np.array([0.12, 0.18, 0.95, 1.0])
    # Bin [0.1, 0.2): mean label 1/2, mean probability 0.15; bin [0.9, 1]: 1 and 0.975.
    expected = 2 / 4 * 0.35 + 2 / 4 * 0.025
    assert expected_calibration_error(labels, probabilities, bins=10) == pytest.approx(expected)


def test_probability_one_falls_into_the_last_bin_and_empty_bins_are_left_out():
    curve = reliability(np.array([1, 0]), np.array([1.0, 0.0]), bins=15)
    assert curve.count.tolist() == [1, 1]
    assert curve.predicted.tolist() == [0.0, 1.0]
    assert curve.observed.tolist() == [0.0, 1.0]


def test_calibrated_probabilities_have_a_small_ece_and_overconfident_ones_do_not():
    rng = np.random.default_rng(0)
    probabilities = rng.random(50_000)
    labels = (rng.random(50_000) < probabilities).astype(int)
    assert expected_calibration_error(labels, probabilities) < 0.01
    assert expected_calibration_error(labels, np.round(probabilities)) == pytest.approx(0.25, abs=0.01)


def test_no_cases_give_nan():
    assert math.isnan(brier(np.array([], dtype=int), np.array([])))
    assert math.isnan(expected_calibration_error(np.array([], dtype=int), np.array([])))
