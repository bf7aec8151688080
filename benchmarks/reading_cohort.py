"""The hospital files and the cohort that `reading.py` reads."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from ingest_sides import SIDES

from data_modules.cohort import Modality, write_manifest
from data_modules.simulate.cohort import simulate_cohort
from data_modules.simulate.hospital_tvus import write_avi
from data_modules.simulate.settings import SimulationSettings
from data_modules.simulate.tvus import simulate_clip

VOLUME_SHAPE = (24, 160, 160)  # slices and pixels of a volume's NIfTI file
CLIP_SHAPE, CLIP_SECONDS = (60, 400, 400), 4.0  # frames and pixels of a video
FOLDS, LABELLED = 3, 2  # labelled cases a fold; all others are unlabelled
HELD_OUT = 2 * LABELLED  # cases of the validation and the test fold


def write_nifti(folder: Path, volumes: int) -> Path:
    """Simulates volumes without a label, which are compressed NIfTI files, and returns their folder."""
    settings = SimulationSettings(n_labelled=0, n_unlabelled=volumes, n_clips=0, volume_shape=VOLUME_SHAPE)
    simulate_cohort(folder / "hospital", settings)
    return folder / "hospital/mri"


def write_videos(folder: Path, clips: int) -> Path:
    """Simulates clips, writes them as motion JPEG and returns their folder."""
    settings, avi = SimulationSettings(clip_shape=CLIP_SHAPE), folder / "avi"
    avi.mkdir()
    for clip in range(clips):
        write_avi(simulate_clip(settings, clip, clip % 2), CLIP_SECONDS, avi / f"clip{clip:03d}.avi")
    return avi


def write_cohort(cohort: Path, modality: Modality, source: Path, cases: int) -> None:
    """Ingests hospital files and repeats what is stored until there are as many training cases, each a file."""
    ingested = cohort.with_name(f"{cohort.name}-{modality}")
    SIDES[f"poddistill_{modality}"](source, ingested, 1)
    stored = sorted((ingested / modality).glob("*.npy"))
    (cohort / modality).mkdir(parents=True)
    names = [f"case{number:05d}" for number in range(cases + HELD_OUT)]
    for number, name in enumerate(names):
        shutil.copy(stored[number % len(stored)], cohort / modality / f"{name}.npy")
    write_manifest(cohort, modality, _manifest(modality, names))


def _manifest(modality: Modality, names: Sequence[str]) -> pd.DataFrame:
    labelled = range(FOLDS * LABELLED)
    return pd.DataFrame(
        {
            "case_id": names,
            "patient_id": names,
            "path": [f"{modality}/{name}.npy" for name in names],
            "label": pd.array([n // FOLDS % 2 if n in labelled else None for n in range(len(names))], "Int64"),
            "fold": pd.array([n % FOLDS if n in labelled else None for n in range(len(names))], "Int64"),
        }
    )
