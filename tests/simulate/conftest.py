"""A small simulated cohort, written once."""

from pathlib import Path

import pytest

from data_modules.simulate.cohort import simulate_cohort
from data_modules.simulate.settings import SimulationSettings


@pytest.fixture(scope="session")
def small_settings() -> SimulationSettings:
    return SimulationSettings(
        seed=7,
        n_labelled=12,
        n_unlabelled=8,
        n_clips=20,
        n_both=2,
        volume_shape=(8, 32, 32),
        clip_shape=(8, 32, 32),
        label_noise=0.3,
    )


@pytest.fixture(scope="session")
def small_cohort(small_settings: SimulationSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "hospital"
    simulate_cohort(out, small_settings)
    return out
