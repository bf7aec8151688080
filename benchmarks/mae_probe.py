"""Does the cheaper decoder cost accuracy? A linear probe of encoders that were pre-trained with one decoder or another.

    .venv/bin/python benchmarks/mae_probe.py [--seeds 3] [--epochs 32] [--cohort cohorts/demo]

Encoders are pre-trained on the simulated demo cohort (`make cohort` makes it where it is missing), through the shipped
configurations: MAEPretrain and MRIDataModule in Lightning's Trainer. Encoder, first weights, masks, order of the data,
batches, rates and epochs are the same for all sides; the decoder and the precision differ. The encoder has a class
token, so that the self-attention side is the network of MONAI's MaskedAutoEncoderViT (see mae_step.py).

A frozen encoder's tokens, without the class token, are averaged to one feature vector a labelled volume, on which a
logistic regression is cross-validated by patient (see mae_probe_scores.py). The interval of a difference comes from
patients drawn with replacement, the same ones for both sides; scores of the seeds are averaged as AUROCs.

The time of a training step is taken at the end, on one batch of the cohort, all sides in turns.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from demo_stages import COHORT, demo_cohort, demo_stage
from mae_probe_scores import Cases, auroc_difference, labelled_cases, probe
from steps import BFLOAT16, FLOAT32, Training
from timing import in_turns, machine, options, ratio, table
from torch import Tensor

from data_modules.cohort_dataset import in_unit_range
from poddistill.evaluation.statistics import FloatArray, auroc
from poddistill.lightning_cli import StageCLI
from poddistill.nets.vision_transformer import VisionTransformer3D
from poddistill.training.precision import fastest_precision


class Side(NamedTuple):
    """How an encoder is pre-trained.

    Attributes:
        decoder: `self` or `cross`.
        prediction_ratio: Part of the masked patches that is predicted.
        precision: As of Lightning's Trainer.
    """

    decoder: str
    prediction_ratio: float = 1.0
    precision: str = "32-true"


BASE, UNTRAINED = "self-attention, float32 (MONAI's form)", "untrained encoder"
FAST = fastest_precision()
SIDES = {
    BASE: Side("self"),
    "cross-attention, float32": Side("cross"),
    f"cross-attention, {FAST}, predicting half": Side("cross", 0.5, FAST),
}


def stage(side: Side, cohort: Path, run: Path, seed: int, epochs: int) -> StageCLI:
    """Builds the pre-training of a side from the demo's configuration."""
    network = "--model.init_args.network.init_args"
    values = {
        f"{network}.encoder.init_args.pooling": "class",
        f"{network}.decoder": side.decoder,
        "--profile.mae_prediction_ratio": side.prediction_ratio,
        "--profile.precision": side.precision,
        "--profile.mae_epochs": epochs,
        "--profile.mae_validate_every": epochs,
        "--seed_everything": seed,
    }
    return demo_stage("mae", cohort, run, *(str(word) for pair in values.items() for word in pair))


def pretrained_features(cohort: Path, cases: Cases, seed: int, epochs: int) -> dict[str, FloatArray]:
    """Pre-trains every side with a seed and returns features (N, width) of the cases, the untrained encoder's first.

    Raises:
        SystemExit: The sides started from other weights or took another number of steps.
    """
    found: dict[str, FloatArray] = {}
    steps = set()
    for name, side in SIDES.items():
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as run:
            cli = stage(side, cohort, Path(run), seed, epochs)
            encoder = cli.model.network.encoder
            untrained = features(encoder, cases.volumes)
            if (found.setdefault(UNTRAINED, untrained) != untrained).any():
                raise SystemExit("error: the sides start from other weights")
            cli.trainer.fit(cli.model, cli.datamodule)
        steps.add(cli.trainer.global_step)
        found[name] = features(encoder, cases.volumes)
        print(f"seed {seed}, {name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    if len(steps) > 1:
        raise SystemExit(f"error: the sides took {steps} steps")
    return found


@torch.inference_mode()
def features(encoder: VisionTransformer3D, volumes: Tensor) -> FloatArray:
    """Returns the mean of the patches' tokens (N, width) of volumes (N, 1, D, H, W), in float32."""
    encoder.eval()
    pooled = [encoder.tokens(batch)[:, 1:].mean(dim=1) for batch in volumes.split(64)]  # the class token is the first
    encoder.train()
    return torch.cat(pooled).double().numpy()


def step_times(cohort: Path, rounds: int, steps: int) -> dict[str, list[float]]:
    """Returns the seconds of a training step of each side, a value a round, on a batch of the training data."""
    trainings: dict[str, Callable[[int], float]] = {}
    with tempfile.TemporaryDirectory() as run:
        for name, side in SIDES.items():
            cli = stage(side, cohort, Path(run), seed=0, epochs=1)
            volumes = in_unit_range(next(iter(cli.datamodule.train_dataloader()))["image"])
            dtype = BFLOAT16 if side.precision == "bf16-mixed" else FLOAT32
            trainings[name] = Training(cli.model.network, volumes, lambda answer: answer.loss, dtype)
    return in_turns({name: partial(one, steps) for name, one in trainings.items()}, rounds)


def rows(cases: Cases, scores: list[dict[str, FloatArray]], times: dict[str, list[float]]) -> list[list[str]]:
    """Returns the lines of the table, from each seed's scores (N,) by side."""
    lines = []
    for name in (UNTRAINED, *SIDES):
        aurocs = [auroc(cases.labels, of_seed[name]) for of_seed in scores]
        line = [name, f"{statistics.mean(aurocs):.3f}", ", ".join(f"{value:.3f}" for value in aurocs)]
        if name == BASE:
            line += ["0", "0"]
        else:
            sides = ([of_seed[side] for of_seed in scores] for side in (name, BASE))
            difference = auroc_difference(cases, *sides)
            line.append(f"{difference.mean:+.3f} ({difference.low:+.3f} to {difference.high:+.3f})")
            line.append(
                ", ".join(f"{auroc(cases.labels, s[name]) - auroc(cases.labels, s[BASE]):+.3f}" for s in scores)
            )
        if name == UNTRAINED:
            line += ["", ""]
        else:
            line.append(f"{1e3 * statistics.median(times[name]):.1f}")
            line.append("1" if name == BASE else ratio(times[BASE], times[name]))
        lines.append(line)
    return lines


def main() -> None:
    """Pre-trains, probes, times and prints the table."""
    parser = options(__doc__ or "")
    parser.add_argument("--cohort", type=Path, default=COHORT, help="cohort folder (default: the demo's)")
    parser.add_argument("--seeds", type=int, default=3, help="pre-trainings of each side (default: 3)")
    parser.add_argument("--epochs", type=int, default=32, help="of a pre-training (default: 32, the demo has 24)")
    parser.add_argument("--steps", type=int, default=10, help="training steps a timed round (default: 10)")
    arguments: argparse.Namespace = parser.parse_args()
    start = time.perf_counter()
    cohort = demo_cohort(arguments.cohort)
    cases = labelled_cases(cohort)
    scores = []
    for seed in range(arguments.seeds):
        found = pretrained_features(cohort, cases, seed, arguments.epochs)
        scores.append({name: probe(cases, values) for name, values in found.items()})
    times = step_times(cohort, arguments.rounds, arguments.steps)
    print(machine("torch", "scikit-learn"))
    print(
        f"{len(cases.labels)} labelled volumes of {len(set(cases.patients))} patients, {cases.labels.mean():.0%} "
        f"obliterated; {arguments.epochs} epochs of pre-training, {arguments.seeds} seeds\n"
    )
    columns = ["pre-training", "AUROC", "of each seed", "difference (95% interval)", "of each seed"]
    print(table([*columns, "ms a step", "times faster than self-attention (range)"], rows(cases, scores, times)))
    print(f"\nThe whole run took {(time.perf_counter() - start) / 60:.0f} minutes.")


if __name__ == "__main__":
    main()
