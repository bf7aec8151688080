from dataclasses import fields

import numpy as np
import pytest
from scipy.spatial import cKDTree

from data_modules.simulate.anatomy import patient_anatomy
from data_modules.simulate.settings import SimulationSettings

SETTINGS = SimulationSettings(seed=5)


def test_the_label_leaves_every_nuisance_untouched():
    for patient in range(20):
        free, obliterated = (patient_anatomy(SETTINGS, patient, label).nuisance for label in (0, 1))
        for field in fields(free):
            assert np.array_equal(getattr(free, field.name), getattr(obliterated, field.name)), field.name


def test_the_rectum_comes_as_close_as_the_gap_says():
    """Checked on the organs' outlines, drawn as polygons of points."""
    circle = np.linspace(0, 2 * np.pi, 73)
    ring = np.stack([np.cos(circle), np.sin(circle)], axis=1)
    for patient in range(15):
        for label in (0, 1):
            anatomy = patient_anatomy(SETTINGS, patient, label)
            uterus, rectum = (
                (tube.centres[:, None] + tube.radii[:, None, None] * ring).reshape(-1, 2)
                for tube in (anatomy.uterus, anatomy.rectum)
            )
            nearest = cKDTree(uterus).query(rectum)[0].min()
            assert nearest == pytest.approx(anatomy.gap, abs=0.8), (patient, label)


def test_both_classes_have_their_rectum_in_the_same_place():
    """The mean positions differ by less than a third of their spread, for the two organs share the approach."""
    positions = np.array(
        [
            [
                anatomy.rectum.centres[np.linalg.norm(anatomy.rectum.centres - anatomy.site, axis=1).argmin()]
                for anatomy in (patient_anatomy(SETTINGS, patient, label) for patient in range(250))
            ]
            for label in (0, 1)
        ]
    )
    shift = positions[1].mean(axis=0) - positions[0].mean(axis=0)
    assert np.abs(shift / positions.std(axis=(0, 1))).max() < 1 / 3


def test_signs_have_the_frequencies_that_the_settings_ask_for():
    settings = SimulationSettings(close_free=0.6, covariate_strength=0)
    free, obliterated = ([patient_anatomy(settings, i, label) for i in range(600)] for label in (0, 1))
    assert np.mean([a.gap <= 3.25 for a in free]) == pytest.approx(0.6, abs=0.06)
    # Useless covariates: the flip of the label changes nobody's.
    assert [a.endometrioma for a in free] == [a.endometrioma for a in obliterated]
    assert [a.retroverted for a in free] == [a.retroverted for a in obliterated]

    tied = [patient_anatomy(SimulationSettings(covariate_strength=1), i, 1) for i in range(600)]
    assert np.mean([a.endometrioma for a in free]) == pytest.approx(0.12, abs=0.04)
    assert np.mean([a.endometrioma for a in tied]) == pytest.approx(0.29, abs=0.05)  # odds ratio 3


def test_under_the_probe_the_gap_says_nothing():
    for patient in range(10):
        gaps = {patient_anatomy(SETTINGS, patient, label, pressed=True).gap for label in (0, 1)}
        assert len(gaps) == 1
