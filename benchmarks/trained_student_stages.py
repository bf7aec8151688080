"""The stages of `trained_student.py`, each a process of its own: three of the peers, three of poddistill."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from demo_stages import ROOT
from timing import machine

from data_modules.mri import MRIDataModule
from data_modules.tvus import TVUSDataModule
from poddistill.training.precision import fastest_precision

STAGES = ("mae", "teacher", "student")
SIDES = ("peers", "poddistill")
FOLD = 0
NETWORK = {
    "patch_size": [4, 6, 6],  # 256 tokens a volume
    "encoder_width": 144,
    "encoder_depth": 4,
    "encoder_heads": 6,
    "decoder_width": 96,
    "decoder_depth": 2,
    "decoder_heads": 3,
    "mask_ratio": 0.75,
    "mae_prediction_ratio": 0.5,  # poddistill's alone: MONAI's decoder predicts all
    "mae_epochs": 24,
    "teacher_epochs": 8,
    "student_epochs": 45,
}
"""A network nearer to those in use than the demo's of 72 tokens, on which start-up and augmentation weigh most."""

Words = list[str | Path | int]


class Stages:
    """Runs the stages of both sides, and keeps their seconds, so that an interrupted benchmark goes on where it was.

    Args:
        folder: Where all that is trained goes, and ``seconds.json``.
        cohort: As `poddistill ingest` writes it.
        budget: Part of the profile's epochs that all stages of both sides train.
        network: What replaces the demo's sizes and epochs.

    Raises:
        SystemExit: The folder holds times of another profile, machine or version.
    """

    def __init__(self, folder: Path, cohort: Path, budget: float, network: dict[str, Any]) -> None:
        self.folder, self.cohort = folder, cohort
        self.profile = profile_of(network, budget)
        folder.mkdir(parents=True, exist_ok=True)
        self.times, self.profile_file = folder / "seconds.json", folder / "profile.yaml"
        made_with = machine("torch", "monai", "pytorch-lightning", "poddistill")
        text = f"# {made_with}\n{yaml.safe_dump({'profile': self.profile}, sort_keys=False)}"
        if self.times.exists() and self.profile_file.read_text() != text:
            raise SystemExit(f"error: {folder} holds times of another profile, budget, machine or version; remove it")
        self.profile_file.write_text(text)
        self.seconds: dict[str, float] = json.loads(self.times.read_text()) if self.times.exists() else {}

    def run(self, seed: int) -> None:
        """Trains both sides with a seed: stage by stage, in an order of the sides that is shuffled for each."""
        self.write_cases(seed)
        for number, stage in enumerate(STAGES):
            for side in random.Random(10 * seed + number).sample(SIDES, len(SIDES)):
                key = self.key(side, stage, seed)
                if key in self.seconds:
                    continue
                print(f"{key} ...", file=sys.stderr, flush=True)
                self.seconds[key] = self.timed(self.command(side, stage, seed), self.out(side, stage, seed))
                print(f"{key}: {self.seconds[key]:.0f} s", file=sys.stderr, flush=True)
                self.times.write_text(json.dumps(self.seconds, indent=1))

    def command(self, side: str, stage: str, seed: int) -> Words:
        """Returns the command line of a stage."""
        before = {name: self.out(side, name, seed) for name in STAGES}
        common: Words
        if side == "poddistill":
            configs: Words = ["--config", self.profile_file, "--config", ROOT / "experiments" / "pod" / f"{stage}.yaml"]
            common = ["--run", before[stage], "--method", stage, "--cohort", self.cohort, "--fold", FOLD]
            inputs: Words = [
                *("--model.init_args.init_encoder", before["mae"] / "checkpoints" / "best.ckpt"),
                *("--model.init_args.teacher", before["teacher"] / "checkpoints" / "best.ckpt"),
            ]
            program: Words = [Path(sys.executable).with_name("poddistill"), "fit", *configs]
            common += ["--seed_everything", seed]
        else:
            cases = {"mae": "pretraining", "teacher": "clips", "student": f"volumes-seed{seed}"}[stage]
            common = ["--cases", self.folder / f"{cases}.csv", "--profile", self.profile_file, "--seed", seed]
            inputs = ["--encoder", before["mae"] / "best.pt", "--teacher", before["teacher"] / "best.pt"]
            inputs += ["--clips", self.folder / "clips.csv"]
            script = Path(__file__).with_name("trained_student_peers.py")
            program, common = [sys.executable, script, stage], [*common, "--out", before[stage]]
        return [*program, *common, *(inputs if stage == "student" else [])]

    def timed(self, command: Words, out: Path) -> float:
        """Runs a stage from nothing, with all cores, and returns the seconds of its whole process.

        Raises:
            SystemExit: It failed; its output is in ``log.txt`` beside the folder's other files.
        """
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        threads = {"OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
        with (out / "log.txt").open("w") as log:
            start = time.perf_counter()
            code = subprocess.run(
                list(map(str, command)), env=os.environ | threads, stdout=log, stderr=log, check=False
            ).returncode
            seconds = time.perf_counter() - start
        if code:
            raise SystemExit(f"error: {' '.join(map(str, command))} failed: see {out / 'log.txt'}")
        return seconds

    def write_cases(self, seed: int) -> None:
        """Writes for the peers which cases poddistill trains, validates and tests on with a seed."""
        cohort, n_labelled = str(self.cohort), self.profile["n_labelled"]
        for name, data in {
            "pretraining": MRIDataModule(cohort, FOLD, include_unlabelled=True),
            f"volumes-seed{seed}": MRIDataModule(cohort, FOLD, n_labelled=n_labelled, seed=seed),
            "clips": TVUSDataModule(cohort, FOLD),
        }.items():
            table = data.manifest[["case_id", "patient_id", "split", "label"]]
            files = [str((self.cohort / path).resolve()) for path in data.manifest["path"]]
            table.assign(image=files).to_csv(self.folder / f"{name}.csv", index=False)

    def predictions(self, side: str, seed: int) -> pd.DataFrame:
        """Returns label and probability of the student's test cases, in the order of their case ids."""
        table = pd.read_csv(self.out(side, "student", seed) / "predictions.csv").set_index("case_id").sort_index()
        return table.loc[table["split"].eq("test"), ["label", "probability"]]

    def waits(self, stage: str, seed: int) -> dict[str, float]:
        """Returns how many seconds a stage of the peers waited for ``loader`` and ``teacher``."""
        return json.loads((self.out("peers", stage, seed) / "waits.json").read_text())

    def key(self, side: str, stage: str, seed: int) -> str:
        """Returns the name of a stage among the times and in the folder."""
        return f"{side}/seed{seed}/{stage}"

    def out(self, side: str, stage: str, seed: int) -> Path:
        """Returns the folder that a stage writes to."""
        return self.folder / self.key(side, stage, seed)


def profile_of(network: dict[str, Any], budget: float) -> dict[str, Any]:
    """Returns the profile of both sides: the network's, the rest the demo's, in the machine's fastest precision.

    Args:
        network: What replaces the demo's sizes and epochs.
        budget: Part of the epochs; warm-ups and intervals of validation shrink alike.
    """
    profile = yaml.safe_load((ROOT / "experiments" / "pod" / "demo.yaml").read_text())["profile"] | network
    for stage in STAGES if budget != 1 else ():
        every = profile[f"{stage}_validate_every"] = max(1, round(budget * profile[f"{stage}_validate_every"]))
        profile[f"{stage}_epochs"] = max(every, round(budget * profile[f"{stage}_epochs"] / every) * every)
        profile[f"{stage}_warmup_epochs"] *= budget
    return profile | {"precision": fastest_precision()}
