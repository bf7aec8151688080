import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from poddistill.evaluation.statistics import (
    auprc,
    auroc,
    sensitivity,
    sensitivity_at_specificity,
    specificity,
    youden_threshold,
)


@pytest.fixture
def tied() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    return labels, np.round(rng.random(60) + 0.3 * labels, 1)


def test_auroc_counts_pairs_with_ties_as_half(tied):
    labels, scores = tied
    wins = [1.0 if x > y else 0.5 if x == y else 0.0 for x in scores[labels == 1] for y in scores[labels == 0]]
    assert auroc(labels, scores) == pytest.approx(np.mean(wins), abs=1e-12)
    assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))


def test_auroc_follows_the_ranks_alone(tied):
    labels, scores = tied
    assert auroc(labels, np.exp(5 * scores)) == pytest.approx(auroc(labels, scores))
    assert auroc(labels, -scores) == pytest.approx(1 - auroc(labels, scores))


def test_auprc_is_average_precision(tied):
    labels, scores = tied
    assert auprc(labels, scores) == pytest.approx(average_precision_score(labels, scores))
    # Ranked + - +: precision 1 at recall 1/2, 2/3 at recall 1.
    assert auprc(np.array([1, 0, 1]), np.array([0.9, 0.8, 0.7])) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_sensitivity_and_specificity_by_hand():
    labels = np.array([1, 1, 1, 1, 0, 0])
    scores = np.array([0.9, 0.5, 0.4, 0.1, 0.5, 0.2])
    assert sensitivity(labels, scores, 0.5) == 0.5  # the score at the threshold counts as positive
    assert specificity(labels, scores, 0.5) == 0.5


@pytest.mark.parametrize("least", [0.8, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("decimals", [1, 6])
def test_sensitivity_at_a_specificity_is_a_point_of_the_roc_curve(least, decimals):
    rng = np.random.default_rng(1)
    for size in (20, 40, 101):  # 5 % of 20 negatives are exactly one false alarm
        labels = np.repeat([0, 1], [size, 30])
        scores = np.round(rng.normal(size=size + 30) + labels, decimals)
        false_positive, true_positive, _ = roc_curve(labels, scores, drop_intermediate=False)
        expected = true_positive[false_positive <= 1 - least + 1e-12].max()
        assert sensitivity_at_specificity(labels, scores, least) == pytest.approx(expected)


@pytest.mark.parametrize("label", [0, 1])
def test_a_missing_class_gives_nan(label):
    labels, scores = np.full(4, label), np.linspace(0, 1, 4)
    assert math.isnan(auroc(labels, scores))
    assert math.isnan(auprc(labels, scores))
    assert math.isnan(youden_threshold(labels, scores))
    assert math.isnan(sensitivity_at_specificity(labels, scores, 0.95))
    assert math.isnan(sensitivity(labels, scores, 0.5)) == (label == 0)
    assert math.isnan(specificity(labels, scores, 0.5)) == (label == 1)


def test_without_a_specificity_to_keep_every_case_is_found():
    assert sensitivity_at_specificity(np.array([0, 0, 1, 1]), np.array([0.8, 0.9, 0.1, 0.2]), 0.0) == 1


def test_youden_threshold_lies_between_separated_classes():
    assert youden_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.9])) == pytest.approx(0.4)


def test_youden_threshold_breaks_ties_towards_sensitivity():
    # J = 1/2 both at 0.25 (sensitivity 1, specificity 1/2) and at 0.75 (sensitivity 1/2, specificity 1).
    labels, scores = np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.6, 0.9])
    assert youden_threshold(labels, scores) == pytest.approx(0.25)
    assert youden_threshold(labels[::-1], scores[::-1]) == pytest.approx(0.25)


def test_youden_threshold_maximises_j(tied):
    labels, scores = tied
    chosen = youden_threshold(labels, scores)
    best = max(sensitivity(labels, scores, t) + specificity(labels, scores, t) for t in np.linspace(-0.05, 1.4, 300))
    assert sensitivity(labels, scores, chosen) + specificity(labels, scores, chosen) == pytest.approx(best)


def test_youden_threshold_of_a_useless_score_calls_everything_positive():
    labels, scores = np.array([0, 1]), np.array([0.5, 0.5])
    assert sensitivity(labels, scores, youden_threshold(labels, scores)) == 1
