"""The figure of `results.py`: by how much methods differ."""

from pathlib import Path

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from poddistill.evaluation.figures import STYLE


def draw_differences(differences: pd.DataFrame, runs: pd.DataFrame, file: Path) -> None:
    """Draws a row a difference: its 95 % interval, and a dot a cohort, over the runs that both methods have.

    Args:
        differences: As `poddistill compare` writes them.
        runs: Likewise, columns method, cohort, seed, fold, n and auroc.
        file: PNG or SVG.
    """
    auroc = runs.pivot(index=["cohort", "fold", "n", "seed"], columns="method", values="auroc")
    with rc_context(STYLE):
        figure = Figure(figsize=(7, 1.35 + 0.33 * len(differences)), layout="constrained")
        panel = figure.subplots()
        panel.axvline(0, color="grey", linewidth=0.8)
        for place, row in enumerate(differences.itertuples()):
            both = (auroc[row.method_a] - auroc[row.method_b]).dropna()
            each = both.groupby(["cohort", "fold"]).mean().groupby("cohort").mean()
            panel.plot(each, [place + 0.2] * len(each), ".", color="#56B4E9", markersize=4)
            ends = [[row.difference - row.low], [row.high - row.difference]]
            panel.errorbar(row.difference, place, xerr=ends, fmt="o", color="#0072B2", markersize=4, capsize=2)
        panel.set_yticks(
            range(len(differences)), [f"{row.method_a}  -  {row.method_b}" for row in differences.itertuples()]
        )
        panel.set_ylim(len(differences) - 0.4, -0.6)  # the first on top
        panel.xaxis.set_major_locator(MaxNLocator(5))
        panel.set_xlabel("difference in test AUROC:\nmean with 95 % interval, and each cohort")
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=150)
