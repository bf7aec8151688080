"""Publishes a finished study, and writes docs/results.md from all that are published.

    .venv/bin/python benchmarks/results.py runs/replicates/study-20labels --log study.log
    .venv/bin/python benchmarks/results.py

With a study, its tables (`make study` wrote them), the configuration of each of its methods, its log and what each of
its runs predicted are kept in `experiments/pod/results/<name>/`. `about.md` there says what was asked, and should be
written before the study is run: its first line becomes the heading. Then, or without a study, `docs/results.md` and its
figures are written anew.

`overview.yaml` there names the settings of the tables in the opening, `curves.yaml` studies that differ in another
number than that of labels; each of its curves comes before the studies.

What was predicted suffices to compare again, elsewhere or with further cohorts:

    .venv/bin/python benchmarks/results.py runs/replicates/study-20labels --restore
    .venv/bin/poddistill compare runs/replicates/study-20labels --out report --baseline student-mae --simulated
"""

import argparse
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import yaml
from results_overview import overviews, signed
from results_plot import draw_differences
from timing import table

from poddistill.evaluation.attribution import attributions
from poddistill.evaluation.curve import as_words, draw_curve
from poddistill.evaluation.curve_figure import curve_figure
from poddistill.evaluation.report import p_value
from poddistill.evaluation.runs import find_runs, read_predictions, write_predictions
from poddistill.evaluation.statistics import auroc

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "experiments" / "pod" / "results"
PAGE = ROOT / "docs" / "results.md"
FIGURES = ROOT / "docs" / "figures"
TABLES = ("comparison", "differences", "runs")
PREDICTIONS = "predictions.csv.gz"
CURVES = "curves.yaml"
OVERVIEW_HERE = "<!-- {} -->"
"""Where `opening.md` has the figure and the table of an overview of that name in `overview.yaml`."""
RUN = ["method", "cohort", "seed", "fold"]
UPSTREAM = ("mae", "joint-mae", "teacher", "teacher-shuffled", "teacher-untrained")
LABELS = re.compile(r"study(-[a-z]+)?(-\d+labels)?$")
"""Studies of a regime, the first group, that differ in the number of labels alone."""
BASELINE = "student-mae"
"""Of the curves over numbers of labels."""


def main() -> None:
    """Publishes the study that was named, if any, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, nargs="?", help="a study's runs, with its report")
    parser.add_argument("--log", type=Path, help="what `make study` printed")
    parser.add_argument("--restore", action="store_true", help="write the published predictions to STUDY instead")
    arguments = parser.parse_args()
    if arguments.restore:
        if arguments.study is None:
            parser.error("--restore needs the folder of the study's runs")
        print(f"{arguments.study}: {restore(arguments.study)} runs restored")
        return
    if arguments.study is not None:
        publish(arguments.study, arguments.log)
    published = [file.parent for file in PUBLISHED.glob("*/about.md") if (file.parent / "comparison.csv").exists()]
    studies = sorted(published, key=lambda study: (regime(study), labels(study), study.name))
    PAGE.write_text(page(studies))
    print(f"{PAGE}: {len(studies)} studies")


def publish(study: Path, log: Path | None) -> None:
    """Keeps a study's tables, what its runs predicted, its methods' configurations and its log.

    Raises:
        SystemExit: The study has no report, or nobody wrote what it asks.
    """
    kept, report = PUBLISHED / study.name, study / "report"
    if not (kept / "about.md").is_file():
        raise SystemExit(f"error: {kept / 'about.md'} is missing: write what the study asks, a heading first")
    for name in TABLES:
        if not (report / f"{name}.csv").is_file():
            raise SystemExit(f"error: {report / f'{name}.csv'} is missing: finish the study with make study")
    predicted = predictions(study)
    for name in TABLES:
        shutil.copy(report / f"{name}.csv", kept)
    # without the time of writing, so that the same predictions are the same file; nine digits are all of float32
    compression = {"method": "gzip", "mtime": 0}
    predicted.to_csv(kept / PREDICTIONS, index=False, compression=compression, float_format="%.9g")
    configurations = kept / "configurations"
    shutil.rmtree(configurations, ignore_errors=True)
    configurations.mkdir()
    for run in pd.read_csv(kept / "runs.csv").sort_values(RUN[1:], ascending=False).itertuples():  # the first's stay
        for name in (run.method, *UPSTREAM):
            file = study / f"cohort{run.cohort}" / f"seed{run.seed}-fold{run.fold}" / name / "config.yaml"
            if file.exists():  # the model of `covariates` has none
                shutil.copy(file, configurations / f"{name}.yaml")
    if log is not None:
        shutil.copy(log, kept / "study.log")


def predictions(study: Path) -> pd.DataFrame:
    """Returns what the compared runs of a study predicted: their predictions, with the columns `RUN` in front.

    Raises:
        SystemExit: They are not those that the report compares.
    """
    compared = pd.read_csv(study / "report" / "runs.csv").set_index(RUN)["auroc"].to_dict()
    tables = []
    for run in find_runs(sorted(study.glob("cohort*"))):
        key = (run.method, run.cohort, run.seed, run.fold)
        if key in compared:
            table = read_predictions(run.predictions)
            test = table[table["split"].eq("test") & table["label"].notna()]
            scored = auroc(test["label"].to_numpy(), test["probability"].to_numpy())
            if not np.isclose(scored, compared[key], atol=1e-5, equal_nan=True):
                raise SystemExit(f"error: {run.predictions} is not what {study / 'report'} compares; compare again")
            tables.append(table.assign(**dict(zip(RUN, key, strict=True)), label=table["label"].astype("Int64")))
    every = pd.concat(tables, ignore_index=True)
    return every[[*RUN, *every.columns.drop(RUN)]]


def restore(study: Path) -> int:
    """Writes the published predictions of a study back to its run folders, and returns of how many runs.

    Runs that have predictions keep them: these are newer, or the published ones.

    Raises:
        SystemExit: None were published.
    """
    published = PUBLISHED / study.name / PREDICTIONS
    if not published.is_file():
        raise SystemExit(f"error: {published} is missing: name the folder as the published study is named")
    restored = 0
    ids = {"case_id": str, "patient_id": str, "label": "Int64"}
    for (method, cohort, seed, fold), cases in pd.read_csv(published, dtype=ids).groupby(RUN):
        folder = study / f"cohort{cohort}" / f"seed{seed}-fold{fold}" / str(method)
        if not (folder / "predictions.csv").exists():
            write_predictions(cases.drop(columns=RUN), folder)
            restored += 1
    return restored


def page(studies: list[Path]) -> str:
    """Returns docs/results.md."""
    opening = (PUBLISHED / "opening.md").read_text().rstrip()
    for name, overview in overviews(PUBLISHED, FIGURES).items():
        opening = opening.replace(OVERVIEW_HERE.format(name), "\n\n".join(overview))
    parts = [opening]
    alike = [study for study in studies if LABELS.match(study.name)]
    for name in dict.fromkeys(map(regime, alike)):
        parts += learning_curve(name, [study for study in alike if regime(study) == name])
    curves = PUBLISHED / CURVES
    for curve in yaml.safe_load(curves.read_text()) if curves.exists() else []:
        parts += regime_curve(**curve)
    parts += [section(study) for study in studies]
    return "\n\n".join(parts) + "\n"


def regime(study: Path) -> str:
    """Returns what follows "study" in the name of a study, up to the number of labels."""
    match = re.match(r"study(?:-(?!\d+labels)([a-z]+))?", study.name)
    return (match and match[1]) or ""


def labels(study: Path) -> int:
    """Returns with how many labelled volumes the students of a study were trained, all with as many."""
    configuration = yaml.safe_load(min((study / "configurations").glob("student*.yaml")).read_text())
    return int(configuration["data"]["init_args"]["mri"]["init_args"]["n_labelled"])


def subtracted(differences: pd.DataFrame) -> str:
    """Returns the baseline of a study: what most methods are compared with, and first."""
    return str(max(differences["method_b"].unique(), key=lambda method: differences["method_b"].eq(method).sum()))


def learning_curve(name: str, studies: list[Path]) -> list[str]:
    """Returns the figure of a regime's studies over their numbers of labels; nothing where they have no common cohort.

    A table says with how many labels the baseline is as good as a method, from those whose predictions are kept.
    """
    numbers = {study: labels(study) for study in studies}
    if len(set(numbers.values())) < len(studies):
        raise SystemExit(f"error: {', '.join(study.name for study in studies)}: two have as many labels; publish one")
    cohorts = [set(pd.read_csv(study / "runs.csv")["cohort"]) for study in studies]
    if len(studies) < 2 or not set.intersection(*cohorts):
        return []
    every = pd.concat([pd.read_csv(study / "comparison.csv").assign(value=n) for study, n in numbers.items()])
    every = every[~every["method"].str.contains("--", regex=False) & every["method"].ne("teacher")]
    file = "-".join(part for part in ("results", name, "labels") if part) + ".png"
    FIGURES.mkdir(parents=True, exist_ok=True)
    curve_figure(every, "labelled volumes").savefig(FIGURES / file)
    title = f", regime `{name}`" if name else ""
    counts = ", ".join(f"{len(members)} with {n}" for members, n in zip(cohorts, numbers.values(), strict=True))
    parts = [
        f"![Test AUROC against the number of labelled volumes{title}](figures/{file})",
        f"Cohorts, the same ones as far as they go: {counts} labels.",
    ]
    kept = {study: n for study, n in numbers.items() if (study / PREDICTIONS).exists()}
    if len(kept) > 1:
        with TemporaryDirectory() as scratch:
            for study in kept:
                restore(Path(scratch) / study.name)
            points = {n: [Path(scratch) / study.name] for study, n in kept.items()}
            curve = draw_curve(points, Path(scratch) / "curve", baseline=BASELINE, resamples=1)
        rows = [
            [f"`{row['method']}`, {row['value']:g} labels", *as_words(row), str(row["cohorts"])]
            for row in curve.as_good.to_dict("records")
            if row["method"].startswith("student")
        ]
        headings = ["method", f"as good as `{BASELINE}` with", "95 % interval", "cohorts"]
        parts.append(table(headings, rows))
        numbers_kept = ", ".join(map(str, sorted(kept.values())))
        parts.append(
            f"By the studies with {numbers_kept} labels, whose predictions are kept; below and above: outside of these."
        )
    return parts


def regime_curve(name: str, axis: str, baseline: str, studies: dict[float, str]) -> list[str]:
    """Returns the figure and the table of studies that differ in a number, on the cohorts that all of them have.

    Args:
        name: Of the figure's file.
        axis: What the number is.
        baseline: The method that others are compared with at every number.
        studies: number -> name of a published study, with its predictions.

    Raises:
        SystemExit: A study is not published, or no cohort is in all.
    """
    missing = [study for study in studies.values() if not (PUBLISHED / study / PREDICTIONS).exists()]
    if missing:
        raise SystemExit(f"error: {PUBLISHED / CURVES}: {', '.join(missing)} has no {PREDICTIONS}; publish it first")
    cohorts = set.intersection(
        *(set(pd.read_csv(PUBLISHED / study / "runs.csv")["cohort"]) for study in studies.values())
    )
    if not cohorts:
        raise SystemExit(f"error: {PUBLISHED / CURVES}: the studies of {name} have no cohort in common")
    tested = [test_cases(study, cohorts) for study in studies.values()]
    same = all(cases == tested[0] for cases in tested)
    with TemporaryDirectory() as scratch:
        points = {}
        for number, study in studies.items():
            restore(Path(scratch) / study)
            points[number] = [Path(scratch) / study / f"cohort{cohort}" for cohort in sorted(cohorts)]
        every = draw_curve(points, Path(scratch) / "curve", baseline=baseline, resamples=1).table
    every = every[every["method"].ne("teacher")]
    file = f"results-{name}.png"
    FIGURES.mkdir(parents=True, exist_ok=True)
    curve_figure(every, axis, baseline).savefig(FIGURES / file, metadata={"Software": None})
    rows = [
        [f"`{method}`", *(cell(at[at["value"] == number], method == baseline) for number in sorted(studies))]
        for method, at in every.groupby("method", sort=False)
    ]
    return [
        f"![Test AUROC against {axis}](figures/{file})",
        f"AUROC against {axis}, and the difference from `{baseline}` with its 95 % interval, not adjusted, on "
        f"{len(cohorts)} cohorts{'' if same else ' of other patients at each number'}: "
        f"{', '.join(map(str, sorted(cohorts)))}.",
        table(["method", *(f"{number:g}" for number in sorted(studies))], rows),
    ]


def test_cases(study: str, cohorts: set[int]) -> set[tuple[int, str, str]]:
    """Returns cohort, case and patient of what a published study's students were tested on in some cohorts."""
    table = pd.read_csv(PUBLISHED / study / PREDICTIONS, dtype={"case_id": str, "patient_id": str})
    table = table[table["split"].eq("test") & ~table["method"].isin(UPSTREAM) & table["cohort"].isin(cohorts)]
    return set(table[["cohort", "case_id", "patient_id"]].itertuples(index=False, name=None))


def cell(rows: pd.DataFrame, baseline: bool) -> str:
    """Returns the AUROC of a method at a number, and its difference if it is not the baseline; nothing of no row."""
    if rows.empty:
        return ""
    row = rows.iloc[0]
    if baseline or pd.isna(row["difference"]):
        return f"{row['auroc']:.3f}"
    mean, low, high = (signed(row[f"difference{end}"]) for end in ("", "_low", "_high"))
    return f"{row['auroc']:.3f} ({mean}, {low} to {high})"


def section(study: Path) -> str:
    """Returns the part of the page on one study: what it asks, the methods, the differences, what they show."""
    methods, differences = (pd.read_csv(study / f"{name}.csv") for name in ("comparison", "differences"))
    heading, _, about = (study / "about.md").read_text().partition("\n")
    parts = [f"## {heading.lstrip('# ')}", about.strip()]
    columns = ["method", "cohorts", "AUROC (95 %)", "worst seed", "sensitivity at 95 % specificity", "Brier", "ECE"]
    rows = [
        [
            f"`{row.method}`",
            str(row.cohorts),
            f"{row.auroc:.3f} ({row.auroc_low:.3f} to {row.auroc_high:.3f})",
            *(f"{value:.3f}" for value in (row.worst_seed, row.sensitivity_at_95_specificity, row.brier, row.ece)),
        ]
        for row in methods.itertuples()
    ]
    cohorts = int(methods["cohorts"].max())
    parts += [f"{cohorts} cohorts, {methods['n'].max()} test volumes together:", table(columns, rows)]
    columns = ["difference in AUROC", "cohorts", "mean (95 %)", "bootstrap (95 %)"]
    columns += ["p", "p Holm", "p equivalence", "shows"]
    rows = [
        [
            f"`{row.method_a}` - `{row.method_b}`",
            str(row.cohorts),
            f"{signed(row.difference)} ({signed(row.low)} to {signed(row.high)})",
            f"{signed(row.bootstrap_low)} to {signed(row.bootstrap_high)}",
            *(p_value(value) for value in (row.p, row.p_holm, row.p_equivalence)),
            row.shows,
        ]
        for row in differences.itertuples()
    ]
    parts.append(table(columns, rows))
    figure = f"results-{study.name}.png"
    draw_differences(differences, pd.read_csv(study / "runs.csv"), FIGURES / figure)
    parts.append(f"![Differences in AUROC](figures/{figure})")
    parts += [
        f"- {sentence}" for sentence in attributions(differences, subtracted(differences), list(methods["method"]))
    ]
    folder = f"experiments/pod/results/{study.name}"
    kept = "configurations, log and predictions" if (study / PREDICTIONS).exists() else "configurations and log"
    parts.append(f"Tables, {kept}: [`{folder}`](../{folder}).")
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
