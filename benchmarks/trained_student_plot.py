"""The figure of `trained_student.py`: how long both sides take to a trained student, and how good it is."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from poddistill.evaluation.figures import STYLE

# Okabe and Ito's palette
COLOURS = {"mae": "#D55E00", "teacher": "#4D4D4D", "student": "#0072B2"}
NAMES = {"mae": "masked pre-training", "teacher": "ultrasound teacher", "student": "student, distilled"}


def draw(
    seconds: Mapping[str, Mapping[str, float]], aurocs: Mapping[str, Sequence[float]], title: str, file: Path
) -> None:
    """Draws a bar a side, of its stages.

    Args:
        seconds: By side and stage.
        aurocs: By side, the student's on the test fold, one a seed.
        title: Above the bars.
        file: PNG or SVG.
    """
    longest = max(sum(stages.values()) for stages in seconds.values())
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 2.7), layout="constrained")
        panel = figure.subplots()
        for side, stages in seconds.items():
            left = 0.0
            for stage, value in stages.items():
                label = NAMES[stage] if side == next(iter(seconds)) else None
                panel.barh(side, value, left=left, height=0.62, color=COLOURS[stage], label=label)
                if value > 0.035 * longest:
                    panel.text(left + value / 2, side, f"{value:.0f} s", color="white", ha="center", va="center")
                left += value
            mean = sum(aurocs[side]) / len(aurocs[side])
            text = f"{left:.0f} s\ntest AUROC {mean:.3f}"
            panel.text(left + 0.01 * longest, side, text, ha="left", va="center", weight="bold")
        panel.set_xlim(0, 1.2 * longest)
        panel.set_xlabel("seconds from the command to the trained student, start-up of every stage included")
        panel.invert_yaxis()
        panel.grid(visible=False, axis="y")
        panel.tick_params(axis="y", length=0, labelsize=10)
        figure.legend(loc="outside lower center", ncols=len(NAMES), frameon=False)
        panel.set_title(title, loc="left")
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, dpi=130)
