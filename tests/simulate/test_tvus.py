from dataclasses import replace

import numpy as np
import pytest

from data_modules.simulate import tvus
from data_modules.simulate.anatomy import patient_anatomy
from data_modules.simulate.settings import SimulationSettings
from data_modules.simulate.streams import Stream, generator
from data_modules.simulate.tvus import drag, draw_sweep, simulate_clip

SETTINGS = SimulationSettings(seed=2)


def test_a_clip_can_be_made_alone_and_in_any_order():
    alone = simulate_clip(SETTINGS, 4, 1)
    again = {patient: simulate_clip(SETTINGS, patient, 1) for patient in (5, 4)}
    assert np.array_equal(alone, again[4])
    assert not np.array_equal(alone, again[5])
    assert alone.shape == (16, 64, 64)
    assert alone.dtype == np.uint8


def test_the_picture_is_a_sector_with_the_probe_on_top():
    clips = np.concatenate([simulate_clip(SETTINGS, patient, 0) for patient in range(8)])
    ever = clips.max(axis=0)
    assert not ever[:4, :4].any()
    assert not ever[:4, -4:].any()
    assert not ever[0, 31:33].any()  # the probe itself
    assert np.mean(ever[20:50, 10:-10] > 0) > 0.99


def test_without_motion_only_the_receiver_noise_changes(monkeypatch):
    still = lambda rng: replace(  # noqa: E731
        draw_sweep(rng), amplitude=0.0, own=np.zeros(3), wander=np.zeros((2, 2)), rock=0.0, noise=0.0
    )
    monkeypatch.setattr(tvus, "draw_sweep", still)
    clip = simulate_clip(SETTINGS, 3, 0)
    assert np.array_equal(clip, np.repeat(clip[:1], 16, axis=0))
    # A single picture is the same for both labels unless the uterus is turned: the disease shows in the motion.
    for patient in range(5):
        free, obliterated = (patient_anatomy(SETTINGS, patient, label, pressed=True) for label in (0, 1))
        if free.retroverted == obliterated.retroverted:
            assert np.array_equal(simulate_clip(SETTINGS, patient, 0), simulate_clip(SETTINGS, patient, 1))


def test_a_tethered_rectum_follows_and_a_free_one_glides():
    shares = np.array(
        [
            [
                drag(
                    patient_anatomy(SETTINGS, patient, label, pressed=True),
                    draw_sweep(generator(SETTINGS.seed, patient, Stream.TVUS)),
                )
                for patient in range(300)
            ]
            for label in (0, 1)
        ]
    )
    assert shares[0].min() >= 0
    assert shares[0].max() <= 0.32
    assert shares[1].mean() == pytest.approx(0.55 + 0.4 * 3 / 4.6, abs=0.02)


def test_more_frames_and_pixels_show_the_same_sweep():
    fine = SimulationSettings(seed=2, clip_shape=(32, 128, 128))
    for patient in range(3):
        coarse = simulate_clip(SETTINGS, patient, 0).astype(float)
        pooled = simulate_clip(fine, patient, 0)[::2].reshape(16, 64, 2, 64, 2).mean(axis=(2, 4))
        assert np.corrcoef(coarse.ravel(), pooled.ravel())[0, 1] > 0.9
