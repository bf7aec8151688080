from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from data_modules.augmentation import ClipAugmentation
from data_modules.errors import InputError
from data_modules.mri import MRIDataModule
from data_modules.store import write_array
from data_modules.tvus import TVUSDataModule
from data_modules.unpaired import UnpairedDataModule

WriteCohort = Callable[..., Path]


def unpaired(cohort: Path, fold: int = 0, clip_copies: int = 1, **augmentation: float) -> UnpairedDataModule:
    changes = ClipAugmentation(**augmentation) if augmentation else None
    tvus = TVUSDataModule(str(cohort), fold=fold, batch_size=3, augmentation=changes, seed=5)
    return UnpairedDataModule(MRIDataModule(str(cohort), fold=fold), tvus, clip_copies)


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


def with_unlabelled(cohort: Path, fold: int = 0) -> UnpairedDataModule:
    """Two of the training clips keep their label; the others count as unlabelled."""
    tvus = TVUSDataModule(str(cohort), fold=fold, batch_size=3, n_labelled=2, seed=5)
    return UnpairedDataModule(MRIDataModule(str(cohort), fold=fold), tvus, unlabelled_clips=True)


@pytest.mark.parametrize("fold", range(5))
def test_clips_without_label_come_after_the_others_and_hide_it(write_cohort: WriteCohort, fold: int) -> None:
    cohort = write_cohort()
    data = with_unlabelled(cohort, fold)
    manifest = data.tvus.manifest  # type: ignore[union-attr]
    batches = list(data.clips())
    index = torch.cat([batch["index"] for batch in batches]).numpy()
    labels = torch.cat([batch["label"] for batch in batches])
    assert len(index) == len(set(index)) == manifest["split"].isin(["train", "unlabelled"]).sum() > 4
    assert labels[:2].sort().values.tolist() == [0, 1]
    assert labels[2:].isnan().all(), "a label that is not trained on is not told, though the manifest has it"
    assert manifest["label"].iloc[index[2:]].notna().any()
    lenders = set(manifest["patient_id"].iloc[index])
    held_out = set(data.manifest["patient_id"][data.manifest["split"].isin(["val", "test"])])
    assert not lenders & held_out
    assert lenders <= data.trained_patients
    assert len(data.covariate_scores()[1]) == len(data.covariates_recorded()[1]) == len(index)


def test_the_fingerprint_changes_with_which_clips_have_a_label(write_cohort: WriteCohort) -> None:
    cohort = write_cohort()
    every = UnpairedDataModule(MRIDataModule(str(cohort)), TVUSDataModule(str(cohort)), unlabelled_clips=True)
    few = with_unlabelled(cohort)
    assert every.clip_fingerprint() == unpaired(cohort).clip_fingerprint(), "no training clip is without a label"
    assert few.clip_fingerprint() != every.clip_fingerprint()
    other = with_unlabelled(cohort)
    unseen = other.tvus.manifest["split"] == "unlabelled"  # type: ignore[union-attr]
    other.tvus.manifest.loc[unseen, "label"] = 1.0  # type: ignore[union-attr]
    assert other.clip_fingerprint() == few.clip_fingerprint(), "labels that are not told do not count"


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


def test_augmented_copies_differ_and_come_again_alike(write_cohort: WriteCohort) -> None:
    cohort = write_cohort()
    plain = torch.cat([batch["image"] for batch in unpaired(cohort).clips()])
    state = torch.get_rng_state()
    batches = list(unpaired(cohort, clip_copies=3, noise=0.1).clips())
    assert torch.equal(torch.get_rng_state(), state), "a run must draw the same whether or not the outputs are kept"
    images = torch.cat([batch["image"] for batch in batches]).unflatten(0, (3, len(plain)))
    index = torch.cat([batch["index"] for batch in batches]).unflatten(0, (3, len(plain)))
    assert torch.equal(index, index[:1].expand_as(index))
    for one, other in ((images[0], plain), (images[0], images[1]), (images[1], images[2])):
        assert (one != other).flatten(1).any(dim=1).all()
    torch.manual_seed(99)
    again = torch.cat([batch["image"] for batch in unpaired(cohort, clip_copies=3, noise=0.1).clips()])
    assert torch.equal(again, images.flatten(0, 1))


def test_the_fingerprint_changes_with_copies_and_augmentation(write_cohort: WriteCohort) -> None:
    cohort = write_cohort()
    options = ({}, {"noise": 0.1}, {"noise": 0.2}, {"noise": 0.2, "clip_copies": 2})
    assert len({unpaired(cohort, **chosen).clip_fingerprint() for chosen in options}) == len(options)
    assert unpaired(cohort, noise=0.2).clip_fingerprint() == unpaired(cohort, noise=0.2).clip_fingerprint()


def test_the_fingerprint_of_augmented_clips_changes_with_what_their_noise_is_drawn_by(
    write_cohort: WriteCohort,
) -> None:
    plain, noisy = unpaired(write_cohort()), unpaired(write_cohort(), noise=0.2)
    assert plain.clip_fingerprint("cuda") == plain.clip_fingerprint()
    assert noisy.clip_fingerprint("cuda") != noisy.clip_fingerprint("cpu") == noisy.clip_fingerprint()
    before = {data: data.clip_fingerprint() for data in (plain, noisy)}
    for data in before:
        assert data.tvus is not None
        data.tvus.batch_size += 1
    assert plain.clip_fingerprint() == before[plain]
    assert noisy.clip_fingerprint() != before[noisy]


def test_copies_without_an_augmentation_are_refused(write_cohort: WriteCohort) -> None:
    cohort = write_cohort()
    with pytest.raises(InputError, match=r"data\.clip_copies is 2, but data\.tvus has no augmentation"):
        unpaired(cohort, clip_copies=2)
    with pytest.raises(InputError, match=r"data\.clip_copies is 0: give at least 1"):
        unpaired(cohort, clip_copies=0)


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


def test_the_scale_of_covariates_is_that_of_all_who_train_whatever_clips_are_given(write_cohort: WriteCohort) -> None:
    cohort = write_cohort()
    for modality in ("mri", "tvus"):
        table = pd.read_csv(cohort / f"{modality}.csv")
        table.assign(age=np.arange(len(table)) * 3 % 17).to_csv(cohort / f"{modality}.csv", index=False)
    few = [
        UnpairedDataModule(
            MRIDataModule(str(cohort)),
            TVUSDataModule(str(cohort), n_labelled=n),
            covariates=["age"],
            unlabelled_clips=unlabelled,
        )
        for n, unlabelled in ((None, False), (2, False), (2, True))
    ]
    scores = [data.covariate_scores()[0] for data in few]
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_array_equal(scores[0], scores[2])
    assert [len(data.covariate_scores()[1]) for data in few][1] == 2


def test_without_a_labelled_clip_there_are_covariates_but_no_clips(write_cohort: WriteCohort) -> None:
    cohort = write_cohort()
    table = pd.read_csv(cohort / "tvus.csv").assign(label=None)
    table.to_csv(cohort / "tvus.csv", index=False)
    data = unpaired(cohort)
    assert len(data.covariate_scores()[1]) == len(data.covariates_recorded()[1]) == 0
    with pytest.raises(InputError, match="no labelled tvus case is left to train on"):
        data.clips()


def test_more_labelled_clips_than_there_are_are_refused(write_cohort: WriteCohort) -> None:
    cohort = write_cohort()
    data = UnpairedDataModule(MRIDataModule(str(cohort)), TVUSDataModule(str(cohort), n_labelled=99))
    with pytest.raises(InputError, match=r"n_labelled is 99, but \d+ labelled tvus cases are there"):
        data.clips()


@pytest.mark.parametrize("folds", [1, 2])
def test_a_cohort_of_few_folds_is_scored_but_not_trained_on(write_cohort: WriteCohort, folds: int) -> None:
    cohort = write_cohort()
    for modality in ("mri", "tvus"):
        table = pd.read_csv(cohort / f"{modality}.csv")
        table.assign(fold=(table["fold"] % folds).astype("Int64")).to_csv(cohort / f"{modality}.csv", index=False)
    everyone = MRIDataModule(str(cohort), fold=None)
    assert everyone.manifest["split"].eq("test").equals(everyone.manifest["fold"].notna())
    with pytest.raises(InputError, match=rf"has {folds} folds; test, validation and training need at least 3"):
        MRIDataModule(str(cohort), fold=0)


def test_of_those_with_both_examinations_as_many_are_known_as_asked_for(write_cohort: WriteCohort) -> None:
    cohort = write_cohort(n_labelled=60, n_unlabelled=20, n_tvus=60, tvus_from=10)

    def known(n: int | None, seed: int = 0) -> set[str]:
        mri = MRIDataModule(str(cohort), n_labelled=10, seed=seed)
        return UnpairedDataModule(mri, TVUSDataModule(str(cohort), seed=seed), n_both=n).patients_with_both()

    mri, tvus = MRIDataModule(str(cohort)).manifest, TVUSDataModule(str(cohort)).manifest
    lend = set(tvus.loc[tvus["split"].eq("train"), "patient_id"])
    everyone = lend & set(mri.loc[mri["split"].isin(["train", "unlabelled"]), "patient_id"])
    assert known(None) == known(len(everyone)) == everyone
    assert known(4) < known(12) < everyone
    assert len(known(12)) == 12
    assert known(12) != known(12, seed=1)
    obliterated = {patient for patient in everyone if int(patient[1:]) % 3 == 0}
    assert len(known(12) & obliterated) == pytest.approx(12 * len(obliterated) / len(everyone), abs=1)
    with pytest.raises(
        InputError, match=rf"n_both is 99, but {len(everyone)} patients who train have an MRI and a TVUS"
    ):
        known(99)
    with pytest.raises(InputError, match="n_both is 0: give at least 1, or null for all"):
        known(0)


def test_only_volumes_of_patients_with_both_examinations_train_without_a_label(write_cohort: WriteCohort) -> None:
    cohort = str(write_cohort(n_labelled=60, n_unlabelled=20, n_tvus=60, tvus_from=10))

    def data(n_both: int | None = 6, alone: bool = True, **options: int) -> UnpairedDataModule:
        mri = MRIDataModule(cohort, n_labelled=10, batch_size=4, unlabelled_batch_size=8, **options)
        return UnpairedDataModule(mri, TVUSDataModule(cohort), n_both=n_both, unlabelled_with_both=alone)

    before, after = data(alone=False), data()
    known = before.patients_with_both()
    assert after.patients_with_both() == known
    split, theirs = before.manifest["split"], before.manifest["patient_id"].isin(known)
    assert (split.eq("unlabelled") & ~theirs).sum() > (split.eq("unlabelled") & theirs).sum() > 0
    assert after.manifest["split"].equals(split.mask(split.eq("unlabelled") & ~theirs, "unused"))
    seen = {row for batch, _, _ in after.train_dataloader() for row in batch["unlabelled"]["index"].tolist()}
    assert seen == set(np.flatnonzero(split.eq("unlabelled") & theirs))
    assert len(list(after.train_dataloader())) == len(list(before.train_dataloader()))
    few = data(None, n_unlabelled=20)
    left = few.manifest["split"].eq("unlabelled")
    assert 0 < left.sum() < 20
    assert few.manifest.loc[left, "patient_id"].isin(few.patients_with_both()).all()
    next(iter(few.train_dataloader()))
    with pytest.raises(InputError, match="n_unlabelled is 999, but"):
        data(n_unlabelled=999)


def test_who_is_known_to_have_both_examinations_does_not_change_with_whose_volumes_are_left_out(
    write_cohort: WriteCohort,
) -> None:
    cohort = str(write_cohort(n_labelled=60, n_unlabelled=20, n_tvus=60, tvus_from=10))

    def known(n: int, alone: bool) -> set[str]:
        mri = MRIDataModule(cohort, n_labelled=30, unlabelled_batch_size=4)
        return UnpairedDataModule(
            mri, TVUSDataModule(cohort), n_both=n, unlabelled_with_both=alone
        ).patients_with_both()

    for n in range(2, 20):
        assert known(n, alone=True) == known(n, alone=False)
