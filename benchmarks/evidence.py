"""How well the ways to learn from clips what covariates mean recover what all labels of the clips would tell.

    .venv/bin/python benchmarks/evidence.py runs/replicates/study-record-clips-20labels

For every run of a method in a study's folder whose teacher knew the labels of some clips alone, `CovariateLikelihood`
is prepared in each of its ways, on the same clips, teacher and volumes, once more with the teacher's outputs dealt to
the clips at random, and once with the labels of all clips. Its evidence e of the unlabelled volumes is compared with
the latter's: their correlation, and the slope of the regression of e on it, 1 where evidence is as strong as it should
be. No student is trained, and no validation or test volume is looked at. Values are the mean over cohorts, with the
least and the greatest.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import torch
import yaml
from timing import table

from data_modules.cohort import read_manifest
from data_modules.errors import InputError
from data_modules.mri import MRIDataModule
from data_modules.tvus import TVUSDataModule
from data_modules.unpaired import UnpairedDataModule
from poddistill.losses.controls import ShuffledOutputs
from poddistill.losses.covariate_likelihood import CovariateLikelihood
from poddistill.losses.covariates import FitOn
from poddistill.losses.unpaired import StudentCohort, TeacherBank
from poddistill.pod.cohorts import student_cohort, teacher_bank

ALL = "tvus-labels of all clips"
DEALT = "labels-and-order, dealt"


def main() -> None:
    """Prints a table a study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("studies", type=Path, nargs="+", help="folders of studies' runs")
    parser.add_argument("--method", default="student-covariates-order", help="whose clips and volumes are taken")
    arguments = parser.parse_args()
    for study in arguments.studies:
        runs = sorted(study.glob(f"cohort*/seed*/{arguments.method}/config.yaml"))
        if not runs:
            raise SystemExit(
                f"error: {study}: no run of {arguments.method}; name a study's folder, or another --method"
            )
        try:
            found = [evidence(*prepared(run)) for run in runs]
        except InputError as error:
            raise SystemExit(f"error: {error}") from error
        rows = []
        for way in (name for name in found[0] if name != ALL):
            pairs = [agreement(each[way], each[ALL]) for each in found]
            rows.append(
                [f"`{way}`", *(f"{np.mean(v):.2f} ({min(v):.2f} to {max(v):.2f})" for v in zip(*pairs, strict=True))]
            )
        print(f"\n{study.name}, {len(runs)} cohorts\n")
        print(table(["fitted on", "correlation", "slope"], rows))


def prepared(config: Path) -> tuple[StudentCohort, TeacherBank, torch.Tensor]:
    """Returns the volumes and clips of a run, and the true labels (N,) of the clips."""
    options = yaml.safe_load(config.read_text())
    data = options["data"]["init_args"]
    cohort, fold, seed = options["cohort"], options["fold"], options["seed_everything"]
    counts = {name: data[name]["init_args"]["n_labelled"] for name in ("mri", "tvus")}
    mri = MRIDataModule(cohort, fold, n_labelled=counts["mri"], seed=seed, unlabelled_batch_size=1)
    tvus = TVUSDataModule(cohort, fold, n_labelled=counts["tvus"], seed=seed)
    unpaired = UnpairedDataModule(mri, tvus, covariates=data["covariates"], unlabelled_clips=True)
    trainer: Any = SimpleNamespace(
        datamodule=unpaired, is_global_zero=True, strategy=SimpleNamespace(broadcast=lambda value: value), print=print
    )
    bank = teacher_bank(config.parents[1] / "teacher/checkpoints/best.ckpt", trainer, torch.device("cpu"))
    truth = read_manifest(Path(cohort), "tvus").set_index("case_id")["label"].loc[list(bank.case_ids)]
    return student_cohort(unpaired), bank, torch.from_numpy(truth.to_numpy(dtype=np.float32, copy=True))


def evidence(cohort: StudentCohort, bank: TeacherBank, truth: torch.Tensor) -> dict[str, np.ndarray]:
    """Returns e (n,) of the n unlabelled volumes with covariates, by each way to fit it and by the true labels."""
    banks = {name: (name, bank) for name in get_args(FitOn)} | {ALL: ("tvus-labels", replace(bank, labels=truth))}
    banks[DEALT] = ("labels-and-order", ShuffledOutputs()(bank))
    told = {}
    for name, (way, clips) in banks.items():
        transfer = CovariateLikelihood(way)
        transfer.prepare(cohort, clips)
        told[name] = transfer.evidence[cohort.unlabelled & cohort.recorded].double().numpy()
    return told


def agreement(e: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Returns the correlation of e (n,) with a reference (n,), and the slope of its regression on that."""
    covariance = np.cov(e, reference)
    return float(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])), float(
        covariance[0, 1] / covariance[1, 1]
    )


if __name__ == "__main__":
    main()
