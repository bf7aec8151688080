"""The frozen teacher's outputs on the labelled clips, computed once and kept beside its checkpoint."""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pytorch_lightning as pl
import torch

from data_modules.cohort_module import Batch
from data_modules.errors import InputError
from data_modules.unpaired import UnpairedDataModule
from poddistill.losses.pairing import TeacherBank
from poddistill.pod.teacher_tvus import TeacherTVUS
from poddistill.training.checkpoints import read_checkpoint


def teacher_bank(checkpoint: str | Path, trainer: pl.Trainer, device: torch.device) -> TeacherBank:
    """Returns the teacher's logits (N,) and the labels (N,) of the labelled training clips, or of augmented copies.

    They are kept in ``outputs/<key>.pt`` of the teacher's run folder, the key a hash of the teacher's weights, of the
    clips and of how they are augmented, so every student of this teacher shares them and a changed clip or teacher is
    never mistaken for the old one. Process 0 computes, the others wait and read.

    Raises:
        InputError: If there is no such checkpoint or it is no teacher's, or the data hold no clips.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, UnpairedDataModule) or data.tvus is None:
        raise InputError("model.teacher is set, but data.tvus is not: give the TVUS data module, or no teacher")
    content = read_checkpoint(checkpoint)  # names the file if it is not there, before the key is made
    weights = hashlib.sha256()
    for name, value in sorted(content["state_dict"].items()):
        weights.update(name.encode() + value.contiguous().view(torch.uint8).numpy().tobytes() if value.dim() else b"")
    key = hashlib.sha256(f"{weights.hexdigest()} {data.clip_fingerprint()}".encode()).hexdigest()[:24]
    kept = Path(checkpoint).resolve().parent.parent / "outputs" / f"{key}.pt"
    if trainer.is_global_zero and not kept.is_file():
        _compute(checkpoint, data.clips(device), data.tvus.manifest["case_id"], device, kept)
    trainer.strategy.barrier("teacher outputs")
    outputs = torch.load(kept, map_location=device, weights_only=True)
    return TeacherBank(outputs["logits"], outputs["labels"], tuple(outputs["case_ids"]))


@torch.inference_mode()
def _compute(
    checkpoint: str | Path, clips: Iterable[Batch], case_ids: pd.Series, device: torch.device, kept: Path
) -> None:
    try:
        teacher = TeacherTVUS.load_from_checkpoint(checkpoint, map_location=device).eval()
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise InputError(f"{checkpoint}: holds no TVUS teacher; give the best.ckpt of the teacher stage") from error
    logits, labels, index = [], [], []
    for batch in clips:
        logits.append(teacher(batch["image"]).cpu())
        labels.append(batch["label"])
        index.append(batch["index"])
    names = case_ids.iloc[torch.cat(index).numpy()].tolist()
    kept.parent.mkdir(exist_ok=True)
    temporary = kept.with_name(f".{kept.name}.{os.getpid()}")
    torch.save({"logits": torch.cat(logits), "labels": torch.cat(labels), "case_ids": names}, temporary)
    temporary.replace(kept)
