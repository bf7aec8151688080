"""What a student needs of both cohorts: the frozen teacher's outputs, computed once and kept, and the known labels."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch

from data_modules.cohort_dataset import Batch
from data_modules.errors import InputError
from data_modules.files import replacing
from data_modules.tvus import TVUSDataModule
from data_modules.unpaired import UnpairedDataModule
from poddistill.losses.unpaired import StudentCohort, TeacherBank
from poddistill.pod.teacher_tvus import TeacherTVUS
from poddistill.training.checkpoints import hashed, read_checkpoint
from poddistill.training.processes import by_first
from poddistill.training.run_folder import is_dry

FORMAT = 2
"""Of the file with the outputs; another format has another name."""


def teacher_bank(checkpoint: str | Path, trainer: pl.Trainer, device: torch.device) -> TeacherBank:
    """Returns the teacher's outputs on the clips that the data lend, or on augmented copies, with their covariates.

    The outputs are kept in ``outputs/<key>.pt`` of the teacher's run folder, the key a hash of the teacher's weights,
    of the clips and of how they are augmented, so every student of this teacher shares them and a changed clip or
    teacher is never mistaken for the old one. Process 0 reads or computes them and sends them to the others. Where the
    folder cannot be written to, such as one that is shared for reading or on a full disk, every student computes them
    anew; a kept file that cannot be read is computed and written again.

    Raises:
        InputError: If there is no such checkpoint or it is no teacher's, the data hold no clips, or they hide labels
            that the teacher was trained on.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, UnpairedDataModule) or data.tvus is None:
        raise InputError("model.teacher is set, but data.tvus is not: give the TVUS data module, or no teacher")
    content = read_checkpoint(checkpoint)  # names the file if it is not there, before the key is made
    _refuse_other_labels(checkpoint, content, data.tvus)
    weights = hashlib.sha256()
    for name, value in sorted(content["state_dict"].items()):
        if isinstance(value, torch.Tensor) and value.dim():  # else it is no teacher, or a count
            weights.update(name.encode() + value.contiguous().view(torch.uint8).numpy().tobytes())
    key = hashlib.sha256(f"{FORMAT} {weights.hexdigest()} {data.clip_fingerprint(device)}".encode()).hexdigest()[:24]
    kept = Path(checkpoint).resolve().parent.parent / "outputs" / f"{key}.pt"
    case_ids = data.tvus.manifest["case_id"]

    def look_up() -> dict[str, Any]:
        outputs, reason = _kept(kept)
        if reason:
            trainer.print(f"{kept}: cannot be read, so the teacher's outputs are computed again: {reason}")
        if not outputs:
            outputs = _compute(checkpoint, data.clips(device), case_ids, device)
            if not is_dry(trainer) and (reason := _keep(outputs, kept)):
                trainer.print(f"{kept.parent}: the teacher's outputs are not kept for other students: {reason}")
        return outputs

    outputs = by_first(trainer, look_up)
    covariates = torch.from_numpy(data.covariate_scores()[1]).to(device).repeat(data.clip_copies, 1)
    recorded = torch.from_numpy(data.covariates_recorded()[1]).to(device).repeat(data.clip_copies)
    clips = data.tvus.manifest.set_index("case_id")["patient_id"]
    patients = _numbers(data)[clips[outputs["case_ids"]]]
    return TeacherBank(
        outputs["logits"].to(device),
        outputs["labels"].to(device),
        tuple(outputs["case_ids"]),
        outputs["features"].to(device),
        covariates,
        torch.from_numpy(patients.to_numpy(copy=True)).to(device),
        recorded,
    )


def _refuse_other_labels(checkpoint: str | Path, content: dict[str, Any], tvus: TVUSDataModule) -> None:
    """Refuses a teacher of other labelled clips than the student's, where only some are to have their label."""
    labelled = tvus.manifest.loc[tvus.manifest["split"].eq("train"), "patient_id"].unique()
    if tvus.n_labelled is not None and set(content.get("trained_patients", [])) != set(hashed(labelled)):
        raise InputError(
            f"{checkpoint}: was not trained on the {tvus.n_labelled} labelled clips that the student knows of; train "
            "it with the same n_labelled_clips of the profile, the same --seed_everything and --fold"
        )


def student_cohort(data: Any) -> StudentCohort:
    """Returns what is known of all MRI volumes of a data module, on the CPU.

    Of patients with both examinations, those beyond the data module's ``n_both`` count as others in either cohort.

    Raises:
        InputError: There are fewer than ``n_both``.
    """
    manifest = data.manifest
    trained = manifest["split"].eq("train")
    unpaired = isinstance(data, UnpairedDataModule)
    scores = data.covariate_scores()[0] if unpaired else np.zeros((len(manifest), 0))
    recorded = data.covariates_recorded()[0] if unpaired else np.zeros(len(manifest), dtype=bool)
    numbers = _numbers(data)
    patients = numbers[manifest["patient_id"]].to_numpy(copy=True)
    if unpaired and data.n_both is not None:
        patients[~manifest["patient_id"].isin(data.patients_with_both())] += len(numbers)
    return StudentCohort(
        torch.from_numpy(manifest["label"].where(trained).to_numpy(dtype=np.float32)),
        torch.from_numpy(manifest["split"].eq("unlabelled").to_numpy(copy=True)),
        torch.from_numpy(scores.astype(np.float32)),
        torch.from_numpy(patients),
        tuple(manifest["case_id"]),
        torch.from_numpy(recorded),
    )


def _numbers(data: Any) -> pd.Series:
    """A number a patient_id of a data module, whatever the modality."""
    tables = [data.manifest]
    if isinstance(data, UnpairedDataModule) and data.tvus is not None:
        tables.append(data.tvus.manifest)
    patients = sorted(set().union(*(table["patient_id"] for table in tables)))
    return pd.Series(np.arange(len(patients)), index=patients)


@torch.inference_mode()
def _compute(
    checkpoint: str | Path, clips: Iterable[Batch], case_ids: pd.Series, device: torch.device
) -> dict[str, Any]:
    try:
        teacher = TeacherTVUS.load_from_checkpoint(checkpoint, map_location=device).eval()
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise InputError(f"{checkpoint}: holds no TVUS teacher; give the best.ckpt of the teacher stage") from error
    logits, features, labels, index = [], [], [], []
    for batch in clips:
        seen = teacher.network.features(batch["image"])
        features.append(seen.float().cpu())
        logits.append(teacher.network.logits(seen).float().cpu())
        labels.append(batch["label"])
        index.append(batch["index"])
    names = case_ids.iloc[torch.cat(index).numpy()].tolist()
    outputs = {"logits": logits, "features": features, "labels": labels}
    return {name: torch.cat(parts).cpu() for name, parts in outputs.items()} | {"case_ids": names}


def _kept(file: Path) -> tuple[dict[str, Any], str | None]:
    """Returns the outputs that a file keeps, none where there is no such file, and why it cannot be read, if so."""
    if not file.is_file():
        return {}, None
    try:
        return torch.load(file, map_location="cpu", weights_only=True), None
    except Exception as error:  # torch.load answers a damaged file with almost any
        return {}, _reason(error)


def _keep(outputs: dict[str, Any], file: Path) -> str | None:
    """Writes the outputs in one step; returns why that could not be, if so."""
    try:
        file.parent.mkdir(exist_ok=True)
        # A handle tells what torch.save would not, to which any failure is the same.
        with replacing(file) as temporary, temporary.open("wb") as handle:
            torch.save(outputs, handle)
    except (OSError, RuntimeError) as error:
        return _reason(error)
    return None


def _reason(error: Exception) -> str:
    """Returns in one line why a file cannot be read or written."""
    told = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return told.splitlines()[0]
