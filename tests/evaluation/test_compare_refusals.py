"""What a comparison refuses, and what it notes of cases and runs that it cannot use."""

import pandas as pd
import pytest

from data_modules.errors import InputError
from poddistill.evaluation.compare import compare


def edit(path, change) -> None:
    table = pd.read_csv(path)
    change(table).to_csv(path, index=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"baseline": "studnet"}, "--baseline studnet: no such method with predictions; choose one of student"),
        ({"margin": 0.0}, "--margin must be a difference in AUROC between 0 and 1, such as 0.01, not 0"),
        ({"margin": float("nan")}, "--margin must be"),
        ({"further": [("student", "kd")]}, "--pair kd: no such method with predictions; choose among student"),
        ({"further": [("student", "student")]}, "--pair student student: they are one, or are compared already"),
    ],
)
def test_wrong_options_are_refused(write_run, tmp_path, options, message):
    write_run("student")
    with pytest.raises(InputError, match=message):
        compare([tmp_path / "runs"], tmp_path / "out", resamples=20, **options)


def test_only_labelled_test_cases_count(write_run, tmp_path):
    path = write_run("student") / "predictions.csv"

    def spoil(table):
        train = table["split"] == "train"
        table.loc[train, "probability"] = 1 - table.loc[train, "label"]
        unlabelled = table[table["split"] == "test"].head(4).assign(label=None, probability=0.5)
        unlabelled["case_id"] = ["u1", "u2", "u3", "u4"]
        return pd.concat([table, unlabelled])

    before = compare([path.parent], tmp_path / "a", resamples=50)
    edit(path, spoil)
    after = compare([path.parent], tmp_path / "b", resamples=50)
    pd.testing.assert_frame_equal(before.table, after.table)


def test_seeds_tested_on_different_cases_are_refused(study, tmp_path):
    path = study / "seed1-fold0" / "student" / "predictions.csv"
    edit(path, lambda table: table.drop(index=table.index[table["split"] == "test"][0]))
    with pytest.raises(InputError, match="different test cases or labels") as error:
        compare([study], tmp_path / "out")
    assert "seed0-fold0/student" in str(error.value)
    assert "seed1-fold0/student" in str(error.value)


@pytest.mark.parametrize("renamed", [False, True])
def test_a_patient_tested_in_two_folds_is_refused(study, tmp_path, renamed):
    for seed in range(2):
        path = study / f"seed{seed}-fold1" / "student" / "predictions.csv"
        cases = (study / f"seed{seed}-fold0" / "student" / "predictions.csv").read_text()
        path.write_text(cases.replace("mri-0", "second-examination-0") if renamed else cases)
    with pytest.raises(InputError, match="student: patient mri-patient-000 is tested in two folds"):
        compare([study], tmp_path / "out")


def test_methods_whose_cases_overlap_in_part_get_a_note_instead_of_a_difference(write_run, tmp_path):
    write_run("student")
    path = write_run("student-kd") / "predictions.csv"
    edit(path, lambda table: table.drop(index=table.index[table["split"] == "test"][0]))
    result = compare([tmp_path / "runs"], tmp_path / "out", resamples=50)
    assert result.differences.empty
    (note,) = result.notes
    assert "student and student-kd are not compared: their test cases or labels differ (29 cases in common)" in note


def test_a_pair_with_one_common_seed_says_so(write_run, tmp_path):
    for seed in range(3):
        write_run("student", seed)
    write_run("student-kd", 1)
    (note,) = compare([tmp_path / "runs"], tmp_path / "out", resamples=50).notes
    assert note.startswith("student and student-kd share a single seed of a fold: ")


def test_folds_of_one_seed_each_are_not_called_several_seeds(write_run, tmp_path):
    for fold in range(3):
        write_run("student", seed=fold, fold=fold)
    result = compare([tmp_path / "runs"], tmp_path / "out", resamples=50)
    assert "One seed a method: the intervals speak of the patients" in result.page.read_text()


def test_without_usable_validation_cases_the_threshold_is_one_half_and_noted(write_run, tmp_path):
    path = write_run("student") / "predictions.csv"
    edit(path, lambda table: table[table["split"] != "val"])
    result = compare([path.parent], tmp_path / "out", resamples=50)
    assert result.table["threshold"].tolist() == [0.5]
    assert "student, seed 0, fold 0: no labelled validation cases of both classes" in result.notes[0]


def test_one_class_leaves_ranking_figures_empty_and_is_noted(write_run, tmp_path):
    path = write_run("student") / "predictions.csv"
    edit(path, lambda table: table[(table["split"] != "test") | (table["label"] == 0)])
    result = compare([path.parent], tmp_path / "out", resamples=50)
    row = pd.read_csv(tmp_path / "out" / "comparison.csv").iloc[0]
    assert row[["auroc", "auroc_low", "auprc", "sensitivity"]].isna().all()
    assert 0 <= row["specificity"] <= 1
    assert any("one class only" in note for note in result.notes)
    assert "one class only" in (tmp_path / "out" / "index.html").read_text()


def test_runs_without_test_predictions_are_refused(write_run, write_mae, tmp_path):
    path = write_run("student") / "predictions.csv"
    edit(path, lambda table: table[table["split"] != "test"])
    with pytest.raises(InputError, match=r"predictions\.csv: no labelled case in the test split"):
        compare([path.parent], tmp_path / "out")
    with pytest.raises(InputError, match=r"runs without predictions\.csv only"):
        compare([write_mae()], tmp_path / "out")


def test_an_unwritable_folder_is_one_line(write_run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write there"):
        compare([write_run("student")], tmp_path / "file" / "out", resamples=20)
    (tmp_path / "out" / "index.html").mkdir(parents=True)
    with pytest.raises(InputError, match="cannot write there"):
        compare([tmp_path / "runs"], tmp_path / "out", resamples=20)


def test_other_numbers_of_labels_are_told(write_run, tmp_path):
    """As of an arm that was trained later, with another option of the profile, into the same folder."""
    config = (
        "method: x\ndata:\n  init_args:\n    mri:\n      init_args:\n        n_labelled: {}\n        label_noise: 0.0\n"
    )
    config += "    tvus:\n      init_args:\n        n_labelled: null\nprofile:\n  n_labelled: 80\n"
    for method, labels in (("student", "12"), ("student-mae", "null"), ("student-paper", "12"), ("student-kd", None)):
        folder = write_run(method)
        if labels:
            (folder / "config.yaml").write_text(config.format(labels))
    notes = compare([tmp_path / "runs"], tmp_path / "out", resamples=20).notes
    told = [note for note in notes if "were not trained with the same labels" in note]
    assert len(told) == 2, "student-paper has as many as student, and of student-kd nobody knows"
    assert told[0].startswith(
        "student and student-mae were not trained with the same labels (n_labelled 12 and all in "
    )
    assert told[1].startswith("student-mae and student-paper were not")
