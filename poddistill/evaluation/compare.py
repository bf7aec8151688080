"""Comparison of methods on the test cases that they share: the table, the paired differences, the page."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data_modules.errors import InputError
from poddistill.evaluation.attribution import attributions
from poddistill.evaluation.differences import paired_differences
from poddistill.evaluation.replicates import replicated_auroc
from poddistill.evaluation.report import p_value, write_report
from poddistill.evaluation.runs import Run, find_runs
from poddistill.evaluation.scores import AT_95, Method, score_methods

# The first twelve are the project's fixed format; the others tell more.
TABLE_COLUMNS = ["method", "auroc", "auroc_low", "auroc_high", "auprc", "sensitivity", "specificity", "brier", "ece"]
TABLE_COLUMNS += ["n", "n_positive", "seeds", "folds", "runs", "patients", "threshold"]
TABLE_COLUMNS += ["sensitivity_low", "sensitivity_high", "specificity_low", "specificity_high"]
TABLE_COLUMNS += ["brier_low", "brier_high", AT_95, f"{AT_95}_low", f"{AT_95}_high", "worst_seed", "cohorts"]


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
        table: a row a method, columns `TABLE_COLUMNS`.
        differences: a row a pair of methods tested on the same cases, columns `differences.DIFFERENCE_COLUMNS`.
        baseline: the method that all differences are taken from, if one was chosen.
        margin: the difference in AUROC that matters.
        methods: the scored methods, in the table's order.
        runs: every run found, those without predictions too.
        notes: sentences on what the reader must know (a missing threshold, a pair that could not be compared).
        page: the written ``index.html``.
    """

    table: pd.DataFrame
    differences: pd.DataFrame
    baseline: str | None
    margin: float
    methods: list[Method]
    runs: list[Run]
    notes: list[str]
    page: Path


def compare(
    paths: Iterable[Path | str],
    out: Path | str,
    *,
    baseline: str | None = None,
    margin: float = 0.01,
    further: Sequence[tuple[str, str]] = (),
    notice: str | None = None,
    resamples: int = 2000,
    bootstrap_seed: int = 0,
) -> Comparison:
    """Compare methods on the test split; write ``comparison.csv``, ``differences.csv``, ``runs.csv``, ``index.html``.

    Each run is scored on its own test cases, at the threshold that maximises Youden's J on its own validation cases;
    seeds are averaged within a fold and folds with equal weight, and scores of different models are never pooled. The
    interval of an AUROC and the interval and p-value of a paired difference combine DeLong's variance over the test
    patients, taken of the seed-averaged placement values, with the variance between seeds (formula:
    `poddistill.evaluation.folds`). Over several cohorts, the replicates of a study on new patients, they rest on the
    variance between the cohorts alone (`poddistill.evaluation.replicates`). Other metrics' intervals are the same, with
    the bootstrap's variance for DeLong's. The bootstrap interval and p-value resample
    cohorts, their patients, stratified by label, and seeds. Of the p-values one, ``p_holm``, is adjusted for the number
    of differences; the verdict rests on it.

    Two methods are paired where they have runs of the same cohort, seed and fold on the same cases, over those runs
    alone; methods on different cases (the teacher's ultrasound, the student's MRI) have no difference. The result is
    deterministic.

    Args:
        paths: stage folders, or folders above them.
        out: folder to write to; made if missing.
        baseline: the method that is subtracted from every other one, except that a control, ``<method>--<control>``,
            is subtracted from its method; without a baseline, all pairs.
        margin: the difference in AUROC that matters, for equivalence and for the seeds and patients needed.
        further: pairs to compare beside those with the baseline.
        notice: shown on top of the page, such as that the cohort is simulated.
        resamples: bootstrap resamples, at least 1.
        bootstrap_seed: of the resamples.

    Raises:
        InputError: no predictions, a faulty file, runs that must not be compared, or a wrong option (see `find_runs`,
            `score_methods`, `paired_differences`).
    """
    if resamples < 1:
        raise InputError(f"resamples must be at least 1, not {resamples}")
    paths = [Path(path) for path in paths]
    runs = find_runs(paths)
    methods, notes = score_methods(runs, resamples, bootstrap_seed)
    if not methods:
        raise InputError(
            f"{', '.join(map(str, paths))}: runs without predictions.csv only; predict first, then compare"
        )
    table = pd.DataFrame([method_row(method) for method in methods], columns=TABLE_COLUMNS)
    differences, unpaired = paired_differences(methods, baseline, margin, further)
    notes += unpaired
    if max(len(method.cohorts) for method in methods) > 1:
        notes += [
            f"{method.name} was tested in one cohort: its intervals know its patients and seeds, and nothing of other "
            "cohorts."
            for method in methods
            if len(method.cohorts) == 1
        ]
    if baseline is not None:
        notes += attributions(differences, baseline, [method.name for method in methods])

    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        table.to_csv(out / "comparison.csv", index=False, float_format="%.6g")
        differences.to_csv(out / "differences.csv", index=False, float_format="%.6g")
        pd.DataFrame(_run_rows(methods)).to_csv(out / "runs.csv", index=False, float_format="%.6g")
        page = write_report(out, table, differences, margin, methods, runs, notes, notice)
    except OSError as error:
        raise InputError(f"{out}: cannot write there ({error.strerror}); give another --out folder") from error
    return Comparison(table, differences, baseline, margin, methods, runs, notes, page)


def method_row(method: Method) -> dict[str, object]:
    """Return a method's row of ``comparison.csv``, columns `TABLE_COLUMNS` in another order."""
    estimate = replicated_auroc([[scored.fold for scored in folds] for folds in method.cohorts.values()])
    row: dict[str, object] = {
        "method": method.name,
        "auroc": estimate.value,
        "auroc_low": estimate.low,
        "auroc_high": estimate.high,
        "auprc": method.mean("auprc"),
        "ece": method.mean("ece"),
        "n": len(method.cases),
        "n_positive": int(method.cases["label"].sum()),
        "seeds": len({(run.cohort, run.seed) for run in method.runs}),
        "folds": len({run.fold for run in method.runs}),
        "runs": len(method.runs),
        "patients": len(method.cases.drop_duplicates(["cohort", "patient_id"])),
        "worst_seed": method.worst_seed(),
        "threshold": float(method.average(lambda scored: scored.thresholds.mean())),
        "cohorts": len(method.cohorts),
    }
    for metric in ("sensitivity", "specificity", "brier", AT_95):
        row[metric] = method.mean(metric)
        row[f"{metric}_low"], row[f"{metric}_high"] = method.interval(metric)
    return row


def _run_rows(methods: list[Method]) -> Iterator[dict[str, object]]:
    for method in methods:
        for scored in method.folds.values():
            for number, run in enumerate(scored.runs):
                own = {name: values[number] for name, values in scored.metrics.items()}
                which = {"method": method.name, "cohort": run.cohort, "seed": run.seed, "fold": run.fold}
                yield {**which, **own, "n": len(scored.cases), "threshold": scored.thresholds[number]}


def print_table(comparison: Comparison, console: Console | None = None) -> None:
    """Print the table and, below it, the paired differences.

    They are those from the baseline or, without one, those with the student (all of them where it was not trained).
    Plain ASCII. Long names of methods are folded to the width of a terminal, and whole in a file.

    Args:
        comparison: from `compare`.
        console: where to; standard output by default.
    """
    console = console or plain_console()
    table = plain_table(["method", "AUROC (95 %)", "AUPRC", "sens", "spec", "Brier", "ECE", "n (pos)"])
    for row in comparison.table.to_dict("records"):
        figures = [_text(row[name]) for name in ("auprc", "sensitivity", "specificity", "brier", "ece")]
        auroc = f"{_text(row['auroc'])} ({_text(row['auroc_low'])}-{_text(row['auroc_high'])})"
        table.add_row(escape(row["method"]), auroc, *figures, f"{row['n']} ({row['n_positive']})")
    console.print(table)
    differences = comparison.differences
    with_student = (differences["method_a"] == "student") | (differences["method_b"] == "student")
    shown = differences[with_student] if comparison.baseline is None and with_student.any() else differences
    if len(shown):
        pairs = plain_table(["paired", "diff", "95 % interval", "p", "p Holm", "shows"])
        for row in shown.to_dict("records"):
            interval = f"{_text(row['low'], '+')} to {_text(row['high'], '+')}"
            name = escape(f"{row['method_a']} - {row['method_b']}")
            words = row["shows"].split(" within")[0] or "-"
            pairs.add_row(
                name, _text(row["difference"], "+"), interval, p_value(row["p"]), p_value(row["p_holm"]), words
            )
        console.print()
        console.print(pairs)
        count = f"{len(differences)} pair" + "s" * (len(differences) > 1)
        more = f", {len(differences) - len(shown)} more in differences.csv" if len(shown) < len(differences) else ""
        console.print(f"p Holm: over {count}{more}; equivalence: within {comparison.margin:g}")
    for note in comparison.notes:
        console.print(f"note: {note}", markup=False)


def plain_console() -> Console:
    """Return standard output, as wide as its terminal or, in a file or a pipe, as the longest row of a table."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 250
    return console


def plain_table(headings: list[str]) -> Table:
    """Return an empty table for the terminal: the first column to the left, the others to the right, no lines."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(headings[0], overflow="fold")
    for heading in headings[1:]:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _text(value: float, sign: str = "") -> str:
    return "-" if np.isnan(value) else f"{value:{sign}.3f}"
