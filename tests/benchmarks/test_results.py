"""What is published of a study, and the page that is written of it."""

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from poddistill.evaluation.compare import compare


@pytest.fixture
def results(script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, publishing below a temporary folder."""
    module = script("results")
    monkeypatch.setattr(module, "PUBLISHED", tmp_path / "results")
    monkeypatch.setattr(module, "PAGE", tmp_path / "results.md")
    monkeypatch.setattr(module, "FIGURES", tmp_path / "figures")
    return module


CONFIGURATION = """method: {method}
seed_everything: {cohort}
data:
  init_args:
    mri:
      init_args:
        n_labelled: {labels}
"""


def finished_study(folder: Path, labels: int, baseline: str = "student-mae", **strengths: float) -> Path:
    """Three cohorts of 60 test cases, whose logits lie by a method's strength further up in label 1."""
    for cohort in range(3):
        for method, strength in strengths.items():
            run = folder / f"cohort{cohort}" / f"seed{cohort}-fold0" / method
            run.mkdir(parents=True)
            rng = np.random.default_rng([cohort, *method.encode()])
            label = np.tile([1, 0, 0], 20)
            ids = [f"c{cohort}p{number:02d}" for number in range(60)]
            table = pd.DataFrame({"case_id": ids, "patient_id": ids, "split": "test", "label": label})
            table["probability"] = 1 / (1 + np.exp(-strength * label - rng.normal(size=60)))
            table.to_csv(run / "predictions.csv", index=False)
            (run / "config.yaml").write_text(CONFIGURATION.format(method=method, cohort=cohort, labels=labels))
    compare([folder], folder / "report", baseline=baseline, resamples=20)
    return folder


def test_the_page_tells_every_published_study(results: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "opening.md").write_text(
        "# Results\n\nWhat was found.\n\n<!-- all -->\n\nMore of it.\n\n<!-- turned -->\n\nThe end.\n"
    )
    for labels, name in ((20, "study-20labels"), (80, "study")):
        methods = {"student-mae": 0.2, "student": 8.0, "student--constant": 0.2}
        study = finished_study(tmp_path / "runs" / name, labels, **methods)
        with pytest.raises(SystemExit, match=r"about\.md is missing: write what the study asks"):
            results.publish(study, None)
        (tmp_path / "results" / name).mkdir()
        (tmp_path / "results" / name / "about.md").write_text(f"# With {labels} labels\n\nDoes it help?\n")
        log = tmp_path / "made.log"
        log.write_text("all of it\n")
        results.publish(study, log)
    kept = tmp_path / "results" / "study-20labels"
    assert (kept / "configurations" / "student.yaml").read_text().startswith("method: student\nseed_everything: 0\n")
    assert (kept / "study.log").read_text() == "all of it\n"
    again = tmp_path / "elsewhere" / "study-20labels"
    assert results.restore(again) == 9
    compare([again], again / "report", baseline="student-mae", resamples=20)
    for name in results.TABLES:
        pd.testing.assert_frame_equal(pd.read_csv(again / "report" / f"{name}.csv"), pd.read_csv(kept / f"{name}.csv"))
    assert results.restore(again) == 0
    (kept.parent / "curves.yaml").write_text(
        "- {name: numbers, axis: labels, baseline: student-mae, studies: {20: study-20labels, 80: study}}\n"
    )
    (kept.parent / "overview.yaml").write_text(
        "- name: all\n  method: student\n  others: [student-mae, student--constant, covariates]\n  settings:\n"
        "  - {setting: many, studies: [study]}\n"
        "  - {setting: few, studies: [study-20labels], open: [student--constant]}\n"
        "- {name: turned, method: student-mae, others: [student], settings: [{setting: less, studies: [study]}]}\n"
    )
    page = results.page(sorted(kept.parent.glob("study*"), reverse=True))
    assert page.startswith("# Results\n\nWhat was found.\n\n![What `student` gains")
    assert "\n\nMore of it.\n\n![What `student-mae` gains" in page, "an overview stands where the opening asks"
    assert "\n\nThe end.\n\n![Test AUROC against the number" in page
    assert {file.stem for file in (tmp_path / "figures").iterdir()} == {
        f"results-{n}" for n in ("labels", "numbers", "all", "turned", "study", "study-20labels")
    }
    cells = {
        row.split("|")[1].strip(): [cell.strip() for cell in row.split("|")[2:]]
        for row in page.splitlines()
        if "](#with-" in row
    }
    assert list(cells) == ["[many](#with-80-labels)", "[few](#with-20-labels)", "[less](#with-80-labels)"]
    many, few, less = cells.values()
    assert many[1].startswith("**+0.") and few[1].startswith("**+0.") and many[2].startswith("**+0.")
    assert few[2].startswith("+0."), "a difference that is called open is not bold"
    assert many[3] == few[3] == "", "no study has the pair"
    mean, low, high, cohorts = re.findall(r"[\d.]+", many[1])
    assert less[1] == f"**-{mean}** (-{high} to -{low}; {cohorts})", "the same pair the other way round"
    assert "AUROC against labels, and the difference from `student-mae`" in page
    assert "on 3 cohorts: 0, 1, 2." in page
    rows = pd.read_csv(tmp_path / "results" / "study" / "differences.csv").set_index(["method_a", "method_b"])
    curve = rows.loc[("student", "student-mae")]
    assert f"({curve['difference']:+.3f}, {curve['low']:+.3f} to {curve['high']:+.3f})" in page
    assert page.index("## With 20 labels") < page.index("## With 80 labels")
    assert "3 cohorts, 180 test volumes together:" in page
    assert "| `student` - `student--constant` |" in page
    assert page.count("it comes from what these take away") == 2
    others = pd.read_csv(kept / results.PREDICTIONS)
    others.assign(patient_id="other-" + others["patient_id"]).to_csv(kept / results.PREDICTIONS, index=False)
    assert "on 3 cohorts of other patients at each number: 0, 1, 2." in results.page([])
    others.to_csv(kept / results.PREDICTIONS, index=False)
    runs = pd.read_csv(kept / "runs.csv")
    runs[runs["cohort"] < 2].to_csv(kept / "runs.csv", index=False)
    assert "on 2 cohorts: 0, 1." in results.page([]), "a curve has the cohorts that all of its studies have"
    runs.assign(cohort=runs["cohort"] + 3).to_csv(kept / "runs.csv", index=False)
    with pytest.raises(SystemExit, match="the studies of numbers have no cohort in common"):
        results.page([])


def test_a_study_with_another_baseline_is_told_by_that(results: ModuleType, tmp_path: Path) -> None:
    methods = {"student-labels": 0.2, "student": 8.0, "student--constant": 0.2, "covariates": 0.2}
    study = finished_study(tmp_path / "runs" / "study", 80, "student-labels", **methods)
    about = tmp_path / "results" / "study" / "about.md"
    about.parent.mkdir(parents=True)
    about.write_text("# A study\n")
    (about.parents[1] / "opening.md").write_text("# Results\n")
    results.publish(study, None)
    assert results.labels(about.parent) == 80
    assert "- student gains over student-labels and over its 1 control: it comes from" in results.page([about.parent])


def test_what_was_not_compared_is_not_published(results: ModuleType, tmp_path: Path) -> None:
    """A cohort that the method was tuned on, and an arm that no table has, may lie beside the study's runs."""
    study = finished_study(tmp_path / "runs" / "study", 80, **{"student-mae": 0.2, "student": 2.0})
    kept = tmp_path / "results" / "study"
    kept.mkdir(parents=True)
    (kept / "about.md").write_text("# A study\n")
    (study / "cohort0").rename(study / "cohort01")
    for folder in ("cohort1/seed1-fold0/mae", "cohort1/seed1-fold0/student-kl", "cohort01/seed0-fold0/mae"):
        (study / folder).mkdir(exist_ok=True)
        (study / folder / "config.yaml").write_text(f"of: {folder}\n")
    runs = pd.read_csv(study / "report" / "runs.csv")
    runs[runs["cohort"] > 0].to_csv(study / "report" / "runs.csv", index=False)
    results.publish(study, None)
    configurations = kept / "configurations"
    assert {file.stem for file in configurations.iterdir()} == {"mae", "student", "student-mae"}
    assert (configurations / "mae.yaml").read_text() == "of: cohort1/seed1-fold0/mae\n"
    assert "seed_everything: 1\n" in (configurations / "student.yaml").read_text()
    before = {file: file.read_bytes() for file in kept.rglob("*") if file.is_file()}
    (study / "report" / "runs.csv").write_text(runs.to_csv(index=False))
    changed = study / "cohort2" / "seed2-fold0" / "student" / "predictions.csv"
    table = pd.read_csv(changed)
    table.assign(probability=1 - table["probability"]).to_csv(changed, index=False)
    with pytest.raises(SystemExit, match=r"student/predictions\.csv is not what .*report compares; compare again"):
        results.publish(study, None)
    assert before == {file: file.read_bytes() for file in kept.rglob("*") if file.is_file()}, "half of it was published"


def test_dots_are_of_the_runs_that_are_paired(
    script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = ["method", "cohort", "seed", "fold", "n", "auroc"]
    runs = [
        *(("a", 0, seed, 0, 60, auroc) for seed, auroc in enumerate((0.9, 0.8, 0.1))),
        *(("b", 0, seed, 0, 60, 0.7) for seed in (0, 1)),
        *(("a", 1, 0, 0, 60, 0.9), ("b", 1, 0, 0, 59, 0.1)),
    ]
    row = {"method_a": "a", "method_b": "b", "difference": 0.15, "low": 0.1, "high": 0.2}
    drawn = []
    plot = Axes.plot
    monkeypatch.setattr(Axes, "plot", lambda panel, x, *rest, **more: drawn.append(x) or plot(panel, x, *rest, **more))
    figure = tmp_path / "differences.png"
    script("results_plot").draw_differences(pd.DataFrame([row]), pd.DataFrame(runs, columns=columns), figure)
    (dots,) = (list(x) for x in drawn if isinstance(x, pd.Series))
    assert dots == pytest.approx([0.15])


def test_a_curve_names_the_study_that_is_not_published(results: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "results" / "study").mkdir(parents=True)
    (tmp_path / "results" / "opening.md").write_text("# Results\n")
    (tmp_path / "results" / "curves.yaml").write_text(
        "- {name: n, axis: labels, baseline: own, studies: {20: study}}\n"
    )
    with pytest.raises(SystemExit, match=r"curves\.yaml: study has no predictions\.csv\.gz; publish it first"):
        results.page([])


def test_an_overview_names_what_it_lacks(results: ModuleType, tmp_path: Path) -> None:
    study = tmp_path / "results" / "study"
    study.mkdir(parents=True)
    (study.parent / "opening.md").write_text("<!-- all -->\n")
    (study.parent / "overview.yaml").write_text(
        "- {name: all, method: student, others: [own], settings: [{setting: all, studies: [study]}]}\n"
    )
    with pytest.raises(SystemExit, match=r"overview\.yaml: study has no differences\.csv; publish it first"):
        results.page([])
    columns = ["method_a", "method_b", "difference", "low", "high", "p_holm"]
    pd.DataFrame(columns=columns).to_csv(study / "differences.csv")
    pd.DataFrame(columns=["method", "auroc"]).to_csv(study / "comparison.csv")
    with pytest.raises(SystemExit, match=r"overview\.yaml: no study of 'all' has student"):
        results.page([])


def test_an_unfinished_study_is_not_published(results: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "results" / "study").mkdir(parents=True)
    (tmp_path / "results" / "study" / "about.md").write_text("# A study\n")
    with pytest.raises(SystemExit, match=r"comparison\.csv is missing: finish the study with make study"):
        results.publish(tmp_path / "runs" / "study", None)
    with pytest.raises(SystemExit, match=r"predictions\.csv\.gz is missing"):
        results.restore(tmp_path / "runs" / "study")
