"""Times the whole way to a trained student: poddistill's commands against the same method from other libraries' parts.

    .venv/bin/python benchmarks/trained_student.py

Three stages: masked pre-training, the ultrasound teacher, the student with distillation. The peers' are those of
`trained_student_peers.py`: MONAI's masked auto-encoder, transforms and cached data set, R(2+1)D in plain PyTorch, and
the teacher run beside the student in every step. poddistill's are `poddistill fit`. Both train on the same cases of the
demo's simulated cohort for the same epochs, in the same batches, sizes and learning rates, in a profile of their own.
poddistill also has malloc keep what was freed, as its commands do; the peers run with the usual setting.

Each stage is a process of its own that has the machine to itself, timed from its command to its end. The sides take
turns, in an order that is shuffled for each stage. What is finished is kept in `runs/trained-student`: interrupted,
the command goes on from there, and with more seeds it adds to what there is.
"""

import argparse
import os
import statistics
from pathlib import Path

from demo_stages import COHORT, ROOT, demo_cohort
from sklearn.metrics import roc_auc_score
from timing import machine, ratio, require, table

NAMES = {"peers": "MONAI and plain PyTorch", "poddistill": "poddistill"}


def main() -> None:
    """Trains what is not trained yet, prints the tables, and draws the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each side (default: 3)")
    parser.add_argument("--budget", type=float, default=1.0, help="part of the epochs, both sides (default: 1)")
    parser.add_argument(
        "--demo", action="store_true", help="train the demo's own network; give it a --folder of its own"
    )
    parser.add_argument("--cohort", type=Path, default=COHORT, help="the default one is simulated where it is missing")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "trained-student", help="of all that is trained")
    parser.add_argument(
        "--figure", type=Path, help="to draw (default: docs/figures'; in the --folder where an option is given)"
    )
    arguments = parser.parse_args()
    asked = {name: value for name, value in vars(arguments).items() if value != parser.get_default(name)}
    figure = arguments.figure or (arguments.folder if asked else ROOT / "docs" / "figures") / "trained-student.png"
    require("monai")
    from trained_student_plot import draw
    from trained_student_stages import NETWORK, SIDES, STAGES, Stages

    network = {} if arguments.demo else NETWORK
    stages = Stages(arguments.folder, demo_cohort(arguments.cohort), arguments.budget, network)
    seeds = range(arguments.seeds)
    for seed in seeds:
        stages.run(seed)

    times = {(side, s): [stages.seconds[stages.key(side, s, seed)] for seed in seeds] for side in SIDES for s in STAGES}
    for side in SIDES:
        times[side, "total"] = [sum(stage) for stage in zip(*(times[side, s] for s in STAGES), strict=True)]
    waits = {s: [stages.waits(s, seed) for seed in seeds] for s in STAGES}
    aurocs: dict[str, list[float]] = {side: [] for side in SIDES}
    for seed in seeds:
        for side in SIDES:
            cases = stages.predictions(side, seed)
            aurocs[side].append(float(roc_auc_score(cases["label"], cases["probability"])))

    profile = stages.profile
    epochs = ", ".join(f"{profile[f'{s}_epochs']} ({s})" for s in STAGES)
    print(f"{machine('torch', 'monai', 'pytorch-lightning')}\n")
    encoder, decoder = (f"{profile[f'{x}_width']} x {profile[f'{x}_depth']}" for x in ("encoder", "decoder"))
    print(
        f"Patches of {profile['patch_size']}, encoder {encoder}, decoder {decoder}, mask ratio {profile['mask_ratio']}."
    )
    print(f"Epochs: {epochs}. poddistill in {profile['precision']}. Medians:\n")
    print(time_table(times, [*STAGES, "total"]), "\n")
    print(auroc_table(aurocs), "\n")
    print("Where the peers' time goes, seconds:\n")
    print(wait_table(times, waits))
    medians = {NAMES[side]: {s: statistics.median(times[side, s]) for s in STAGES} for side in SIDES}
    faster = ratio(times["peers", "total"], times["poddistill", "total"], digits=1)
    title = f"Time to a trained student, {len(os.sched_getaffinity(0))} CPU cores: {faster} times faster"
    draw(medians, {NAMES[side]: aurocs[side] for side in SIDES}, title, figure)
    print(f"\nfigure: {figure}")


def time_table(times: dict[tuple[str, str], list[float]], rows: list[str]) -> str:
    """Returns the table of stages, from seconds by side and stage."""
    return table(
        ["stage", *(f"{name}, s" for name in NAMES.values()), "times faster (range)"],
        [
            [
                row,
                *(f"{statistics.median(times[side, row]):.0f}" for side in NAMES),
                ratio(times["peers", row], times["poddistill", row]),
            ]
            for row in rows
        ],
    )


def auroc_table(aurocs: dict[str, list[float]]) -> str:
    """Returns the table of the students' AUROCs on the test fold, by side and seed, with their paired difference."""
    pairs = list(zip(aurocs["peers"], aurocs["poddistill"], strict=True))
    differences = [ours - theirs for theirs, ours in pairs]
    rows = [
        [f"seed {k}", *(f"{x:.3f}" for x in pair), f"{d:+.3f}"]
        for k, (pair, d) in enumerate(zip(pairs, differences, strict=True))
    ]
    error = f" (standard error {statistics.stdev(differences) / len(pairs) ** 0.5:.3f})" if len(pairs) > 1 else ""
    means = [f"{statistics.mean(side):.3f}" for side in aurocs.values()]
    return table(
        ["test AUROC of the student", *NAMES.values(), "difference"],
        [*rows, *([["mean", *means, f"{statistics.mean(differences):+.3f}{error}"]] if len(pairs) > 1 else [])],
    )


def wait_table(times: dict[tuple[str, str], list[float]], waits: dict[str, list[dict[str, float]]]) -> str:
    """Returns the table of what the peers wait for in each stage."""
    return table(
        ["stage", "whole process", "waiting for the loader", "running the teacher"],
        [
            [stage, f"{statistics.median(times['peers', stage]):.0f}"]
            + [f"{statistics.median(run.get(name, 0) for run in runs):.1f}" for name in ("loader", "teacher")]
            for stage, runs in waits.items()
        ],
    )


if __name__ == "__main__":
    main()
