"""The overviews of `results.py`: what a method gains over others, setting by setting, from published tables."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from timing import table

from poddistill.evaluation.figures import STYLE

OVERVIEW = "overview.yaml"
LEVEL = 0.05
"""Of a p-value after Holm's adjustment, below which a difference is set in bold or drawn full."""


def overviews(published: Path, figures: Path) -> dict[str, list[str]]:
    """Returns the figure and the table of each overview in `overview.yaml`, by its name; none without that file.

    A difference is that of the first of a setting's studies whose tables have the pair, in either order, with the
    interval and the adjustment of that study. It is left empty where none has it. Those that a setting calls open are
    never bold, as one that stands over the differences planned and not over those added later.

    Args:
        published: The folder of published studies, with `overview.yaml`.
        figures: Where the figures `results-<name>.png` are written.

    Raises:
        SystemExit: A study is not published, or no study of a setting has the method.
    """
    file = published / OVERVIEW
    asked = yaml.safe_load(file.read_text()) if file.exists() else []
    return {overview["name"]: _overview(file, figures, **overview) for overview in asked}


def _overview(
    file: Path, figures: Path, name: str, method: str, others: list[str], settings: list[dict[str, Any]]
) -> list[str]:
    """The figure and the table of one overview, an entry of `file`."""
    rows, found = [], []
    for setting in settings:
        studies = [file.parent / study for study in setting["studies"]]
        missing = [study.name for study in studies if not (study / "differences.csv").exists()]
        if missing:
            raise SystemExit(f"error: {file}: {', '.join(missing)} has no differences.csv; publish it first")
        tables = [pd.read_csv(study / "differences.csv") for study in studies]
        differences = [_first(tables, method, other, setting.get("open", [])) for other in others]
        means = pd.concat([pd.read_csv(study / "comparison.csv") for study in studies])
        means = means[means["method"].eq(method)]
        if means.empty:
            raise SystemExit(f"error: {file}: no study of {setting['setting']!r} has {method}")
        heading = (studies[0] / "about.md").read_text().partition("\n")[0].lstrip("# ")
        link = f"[{setting['setting']}](#{anchor(heading)})"
        rows.append([link, f"{means.iloc[0]['auroc']:.3f}", *(_words(difference) for difference in differences)])
        found.append((setting["setting"], differences))
    figures.mkdir(parents=True, exist_ok=True)
    figure = f"results-{name}.png"
    _draw(found, method, others, figures / figure)
    headings = ["setting", f"`{method}`", *(f"less `{other}`" for other in others)]
    return [f"![What `{method}` gains, setting by setting](figures/{figure})", table(headings, rows)]


def anchor(heading: str) -> str:
    """Returns what a link to a heading ends with, as GitHub and GitLab make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def signed(difference: float) -> str:
    """Returns a difference in AUROC as tables print it: three digits and a sign, a plus before 0."""
    return f"{round(difference, 3) + 0.0:+.3f}"


def _first(tables: list[pd.DataFrame], method: str, other: str, still_open: list[str]) -> pd.Series | None:
    """The row of the first table that has the pair, with the column stands: whether Holm's adjustment leaves it."""
    for differences in tables:
        rows = differences[differences["method_a"].eq(method) & differences["method_b"].eq(other)]
        if rows.empty:
            rows = differences[differences["method_a"].eq(other) & differences["method_b"].eq(method)]
            rows = rows.assign(difference=-rows["difference"], low=-rows["high"], high=-rows["low"])
        if len(rows):
            return rows.assign(stands=rows["p_holm"].lt(LEVEL) & (other not in still_open)).iloc[0]
    return None


def _words(row: pd.Series | None) -> str:
    """A difference, its interval and its number of cohorts; bold where it stands."""
    if row is None:
        return ""
    mean, low, high = (signed(row[name]) for name in ("difference", "low", "high"))
    mark = "**" if row["stands"] else ""
    return f"{mark}{mean}{mark} ({low} to {high}; {row['cohorts']})"


def _draw(settings: list[tuple[str, list[pd.Series | None]]], method: str, others: list[str], file: Path) -> None:
    """A panel for each of the other methods, a row a setting; dots are full where it stands."""
    with rc_context(STYLE):
        figure = Figure(figsize=(10, 1.2 + 0.3 * len(settings)), layout="constrained")
        panels = figure.subplots(1, len(others), sharex=True, sharey=True, squeeze=False)[0]
        for panel, other, rows in zip(panels, others, zip(*(rows for _, rows in settings), strict=True), strict=True):
            panel.axvline(0, color="grey", linewidth=0.8)
            for place, row in enumerate(rows):
                if row is not None:
                    ends = [[row["difference"] - row["low"]], [row["high"] - row["difference"]]]
                    fill = "#0072B2" if row["stands"] else "white"
                    panel.errorbar(
                        row["difference"], place, xerr=ends, fmt="o", color="#0072B2", mfc=fill, markersize=5, capsize=2
                    )
            panel.xaxis.set_major_locator(MaxNLocator(5))
            panel.set_title(f"less {other}")
        panels[0].set_yticks(range(len(settings)), [setting for setting, _ in settings])
        panels[0].set_ylim(len(settings) - 0.4, -0.6)  # the first on top
        figure.supxlabel(f"{method}: difference in test AUROC, 95 % interval (full dot: p < {LEVEL:g} after Holm)")
        figure.savefig(file, dpi=150, metadata={"Software": None})
