from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from data_modules.errors import InputError
from data_modules.mri import MRIDataModule
from data_modules.store import write_array
from data_modules.tvus import TVUSDataModule
from data_modules.unpaired import UnpairedDataModule

WriteCohort = Callable[..., Path]


def unpaired(cohort: Path, fold: int = 0) -> UnpairedDataModule:
    return UnpairedDataModule(
        MRIDataModule(str(cohort), fold=fold), TVUSDataModule(str(cohort), fold=fold, batch_size=3)
    )


@pytest.mark.parametrize("fold", range(5))
def test_no_held_out_patient_lends_a_clip(write_cohort: WriteCohort, fold: int) -> None:
    data = unpaired(write_cohort(), fold)  # patients 20 to 41 have both modalities
    index = torch.cat([batch["index"] for batch in data.clips()]).numpy()
    lenders = set(data.tvus.manifest["patient_id"].iloc[index])  # type: ignore[union-attr]
    held_out = set(data.manifest["patient_id"][data.manifest["split"].isin(["val", "test"])])
    assert lenders
    assert held_out
    assert not lenders & held_out


def test_clips_come_once_in_order_with_their_labels(write_cohort: WriteCohort) -> None:
    data = unpaired(write_cohort())
    manifest = data.tvus.manifest  # type: ignore[union-attr]
    batches = list(data.clips())
    index = torch.cat([batch["index"] for batch in batches]).numpy()
    np.testing.assert_array_equal(index, np.flatnonzero(manifest["split"] == "train"))
    np.testing.assert_array_equal(torch.cat([batch["label"] for batch in batches]), manifest["label"].iloc[index])


def test_loaders_manifest_and_labels_are_those_of_the_mri(write_cohort: WriteCohort) -> None:
    data = unpaired(write_cohort())
    for name in ("train_dataloader", "val_dataloader", "test_dataloader", "predict_dataloader"):
        theirs = list(getattr(data.mri, name)())
        assert all(torch.equal(a["image"], b["image"]) for a, b in zip(getattr(data, name)(), theirs, strict=True))
    assert data.manifest is data.mri.manifest
    np.testing.assert_array_equal(data.train_labels, data.mri.train_labels)


def test_the_fingerprint_changes_with_the_clips_only(write_cohort: WriteCohort) -> None:
    cohort = write_cohort()
    first = unpaired(cohort).clip_fingerprint()
    assert unpaired(cohort).clip_fingerprint() == first
    assert unpaired(cohort, fold=1).clip_fingerprint() != first
    row = unpaired(cohort).tvus.manifest.query("split == 'train'").iloc[0]  # type: ignore[union-attr]
    write_array(cohort / row["path"], np.ones((4, 6, 8), np.uint8), {"sha256": "other"})
    assert unpaired(cohort).clip_fingerprint() != first


def test_without_ultrasound_there_are_no_clips(write_cohort: WriteCohort) -> None:
    data = UnpairedDataModule(MRIDataModule(str(write_cohort())))
    with pytest.raises(InputError, match=r"data\.tvus is not set"):
        data.clips()


def test_other_folds_and_other_cohorts_are_refused(write_cohort: WriteCohort) -> None:
    cohort, other = write_cohort(), write_cohort(name="other")
    with pytest.raises(InputError, match=r"data\.tvus\.fold 1 is not data\.mri\.fold 0"):
        UnpairedDataModule(MRIDataModule(str(cohort)), TVUSDataModule(str(cohort), fold=1))
    with pytest.raises(InputError, match=r"data\.tvus\.cohort .* is not data\.mri\.cohort"):
        UnpairedDataModule(MRIDataModule(str(cohort)), TVUSDataModule(str(other)))
