import csv
import hashlib

import numpy as np
import pydicom
import pytest

from data_modules.errors import InputError
from data_modules.simulate.cohort import simulate_cohort
from data_modules.simulate.mri import patient_site
from data_modules.simulate.roster import examinations
from data_modules.simulate.settings import SimulationSettings


def _read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def _digests(folder):
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_every_row_names_a_file_and_every_file_has_a_row(small_cohort, small_settings):
    for modality, count in (("mri", 20), ("tvus", 20)):
        rows = _read(small_cohort / modality / "labels.csv")
        assert len(rows) == len({row["patient_id"] for row in rows}) == count
        named = [small_cohort / modality / row["path"] for row in rows]
        files = {path for path in (small_cohort / modality).rglob("*") if path.is_file()}
        covered = {file for path in named for file in ([path] if path.is_file() else path.iterdir())}
        assert files - covered == {small_cohort / modality / "labels.csv"}
    labels = [row["label"] for row in _read(small_cohort / "mri" / "labels.csv")]
    assert labels.count("") == small_settings.n_unlabelled


def test_patients_differ_between_the_modalities_but_for_n_both(small_cohort, small_settings):
    mri, tvus = ({row["patient_id"] for row in _read(small_cohort / name / "labels.csv")} for name in ("mri", "tvus"))
    assert len(mri & tvus) == small_settings.n_both
    truth = _read(small_cohort / "truth.csv")
    for patient in mri & tvus:
        assert len({row["label"] for row in truth if row["patient_id"] == patient}) == 1


def test_the_truth_differs_from_the_written_labels_by_the_noise_alone(small_cohort, small_settings):
    truth = {(row["modality"], row["patient_id"]): row for row in _read(small_cohort / "truth.csv")}
    flipped = []
    for modality in ("mri", "tvus"):
        for row in _read(small_cohort / modality / "labels.csv"):
            true = truth[modality, row["patient_id"]]
            assert (float(true["severity"]) > 0) == (true["label"] == "1")
            if row["label"]:
                flipped.append(row["label"] != true["label"])
    assert 0.1 < np.mean(flipped) < 0.5


def test_hospitals_may_be_the_folds_of_labelled_mri(tmp_path):
    settings = SimulationSettings(
        n_labelled=12,
        n_unlabelled=3,
        n_clips=2,
        n_sites=3,
        site_folds=1,
        volume_shape=(4, 32, 32),
        clip_shape=(4, 32, 32),
    )
    simulate_cohort(tmp_path / "cohort", settings)
    rows = _read(tmp_path / "cohort" / "mri" / "labels.csv")
    sites = sorted(patient_site(settings, patient) for patient in range(12))
    assert sorted(int(row["fold"]) for row in rows if row["label"]) == sites
    assert {row["fold"] for row in rows if not row["label"]} == {""}
    assert "fold" not in _read(tmp_path / "cohort" / "tvus" / "labels.csv")[0]
    with pytest.raises(InputError, match="site_folds is 1, but must be 0, or 1 with n_sites of at least 3"):
        SimulationSettings(n_sites=2, site_folds=1)


def test_files_carry_the_identifiers_that_an_importer_must_strip(small_cohort):
    rows = [row for row in _read(small_cohort / "mri" / "labels.csv") if row["label"]]
    image = pydicom.dcmread(next((small_cohort / "mri" / rows[0]["path"]).iterdir()))
    assert image.PatientID == rows[0]["patient_id"]
    assert "^" in image.PatientName
    assert len(image.PatientBirthDate) == 8
    assert image.PatientAge == f"{int(rows[0]['age']):03d}Y"


def test_the_files_depend_on_the_settings_alone(small_cohort, small_settings, tmp_path):
    simulate_cohort(tmp_path / "again", small_settings, workers=2)
    assert _digests(tmp_path / "again") == _digests(small_cohort)


def test_groups_hold_their_prevalence_and_do_not_depend_on_each_others_size():
    small = examinations(SimulationSettings(n_labelled=40, n_unlabelled=100, n_clips=60, prevalence=0.3))
    large = examinations(SimulationSettings(n_labelled=40, n_unlabelled=300, n_clips=60, prevalence=0.3))
    labelled = [e for e in small if e.modality == "mri" and e.written_label is not None]
    assert sum(e.label for e in labelled) == 12
    assert labelled == [e for e in large if e.modality == "mri" and e.written_label is not None]
    assert [e for e in small if e.modality == "tvus"] == [e for e in large if e.modality == "tvus"]
    assert sum(e.label for e in small if e.modality == "tvus") == 18


def test_an_existing_folder_is_not_touched(small_settings, tmp_path):
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(InputError, match="not an empty folder") as error:
        simulate_cohort(tmp_path, small_settings)
    assert "\n" not in str(error.value)
    assert [file.name for file in tmp_path.iterdir()] == ["kept.txt"]


def test_an_empty_folder_is_filled_and_progress_counts_every_patient(tmp_path):
    out = tmp_path / "empty"
    out.mkdir()
    settings = SimulationSettings(
        n_labelled=2, n_unlabelled=1, n_clips=2, volume_shape=(4, 32, 32), clip_shape=(4, 32, 32)
    )
    seen = []
    simulate_cohort(out, settings, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
    assert {path.name for path in out.iterdir()} == {"mri", "tvus", "truth.csv", "settings.json"}


def test_an_interrupted_run_leaves_nothing_that_looks_complete(small_settings, tmp_path):
    def interrupt(done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_cohort(tmp_path / "out", small_settings, progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_no_workers_is_told_in_one_line(small_settings, tmp_path):
    with pytest.raises(InputError, match="workers is 0"):
        simulate_cohort(tmp_path / "out", small_settings, workers=0)
