import shutil
from pathlib import Path

import pandas as pd
import pytest

from data_modules.errors import InputError
from poddistill.evaluation.runs import find_runs, read_history, read_predictions

HEADER = "case_id,patient_id,split,label,probability\n"


def write(folder: Path, rows: str, header: str = HEADER) -> Path:
    path = folder / "predictions.csv"
    path.write_text(header + rows)
    return path


def refusal(path: Path) -> str:
    """The one line that the user sees."""
    with pytest.raises(InputError) as error:
        read_predictions(path)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_runs_come_in_a_fixed_order_with_seed_and_fold_from_the_folder(tmp_path, write_run, write_mae):
    for method in ("zeta", "student-kd", "alpha", "teacher", "student", "student-scratch", "student-mae"):
        write_run(method, seed=2, fold=1)
    write_run("student", seed=0, fold=1)
    write_mae(seed=2, fold=1)
    runs = find_runs([tmp_path])
    assert [(run.method, run.seed, run.fold) for run in runs] == [
        ("teacher", 2, 1),
        ("student", 0, 1),
        ("student", 2, 1),
        ("student-mae", 2, 1),
        ("student-kd", 2, 1),
        ("student-scratch", 2, 1),
        ("alpha", 2, 1),
        ("mae", 2, 1),
        ("zeta", 2, 1),
    ]
    mae = runs[-2]
    assert not mae.predictions.exists()
    assert [figure.name for figure in mae.figures] == ["reconstruction.png"]


def test_a_stage_folder_and_the_folders_above_it_name_the_same_run(tmp_path, write_run):
    stage = write_run("student")
    assert find_runs([stage]) == find_runs([stage.parent]) == find_runs([tmp_path, stage, stage])


def test_a_parent_of_another_name_means_seed_0_and_fold_0(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    write(folder, "a,p,test,1,0.5\n")
    (run,) = find_runs([folder])
    assert (run.method, run.seed, run.fold) == ("mine", 0, 0)


def test_a_folder_above_them_gives_the_cohort(tmp_path, write_run):
    write_run("student", seed=1, fold=2, replicate=12)
    first = write_run("student", replicate=3)
    runs = find_runs([tmp_path])
    assert [(run.cohort, run.seed, run.fold) for run in runs] == [(3, 0, 0), (12, 1, 2)]
    assert [run.name for run in runs] == ["student, cohort 3, seed 0, fold 0", "student, cohort 12, seed 1, fold 2"]
    shutil.copytree(first.parents[1], tmp_path / "other" / "cohort3")
    with pytest.raises(InputError, match=r"are both student, cohort 3, seed 0, fold 0; compare one profile at a time"):
        find_runs([tmp_path])


def test_a_run_twice_under_different_profiles_is_refused(tmp_path):
    for profile in ("demo", "paper"):
        folder = tmp_path / profile / "seed0-fold0" / "student"
        folder.mkdir(parents=True)
        write(folder, "a,p,test,1,0.5\n")
    with pytest.raises(InputError, match="both student, seed 0, fold 0; compare one profile at a time"):
        find_runs([tmp_path])


def test_missing_folders_and_folders_without_runs_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no such folder"):
        find_runs([tmp_path / "nowhere"])
    with pytest.raises(InputError, match=r"no predictions\.csv in it or below"):
        find_runs([tmp_path])


def test_predictions_keep_ids_as_text_and_empty_labels_as_nan(tmp_path):
    table = read_predictions(write(tmp_path, "NA,007,test,,0.25\n010,008,val,1,1\n"))
    assert table["case_id"].tolist() == ["010", "NA"]
    assert table["patient_id"].tolist() == ["008", "007"]
    assert table["label"].isna().tolist() == [False, True]
    assert table["probability"].tolist() == [1.0, 0.25]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,p,test,1,0.5\nb,q,test,0,1.5\n", "line 3: probability '1.5' must be a number in [0, 1]"),
        ("a,p,test,1,nan\n", "line 2: probability 'nan' must be a number in [0, 1]"),
        ("a,p,test,1,\n", "line 2: probability '' must be a number in [0, 1]"),
        ("a,p,test,2,0.5\n", "line 2: label '2' must be 1 (obliterated), 0 (free) or empty"),
        ("a,p,test,yes,0.5\n", "line 2: label 'yes' must be"),
        ("a,p,tset,1,0.5\n", "line 2: split 'tset' must be train, val or test"),
        ("a,p,test,1,0.5\na,p,test,1,0.6\n", "line 3: case_id 'a' is in two rows"),
        ("a,,test,1,0.5\n", "line 2: patient_id '' must not be empty"),
        ("a,p,train,1,0.5\nb,p,test,1,0.6\n", "line 3: patient_id 'p' is in test and in another split"),
    ],
)
def test_faulty_rows_are_named_by_line(tmp_path, rows, message):
    assert message in refusal(write(tmp_path, rows))


def test_missing_columns_and_unreadable_files_are_refused(tmp_path):
    assert "no column patient_id, probability" in refusal(write(tmp_path, "a,test,1\n", "case_id,split,label\n"))
    assert "not a readable CSV file" in refusal(write(tmp_path, "", header=""))
    ragged = refusal(write(tmp_path, "a,p,test,1,0.5\nb,q,test,1,0.5,0.6\n"))
    assert "Expected 5 fields in line 3, saw 6" in ragged
    assert "\n" not in ragged


def test_history_averages_the_values_of_an_epoch_and_skips_empty_cells(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,train/loss,val/loss\n0,0,4,\n0,1,2,\n0,1,,5\n1,2,1,\n")
    pd.testing.assert_series_equal(
        read_history(path, "train/loss"), pd.Series([3.0, 1.0], index=[0, 1]), check_names=False, check_index_type=False
    )
    assert read_history(path, "val/loss").to_dict() == {0: 5.0}
    assert read_history(path, "val/auroc").empty
    assert read_history(tmp_path / "missing.csv", "val/loss").empty
