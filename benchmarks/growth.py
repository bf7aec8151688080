"""How the cost of a training step grows with tokens, batch size and width, in each of the three stages.

    .venv/bin/python benchmarks/growth.py [--rounds 7] [--stage mae] [--device cuda] [--bf16]

Prints times and peak memory, fits a power law to each, and draws docs/figures/cost-growth.png. Tokens are the patches
of a volume, of which masked pre-training encodes a quarter; R(2+1)D has none, and the frames x pixels of a clip stand
for them. All points are measured in turns, in shuffled order, each in a process of its own.

Time is the median over the rounds of a process' median step after a first one. Memory is the peak of resident memory in
a step (on a GPU, of allocated memory) less what was in use before it: parameters, gradients and the optimiser's
moments, 16 bytes a parameter, are in place by then, and the libraries have worked once. In these processes malloc gives
freed blocks back at once; what it holds at most in its usual setting is printed beside (on a GPU, allocated memory
again). Linux only; about 6 minutes.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Literal

import torch
from growth_fit import PowerLaw, power_law
from growth_measure import MIB, Cost, in_child
from growth_plot import Curve, draw
from growth_stages import AXES, BASES, DEPTH, MASK_RATIO, PATCH, TEACHER_LAYERS, Point, points_of
from timing import in_turns, machine, options, table

FIGURE = Path(__file__).parents[1] / "docs/figures/cost-growth.png"
STAGES = {"mae": "MAE", "teacher": "teacher", "student": "student"}
BYTES_A_PARAMETER = 16  # itself, its gradient, and the optimiser's two moments, in float32


@dataclass(frozen=True)
class Series:
    """The costs of a stage as one size grows: milliseconds, MiB, and what malloc holds beside what it must."""

    points: list[Point]
    x: list[float]
    milliseconds: list[float]
    memory: list[float]
    held: list[float]
    constant: list[float]

    @property
    def time_law(self) -> PowerLaw:
        """Of the time."""
        return power_law(self.x, self.milliseconds)

    @property
    def memory_law(self) -> PowerLaw:
        """Of the peak memory."""
        return power_law(self.x, self.memory)


Costs = dict[str, dict[Point, list[Cost]]]


def measure(stages: Iterable[str], rounds: int, device: str, bf16: bool) -> Costs:
    """Returns the rounds' costs of all points, once timed (`time`) and once with the careful allocator (`memory`)."""
    points = dict.fromkeys(point for stage in stages for axis in AXES for point in points_of(stage, axis))
    costs: Costs = {}
    passes: dict[Literal["memory", "time"], int] = {"memory": 1, "time": rounds}  # memory repeats itself to 2%
    for what, times in passes.items():
        sides = {str(point): partial(in_child, point, what, device, bf16) for point in points}
        results = in_turns(sides, times, warm_up=False)  # every process warms up on its own
        costs[what] = dict(zip(points, results.values(), strict=True))
    return costs


def series_of(stage: str, axis: str, costs: Costs) -> Series:
    """Returns the medians of a stage along an axis."""
    points = points_of(stage, axis)
    timed, careful = ([costs[what][point] for point in points] for what in ("time", "memory"))
    return Series(
        points,
        x=[float(getattr(point, axis)) for point in points],
        milliseconds=[1e3 * median(cost.seconds for cost in rounds) for rounds in timed],
        memory=[median(cost.memory for cost in rounds) / MIB for rounds in careful],
        held=[median(cost.memory for cost in rounds) / MIB for rounds in timed],
        constant=[BYTES_A_PARAMETER * rounds[0].parameters / MIB for rounds in timed],
    )


def exponents(name: str, series: Series) -> list[str]:
    """Returns a row of the first table."""
    row = [f"{name} {series.x[0]:,.0f} to {series.x[-1]:,.0f}"]
    for law in (series.time_law, series.memory_law):
        row += [f"{law.exponent:.2f} ({law.low:.2f} to {law.high:.2f})", f"{law.last:.2f}"]
    return row


def figures(name: str, series: Series) -> list[list[str]]:
    """Returns the rows of the second table."""
    rows = []
    for i, point in enumerate(series.points):
        a_token = 1024 * series.memory[i] / point.tokens / point.batch
        costs = (series.milliseconds[i], series.memory[i], series.held[i], series.constant[i])
        size = [name, f"{point.tokens:,}", str(point.batch), str(point.width)]
        rows.append([*size, *(f"{cost:,.1f}" for cost in costs), f"{a_token:.2f}"])
    return rows


def main() -> None:
    """Measures, prints both tables and draws the figure."""
    parser = options(__doc__)
    parser.add_argument("--stage", choices=STAGES, action="append", help="only this one; may be repeated")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--figure", type=Path, help="PNG or SVG to draw; needed with --stage, --device or --bf16")
    arguments = parser.parse_args()
    if not arguments.figure and (arguments.stage or arguments.device != "cpu" or arguments.bf16):
        parser.error(f"give --figure: {FIGURE.name} in docs/figures has all stages on a CPU in float32")
    stages = {stage: name for stage, name in STAGES.items() if stage in (arguments.stage or STAGES)}
    start = time.perf_counter()
    costs = measure(stages, arguments.rounds, arguments.device, arguments.bf16)
    series = {(stage, axis): series_of(stage, axis, costs) for stage in stages for axis in AXES}
    names = {(stage, axis): f"{STAGES[stage]}, {axis}" for stage, axis in series}
    device = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    setting = f"{device}, {'bfloat16 autocast' if arguments.bf16 else 'float32'}"
    print(
        f"{machine('torch')}\n{setting}; patches of {PATCH} voxels, encoders of {DEPTH} blocks, mask ratio {MASK_RATIO}"
    )
    print(f"R(2+1)D with {TEACHER_LAYERS} blocks a stage\n")
    print("Exponents with their 95% interval, and the one between the last two points alone:\n")
    laws = ("time", "last two", "peak memory", "last two")
    print(table(("stage, what grows", *laws), [exponents(names[key], one) for key, one in series.items()]))
    print("\nWhat they are fitted to; memory in MiB, beside the constant part:\n")
    columns = ("tokens", "batch", "width", "ms", "memory", "held by malloc", "constant", "KiB a token")
    rows = [row for key, one in series.items() for row in figures(names[key], one)]
    print(table(("stage, what grows", *columns), rows))
    print(f"\nThe whole run took {time.perf_counter() - start:.0f} s.")
    curves: dict[tuple[str, str, str], Curve] = {}
    for key, one in series.items():
        curves[*key, "time"] = one.x, one.milliseconds, one.time_law
        curves[*key, "memory"] = one.x, one.memory, one.memory_law
    mae, teacher = BASES["mae"], BASES["teacher"]
    title = f"{mae.tokens:,} tokens (teacher {teacher.tokens:,}), batch {mae.batch}, width {mae.width}"
    title = f"Cost of a training step. Fixed where not varied: {title} (teacher {teacher.width})"
    draw(curves, stages, title, arguments.figure or FIGURE)


if __name__ == "__main__":
    main()
