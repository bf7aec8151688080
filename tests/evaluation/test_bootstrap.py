import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from poddistill.evaluation.bootstrap import (
    bootstrap_p_value,
    percentile_interval,
    resample_patients,
    resample_rows,
    resampled_auroc,
    resampled_mean,
    resampled_sensitivity,
)
from poddistill.evaluation.statistics import sensitivity_at_specificity


@pytest.fixture
def cases() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([0, 1], [40, 20]))
    return np.arange(60), labels, np.round(rng.normal(size=60) + labels, 1)


def test_resampled_auroc_equals_scoring_each_resample(cases):
    patients, labels, scores = cases
    weights = resample_patients(patients, labels, 50, np.random.default_rng(1))
    drawn = [np.repeat(np.arange(60), row.astype(int)) for row in weights]
    expected = [roc_auc_score(labels[index], scores[index]) for index in drawn]
    np.testing.assert_allclose(resampled_auroc(labels, scores, weights), expected, atol=1e-12)


@pytest.mark.parametrize("stratified", [True, False])
def test_resampled_sensitivity_equals_scoring_each_resample_at_its_own_threshold(cases, stratified):
    patients, labels, scores = cases
    for least in (0.95, 0.7):
        weights = resample_patients(patients, labels, 200, np.random.default_rng(1), stratified=stratified)
        drawn = [np.repeat(np.arange(60), row.astype(int)) for row in weights]
        expected = [sensitivity_at_specificity(labels[index], scores[index], least) for index in drawn]
        np.testing.assert_allclose(resampled_sensitivity(labels, scores, weights, least), expected, atol=1e-12)


def test_stratified_resamples_keep_both_classes_and_their_numbers(cases):
    patients, labels, _ = cases
    weights = resample_patients(patients, labels, 200, np.random.default_rng(1))
    np.testing.assert_array_equal(weights[:, labels == 1].sum(axis=1), 20)
    np.testing.assert_array_equal(weights[:, labels == 0].sum(axis=1), 40)
    free = resample_patients(patients, labels, 200, np.random.default_rng(1), stratified=False)
    np.testing.assert_array_equal(free.sum(axis=1), 60)
    assert len(np.unique(free[:, labels == 1].sum(axis=1))) > 1


def test_a_resample_without_a_class_is_nan_and_left_out():
    labels, scores = np.array([1, 0, 0]), np.array([0.9, 0.1, 0.2])
    weights = resample_patients(np.arange(3), labels, 200, np.random.default_rng(0), stratified=False)
    values = resampled_auroc(labels, scores, weights)
    assert np.isnan(values).any()
    np.testing.assert_array_equal(np.isnan(resampled_sensitivity(labels, scores, weights, 0.95)), np.isnan(values))
    assert percentile_interval(values) == (1.0, 1.0)


def test_all_cases_of_a_patient_are_drawn_together_and_narrow_nothing(cases):
    patients, labels, scores = cases
    once = resample_patients(patients, labels, 500, np.random.default_rng(1))
    names = np.array([f"patient-{patient:02d}" for patient in patients])
    twice = resample_patients(np.tile(names, 2), np.tile(labels, 2), 500, np.random.default_rng(1))
    np.testing.assert_array_equal(twice[:, :60], twice[:, 60:])
    np.testing.assert_allclose(
        percentile_interval(resampled_auroc(np.tile(labels, 2), np.tile(scores, 2), twice)),
        percentile_interval(resampled_auroc(labels, scores, once)),
    )


def test_equal_generators_give_equal_resamples(cases):
    patients, labels, _ = cases
    first, second = (resample_patients(patients, labels, 9, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_resampled_mean_spreads_like_the_standard_error():
    rng = np.random.default_rng(0)
    values = rng.normal(size=400)
    weights = resample_patients(np.arange(400), np.zeros(400, dtype=int), 2000, rng)
    assert resampled_mean(values, weights).std() == pytest.approx(values.std() / 20, rel=0.06)


def test_p_value_agrees_with_the_interval_and_is_never_zero():
    differences = np.random.default_rng(0).normal(0.1, 0.05, 4000)
    assert bootstrap_p_value(differences) == pytest.approx(0.0455, abs=0.01)  # 2 P(N(0, 1) > 2)
    assert bootstrap_p_value(-differences) == bootstrap_p_value(differences)
    assert bootstrap_p_value(np.full(99, 1.0)) == pytest.approx(0.02)
    assert bootstrap_p_value(np.zeros(99)) == 1.0
    assert math.isnan(bootstrap_p_value(np.full(5, np.nan)))
    assert all(map(math.isnan, percentile_interval(np.full(5, np.nan))))


def test_resampled_rows_vary_like_a_mean_over_rows_and_within_them():
    """Both levels: a drawn row is one of R, and its value one of B, each independent of the other draws."""
    rng = np.random.default_rng(2)
    values = rng.normal(size=(6, 1)) + 0.5 * rng.normal(size=(6, 40_000))
    drawn = resample_rows(values, np.random.default_rng(3))
    between, within = values.mean(axis=1).var(), values.var(axis=1).mean()
    assert drawn.mean() == pytest.approx(values.mean(), abs=0.01)
    assert drawn.var() == pytest.approx((between + within) / 6, rel=0.03)
    other = resample_rows(values - 0.25, np.random.default_rng(3))
    np.testing.assert_allclose(drawn - other, 0.25)
    np.testing.assert_array_equal(resample_rows(values[:1], np.random.default_rng(3)), values[0])
    values[2] = np.nan  # a cohort without a class
    assert np.isnan(resample_rows(values, np.random.default_rng(3))).all()
