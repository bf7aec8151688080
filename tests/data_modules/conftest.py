from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_modules.cohort import assign_folds, write_manifest
from data_modules.store import write_array

CASES = (1, 1, 2, 1, 3)  # of patient number modulo 5


@pytest.fixture
def write_cohort(tmp_path: Path) -> Callable[..., Path]:
    """Writes a cohort of small arrays, each filled with a value of its patient, and returns its folder.

    MRI patients p0 ... are labelled 1, 0, 0, 1, 0, 0, ... and then unlabelled; TVUS patients start at ``tvus_from``. Of
    every five patients one has two cases of a modality and one has three, all with her label.
    """

    def write(
        n_labelled: int = 30, n_unlabelled: int = 12, n_tvus: int = 20, tvus_from: int = 20, name: str = "cohort"
    ) -> Path:
        cohort = tmp_path / name
        tables = {}
        for modality, patients in (
            ("mri", range(n_labelled + n_unlabelled)),
            ("tvus", range(tvus_from, tvus_from + n_tvus)),
        ):
            rows = []
            for number, place in ((n, place) for n in patients for place in range(CASES[n % 5])):
                labelled = modality == "tvus" or number < n_labelled
                case_id = f"{modality}-p{number:03d}-{place + 1}"
                path = f"{modality}/{case_id}.npy"
                value = number / 64 if modality == "mri" else number
                array = np.full((4, 6, 8), value, np.float16 if modality == "mri" else np.uint8)
                write_array(cohort / path, array, {"case_id": case_id})
                label = float(number % 3 == 0) if labelled else np.nan
                rows.append({"case_id": case_id, "patient_id": f"p{number:03d}", "path": path, "label": label})
            if rows:
                tables[modality] = pd.DataFrame(rows)
        folds = assign_folds(tables)
        for modality, table in tables.items():
            table["fold"] = table["patient_id"].map(folds)
            table["age"] = 30.0
            write_manifest(cohort, modality, table)
        return cohort

    return write
