"""Time of a training epoch of the student with distillation, against plain fine-tuning of the same student.

    .venv/bin/python benchmarks/distillation_epoch.py [--rounds 7] [--epochs 12] [--cohort cohorts/demo]

Distillation needs the frozen teacher's outputs on the clips. poddistill computes them once and looks them up in every
step; of augmented clips it keeps several copies. A plain implementation runs the teacher in every step on the clips
that were drawn, which lie in RAM here and are not augmented. Each side is a fit by Lightning's Trainer from the shipped
configurations, in the demo's profile, on the demo's simulated cohort (`make cohort` makes it where it is missing), from
the same encoder and teacher. Epochs are timed from their start to the end of their last step, validation and
checkpoints left out; a fit's first epoch, which reads the files and counts FLOPs, is not counted.

Before any clock starts, the kept outputs are compared with the teacher's in the step, and so are the students that are
trained with the ones and with the other.
"""

import argparse
import math
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from demo_stages import COHORT, demo_cohort
from distillation_sides import Bench, TeacherInStep
from timing import in_turns, machine, options, ratio, table
from torch import Tensor

COMPARED_EPOCHS = 2
# By rounding: the teacher sees clips in batches of another size, and in the step it runs in the fit's precision, as a
# plain implementation would have it; of weights, Adam's steps magnify it.
OUTPUTS_OFF, STUDENTS_APART = 1e-4, 0.05


def compare_work(bench: Bench) -> str:
    """Trains a student on each side and returns what was compared.

    Raises:
        SystemExit: Outputs or students differ, or the sides trained another network or took another number of steps.
    """
    students, steps = {}, {}
    for side in bench.options:
        cli, clock = bench.student(side, bench.folder / "compared" / side, COMPARED_EPOCHS)
        students[side], steps[side] = cli.model.state_dict(), clock.steps
        if side == "kept":
            kept, in_step = cli.model.bank.logits, TeacherInStep(bench.teacher, cli.datamodule)
            order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(0)).split(20)
            off = max(float((in_step[rows] - kept[rows]).abs().max()) for rows in order)
    shapes = [[(key, value.shape) for key, value in student.items()] for student in students.values()]
    if any(one != shapes[0] for one in shapes) or len(set(steps.values())) > 1:
        raise SystemExit(f"error: the sides do not train one network for as many steps: {steps}")
    apart = distance(students["kept"], students["in step"]) / distance(students["kept"], students["plain"])
    if off > OUTPUTS_OFF or apart > STUDENTS_APART:
        raise SystemExit(f"error: kept outputs are off by {off:.1g}, students trained with them apart by {apart:.2g}")
    return (
        f"{steps['plain'] // COMPARED_EPOCHS} steps an epoch on every side. Kept outputs, {float(kept.min()):.3f} to "
        f"{float(kept.max()):.3f}, differ by at most {off:.1g} from the teacher's in the step.\n"
        f"After {COMPARED_EPOCHS} epochs the weights with the ones and the other are apart by {apart:.2g} of their "
        "distance to those without a teacher."
    )


def distance(weights: dict[str, Tensor], others: dict[str, Tensor]) -> float:
    """Returns the Euclidean distance of all weights of two students."""
    return math.sqrt(sum(float((weights[key] - value).square().sum()) for key, value in others.items()))


def epochs_table(times: dict[str, list[float]], copies: int) -> str:
    """Returns the table of epochs."""
    names = {
        "plain": "plain fine-tuning",
        "kept": "distillation, outputs kept",
        "copies": f"distillation, outputs of {copies} augmented copies kept",
        "in step": "distillation, teacher run in every step",
    }
    rows = [
        [
            name,
            f"{1e3 * statistics.median(times[side]):.0f}",
            "1" if side == "plain" else ratio(times[side], times["plain"], 3),
            "1" if side == "in step" else ratio(times["in step"], times[side]),
        ]
        for side, name in names.items()
    ]
    columns = [
        "training",
        "ms an epoch",
        "times plain fine-tuning's (range)",
        "times faster than the teacher in the step",
    ]
    return table(columns, rows)


def lookups_table(lookups: dict[str, list[float]], times: dict[str, list[float]], clips: int, copies: int) -> str:
    """Returns the table of what keeping costs once, and after how many epochs that is saved."""
    rows = []
    for side, n in (("kept", 1), ("copies", copies)):
        seconds = statistics.median(lookups[side])
        saved = statistics.median(times["in step"]) - statistics.median(times[side])
        spread = f"{seconds:.2f} ({min(lookups[side]):.2f} to {max(lookups[side]):.2f})"
        rows.append([f"{clips} clips, {n} each", spread, f"{1e3 * seconds / clips / n:.1f}", f"{seconds / saved:.1f}"])
    read = lookups["read"]
    rows.append(["kept already, read", f"{statistics.median(read):.2f} ({min(read):.2f} to {max(read):.2f})", "", ""])
    columns = ["outputs", "s, once a teacher (range)", "ms a clip and copy", "epochs until it has paid"]
    return table(columns, rows)


def main() -> None:
    """Compares the sides' work, times them in turns and prints both tables."""
    parser = options(__doc__ or "")
    parser.add_argument("--cohort", type=Path, default=COHORT, help="cohort folder (default: the demo's)")
    parser.add_argument("--epochs", type=int, default=12, help="timed epochs of a fit (default: 12)")
    parser.add_argument("--copies", type=int, default=4, help="augmented copies of a clip (default: 4)")
    arguments: argparse.Namespace = parser.parse_args()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(demo_cohort(arguments.cohort), Path(folder), arguments.epochs, arguments.copies)
        compared = compare_work(bench)
        clips = len(bench.lookup("kept", anew=True)[1].case_ids)
        times = in_turns({side: partial(bench.epoch, side) for side in bench.options}, arguments.rounds)
        sides = {side: partial(bench.lookup, side, anew=True) for side in ("kept", "copies")}
        anew = in_turns(sides, arguments.rounds)
        lookups = {side: [seconds for seconds, _ in results] for side, results in anew.items()}
        bench.lookup("kept", anew=True)
        lookups["read"] = [bench.lookup("kept", anew=False)[0] for _ in range(arguments.rounds)]
    print(machine("torch", "pytorch-lightning"))
    print(f"Profile demo, {torch.get_num_threads()} threads; {compared}\n")
    print(epochs_table(times, arguments.copies))
    print("\nWhat keeping costs, once for all students of a teacher:\n")
    print(lookups_table(lookups, times, clips, arguments.copies))
    print(f"\nThe whole run took {(time.perf_counter() - start) / 60:.0f} minutes.")


if __name__ == "__main__":
    main()
