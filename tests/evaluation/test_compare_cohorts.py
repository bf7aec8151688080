"""Runs in ``cohort<c>/``: replicates of a study on new patients, from folders to tables and page."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from data_modules.errors import InputError
from poddistill.evaluation.compare import Comparison, compare
from poddistill.evaluation.delong import logit_interval
from poddistill.evaluation.figures import method_colours, reliability_figure, roc_figure
from poddistill.evaluation.statistics import auprc, auroc


@pytest.fixture
def study(tmp_path, write_run) -> Path:
    """Four cohorts, a seed of its own in each, of a teacher on other patients and of two students."""
    for cohort in range(4):
        for method, separation in (("student", 2.0), ("student-scratch", 1.2)):
            write_run(method, seed=cohort, separation=separation, replicate=cohort)
        write_run("teacher", seed=cohort, cohort="tvus", replicate=cohort)
    return tmp_path / "runs"


def compared(study: Path, tmp_path: Path, resamples: int = 50) -> Comparison:
    return compare([study], tmp_path / "out", resamples=resamples)


def labels_and_scores(path: Path) -> tuple[np.ndarray, np.ndarray]:
    table = pd.read_csv(path)
    table = table[table["split"] == "test"]
    return table["label"].to_numpy(), table["probability"].to_numpy()


def aurocs(study: Path, method: str, cohorts: range = range(4)) -> np.ndarray:
    return np.array(
        [auroc(*labels_and_scores(study / f"cohort{c}/seed{c}-fold0/{method}/predictions.csv")) for c in cohorts]
    )


def test_the_difference_is_the_t_test_over_cohorts_and_every_figure_their_mean(study, tmp_path):
    result = compared(study, tmp_path)
    (row,) = result.differences.to_dict("records")
    expected = stats.ttest_1samp(aurocs(study, "student") - aurocs(study, "student-scratch"), 0)
    assert (row["low"], row["high"]) == pytest.approx(tuple(expected.confidence_interval()))
    assert row["p"] == pytest.approx(expected.pvalue)
    assert (row["n"], row["seeds"], row["cohorts"]) == (120, 4, 4)
    assert row["seeds_needed"] > 4
    assert result.differences.columns[-1] == result.table.columns[-1] == "cohorts"
    student = result.table.set_index("method").loc["student"]
    assert student["auroc"] == pytest.approx(aurocs(study, "student").mean())
    assert student["worst_seed"] == pytest.approx(aurocs(study, "student").min())
    paths = study.glob("*/*/student/predictions.csv")
    assert student["auprc"] == pytest.approx(np.mean([auprc(*labels_and_scores(path)) for path in paths]))
    assert student["auroc_low"] < student["auroc"] < student["auroc_high"]
    assert student["brier_low"] < student["brier"] < student["brier_high"]
    columns = ["n", "n_positive", "patients", "seeds", "folds", "runs", "cohorts"]
    assert student[columns].tolist() == [120, 40, 120, 4, 1, 4, 4]


def test_one_cohort_gives_the_figures_of_runs_without_cohorts(study, tmp_path):
    shutil.copytree(study / "cohort0", tmp_path / "plain")
    one, plain = compared(study / "cohort0", tmp_path), compare([tmp_path / "plain"], tmp_path / "b", resamples=50)
    pd.testing.assert_frame_equal(one.table, plain.table, check_exact=True)
    pd.testing.assert_frame_equal(one.differences, plain.differences, check_exact=True)
    assert one.page.read_text().count("ohort") == plain.page.read_text().count("ohort")


def test_the_bootstrap_resamples_cohorts_and_their_patients(study, tmp_path):
    """More resamples than 4^4 draws of cohorts: the patients vary, too, and the interval is wider than the cohorts'."""
    (row,) = compared(study, tmp_path, 2000).differences.to_dict("records")
    each = aurocs(study, "student") - aurocs(study, "student-scratch")
    over_cohorts = np.random.default_rng(0).choice(each, size=(4000, 4)).mean(axis=1)
    low, high = np.quantile(over_cohorts, [0.025, 0.975])
    assert row["bootstrap_low"] < low
    assert row["bootstrap_high"] > high
    assert row["bootstrap_low"] < row["difference"] < row["bootstrap_high"]


def test_a_pair_uses_the_cohorts_that_both_have(study, tmp_path):
    shutil.rmtree(study / "cohort1" / "seed1-fold0" / "student-scratch")
    result = compared(study, tmp_path)
    (row,) = result.differences.to_dict("records")
    each = np.delete(aurocs(study, "student"), 1) - [
        aurocs(study, "student-scratch", range(c, c + 1))[0] for c in (0, 2, 3)
    ]
    assert row["p"] == pytest.approx(stats.ttest_1samp(each, 0).pvalue)
    assert (row["n"], row["seeds"], row["cohorts"]) == (90, 3, 3)
    assert result.table.set_index("method")["cohorts"].to_dict() == {"teacher": 4, "student": 4, "student-scratch": 3}
    assert result.notes == []


def test_a_cohort_with_other_cases_is_left_out_of_the_pair_and_named(study, tmp_path):
    path = study / "cohort2" / "seed2-fold0" / "student-scratch" / "predictions.csv"
    table = pd.read_csv(path)
    table.drop(index=table.index[table["split"] == "test"][0]).to_csv(path, index=False)
    (study / "cohort3" / "seed3-fold0").rename(study / "cohort3" / "seed9-fold0")
    other = study / "cohort3" / "seed3-fold0"
    other.mkdir()
    (study / "cohort3" / "seed9-fold0" / "student-scratch").rename(other / "student-scratch")
    result = compared(study, tmp_path)
    assert result.notes == [
        "student and student-scratch are not compared in cohort 2: their test cases or labels differ "
        "(29 cases in common).",
        "student and student-scratch are not compared in cohort 3: they have no run of the same seed and fold "
        "(30 cases in common).",
    ]
    assert result.differences["cohorts"].tolist() == [2]


def test_a_pair_with_one_common_cohort_says_so(study, tmp_path):
    for cohort in (1, 2, 3):
        shutil.rmtree(study / f"cohort{cohort}" / f"seed{cohort}-fold0" / "student-scratch")
    result = compared(study, tmp_path)
    alone = compare([study / "cohort0"], tmp_path / "alone", resamples=50).differences
    pd.testing.assert_frame_equal(result.differences, alone, check_exact=True)
    pair, interval = result.notes
    assert pair.startswith("student and student-scratch share one cohort: ")
    assert interval.startswith("student-scratch was tested in one cohort: ")


def test_replicates_and_other_runs_are_not_mixed(study, tmp_path, write_run):
    write_run("student")
    with pytest.raises(InputError, match=r"is a run of a replicate .* is not; compare the one kind"):
        compared(study, tmp_path)


def renamed(study: Path, prefix: str) -> None:
    """Cohort 1 gets the names of cohort 0."""
    for file in study.glob("cohort1/*/*/predictions.csv"):
        file.write_text(file.read_text().replace(f"{prefix}1-", f"{prefix}0-"))


def test_the_same_patients_are_not_two_cohorts(study, tmp_path):
    """Splits of one cohort taken for replicates would make any interval too narrow."""
    renamed(study, "mri")
    with pytest.raises(
        InputError, match=r"student: cohort0 and cohort1 test the same patients, such as mri0-patient-0"
    ):
        compared(study, tmp_path)


def test_two_hospitals_may_name_their_patients_alike(study, tmp_path):
    for file in study.glob("cohort1/*/*/predictions.csv"):
        table = pd.read_csv(file)
        table.assign(label=table["label"].to_numpy()[::-1], probability=table["probability"].to_numpy()[::-1]).to_csv(
            file, index=False
        )
    renamed(study, "mri")
    renamed(study, "tvus")
    result = compared(study, tmp_path)
    assert result.table.set_index("method").loc["student", "patients"] == 120


def test_the_interval_of_any_figure_is_that_of_the_t_test_over_cohorts(study, tmp_path):
    result = compared(study, tmp_path)
    runs = pd.read_csv(tmp_path / "out" / "runs.csv").query("method == 'student'")
    row = result.table.set_index("method").loc["student"]
    for metric in ("sensitivity", "specificity", "brier", "sensitivity_at_95_specificity"):
        expected = logit_interval(row[metric], runs[metric].var() / 4, degrees_of_freedom=3)
        assert (row[f"{metric}_low"], row[f"{metric}_high"]) == pytest.approx(expected, rel=1e-4)


def test_cohorts_that_agree_too_closely_are_told(study, tmp_path):
    """In each cohort the same scores but for a little noise."""
    first = pd.read_csv(study / "cohort0" / "seed0-fold0" / "student" / "predictions.csv")["probability"]
    other = pd.read_csv(study / "cohort0" / "seed0-fold0" / "student-scratch" / "predictions.csv")["probability"]
    for cohort in range(4):
        for method, scores in (("student", first), ("student-scratch", other)):
            file = study / f"cohort{cohort}" / f"seed{cohort}-fold0" / method / "predictions.csv"
            table = pd.read_csv(file)
            noise = 0.03 * np.random.default_rng(cohort).normal(size=90)
            table.assign(probability=(scores + noise).clip(0, 1)).to_csv(file, index=False)
    result = compared(study, tmp_path)
    row = result.differences.iloc[0]
    (note,) = result.notes
    assert note.startswith("student - student-scratch: by chance the 4 cohorts agree more closely than their test")
    low, high = (float(end) for end in note.split(" it is ")[1].rstrip(".").split(" to "))
    assert low < row["low"] < row["difference"] < row["high"] < high
    assert row["seeds_needed"] > 100, "the numbers needed rest on the patients' variance"


def test_messages_name_the_cohort(study, tmp_path):
    path = study / "cohort2" / "seed2-fold0" / "student" / "predictions.csv"
    table = pd.read_csv(path)
    table[table["split"] != "val"].to_csv(path, index=False)
    note = compared(study, tmp_path).notes[0]
    assert note.startswith("student, cohort 2, seed 2, fold 0: no labelled validation cases")
    shutil.copytree(study / "cohort2" / "seed2-fold0", study / "cohort2" / "seed2-fold1")
    with pytest.raises(InputError, match=r"teacher, cohort 2: patient tvus2-patient-000 is tested in two folds"):
        compared(study, tmp_path)


def test_seeds_of_one_cohort_on_different_cases_are_told_of_the_cohort_folders(study, tmp_path):
    shutil.copytree(study / "cohort1" / "seed1-fold0", study / "cohort0" / "seed1-fold0")
    path = study / "cohort0" / "seed1-fold0" / "teacher" / "predictions.csv"
    table = pd.read_csv(path)
    table.drop(index=table.index[table["split"] == "test"][0]).to_csv(path, index=False)
    with pytest.raises(
        InputError, match=r"different test cases or labels; .*; runs on other patients go into cohort<c>/"
    ):
        compared(study, tmp_path)


def test_the_page_tells_of_cohorts(study, tmp_path):
    page = compared(study, tmp_path).page.read_text()
    assert "Cohorts a method: 4. Seeds a method: 4. Test folds: 1. Test patients: 120." in page
    assert "t-test over the cohorts" in page
    assert "cohorts: " in page
    assert "One seed a method" not in page


def test_the_curves_average_over_cohorts_and_count_each_case_once(study, tmp_path):
    result = compared(study, tmp_path)
    colours = method_colours([method.name for method in result.methods])
    axes = roc_figure(result.methods, result.table, result.differences, colours).axes[0]
    (curve,) = [line for line in axes.lines if str(line.get_label()).startswith("student ")]
    assert np.trapezoid(curve.get_ydata(), curve.get_xdata()) == pytest.approx(
        aurocs(study, "student").mean(), abs=0.01
    )
    beneath = reliability_figure(result.methods, colours).axes[3]
    assert sum(bar.get_height() for bar in beneath.patches) == pytest.approx(120)
