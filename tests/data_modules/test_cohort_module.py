import mmap
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from data_modules.cohort_dataset import KEPT, LARGE, in_unit_range
from data_modules.cohort_module import CohortDataModule
from data_modules.errors import InputError
from data_modules.mri import MRIDataModule
from data_modules.tvus import TVUSDataModule

WriteCohort = Callable[..., Path]


def indices(loader: DataLoader) -> list[int]:
    return torch.cat([batch["index"] for batch in loader]).tolist()


def as_process(module: CohortDataModule, rank: int, world_size: int) -> CohortDataModule:
    module.trainer = SimpleNamespace(world_size=world_size, global_rank=rank, training=True)  # type: ignore[assignment]
    return module


@pytest.mark.parametrize("fold", [0, 3, 13])
def test_pretraining_without_any_label_is_validated_on_patients_of_its_own(
    write_cohort: WriteCohort, fold: int
) -> None:
    cohort = write_cohort()
    manifest = pd.read_csv(cohort / "mri.csv").assign(label=None, fold=None)
    manifest.to_csv(cohort / "mri.csv", index=False)
    for file in ("folds.json", "tvus.csv"):
        (cohort / file).unlink(missing_ok=True)
    module = MRIDataModule(str(cohort), fold=fold, drop_last=False, include_unlabelled=True)
    train, val = indices(module.train_dataloader()), indices(module.val_dataloader())
    assert sorted(train + val) == list(range(len(manifest)))
    patients = module.manifest["patient_id"]
    assert patients.duplicated().any(), "else a split by case would look as one by patient"
    assert not set(patients[train]) & set(patients[val])
    assert patients[val].nunique() == pytest.approx(patients.nunique() / 10, abs=1)
    assert module.trained_patients == set(patients[train])
    with pytest.raises(InputError, match="no labelled mri case is in the val part of fold"):
        MRIDataModule(str(cohort), fold=fold).val_dataloader()


def test_a_batch_has_the_cases_that_its_indices_name(write_cohort: WriteCohort) -> None:
    cohort = write_cohort()
    for module_class, scale in ((MRIDataModule, 1 / 64), (TVUSDataModule, 1 / 255)):
        module = module_class(str(cohort), batch_size=4)
        for stored in module.predict_dataloader():
            batch = module.on_after_batch_transfer(stored, 0)
            rows = module.manifest.iloc[batch["index"].numpy()]
            number = rows["patient_id"].str[1:].astype(int).to_numpy()
            assert batch["image"].shape[1:] == (1, 4, 6, 8)
            assert batch["image"].dtype == batch["label"].dtype == torch.float32
            torch.testing.assert_close(
                batch["image"][:, 0, 0, 0, 0].double(), torch.as_tensor(number * scale), atol=1e-6, rtol=0
            )
            np.testing.assert_array_equal(batch["label"], rows["label"].to_numpy(np.float32))


@pytest.mark.parametrize("fold", range(5))
def test_the_parts_share_no_patient_and_every_label_is_used_once(write_cohort: WriteCohort, fold: int) -> None:
    module = MRIDataModule(str(write_cohort()), fold=fold, drop_last=False)
    pretraining = MRIDataModule(str(module.cohort), fold=fold, drop_last=False, include_unlabelled=True)
    train, val = indices(module.train_dataloader()), indices(module.val_dataloader())
    test = [i for i in indices(module.test_dataloader()) if module.manifest["split"][i] == "test"]
    assert sorted(train + val + test) == np.flatnonzero(module.manifest["label"].notna()).tolist()
    held_out = set(module.manifest["patient_id"][val + test])
    assert not held_out & set(module.manifest["patient_id"][train])
    images = indices(pretraining.train_dataloader())
    assert sorted(images) == np.flatnonzero(~pretraining.manifest["split"].isin(["val", "test"])).tolist()
    assert len(images) > len(train)
    assert not held_out & set(pretraining.manifest["patient_id"][images])
    assert all(batch["label"].isnan().all() for batch in pretraining.train_dataloader())
    assert indices(pretraining.val_dataloader()) == val


def test_the_order_depends_on_seed_and_epoch_alone(write_cohort: WriteCohort) -> None:
    cohort = str(write_cohort())

    def order(seed: int, epoch: int) -> list[int]:
        loader = MRIDataModule(cohort, seed=seed, drop_last=False).train_dataloader()
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        torch.rand(7)  # draws elsewhere do not matter
        return indices(loader)

    assert order(0, 3) == order(0, 3)
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)


def test_processes_share_the_training_cases_without_overlap(write_cohort: WriteCohort) -> None:
    cohort = str(write_cohort())
    parts = [
        indices(as_process(MRIDataModule(cohort, drop_last=False), rank, 2).train_dataloader()) for rank in range(2)
    ]
    assert not set(parts[0]) & set(parts[1])
    assert sorted(parts[0] + parts[1]) == sorted(indices(MRIDataModule(cohort, drop_last=False).train_dataloader()))
    seen = {i for rank in range(4) for i in indices(as_process(MRIDataModule(cohort), rank, 4).test_dataloader())}
    assert seen == set(indices(MRIDataModule(cohort).test_dataloader()))


def test_workers_and_the_cache_do_not_change_batches(write_cohort: WriteCohort) -> None:
    cohort = str(write_cohort())
    loaders = [
        MRIDataModule(cohort, batch_size=5, **options).train_dataloader()
        for options in ({}, {"cache_gb": 0.0}, {"num_workers": 1})
    ]
    for _ in range(2):
        for one, *others in zip(*loaders, strict=True):
            for other in others:
                assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_travel_as_stored_and_become_float32_where_they_arrive(
    write_cohort: WriteCohort, num_workers: int
) -> None:
    cohort = str(write_cohort())
    for module_class, stored in ((MRIDataModule, torch.float16), (TVUSDataModule, torch.uint8)):
        module = as_process(module_class(cohort, batch_size=4, num_workers=num_workers), 0, 1)
        rows = np.arange(len(module.manifest))
        image = torch.cat([batch["image"] for batch in module.sequential_dataloader(rows)])
        assert image.dtype == stored
        for loader in (module.train_dataloader(), module.val_dataloader(), module.predict_dataloader()):
            for batch in loader:
                assert type(batch) is dict
                assert batch["image"].dtype == stored
                arrived = module.on_after_batch_transfer(batch, 0)["image"]
                assert arrived.dtype == torch.float32
                torch.testing.assert_close(arrived, in_unit_range(image[batch["index"]]), rtol=0, atol=0)


def test_a_large_batch_becomes_float32_as_a_small_one_does() -> None:
    for stored in (torch.rand(2, 1, LARGE // 8 + 1).half(), torch.randint(0, 256, (2, 1, LARGE // 8 + 1)).byte()):
        large = in_unit_range(stored)
        assert large.dtype == torch.float32
        small = torch.cat([in_unit_range(part) for part in stored.split(LARGE // 32, dim=2)], 2)
        torch.testing.assert_close(large, small, rtol=0, atol=0)
        large.mul_(2)  # it is as good as any other memory
        torch.testing.assert_close(large, 2 * small, rtol=0, atol=0)


def test_a_large_batch_takes_the_memory_of_one_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    made, new = [], mmap.mmap
    monkeypatch.setattr(mmap, "mmap", lambda *size, **options: made.append(size) or new(*size, **options))
    stored = torch.zeros(LARGE // 4 + 4096, dtype=torch.float16)
    batches = [in_unit_range(stored) for _ in range(KEPT + 2)]
    assert len({batch.data_ptr() for batch in batches}) == len(made) == KEPT + 2
    part = batches[0][-1:]
    part += 1
    del batches
    others = [in_unit_range(stored) for _ in range(KEPT)]
    assert len(made) == KEPT + 2
    assert part.data_ptr() - 4 * (len(stored) - 1) not in {other.data_ptr() for other in others}
    assert part.item() == 1, "a part of the first batch is still used"
    assert not any(other.any() for other in others)
    last = in_unit_range(stored)
    assert len(made) == KEPT + 3, "no more than that is kept"
    assert not last.any()


def test_few_labels_keep_the_ratio_of_the_classes_and_grow_by_adding(write_cohort: WriteCohort) -> None:
    cohort = str(write_cohort(n_labelled=90, n_unlabelled=0, tvus_from=200))
    chosen = {}
    every = MRIDataModule(cohort).train_labels
    for n in (2, 6, 12, 1000):
        module = MRIDataModule(cohort, n_labelled=n)
        chosen[n] = set(module.manifest["case_id"][module.manifest["split"] == "train"])
        assert len(module.train_labels) == min(n, len(every))
        assert int(module.train_labels.sum()) == round(min(n, len(every)) * every.mean())
        assert (module.manifest["split"] == "unlabelled").sum() == len(every) - len(chosen[n])
    assert chosen[2] < chosen[6] < chosen[12] < chosen[1000]
    other = MRIDataModule(cohort, n_labelled=12, seed=1)
    assert set(other.manifest["case_id"][other.manifest["split"] == "train"]) != chosen[12]
    with pytest.raises(InputError, match="n_labelled 1"):
        MRIDataModule(cohort, n_labelled=1)


def test_only_training_batches_are_augmented(write_cohort: WriteCohort) -> None:
    class Blank:
        def __call__(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
            return torch.zeros_like(image)

    module = as_process(MRIDataModule(str(write_cohort()), augmentation=Blank()), 0, 1)  # type: ignore[arg-type]
    batch = next(iter(module.train_dataloader()))
    assert module.on_after_batch_transfer(dict(batch), 0)["image"].eq(0).all()
    module.trainer.training = False  # type: ignore[union-attr,misc]
    assert module.on_after_batch_transfer(dict(batch), 0)["image"].ne(0).any()


def test_arrays_of_another_shape_are_named(write_cohort: WriteCohort) -> None:
    cohort = write_cohort()
    np.save(cohort / "mri" / "mri-p005-1.npy", np.zeros((2, 2, 2), np.float16))
    with pytest.raises(InputError, match=r"mri-p005-1\.npy: is \(2, 2, 2\)"):
        list(MRIDataModule(str(cohort)).predict_dataloader())


def test_a_fold_that_is_not_there_is_refused(write_cohort: WriteCohort) -> None:
    with pytest.raises(InputError, match="fold 7: the cohort has folds 0 to 4"):
        MRIDataModule(str(write_cohort()), fold=7)
