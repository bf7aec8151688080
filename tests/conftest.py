"""A tiny cohort that a network learns in seconds: label 1 is a bright block in a volume, a resting one in a clip."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_modules.store import write_array

FOLDS = 4


def _rows(modality: str, n: int, patients: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "case_id": [f"{modality}-{i:03d}" for i in range(n)],
            "patient_id": [f"{patients}{i:03d}" for i in range(n)],
            "path": [f"{modality}/{modality}-{i:03d}.npy" for i in range(n)],
            "label": [float(i // FOLDS % 3 == 0) for i in range(n)],
            "fold": [float(i % FOLDS) for i in range(n)],
        }
    )


@pytest.fixture(scope="session")
def tiny_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 labelled and 12 unlabelled volumes (8, 16, 16), 48 labelled clips (8, 16, 16), covariates, 4 folds.

    Three patients, of the folds 0, 1 and 2, have both examinations.
    """
    cohort = tmp_path_factory.mktemp("cohort")
    rng = np.random.default_rng(0)
    mri, tvus = _rows("mri", 72, "m"), _rows("tvus", 48, "t")
    tvus.loc[:2, "patient_id"] = mri["patient_id"][:3]
    for table in (mri, tvus):
        for column in ("age", "parity", "pain", "ca125", "endometrioma", "retroverted"):
            table[column] = rng.normal(size=len(table)) + table["label"]
    mri.loc[60:, ["label", "fold"]] = np.nan
    for case in mri.itertuples():
        volume = rng.uniform(0, 0.5, (8, 16, 16))
        volume[2:6, 4:12, 4:12] += 0.4 * (case.label == 1)
        write_array(cohort / case.path, volume.astype(np.float16), {})
    for case in tvus.itertuples():
        clip = rng.integers(0, 60, (8, 16, 16))
        for frame in range(8):
            left = frame if case.label == 0 else 4
            clip[frame, 4:12, left : left + 6] += 150
        write_array(cohort / case.path, clip.astype(np.uint8), {})
    for table, name in ((mri, "mri"), (tvus, "tvus")):
        table.astype({"label": "Int64", "fold": "Int64"}).to_csv(cohort / f"{name}.csv", index=False)
    return cohort
