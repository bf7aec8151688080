"""The figure of a learning curve: AUROC against a number, and the paired difference from a baseline."""

from collections.abc import Sequence

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from poddistill.evaluation.figures import INK, STYLE, method_colours


def logarithmic(values: Sequence[float]) -> bool:
    """Return whether values are read on a logarithmic scale: above 0, the largest at least four times the smallest."""
    return min(values) > 0 and max(values) >= 4 * min(values)


@rc_context(STYLE)
def curve_figure(table: pd.DataFrame, axis: str, baseline: str | None = None) -> Figure:
    """Draw the AUROC of every method against the values, with 95 % intervals, and beside it the differences.

    Args:
        table: a row a value and method: columns value, method, auroc, auroc_low, auroc_high; where a baseline is named
            also difference, difference_low and difference_high, nan where there is none. Methods with one value alone
            are left out.
        axis: what the values are.
        baseline: the method that the differences are taken from; without it, or any difference, there is one panel.
    """
    table = table[table.groupby("method")["value"].transform("nunique") > 1]
    methods = list(table["method"].unique())
    colours = method_colours(methods)
    drawn = [name for name in methods if name != baseline]
    compared = baseline is not None and table["difference"].notna().any()
    figure = Figure(figsize=(10.2 if compared else 6.4, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2 if compared else 1, squeeze=False)[0]
    _lines(panels[0], table, "auroc", methods, colours)
    panels[0].set(ylabel="test AUROC, 95 % interval")
    columns = min(len(methods), 5 if compared else 4)  # above the panels: inside, it would hide intervals
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=columns, fontsize=8)
    if compared:
        panels[1].axhline(0, color=INK, linewidth=0.9)
        _lines(panels[1], table, "difference", drawn, colours)
        panels[1].set(ylabel=f"AUROC less that of {baseline}, 95 % interval")
    for panel in panels:
        panel.set(xlabel=axis)
    return figure


def _lines(panel: Axes, table: pd.DataFrame, column: str, methods: Sequence[str], colours: dict[str, str]) -> None:
    """A line a method with its intervals, a little apart so that these do not hide each other."""
    values = sorted(table["value"].unique())
    ratio = logarithmic(values)
    for place, name in enumerate(methods):
        rows = table[(table["method"] == name) & table[column].notna()].sort_values("value")
        aside = place - (len(methods) - 1) / 2
        x = rows["value"] * (1 + 0.03 * aside) if ratio else rows["value"] + 0.008 * aside * (values[-1] - values[0])
        reach = [rows[column] - rows[f"{column}_low"], rows[f"{column}_high"] - rows[column]]
        line = panel.errorbar(x, rows[column], reach, label=name, color=colours[name], capsize=2, linewidth=1.6)
        line[0].set(marker="o", markersize=4)
    if ratio:
        panel.set_xscale("log")
        panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xticks(values, [f"{value:g}" for value in values])
    panel.minorticks_off()
