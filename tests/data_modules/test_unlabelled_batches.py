"""Training batches that hold unlabelled cases beside the labelled ones; labels that are shuffled, or wrong."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from data_modules.errors import InputError
from data_modules.mri import MRIDataModule

WriteCohort = Callable[..., Path]


def epoch(data: MRIDataModule, number: int = 0) -> list[dict[str, torch.Tensor]]:
    loader = data.train_dataloader()
    for part in loader.flattened:
        part.sampler.set_epoch(number)
    return [data.on_after_batch_transfer(batch, 0) for batch, _, _ in loader]


def test_every_batch_ends_with_unlabelled_cases_without_their_labels(write_cohort: WriteCohort) -> None:
    data = MRIDataModule(str(write_cohort()), n_labelled=8, batch_size=4, unlabelled_batch_size=6)
    batches = epoch(data)
    assert len(batches) == 2, "an epoch is a pass over the labelled"
    for batch in batches:
        assert batch["image"].shape == (10, 1, 4, 6, 8)
        assert batch["image"].dtype == torch.float32
        index = batch["index"].numpy()
        assert data.manifest["split"].iloc[index].tolist() == ["train"] * 4 + ["unlabelled"] * 6
        np.testing.assert_array_equal(batch["label"][:4], data.manifest["label"].iloc[index[:4]])
        assert batch["label"][4:].isnan().all(), "also of cases whose label the manifest holds"
        numbers = data.manifest["patient_id"].iloc[index].str[1:].astype(int)
        assert torch.equal(batch["image"][:, 0, 0, 0, 0], torch.tensor(numbers.to_numpy() / 64, dtype=torch.float32))


def test_epochs_take_other_unlabelled_cases_and_few_are_repeated(write_cohort: WriteCohort) -> None:
    cohort = str(write_cohort(n_unlabelled=40))
    data = MRIDataModule(cohort, n_labelled=4, batch_size=4, unlabelled_batch_size=10)
    first, second = (set(epoch(data, number)[0]["index"][4:].tolist()) for number in (0, 1))
    assert len(first) == len(second) == 10
    assert first != second
    many = MRIDataModule(cohort, n_labelled=12, batch_size=2, unlabelled_batch_size=50)
    assert [len(batch["label"]) for batch in epoch(many)] == [52] * 6


def test_nothing_held_out_is_among_the_unlabelled(write_cohort: WriteCohort) -> None:
    data = MRIDataModule(str(write_cohort()), n_labelled=4, batch_size=2, unlabelled_batch_size=20)
    seen = torch.cat([batch["index"] for number in range(5) for batch in epoch(data, number)]).unique().numpy()
    assert set(data.manifest["split"].iloc[seen]) == {"train", "unlabelled"}
    held_out = data.manifest["patient_id"][data.manifest["split"].isin(["val", "test"])]
    assert not set(held_out) & set(data.manifest["patient_id"].iloc[seen])


def test_asking_for_unlabelled_cases_that_are_not_there_names_the_remedy(write_cohort: WriteCohort) -> None:
    cohort = str(write_cohort(n_unlabelled=0))
    with pytest.raises(InputError, match=r"unlabelled_batch_size is 3, but no mri case is left"):
        MRIDataModule(cohort, unlabelled_batch_size=3).train_dataloader()
    with pytest.raises(InputError, match="give at least 0, and 0 with include_unlabelled"):
        MRIDataModule(cohort, unlabelled_batch_size=3, include_unlabelled=True)


def test_no_more_is_read_beside_the_labelled_than_an_epoch_takes(write_cohort: WriteCohort) -> None:
    """Workers that read ahead would go on to cases of which the epoch makes no use."""
    data = MRIDataModule(str(write_cohort(n_unlabelled=40)), n_labelled=4, batch_size=2, unlabelled_batch_size=3)
    loaders = data.train_dataloader().iterables
    assert len(loaders["unlabelled"]) == len(loaders["labelled"]) == 2
    epochs = []
    for number in range(9):
        loaders["unlabelled"].sampler.set_epoch(number)
        epochs.append(list(loaders["unlabelled"].sampler))
    assert {len(rows) for rows in epochs} == {6}
    assert len(set().union(*epochs)) > 20, "other ones in other epochs"


def test_few_unlabelled_cases_grow_by_adding_and_the_others_are_not_seen(write_cohort: WriteCohort) -> None:
    cohort = str(write_cohort(n_unlabelled=40))
    splits = {n: MRIDataModule(cohort, n_labelled=4, n_unlabelled=n).manifest["split"] for n in (3, 9, None)}
    chosen = {n: set(split.index[split.eq("unlabelled")]) for n, split in splits.items()}
    assert [len(chosen[n]) for n in (3, 9)] == [3, 9]
    assert chosen[3] < chosen[9] < chosen[None]
    for n in (3, 9):
        assert set(splits[n].index[splits[n].eq("unused")]) == chosen[None] - chosen[n]
        assert splits[n].isin(["train", "val", "test"]).equals(splits[None].isin(["train", "val", "test"]))
    data = MRIDataModule(cohort, n_labelled=4, n_unlabelled=3, batch_size=4, unlabelled_batch_size=20)
    seen = torch.cat([batch["index"] for number in range(3) for batch in epoch(data, number)]).unique().tolist()
    assert set(seen) == chosen[3] | set(np.flatnonzero(splits[3].eq("train")))
    assert data.trained_patients == set(data.manifest["patient_id"].iloc[seen])


def test_pre_training_on_few_images_sees_so_many_of_all(write_cohort: WriteCohort) -> None:
    data = MRIDataModule(str(write_cohort()), include_unlabelled=True, n_unlabelled=7, batch_size=7)
    loader = data.train_dataloader()
    for number in range(3):
        loader.sampler.set_epoch(number)
        seen = torch.cat([batch["index"] for batch in loader]).unique().numpy()
        assert len(seen) == 7
        assert data.trained_patients == set(data.manifest["patient_id"].iloc[seen])
    assert len(data.val_dataloader().dataset) == len(MRIDataModule(str(data.cohort)).val_dataloader().dataset)


def test_more_unlabelled_cases_than_there_are_and_none_are_refused(write_cohort: WriteCohort) -> None:
    cohort = str(write_cohort())
    there = int(MRIDataModule(cohort, n_labelled=4).manifest["split"].eq("unlabelled").sum())
    few = {"n_labelled": 4, "unlabelled_batch_size": 2}
    assert len(epoch(MRIDataModule(cohort, n_unlabelled=there, **few))) > 0
    with pytest.raises(InputError, match=rf"n_unlabelled is {there + 1}, but {there} mri cases are there"):
        MRIDataModule(cohort, n_unlabelled=there + 1, **few).train_dataloader()
    with pytest.raises(InputError, match="n_unlabelled is 999, but"):
        MRIDataModule(cohort, include_unlabelled=True, n_unlabelled=999).train_dataloader()
    with pytest.raises(InputError, match="n_unlabelled is 0: give at least 1, or null for all"):
        MRIDataModule(cohort, n_unlabelled=0)


def test_shuffled_labels_are_as_many_of_each_and_held_out_cases_keep_theirs(write_cohort: WriteCohort) -> None:
    cohort = str(write_cohort(n_labelled=150, tvus_from=200))
    plain, shuffled = MRIDataModule(cohort, seed=1), MRIDataModule(cohort, seed=1, shuffle_labels=True)
    assert shuffled.train_labels.sum() == plain.train_labels.sum()
    assert 0.3 < (shuffled.train_labels == plain.train_labels).mean() < 0.8
    held_out = plain.manifest["split"].isin(["val", "test"])
    assert shuffled.manifest["split"].equals(plain.manifest["split"])
    assert shuffled.manifest["label"][held_out].equals(plain.manifest["label"][held_out])
    again = MRIDataModule(cohort, seed=1, shuffle_labels=True)
    np.testing.assert_array_equal(again.train_labels, shuffled.train_labels)


def test_noise_flips_its_part_of_the_training_labels_and_nothing_else(write_cohort: WriteCohort) -> None:
    cohort = str(write_cohort(n_labelled=150, tvus_from=200))
    plain, noisy = MRIDataModule(cohort, seed=1), MRIDataModule(cohort, seed=1, label_noise=0.2)
    flipped = plain.train_labels != noisy.train_labels
    assert flipped.sum() == round(0.2 * len(flipped))
    elsewhere = ~plain.manifest["split"].eq("train")
    assert noisy.manifest["label"][elsewhere].equals(plain.manifest["label"][elsewhere])
    with pytest.raises(InputError, match=r"label_noise is 0\.5: give a part"):
        MRIDataModule(cohort, label_noise=0.5)


def test_more_labels_than_there_are_are_refused_when_they_are_to_be_trained_on(write_cohort: WriteCohort) -> None:
    """A learning curve would put what fewer labels gave at the number that was asked for."""
    cohort = str(write_cohort())
    there = len(MRIDataModule(cohort).train_labels)
    assert len(MRIDataModule(cohort, n_labelled=there).train_dataloader()) > 0
    data = MRIDataModule(cohort, n_labelled=there + 1)
    with pytest.raises(InputError, match=rf"n_labelled is {there + 1}, but {there} labelled mri cases are there"):
        data.train_dataloader()
    assert len(data.test_dataloader()) > 0, "a run with more labels is scored on a cohort with fewer"
