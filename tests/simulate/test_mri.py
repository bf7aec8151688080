import numpy as np
import pytest

from data_modules.simulate.anatomy import patient_anatomy
from data_modules.simulate.mri import patient_site, simulate_volume
from data_modules.simulate.settings import SimulationSettings

SETTINGS = SimulationSettings(seed=2)


def _similarity(one, other):
    return np.corrcoef(one.ravel(), other.ravel())[0, 1]


def test_a_volume_can_be_made_alone_and_in_any_order():
    alone = simulate_volume(SETTINGS, 4, 1)
    again = {patient: simulate_volume(SETTINGS, patient, 1) for patient in (5, 4, 3)}
    assert np.array_equal(alone, again[4])
    assert alone.shape == (16, 48, 48)
    assert alone.dtype == np.float32
    assert 0 <= alone.min() < alone.max() <= 1
    assert _similarity(alone, again[5]) < 0.9


def test_the_other_label_changes_nothing_far_from_the_pouch():
    """The noise and all tissue in the outermost slices stay, bit by bit, unless a sign of the disease lies there."""
    unchanged = []
    for patient in range(30):
        free, obliterated = (patient_anatomy(SETTINGS, patient, label) for label in (0, 1))
        if (free.retroverted, free.endometrioma) == (obliterated.retroverted, obliterated.endometrioma):
            outer = [simulate_volume(SETTINGS, patient, label)[[0, -1]] for label in (0, 1)]
            unchanged.append(np.mean(outer[0] == outer[1]))
    assert np.mean(unchanged) > 0.9


def test_a_finer_grid_shows_the_same_picture():
    fine = SimulationSettings(seed=2, volume_shape=(32, 96, 96))
    for patient in range(3):
        pooled = simulate_volume(fine, patient, 1).reshape(16, 2, 48, 2, 48, 2).mean(axis=(1, 3, 5))
        assert _similarity(pooled, simulate_volume(SETTINGS, patient, 1)) > 0.95


def test_a_margin_enlarges_the_field_of_view_and_moves_nothing():
    plain = simulate_volume(SETTINGS, 1, 0)
    larger = simulate_volume(SETTINGS, 1, 0, margin=(2, 4, 6))
    assert larger.shape == (18, 52, 54)
    assert _similarity(larger[1:-1, 2:-2, 3:-3], plain) > 0.97


def test_the_organs_lie_where_the_axes_say():
    """H grows inferiorly, W posteriorly: the bright bladder lies in front and low, dark gas in the rectum behind."""
    volumes = np.stack([simulate_volume(SETTINGS, patient, 0) for patient in range(40)])
    middle = volumes[:, 7:9].mean(axis=(0, 1))
    low_front, high_behind = middle[26:34, 6:16].mean(), middle[14:22, 32:42].mean()
    assert low_front > high_behind + 0.1
    gassy = [i for i in range(40) if patient_anatomy(SETTINGS, i, 0).nuisance.rectum_content == "gas"]
    stool = [i for i in range(40) if patient_anatomy(SETTINGS, i, 0).nuisance.rectum_content == "stool"]
    darker = volumes[stool][:, 6:10].mean(axis=(0, 1)) - volumes[gassy][:, 6:10].mean(axis=(0, 1))
    assert np.unravel_index(darker.argmax(), darker.shape)[1] > 24


@pytest.mark.parametrize(("effect", "low", "high"), [(0.0, 0.0, 0.03), (2.0, 0.05, 1.0)])
def test_site_effect_sets_how_much_the_sites_differ(effect, low, high):
    settings = SimulationSettings(seed=1, site_effect=effect)
    patients = range(80)
    means = np.array([simulate_volume(settings, patient, 0).mean() for patient in patients])
    sites = np.array([patient_site(settings, patient) for patient in patients])
    by_site = [means[sites == site].mean() for site in range(4)]
    assert low <= max(by_site) - min(by_site) <= high
