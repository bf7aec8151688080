import subprocess
import sys
from io import StringIO

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from statsmodels.stats.multitest import multipletests

from poddistill.evaluation.compare import compare, print_table
from poddistill.evaluation.statistics import auroc, sensitivity, youden_threshold

FIXED_COLUMNS = "method,auroc,auroc_low,auroc_high,auprc,sensitivity,specificity,brier,ece,n,n_positive,seeds,"
DIFFERENCE_COLUMNS = "method_a,method_b,difference,low,high,p,bootstrap_low,bootstrap_high,bootstrap_p,n,seeds,"
DIFFERENCE_COLUMNS += "p_holm,p_equivalence,shows,margin,seeds_needed,patients_needed,cohorts\n"


def test_files_have_the_fixed_columns_and_a_row_a_method_or_pair(study, tmp_path):
    compare([study], tmp_path / "out", resamples=200)
    table = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert (tmp_path / "out" / "comparison.csv").read_text().startswith(FIXED_COLUMNS)
    assert table["method"].tolist() == ["teacher", "student", "student-scratch"]
    assert table["n"].tolist() == [60, 60, 60]
    assert table["n_positive"].tolist() == [20, 20, 20]
    assert table["seeds"].tolist() == [2, 2, 2]
    differences = pd.read_csv(tmp_path / "out" / "differences.csv")
    assert (tmp_path / "out" / "differences.csv").read_text().startswith(DIFFERENCE_COLUMNS)
    assert differences[["method_a", "method_b", "n", "seeds"]].to_numpy().tolist() == [
        ["student", "student-scratch", 60, 2]
    ]


def test_every_run_has_a_row_and_a_method_is_their_mean(study, tmp_path):
    compare([study], tmp_path / "out", resamples=50)
    runs, methods = (pd.read_csv(tmp_path / "out" / f"{name}.csv") for name in ("runs", "comparison"))
    assert len(runs) == methods["runs"].sum()
    for row in methods.itertuples():
        own = runs[runs["method"] == row.method]
        assert own.groupby("fold")["auprc"].mean().mean() == pytest.approx(row.auprc, abs=1e-5)
        assert not own.duplicated(["cohort", "seed", "fold"]).any()


def test_figures_are_means_over_runs_at_each_runs_own_threshold(study, tmp_path):
    result = compare([study], tmp_path / "out", resamples=200)
    row = result.table.set_index("method").loc["student"]
    aurocs, sensitivities = [], []
    for path in study.glob("*/student/predictions.csv"):
        table = pd.read_csv(path)
        test, val = (table[table["split"] == split] for split in ("test", "val"))
        threshold = youden_threshold(val["label"].to_numpy(), val["probability"].to_numpy())
        labels, scores = test["label"].to_numpy(), test["probability"].to_numpy()
        aurocs.append(auroc(labels, scores))
        sensitivities.append(sensitivity(labels, scores, threshold))
    assert len(aurocs) == 4
    assert row["auroc"] == pytest.approx(np.mean(aurocs))
    assert row["sensitivity"] == pytest.approx(np.mean(sensitivities))
    runs = pd.read_csv(tmp_path / "out" / "runs.csv").query("method == 'student'")
    assert runs["threshold"].nunique() == 4, "each run's own, for whoever uses that model"
    assert row["threshold"] == pytest.approx(runs["threshold"].mean(), rel=1e-5)
    for metric in ("auroc", "sensitivity", "specificity", "brier"):
        assert row[f"{metric}_low"] < row[metric] < row[f"{metric}_high"]


def test_delong_and_bootstrap_agree_on_a_clear_difference(study, tmp_path):
    row = compare([study], tmp_path / "out").differences.iloc[0]
    assert row["low"] > 0
    assert row["bootstrap_low"] > 0
    assert row["p"] < 0.01
    assert row["bootstrap_p"] < 0.01
    assert row["bootstrap_high"] - row["bootstrap_low"] == pytest.approx(row["high"] - row["low"], rel=0.5)


def test_the_worst_seed_is_the_lowest_mean_over_folds(study, tmp_path):
    result = compare([study], tmp_path / "out", resamples=50)
    for method in ("student", "student-scratch"):
        by_seed = []
        for seed in range(2):
            tables = (pd.read_csv(path) for path in study.glob(f"seed{seed}-*/{method}/predictions.csv"))
            tested = [table[table["split"] == "test"] for table in tables]
            by_seed.append(np.mean([auroc(t["label"].to_numpy(), t["probability"].to_numpy()) for t in tested]))
        row = result.table.set_index("method").loc[method]
        assert row["worst_seed"] == pytest.approx(min(by_seed))
        assert row["worst_seed"] <= row["auroc"]
        low, high = row["sensitivity_at_95_specificity_low"], row["sensitivity_at_95_specificity_high"]
        assert low <= row["sensitivity_at_95_specificity"] <= high


@pytest.fixture
def four_arms(tmp_path, write_run):
    for seed in range(3):
        for method, separation in (("b", 2.5), ("a", 0.2), ("student", 0.3), ("c", 2.4)):
            write_run(method, seed, separation=separation)
    return tmp_path / "runs"


def test_without_a_baseline_holm_runs_over_all_pairs(four_arms, tmp_path):
    differences = compare([four_arms], tmp_path / "out", resamples=50).differences
    assert len(differences) == 6
    expected = multipletests(differences["p"], method="holm")[1]
    np.testing.assert_allclose(differences["p_holm"], expected)


def test_with_a_baseline_it_is_subtracted_from_every_other_method(four_arms, tmp_path):
    everything = compare([four_arms], tmp_path / "all", resamples=50).differences
    result = compare([four_arms], tmp_path / "out", baseline="a", margin=0.1, resamples=50)
    differences = result.differences
    assert differences[["method_a", "method_b"]].to_numpy().tolist() == [["student", "a"], ["b", "a"], ["c", "a"]]
    np.testing.assert_allclose(differences["p_holm"], multipletests(differences["p"], method="holm")[1])
    for row in differences.to_dict("records"):
        pair = {row["method_a"], "a"}
        (same,) = [r for r in everything.to_dict("records") if {r["method_a"], r["method_b"]} == pair]
        assert abs(row["difference"]) == pytest.approx(abs(same["difference"]))
        assert row["p"] == pytest.approx(same["p"])
    clear = differences.set_index("method_a").loc["b"]
    assert clear["shows"] == "a difference"
    assert clear["margin"] == 0.1
    stream = StringIO()
    print_table(result, Console(file=stream, width=80))
    assert "p Holm: over 3 pairs; equivalence: within 0.1" in stream.getvalue()
    assert all(f"{name} - a " in stream.getvalue() for name in ("student", "b", "c"))


def test_in_a_file_no_name_is_folded(write_run, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    names = ["student-covariates-order--dealt", "student-anchored-features--constant"]
    for name in names:
        write_run(name)
    print_table(compare([tmp_path / "runs"], tmp_path / "out", resamples=20))
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown if line.startswith("student")] == [*sorted(names), sorted(names)[0]]
    assert any(" - ".join(sorted(names)) in line for line in shown)


def test_a_further_pair_is_one_more_row_of_the_same_family(four_arms, tmp_path):
    everything = compare([four_arms], tmp_path / "all", resamples=50).differences
    differences = compare([four_arms], tmp_path / "out", baseline="a", further=[("c", "b")], resamples=50).differences
    assert differences[["method_a", "method_b"]].to_numpy().tolist()[3:] == [["c", "b"]]
    (same,) = [row for row in everything.to_dict("records") if {row["method_a"], row["method_b"]} == {"b", "c"}]
    assert abs(differences["difference"].iloc[3]) == pytest.approx(abs(same["difference"]))
    np.testing.assert_allclose(differences["p_holm"], multipletests(differences["p"], method="holm")[1])


def test_the_same_scores_under_two_names_show_no_difference(write_run, tmp_path):
    path = write_run("student") / "predictions.csv"
    other = write_run("student-kd") / "predictions.csv"
    other.write_text(path.read_text())
    (row,) = compare([tmp_path / "runs"], tmp_path / "out", resamples=50).differences.to_dict("records")
    assert (row["difference"], row["p_holm"], row["p_equivalence"], row["shows"]) == (0, 1, 0, "no difference")
    assert np.isnan(row["seeds_needed"])
    assert np.isnan(row["patients_needed"])


def test_the_result_is_deterministic_and_independent_of_the_order_of_paths(study, tmp_path):
    compare([study], tmp_path / "a", resamples=100)
    compare(sorted(study.glob("*"), reverse=True), tmp_path / "b", resamples=100)
    for name in ("comparison.csv", "differences.csv", "index.html", "roc.png", "learning_curves.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_members_of_an_ensemble_are_no_methods_to_be_told_apart(write_run, tmp_path):
    for method in ("student-mae", "student-mae@1", "student-ensemble"):
        write_run(method)
    for options in ({"baseline": "student-mae"}, {}):
        result = compare([tmp_path / "runs"], tmp_path / "out", resamples=50, **options)
        assert set(result.table["method"]) == {"student-mae", "student-mae@1", "student-ensemble"}
        (row,) = result.differences.to_dict("records")
        assert {row["method_a"], row["method_b"]} == {"student-mae", "student-ensemble"}


def test_a_pair_uses_the_runs_that_both_have(write_run, tmp_path):
    for fold in range(3):
        write_run("student", fold=fold)
    write_run("student-kd", fold=1)
    result = compare([tmp_path / "runs"], tmp_path / "out", resamples=50)
    (row,) = result.differences.to_dict("records")
    assert (row["n"], row["seeds"]) == (30, 1)
    alone = compare([tmp_path / "runs" / "seed0-fold1"], tmp_path / "alone", resamples=50)
    assert row["difference"] == pytest.approx(alone.differences["difference"].iloc[0])
    assert row["p"] == pytest.approx(alone.differences["p"].iloc[0])


def test_names_and_pictures_are_taken_as_they_are(write_run, tmp_path):
    """Brackets are no markup, and a link to a picture that is gone is no picture."""
    for name in ("x[v1]", "x[v2]"):
        (write_run(name) / "figures" / "gone.png").symlink_to(tmp_path / "gone.png")
    stream = StringIO()
    print_table(compare([tmp_path / "runs"], tmp_path / "out", resamples=20), Console(file=stream, width=80))
    assert "x[v1] - x[v2]" in stream.getvalue()
    assert stream.getvalue().count("x[v2]") == 2


def test_the_table_fits_80_plain_columns(study, write_run, tmp_path):
    write_run("student-mae", separation=2.4)
    write_run("student-kd", separation=0.3)
    result = compare([study], tmp_path / "out", resamples=100)
    stream = StringIO()
    print_table(result, Console(file=stream, width=80))
    text = stream.getvalue()
    assert text.isascii()
    assert "\x1b" not in text
    student = result.table.set_index("method").loc["student"]
    interval = f"{student['auroc']:.3f} ({student['auroc_low']:.3f}-{student['auroc_high']:.3f})"
    assert interval in text
    assert "60 (20)" in text
    (row,) = [line for line in text.splitlines() if line.startswith("student - student-scratch ")]
    assert row.endswith("a difference")
    assert max(map(len, text.splitlines())) <= 80
    assert sum(line.startswith("student - ") for line in text.splitlines()) == 3
    assert "p Holm: over 6 pairs, 3 more in differences.csv; equivalence: within 0.01" in text


def test_evaluation_loads_no_network_library():
    code = "import sys, poddistill.evaluation.compare; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
