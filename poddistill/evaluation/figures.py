"""Figures of a comparison: ROC curves with paired differences, reliability, learning curves.

One colour a method throughout, from the palettes of Okabe & Ito and of Tol, which colour-blind readers can tell apart.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import stats
from sklearn.metrics import roc_curve

from poddistill.evaluation.calibration import reliability
from poddistill.evaluation.runs import Run, method_rank, read_history
from poddistill.evaluation.scores import Method
from poddistill.evaluation.statistics import FloatArray, IntArray

KNOWN_COLOURS = {
    "teacher": "#000000",
    "student": "#0072B2",
    "student-mae": "#E69F00",
    "student-paper": "#D55E00",
    "student-kd": "#009E73",
    "student-scratch": "#CC79A7",
    "mae": "#7F7F7F",
}
FURTHER_COLOURS = (
    *("#56B4E9", "#8C6D1F", "#6A51A3", "#5B8C85", "#117733"),
    *("#882255", "#88CCEE", "#999933", "#332288", "#DDAA99"),
)
MOST_COLUMNS = 6
MOST_PAIRS = 12
FAINT = "#B8BEC6"
INK = "#3A4048"
GRID = np.linspace(0, 1, 501)
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#ECEFF2",
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "white",
}


def method_colours(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each method: a fixed one for the known methods, the further ones in turn."""
    colours = {name: KNOWN_COLOURS[name] for name in names if name in KNOWN_COLOURS}
    for index, name in enumerate(name for name in names if name not in KNOWN_COLOURS):
        colours[name] = FURTHER_COLOURS[index % len(FURTHER_COLOURS)]
    return colours


@rc_context(STYLE)
def roc_figure(
    methods: Sequence[Method], table: pd.DataFrame, differences: pd.DataFrame, colours: dict[str, str]
) -> Figure:
    """Draw the ROC curve of every method, and beside them the paired differences in AUROC with their intervals.

    Several runs of a method are averaged vertically (mean sensitivity at each false-positive rate), over seeds, folds
    and cohorts as their AUROCs are, so that the area agrees. The dot is the operating point, at the thresholds from the
    validation cases.
    """
    shown = _readable(differences.dropna(subset=["difference"]))
    figure = _figure(10.2 if len(shown) else 5.6, max(5.0, 0.4 * len(shown)))
    if len(shown):
        axes, beside = figure.subplots(1, 2, width_ratios=[1, 0.72])
        _forest(beside, shown, colours)
    else:
        axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for method, row in zip(methods, table.to_dict("records"), strict=True):
        if np.isnan(row["auroc"]):
            continue
        colour = colours[method.name]
        label = f"{method.name}  {row['auroc']:.3f} ({row['auroc_low']:.3f}\N{EN DASH}{row['auroc_high']:.3f})"
        style = (0, (5, 2)) if method.name == "teacher" else "-"
        axes.plot(*_mean_roc(method), color=colour, linewidth=1.8, linestyle=style, label=label)
        axes.plot(1 - row["specificity"], row["sensitivity"], "o", color=colour, markersize=6, markeredgecolor="white")
    axes.set(xlim=(-0.015, 1.015), ylim=(-0.015, 1.015), aspect="equal")
    axes.set(xlabel="1 \N{MINUS SIGN} specificity", ylabel="sensitivity")
    axes.set_title("ROC, test patients", loc="left")
    if axes.get_legend_handles_labels()[0]:
        size = 8.5 if len(methods) <= 8 else 7
        legend = axes.legend(loc="lower right", title="AUROC (95 % interval)", fontsize=size, title_fontsize=size)
        legend.get_frame().set(edgecolor="none", alpha=0.9)
    return figure


@rc_context(STYLE)
def reliability_figure(methods: Sequence[Method], colours: dict[str, str]) -> Figure:
    """Draw observed frequency against predicted probability, a panel a method, with 95 % Wilson intervals.

    Beneath each panel stands the number of cases by predicted probability. Cases of all runs are binned together, since
    a probability claims the same whichever model gave it; seeds repeat the same patients, so the intervals and the
    numbers count a case once.
    """
    bands, columns = _grid(len(methods))
    figure = _figure(max(2.15 * columns, 4.3), 3.2 * bands)
    panels = figure.subplots(2 * bands, columns, sharex=True, squeeze=False, height_ratios=[5, 1] * bands)
    for index, method in enumerate(methods):
        band, column = divmod(index, columns)
        axes, beneath = panels[2 * band : 2 * band + 2, column]
        folds = [scored.fold for scored in method.folds.values()]
        labels = np.concatenate([np.tile(fold.labels, len(fold.scores)) for fold in folds])
        curve = reliability(labels, np.concatenate([fold.scores.ravel() for fold in folds]))
        patients = np.maximum(curve.count * len(method.cases) / len(labels), 1)
        bars = np.array(
            [
                stats.binomtest(round(share * size), round(size)).proportion_ci(method="wilson")
                for share, size in zip(curve.observed, patients, strict=True)
            ]
        )
        colour = colours[method.name]
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        axes.vlines(curve.predicted, bars[:, 0], bars[:, 1], color=colour, linewidth=1.2, alpha=0.55)
        axes.scatter(curve.predicted, curve.observed, s=20, color=colour, zorder=3)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        axes.set_title(f"{method.name}\nECE {method.mean('ece'):.3f}", loc="left", fontsize=9)
        beneath.bar(curve.predicted, patients, width=0.07, color=colour, alpha=0.55)
        beneath.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        beneath.set_xlabel("predicted probability")
        if column == 0:
            axes.set_ylabel("observed frequency")
            beneath.set_ylabel("cases")
    for empty in panels[-2:, (len(methods) - 1) % columns + 1 :].flat:
        empty.set_axis_off()
    return figure


@rc_context(STYLE)
def learning_figure(runs: Sequence[Run], colours: dict[str, str]) -> Figure | None:
    """Draw loss and validation AUROC by epoch, a column a stage; a thin line a run, a thick one their mean.

    Returns:
        The figure, or None where no run has a training history.
    """
    histories: dict[str, dict[str, list[pd.Series]]] = {}
    for run in runs:
        for metric in ("train/loss", "val/loss", "val/auroc"):
            curve = read_history(run.metrics, metric)
            if len(curve):
                histories.setdefault(run.method, {}).setdefault(metric, []).append(curve)
    if not histories:
        return None
    stages = sorted(histories, key=lambda name: (name != "mae", *method_rank(name)))
    scored = any("val/auroc" in histories[stage] for stage in stages)
    bands, columns = _grid(len(stages))
    each = 2 if scored else 1
    figure = _figure(max(2.2 * columns, 4.4), (4.3 if scored else 2.4) * bands)
    panels = figure.subplots(each * bands, columns, squeeze=False)
    for index in range(bands * columns):
        column_of = panels[each * (index // columns) :, index % columns]
        losses, below = column_of[0], column_of[1] if scored else None
        if index >= len(stages):
            for axes in column_of[:each]:
                axes.set_axis_off()
            continue
        stage = stages[index]
        colour = colours[stage]
        losses.set_title(stage, loc="left", fontsize=9.5, color=colour, fontweight="bold")
        _draw_history(losses, histories[stage].get("train/loss", []), FAINT, "train")
        _draw_history(losses, histories[stage].get("val/loss", []), colour, "validation")
        if losses.get_legend_handles_labels()[0]:
            losses.legend(frameon=False, fontsize=7.5)
        if index % columns == 0:
            losses.set_ylabel("loss")
        curves = histories[stage].get("val/auroc", [])
        if below is None or not curves:
            losses.set_xlabel("epoch")
        if below is None:
            continue
        if not curves:
            below.set_axis_off()
            continue
        _draw_history(below, curves, colour, "validation")
        below.axhline(0.5, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        below.set(ylim=(0.0 if _lowest(curves) < 0.38 else 0.38, 1.02), xlabel="epoch")
        if index % columns == 0 or "val/auroc" not in histories[stages[index - 1]]:
            below.set_ylabel("validation AUROC")
    return figure


def _forest(axes: Axes, differences: pd.DataFrame, colours: dict[str, str]) -> None:
    rows = differences.to_dict("records")[::-1]
    for height, row in enumerate(rows):
        colour = colours[row["method_a"]]
        axes.plot([row["low"], row["high"]], [height, height], color=colour, linewidth=2, solid_capstyle="butt")
        axes.plot(row["difference"], height, "o", color=colour, markersize=6)
    names = [f"{row['method_a']}\n\N{MINUS SIGN} {row['method_b']}" for row in rows]
    axes.axvline(0, color=INK, linewidth=0.9)
    axes.set_yticks(range(len(rows)), names, fontsize=8.5)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel("difference in AUROC, 95 % interval")
    axes.set_title("Paired differences", loc="left")


def _mean_roc(method: Method) -> tuple[FloatArray, FloatArray]:
    """False-positive rates and sensitivities: of the only run as it is, of several as their mean on a grid."""
    if len(method.runs) == 1:
        (scored,) = method.folds.values()
        return roc_curve(scored.fold.labels, scored.fold.scores[0], drop_intermediate=False)[:2]
    mean = method.average(lambda scored: np.mean([_on_grid(scored.fold.labels, s) for s in scored.fold.scores], axis=0))
    return np.append(0.0, GRID), np.append(0.0, mean)


def _on_grid(labels: IntArray, scores: FloatArray) -> FloatArray:
    """Sensitivities of one run at the false-positive rates of the grid."""
    false_positive, true_positive, _ = roc_curve(labels, scores, drop_intermediate=False)
    # The grid's point takes the highest sensitivity reached there: np.interp is ambiguous on vertical steps.
    last = np.searchsorted(false_positive, GRID, side="right") - 1
    after = np.minimum(last + 1, len(false_positive) - 1)
    step = false_positive[after] - false_positive[last]
    share = np.divide(GRID - false_positive[last], step, out=np.zeros_like(GRID), where=step > 0)
    return true_positive[last] + share * (true_positive[after] - true_positive[last])


def _draw_history(axes: Axes, curves: list[pd.Series], colour: str, label: str) -> None:
    if not curves:
        return
    if len(curves) > 1:
        for curve in curves:
            axes.plot(curve.index, curve.to_numpy(), color=colour, linewidth=0.7, alpha=0.4)
    mean = pd.concat(curves, axis=1).mean(axis=1).sort_index()
    marker = "o" if len(mean) == 1 else ""
    axes.plot(mean.index, mean.to_numpy(), color=colour, linewidth=1.7, label=label, marker=marker, markersize=4)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))


def _readable(differences: pd.DataFrame) -> pd.DataFrame:
    """All pairs from one baseline; of all pairs, if too many to draw, those of the student or else the first method."""
    if len(differences) <= MOST_PAIRS or differences["method_b"].nunique() == 1:
        return differences
    of_student = (differences["method_a"] == "student") | (differences["method_b"] == "student")
    return differences[of_student if of_student.any() else differences["method_a"] == differences["method_a"].iloc[0]]


def _grid(panels: int) -> tuple[int, int]:
    """Rows and columns of a grid in which a page's width keeps the panels readable."""
    rows = -(-panels // MOST_COLUMNS)
    return rows, -(-panels // rows)


def _lowest(curves: list[pd.Series]) -> float:
    return min(float(curve.min()) for curve in curves)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure
