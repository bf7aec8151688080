"""Training batches that hold ultrasound clips beside MRI volumes."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from data_modules.augmentation import ClipAugmentation, VolumeAugmentation
from data_modules.cohort_dataset import in_unit_range
from data_modules.errors import InputError
from data_modules.mri import MRIDataModule
from data_modules.tvus import TVUSDataModule
from data_modules.unpaired import UnpairedDataModule

WriteCohort = Callable[..., Path]
Parts = dict[str, dict[str, torch.Tensor]]


def unpaired(
    cohort: Path,
    clips_in_batches: int = 3,
    mri: dict[str, Any] | None = None,
    tvus: dict[str, Any] | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> UnpairedDataModule:
    data = UnpairedDataModule(
        MRIDataModule(str(cohort), **{"batch_size": 4, **(mri or {})}),
        TVUSDataModule(str(cohort), **(tvus or {})),
        clips_in_batches=clips_in_batches,
    )
    data.trainer = SimpleNamespace(world_size=world_size, global_rank=rank, training=True)  # type: ignore[assignment]
    data.setup("fit")
    return data


def epoch(data: UnpairedDataModule, number: int = 0) -> list[Parts]:
    loader: Any = data.train_dataloader()
    for part in loader.flattened:
        part.sampler.set_epoch(number)
    return [data.on_after_batch_transfer(batch, 0) for batch, _, _ in loader]


def clips_of(batches: list[Parts]) -> np.ndarray:
    return torch.cat([batch["tvus"]["index"] for batch in batches]).numpy()


def test_an_epoch_is_the_pass_over_the_mri_that_it_is_without_clips(write_cohort: WriteCohort) -> None:
    data = unpaired(write_cohort())
    alone: Any = data.mri.train_dataloader()
    alone.sampler.set_epoch(1)
    for batch, volumes in zip(epoch(data, 1), alone, strict=True):
        assert torch.equal(batch["mri"]["index"], volumes["index"])


def test_both_parts_are_the_images_and_labels_of_their_cases(write_cohort: WriteCohort) -> None:
    data = unpaired(write_cohort())
    for batch in epoch(data):
        for name, module, scale, n in (("mri", data.mri, 1 / 64, 4), ("tvus", data.tvus, 1 / 255, 3)):
            rows = module.manifest.iloc[batch[name]["index"].numpy()]  # type: ignore[union-attr]
            image, number = batch[name]["image"], rows["patient_id"].str[1:].astype(int).to_numpy()
            assert image.shape == (n, 1, 4, 6, 8)
            torch.testing.assert_close(image[:, 0, 0, 0, 0], torch.tensor(number * scale, dtype=torch.float32))
            np.testing.assert_array_equal(batch[name]["label"], rows["label"])
            assert (rows["split"] == "train").all()


def test_epochs_take_other_clips_and_few_are_repeated_evenly(write_cohort: WriteCohort) -> None:
    cohort = write_cohort()
    few = unpaired(cohort, 1)
    first, second = (set(clips_of(epoch(few, number))) for number in (0, 1))
    assert len(first) == len(second) == len(epoch(few)), "no clip twice where there are enough"
    assert first != second
    many = unpaired(cohort, 20)
    assert all(len(batch["tvus"]["label"]) == 20 for batch in epoch(many))
    rows = np.flatnonzero(many.tvus.manifest["split"] == "train")  # type: ignore[union-attr]
    drawn = np.bincount(np.concatenate([clips_of(epoch(many, number)) for number in range(40)]))[rows]
    assert drawn.min() > 0.8 * drawn.mean()
    assert not np.array_equal(clips_of(epoch(many, 0)), clips_of(epoch(many, 1)))


def test_unlabelled_clips_come_without_labels_and_none_of_a_held_out_patient(write_cohort: WriteCohort) -> None:
    data = unpaired(write_cohort(), 8, {"include_unlabelled": True}, {"include_unlabelled": True})
    batches = [batch for number in range(3) for batch in epoch(data, number)]
    assert all(batch["tvus"]["label"].isnan().all() for batch in batches)
    lenders = set(data.tvus.manifest["patient_id"].iloc[clips_of(batches)])  # type: ignore[union-attr]
    assert not lenders & set(data.manifest["patient_id"][data.manifest["split"].isin(["val", "test"])])


def test_unlabelled_volumes_stay_in_their_part(write_cohort: WriteCohort) -> None:
    data = unpaired(write_cohort(), 3, {"n_labelled": 8, "unlabelled_batch_size": 5})
    for batch in epoch(data):
        assert batch["mri"]["label"].isnan().tolist() == [False] * 4 + [True] * 5
        assert len(batch["tvus"]["label"]) == 3


def test_two_processes_share_the_clips(write_cohort: WriteCohort) -> None:
    cohort = write_cohort()
    parts = [set(clips_of(epoch(unpaired(cohort, 2, rank=rank, world_size=2)))) for rank in (0, 1)]
    assert all(parts)
    assert not parts[0] & parts[1]


def test_each_part_is_augmented_by_its_own_module(write_cohort: WriteCohort) -> None:
    cohort = write_cohort()
    only_noise = dict.fromkeys(("rotation", "zoom", "shift", "contrast", "gamma"), 0.0)
    changes = {"mri": VolumeAugmentation(noise=0.1, **only_noise), "tvus": ClipAugmentation(noise=0.1, **only_noise)}
    for changed, other in (("mri", "tvus"), ("tvus", "mri")):
        options: dict[str, Any] = {changed: {"augmentation": changes[changed]}}
        (batch, *_), (plain, *_) = epoch(unpaired(cohort, **options)), epoch(unpaired(cohort))
        assert torch.equal(batch[other]["image"], plain[other]["image"])
        assert (batch[changed]["image"] != plain[changed]["image"]).flatten(1).any(dim=1).all()


def test_validation_is_on_mri_alone(write_cohort: WriteCohort) -> None:
    data = unpaired(write_cohort())
    (batch, *_) = data.val_dataloader()
    image = in_unit_range(batch["image"])
    assert torch.equal(data.on_after_batch_transfer(batch, 0)["image"], image)


def test_numbers_that_cannot_be_are_refused(write_cohort: WriteCohort) -> None:
    cohort = write_cohort()
    with pytest.raises(InputError, match=r"data\.clips_in_batches is -1: give at least 0"):
        unpaired(cohort, -1)
    with pytest.raises(InputError, match=r"data\.clips_in_batches is 2, but data\.tvus is not set"):
        UnpairedDataModule(MRIDataModule(str(cohort)), clips_in_batches=2)
