"""DeLong's variance against an explicit reference and against published analyses."""

import numpy as np
import pytest
from scipy import stats

from poddistill.evaluation.delong import delong_covariance, logit_interval, score_interval

# The 43 complete records of DeLong, DeLong & Clarke-Pearson (Biometrics 1988), as printed in the SAS/STAT User's Guide,
# "Comparing Receiver Operating Characteristic Curves": albumin, total protein, K-G total score (low is good), outcome.
OVARIAN = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1  3.8 5.7 5 1
3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0  2.3 4.4 6 1  4.2 7.6 4 0
4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1  3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1
4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0  3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1
2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1  3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
"""


def placements_of_pairs(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """V10 (m,) and V01 (n,), pair by pair."""
    x, y = scores[labels == 1], scores[labels == 0]
    psi = np.array([[1.0 if a > b else 0.5 if a == b else 0.0 for b in y] for a in x])
    return psi.mean(axis=1), psi.mean(axis=0)


@pytest.fixture
def tied() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    labels = rng.permutation(np.repeat([0, 1], [37, 18]))
    scores = np.round(rng.normal(size=(3, 55)) + labels + rng.normal(size=55), 1)
    return labels, scores


def test_covariance_equals_that_of_explicit_placements(tied):
    labels, scores = tied
    v10, v01 = (np.array(v) for v in zip(*(placements_of_pairs(labels, row) for row in scores), strict=True))
    aurocs, covariance = delong_covariance(labels, scores)
    np.testing.assert_allclose(aurocs, v10.mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(v10) / v10.shape[1] + np.cov(v01) / v01.shape[1], atol=1e-12)


def test_delongs_own_example_matches_the_published_analysis():
    albumin, protein, kg_score, outcome = np.array(OVARIAN.split(), dtype=float).reshape(-1, 4).T
    aurocs, covariance = delong_covariance(outcome.astype(int), np.vstack([albumin, 10 - kg_score, protein]))
    np.testing.assert_allclose(aurocs, [0.7366, 0.7258, 0.6478], atol=5e-5)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), [0.0927, 0.1028, 0.1000], atol=5e-5)
    for other, difference, error in ((0, 0.0108, 0.0953), (2, -0.0780, 0.1046)):
        variance = covariance[other, other] + covariance[1, 1] - 2 * covariance[other, 1]
        assert aurocs[other] - aurocs[1] == pytest.approx(difference, abs=5e-5)
        assert np.sqrt(variance) == pytest.approx(error, abs=5e-5)


def test_patients_with_one_case_each_are_no_clusters(tied):
    labels, scores = tied
    names = np.array([f"p{index}" for index in range(len(labels))])
    np.testing.assert_allclose(delong_covariance(labels, scores, names)[1], delong_covariance(labels, scores)[1])


def test_repeated_cases_of_a_patient_add_no_information(tied):
    labels, scores = tied
    once = delong_covariance(labels, scores)[1]
    patients = np.arange(len(labels))
    thrice = delong_covariance(np.tile(labels, 3), np.tile(scores, 3), np.tile(patients, 3))[1]
    np.testing.assert_allclose(thrice, once, rtol=1e-10)
    ignoring_patients = delong_covariance(np.tile(labels, 3), np.tile(scores, 3))[1]
    assert np.all(np.diag(ignoring_patients) < 0.4 * np.diag(once))


def test_clusters_of_both_classes_match_the_jackknife_over_patients():
    """A patient with several cases of either class: Obuchowski's variance is close to deleting patients one by one."""
    rng = np.random.default_rng(2)
    patients = np.repeat(np.arange(80), 3)
    labels = rng.integers(0, 2, 240)
    scores = (rng.normal(size=80)[patients] + 0.8 * rng.normal(size=240) + labels)[None]
    deleted = [delong_covariance(labels[k], scores[:, k])[0][0] for k in (patients != p for p in range(80))]
    jackknife = 79 / 80 * np.sum((deleted - np.mean(deleted)) ** 2)
    assert delong_covariance(labels, scores, patients)[1][0, 0] == pytest.approx(jackknife, rel=0.05)


def test_too_few_patients_leave_the_variance_undefined():
    aurocs, covariance = delong_covariance(np.array([1, 0, 0]), np.array([[0.9, 0.1, 0.2]]))
    assert aurocs[0] == 1.0
    assert np.isnan(covariance).all()
    aurocs, covariance = delong_covariance(np.array([0, 0, 0]), np.array([[0.9, 0.1, 0.2]]))
    assert np.isnan(aurocs).all()
    assert np.isnan(covariance).all()


def test_intervals_stay_inside_the_unit_interval_and_hold_the_estimate():
    for auroc, variance in ((0.99, 0.01), (0.5, 0.01), (0.02, 0.005)):
        low, high = logit_interval(auroc, variance)
        assert 0 < low < auroc < high < 1
    for auroc in (0.0, 0.03, 0.5, 0.97, 1.0):
        low, high = score_interval(auroc, [(12, 30)])
        assert 0 <= low <= auroc <= high <= 1
        assert high - low > 0.05


def test_perfect_separation_proves_more_with_more_patients():
    lows = [score_interval(1.0, [(n, n)])[0] for n in (3, 10, 100)]
    assert lows[0] < lows[1] < lows[2] < 1
    assert lows[0] < 0.7
    assert score_interval(1.0, [(10, 10), (10, 10)])[0] > lows[1]


def test_coverage_of_the_logit_interval_near_one():
    rng = np.random.default_rng(3)
    truth, labels = 0.95, np.repeat([1, 0], [12, 38])
    scores = rng.normal(size=(2000, 50)) + np.sqrt(2) * stats.norm.ppf(truth) * labels
    covered_logit = covered_plain = 0
    for row in scores:
        aurocs, covariance = delong_covariance(labels, row[None])
        auroc, variance = float(aurocs[0]), float(covariance[0, 0])
        low, high = logit_interval(auroc, variance) if variance > 0 else score_interval(auroc, [(12, 38)])
        covered_logit += low <= truth <= high
        covered_plain += abs(auroc - truth) <= 1.96 * np.sqrt(variance)
    assert 0.93 <= covered_logit / 2000 <= 0.97
    assert covered_plain / 2000 < 0.88
