"""Figures of a comparison: ROC curves with paired differences, reliability, learning curves.

One colour a method throughout, from the palette of Okabe & Ito, which colour-blind readers can tell apart.
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
from poddistill.evaluation.statistics import FloatArray

KNOWN_COLOURS = {
    "teacher": "#000000",
    "student": "#0072B2",
    "student-mae": "#E69F00",
    "student-kd": "#009E73",
    "student-scratch": "#CC79A7",
    "mae": "#7F7F7F",
}
FURTHER_COLOURS = ("#D55E00", "#56B4E9", "#8C6D1F", "#6A51A3", "#5B8C85")
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

    Several runs of a method are averaged vertically (mean sensitivity at each false-positive rate), which agrees with
    averaging their AUROCs. The dot is the operating point, at the thresholds from the validation cases.
    """
    shown = differences.dropna(subset=["difference"])
    figure = _figure(10.2 if len(shown) else 5.6, 5.0)
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
        legend = axes.legend(loc="lower right", title="AUROC (95 % interval)", fontsize=8.5, title_fontsize=8.5)
        legend.get_frame().set(edgecolor="none", alpha=0.9)
    return figure


@rc_context(STYLE)
def reliability_figure(methods: Sequence[Method], colours: dict[str, str]) -> Figure:
    """Draw observed frequency against predicted probability, a panel a method, with 95 % Wilson intervals.

    Cases of all runs are binned together, since a probability claims the same whichever model gave it; seeds repeat
    the same patients, so the intervals count a case once.
    """
    figure = _figure(max(2.15 * len(methods), 4.3), 2.7)
    panels = figure.subplots(1, len(methods), sharey=True, squeeze=False)[0]
    for axes, method in zip(panels, methods, strict=True):
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
        axes.scatter(curve.predicted, curve.observed, s=14 + 90 * patients / patients.sum(), color=colour, zorder=3)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        axes.set_xlabel("predicted probability")
        axes.set_title(f"{method.name}\nECE {method.mean('ece'):.3f}", loc="left", fontsize=9)
    panels[0].set_ylabel("observed frequency")
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
    figure = _figure(max(2.2 * len(stages), 4.4), 4.3 if scored else 2.4)
    panels = figure.subplots(2 if scored else 1, len(stages), squeeze=False)
    for column, stage in enumerate(stages):
        losses, colour = panels[0, column], colours[stage]
        losses.set_title(stage, loc="left", fontsize=9.5, color=colour, fontweight="bold")
        _draw_history(losses, histories[stage].get("train/loss", []), FAINT, "train")
        _draw_history(losses, histories[stage].get("val/loss", []), colour, "validation")
        if losses.get_legend_handles_labels()[0]:
            losses.legend(frameon=False, fontsize=7.5)
        if scored:
            axes = panels[1, column]
            if "val/auroc" in histories[stage]:
                _draw_history(axes, histories[stage]["val/auroc"], colour, "validation")
                axes.axhline(0.5, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
                axes.set(ylim=(0.0 if _lowest(histories[stage]["val/auroc"]) < 0.38 else 0.38, 1.02), xlabel="epoch")
            else:
                axes.set_axis_off()
        if not scored or "val/auroc" not in histories[stage]:
            losses.set_xlabel("epoch")
    panels[0, 0].set_ylabel("loss")
    if scored:
        first = next(column for column, stage in enumerate(stages) if "val/auroc" in histories[stage])
        panels[1, first].set_ylabel("validation AUROC")
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
    curves = []
    for scored in method.folds.values():
        for scores in scored.fold.scores:
            rates = roc_curve(scored.fold.labels, scores, drop_intermediate=False)[:2]
            curves.append((1 / len(scored.runs), rates))
    if len(curves) == 1:
        return curves[0][1]
    total = np.zeros_like(GRID)
    for weight, (false_positive, true_positive) in curves:
        # The grid's point takes the highest sensitivity reached there: np.interp is ambiguous on vertical steps.
        last = np.searchsorted(false_positive, GRID, side="right") - 1
        after = np.minimum(last + 1, len(false_positive) - 1)
        step = false_positive[after] - false_positive[last]
        share = np.divide(GRID - false_positive[last], step, out=np.zeros_like(GRID), where=step > 0)
        total += weight * (true_positive[last] + share * (true_positive[after] - true_positive[last]))
    return np.append(0.0, GRID), np.append(0.0, total / len(method.folds))


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


def _lowest(curves: list[pd.Series]) -> float:
    return min(float(curve.min()) for curve in curves)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure
