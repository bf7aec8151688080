import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from data_modules.simulate.covariates import draw_covariates, share_with_sign


def _draw(strength, severity):
    rng = np.random.default_rng(0)
    return [draw_covariates(rng, severity, False, False, strength) for _ in range(2000)]


def test_useless_covariates_do_not_depend_on_the_disease():
    assert _draw(strength=0, severity=0.0) == _draw(strength=0, severity=0.9)


STRENGTHS = [
    *((name, 0.65, 0.8) for name in ("pain", "ca125")),
    ("dyschezia", 0.6, 0.7),
    *((name, 0.53, 0.65) for name in ("dysmenorrhea", "dyspareunia", "infertility", "surgery")),
    *((name, 0.47, 0.53) for name in ("age", "bmi", "cycle_length", "smoking")),
]


@pytest.mark.parametrize(("name", "low", "high"), STRENGTHS)
def test_covariates_of_strength_one_separate_the_classes_moderately(name, low, high):
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 2000)
    values = [getattr(draw_covariates(rng, 0.65 * label, False, False, 1.0), name) for label in labels]
    assert low < roc_auc_score(labels, values) < high


def test_share_with_sign_gives_the_odds_ratio_back():
    free, diseased = (share_with_sign(0.2, 3.0, disease, 1.0) for disease in (0, 1))
    assert free == pytest.approx(0.2)
    assert diseased / (1 - diseased) / (free / (1 - free)) == pytest.approx(3.0)


def test_recorded_signs_have_their_odds_ratio_and_pain_scores_go_together():
    rng = np.random.default_rng(2)
    free, diseased = (
        [draw_covariates(rng, severity, False, False, 1.0) for _ in range(8000)] for severity in (0, 0.65)
    )
    for name, ratio in (("infertility", 1.8), ("surgery", 2.0), ("smoking", 1.0)):
        p, q = (np.mean([getattr(one, name) for one in group]) for group in (free, diseased))
        assert q / (1 - q) / (p / (1 - p)) == pytest.approx(ratio, rel=0.15)
    scores = np.array([[one.pain, one.dysmenorrhea, one.dyspareunia, one.dyschezia, one.bmi] for one in free])
    correlation = np.corrcoef(scores.T)
    assert (correlation[0, 1:4] > 0.4).all()
    assert abs(correlation[0, 4]) < 0.05
