"""The page of a comparison: one HTML file that needs nothing but itself."""

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path

import jinja2
import pandas as pd
from matplotlib.figure import Figure

from poddistill.evaluation.figures import learning_figure, method_colours, reliability_figure, roc_figure
from poddistill.evaluation.runs import Run
from poddistill.evaluation.scores import Method

MINUS = "\N{MINUS SIGN}"

CAPTIONS = {
    "clip-filmstrips": "Clips that the teacher finds least and most obliterated, with label and probability",
    "mae-reconstructions": "Validation volumes, the patches that the auto-encoder sees, and what it fills in",
}
"""What a run's pictures show, by the names that training gives them."""


def write_report(
    out: Path,
    table: pd.DataFrame,
    differences: pd.DataFrame,
    margin: float,
    methods: Sequence[Method],
    runs: Sequence[Run],
    notes: Sequence[str],
    notice: str | None,
) -> Path:
    """Write ``index.html``, ``roc.png`` and, where there is a training history, ``learning_curves.png``.

    Args:
        out: an existing folder.
        table: a row a method, as in `compare.Comparison`.
        differences: a row a pair, likewise.
        margin: the difference in AUROC that matters.
        methods: in the table's order.
        runs: all runs, for their training history and the PNG files in their ``figures/``, which are embedded.
        notes: sentences shown beneath the tables.
        notice: shown on top, such as that the cohort is simulated.

    Returns:
        The path of the page.
    """
    several_cohorts = bool((table["cohorts"] > 1).any())
    colours = method_colours(list(dict.fromkeys([method.name for method in methods] + [run.method for run in runs])))
    roc = _png(roc_figure(methods, table, differences, colours))
    (out / "roc.png").write_bytes(roc)
    learning = learning_figure(runs, colours)
    if learning is not None:
        (out / "learning_curves.png").write_bytes(_png(learning))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("poddistill.evaluation", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=_number, interval=_interval, signed=_signed, p_value=p_value, needed=_needed)
    page = environment.get_template("report.html").render(
        notice=notice,
        summary=_summary(table),
        rows=table.to_dict("records"),
        differences=[{**row, "verdict": verdict(row)} for row in differences.to_dict("records")],
        margin=margin,
        several_seeds=several_cohorts or any(method.several_seeds for method in methods),
        several_cohorts=several_cohorts,
        notes=notes,
        colours=colours,
        roc=_uri(roc),
        reliability=_uri(_png(reliability_figure(methods, colours))),
        learning=_uri(_png(learning)) if learning is not None else None,
        pictures=_pictures(runs),
    )
    path = out / "index.html"
    path.write_text(page, encoding="utf-8")
    return path


def verdict(row: dict) -> str:
    """Return in words what a row of the differences supports, no more.

    Args:
        row: method_a, method_b, difference, low, high, shows, margin.
    """
    if math.isnan(row["difference"]):
        return "No AUROC, so no difference: a class is missing among the test cases."
    if math.isnan(row["low"]):
        return "The test cases are too few to say how uncertain this difference is."
    if row["shows"] == "no difference":
        return "No difference: both rank these patients alike."
    better, worse = ("method_a", "method_b") if row["difference"] > 0 else ("method_b", "method_a")
    within = f" by less than {row['margin']:g}" if " within" in row["shows"] else ""
    if row["shows"].startswith("a difference"):
        return f"A difference: {row[better]} ranks better than {row[worse]}{within}."
    if within:
        return f"Equivalence: they differ{within}, one way or the other."
    if row["low"] <= 0 <= row["high"]:
        return "Undecided: neither a difference nor equivalence is shown."
    return "Undecided: the interval excludes 0, but not after adjustment for the number of differences."


def p_value(p: float) -> str:
    """Return a p-value as text: two significant digits, ``<0.001`` below that, a hyphen if undefined."""
    if math.isnan(p):
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _summary(table: pd.DataFrame) -> str:
    seeds, folds = _span(table["seeds"]), _span(table["folds"])
    patients = "; ".join(
        f"{count} ({', '.join(group['method'])})" for count, group in table.groupby("patients", sort=False)
    )
    if table["patients"].nunique() == 1:
        patients = _span(table["patients"])
    cohorts = f"Cohorts a method: {_span(table['cohorts'])}. " if (table["cohorts"] > 1).any() else ""
    return f"{cohorts}Seeds a method: {seeds}. Test folds: {folds}. Test patients: {patients}."


def _span(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return f"{low}" if low == high else f"{low} to {high}"


def _pictures(runs: Sequence[Run]) -> list[dict[str, str]]:
    return [
        {
            "caption": CAPTIONS.get(file.stem, file.stem),
            "origin": run.name,
            "uri": _uri(file.read_bytes()),
        }
        for run in runs
        for file in run.figures
    ]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # Without the software's version in it, equal input gives an equal file.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _interval(row: dict, metric: str) -> str:
    low, high = row[f"{metric}_low"], row[f"{metric}_high"]
    return "-" if math.isnan(low) else f"{low:.3f} \N{EN DASH} {high:.3f}"


def _needed(count: float) -> str:
    return "-" if math.isnan(count) else "none" if math.isinf(count) else f"{count:,.0f}"


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.3f}".replace("-", MINUS)
