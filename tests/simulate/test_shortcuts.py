"""What a learner could read without seeing the disease, and what it must be able to read.

Half of the fresh patients are obliterated. Scores are cross-validated AUROCs; chance lies within .5 +- .06 here.
"""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data_modules.simulate.anatomy import patient_anatomy
from data_modules.simulate.mri import simulate_volume
from data_modules.simulate.settings import SimulationSettings
from data_modules.simulate.tvus import simulate_clip

INTENSITIES_AT_MOST = 0.60
BEST_VOXEL_AT_MOST = 0.80
COARSE_VOLUME_AT_MOST = 0.89
SINGLE_FRAME_AT_MOST = 0.60
AT_THE_POUCH_AT_LEAST = 0.93
MOTION_AT_LEAST = 0.82
MOTION_LOST_BY_SHUFFLING = 0.06

SETTINGS = SimulationSettings(seed=11)
N_VOLUMES, N_CLIPS = 440, 300


@pytest.fixture(scope="module")
def volumes():
    labels = np.random.default_rng(0).permutation(np.arange(N_VOLUMES) % 2)
    return np.stack([simulate_volume(SETTINGS, i, int(y)) for i, y in enumerate(labels)]), labels


@pytest.fixture(scope="module")
def clips():
    labels = np.random.default_rng(1).permutation(np.arange(N_CLIPS) % 2)
    return np.stack([simulate_clip(SETTINGS, 10**6 + i, int(y)) for i, y in enumerate(labels)]), labels


def _score(features, labels, components=None):
    """AUROC of logistic regression in five folds, after principal components if asked."""
    steps = [StandardScaler(), LogisticRegression(C=0.03, max_iter=2000)]
    if components:
        steps = [PCA(components, svd_solver="randomized", random_state=0), *steps]
    predicted = cross_val_predict(make_pipeline(*steps), features, labels, cv=5, method="predict_proba")
    return roc_auc_score(labels, predicted[:, 1])


def _intensities(images):
    """Histogram, mean, deviation and skewness of every image, in shares of full scale."""
    flat = images.reshape(len(images), -1).astype(np.float64) / (255 if images.dtype == np.uint8 else 1)
    histograms = [np.histogram(row, 24, (0, 1))[0] / len(row) for row in flat]
    mean, deviation = flat.mean(axis=1), flat.std(axis=1)
    skewness = ((flat - mean[:, None]) ** 3).mean(axis=1) / deviation**3
    return np.column_stack([histograms, mean, deviation, skewness])


def _voxel_scores(flat, labels):
    """AUROC of every column, from rank sums."""
    ranks = flat.argsort(axis=0).argsort(axis=0)
    positives = int(labels.sum())
    negatives = len(labels) - positives
    return (ranks[labels == 1].sum(axis=0) - positives * (positives - 1) / 2) / (positives * negatives)


def _motion(clips):
    """Log mean absolute difference of successive frames, in 8 x 8 tiles."""
    change = np.abs(np.diff(clips.astype(np.float32), axis=1)).mean(axis=1)
    return np.log1p(change.reshape(-1, 8, 8, 8, 8).mean(axis=(2, 4)).reshape(len(clips), -1))


def test_intensities_of_a_volume_do_not_tell_the_label(volumes):
    assert _score(_intensities(volumes[0]), volumes[1]) < INTENSITIES_AT_MOST


def test_no_single_voxel_tells_the_label_well(volumes):
    flat, labels, half = volumes[0].reshape(N_VOLUMES, -1), volumes[1], N_VOLUMES // 2
    scores = []
    for chosen_on, scored_on in ((slice(half), slice(half, None)), (slice(half, None), slice(half))):
        on_choice = _voxel_scores(flat[chosen_on], labels[chosen_on])
        best = int(np.abs(on_choice - 0.5).argmax())
        score = roc_auc_score(labels[scored_on], flat[scored_on, best])
        scores.append(score if on_choice[best] > 0.5 else 1 - score)
    assert np.mean(scores) < BEST_VOXEL_AT_MOST


def test_a_coarse_volume_does_not_tell_the_label_well(volumes):
    coarse = volumes[0].reshape(N_VOLUMES, 16, 12, 4, 12, 4).mean(axis=(3, 5)).reshape(N_VOLUMES, -1)
    assert _score(coarse, volumes[1], components=60) < COARSE_VOLUME_AT_MOST


def test_the_pouch_tells_the_label_to_those_who_know_where_it_is(volumes):
    crops, gaps = [], []
    for patient, (volume, label) in enumerate(zip(*volumes, strict=True)):
        anatomy = patient_anatomy(SETTINGS, patient, int(label))
        mm = np.array([anatomy.uterus.z[0], anatomy.site[1], anatomy.site[0]])
        d, h, w = np.rint(mm / SETTINGS.voxel_mm + (np.array(volume.shape) - 1) / 2).astype(int) + 12
        padded = np.pad(volume, 12, mode="edge")
        crop = padded[d - 1 : d + 2, h - 5 : h + 6, w - 4 : w + 7].ravel()
        crops.append(crop / crop.mean())
        gaps.append(anatomy.gap)
    assert _score(np.array(crops), volumes[1], components=40) > AT_THE_POUCH_AT_LEAST
    # The gap alone says much, but not all: a rectum can lie close and be free.
    assert 0.8 < roc_auc_score(volumes[1], -np.array(gaps)) < 0.97


def test_a_single_frame_does_not_tell_the_label(clips):
    frame = clips[0][:, 5]
    assert _score(_intensities(frame), clips[1]) < SINGLE_FRAME_AT_MOST
    assert _score(frame.reshape(N_CLIPS, -1) / 255, clips[1], components=40) < SINGLE_FRAME_AT_MOST


def test_motion_tells_the_label_and_needs_the_order_of_the_frames(clips):
    rng = np.random.default_rng(2)
    shuffled = np.stack([clip[rng.permutation(len(clip))] for clip in clips[0]])
    in_order, out_of_order = (_score(_motion(some), clips[1]) for some in (clips[0], shuffled))
    assert in_order > MOTION_AT_LEAST
    assert out_of_order < in_order - MOTION_LOST_BY_SHUFFLING
