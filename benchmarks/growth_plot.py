"""The figure of `growth.py`: small multiples of time and memory against tokens, batch and width."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from growth_fit import PowerLaw
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from poddistill.evaluation.figures import STYLE

LABELS = {
    "tokens": "tokens (teacher: frames x pixels)",
    "batch": "batch (volumes or clips)",
    "width": "width (teacher: of the first stage)",
    "time": "time of a step, ms",
    "memory": "peak memory of a step, MiB",
}
# Okabe and Ito's palette; markers differ as well.
LOOKS = {"mae": ("#D55E00", "o"), "teacher": ("#000000", "^"), "student": ("#0072B2", "s")}

Curve = tuple[list[float], list[float], PowerLaw]


def draw(curves: Mapping[tuple[str, str, str], Curve], stages: Mapping[str, str], title: str, file: Path) -> None:
    """Draws the figure.

    Args:
        curves: Sizes, costs and their power law by (stage, axis, quantity).
        stages: What to call the stages.
        title: Above all panels.
        file: PNG or SVG.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(11, 6.6), layout="constrained")
        panels = figure.subplots(2, 3, sharey="row", sharex="col")
        for row, quantity in enumerate(("time", "memory")):
            for column, axis in enumerate(("tokens", "batch", "width")):
                panel = panels[row, column]
                panel.set(xscale="log", yscale="log")
                ticks: set[float] = set()
                for stage, name in stages.items():
                    x, y, law = curves[stage, axis, quantity]
                    colour, marker = LOOKS[stage]
                    line = np.geomspace(x[0], x[-1], 50)
                    panel.plot(line, law(line), color=colour, linewidth=1.2, alpha=0.7)
                    panel.plot(
                        x,
                        y,
                        marker,
                        color=colour,
                        markersize=5,
                        label=f"{name} {law.exponent:.2f} ({law.low:.2f} to {law.high:.2f})",
                    )
                    ticks |= set(x)
                shown = sorted(ticks)[:: 2 if axis == "tokens" else 1]
                panel.xaxis.set_major_locator(FixedLocator(shown))
                panel.xaxis.set_minor_locator(NullLocator())
                panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
                panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
                panel.yaxis.set_minor_locator(NullLocator())
                panel.legend(
                    title="exponent (95% interval)", loc="upper left", fontsize=8, title_fontsize=8, framealpha=0.85
                )
                if row == 1:
                    panel.set_xlabel(LABELS[axis])
                if column == 0:
                    panel.set_ylabel(LABELS[quantity])
        for row in panels:  # room for the legends
            low, high = row[0].get_ylim()
            row[0].set_ylim(low, high * (high / low) ** 0.45)
        figure.suptitle(title, fontsize=10.5)
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=110)


def _short(value: float) -> str:
    return f"{value / 1024:.0f}k" if value >= 1024 else f"{value:.0f}"
