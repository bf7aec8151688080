"""The linear probe of pre-trained encoders learns nothing of the patients that it scores."""

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score


@pytest.fixture
def scores(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("mae_probe_scores")


def cases_of(scores: ModuleType, patients: int, volumes: int):
    labels = np.repeat(np.arange(patients) % 3 == 0, volumes).astype(int)
    return scores.Cases(torch.zeros(len(labels), 1, 2, 2, 2), labels, np.repeat(np.arange(patients), volumes))


def test_a_patients_other_volume_is_no_help(scores: ModuleType):
    cases = cases_of(scores, patients=60, volumes=2)
    of_patient = np.random.default_rng(0).normal(size=(60, 100))  # tells patients apart, and nothing of the label
    probabilities = scores.probe(cases, np.repeat(of_patient, 2, axis=0))
    assert roc_auc_score(cases.labels, probabilities) < 0.8


def test_a_feature_that_tells_is_found(scores: ModuleType):
    cases = cases_of(scores, patients=60, volumes=2)
    features = np.random.default_rng(0).normal(size=(120, 4))
    features[:, 2] += 4 * cases.labels
    assert roc_auc_score(cases.labels, scores.probe(cases, features)) > 0.95


def test_the_difference_is_that_of_the_means_over_seeds(scores: ModuleType):
    cases = cases_of(scores, patients=60, volumes=2)
    noise = np.random.default_rng(0).normal(size=(4, 120))
    better, worse = noise[:2] + 3 * cases.labels, noise[2:] + cases.labels
    found = scores.auroc_difference(cases, better, worse)
    expected = np.mean([roc_auc_score(cases.labels, one) for one in better])
    expected -= np.mean([roc_auc_score(cases.labels, one) for one in worse])
    assert found.mean == pytest.approx(expected)
    assert 0 < found.low < expected < found.high
    assert scores.auroc_difference(cases, better, better) == (0, 0, 0)
