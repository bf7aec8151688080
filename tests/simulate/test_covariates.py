import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from data_modules.simulate.covariates import draw_covariates, share_with_sign


def _draw(strength, severity):
    rng = np.random.default_rng(0)
    return [draw_covariates(rng, severity, False, False, strength) for _ in range(2000)]


def test_useless_covariates_do_not_depend_on_the_disease():
    assert _draw(strength=0, severity=0.0) == _draw(strength=0, severity=0.9)


@pytest.mark.parametrize(("name", "low", "high"), [("age", 0.45, 0.55), ("pain", 0.65, 0.8), ("ca125", 0.65, 0.8)])
def test_covariates_of_strength_one_separate_the_classes_moderately(name, low, high):
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 2000)
    values = [getattr(draw_covariates(rng, 0.65 * label, False, False, 1.0), name) for label in labels]
    assert low < roc_auc_score(labels, values) < high


def test_share_with_sign_gives_the_odds_ratio_back():
    free, diseased = (share_with_sign(0.2, 3.0, disease, 1.0) for disease in (0, 1))
    assert free == pytest.approx(0.2)
    assert diseased / (1 - diseased) / (free / (1 - free)) == pytest.approx(3.0)
