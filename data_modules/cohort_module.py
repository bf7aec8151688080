"""What the data modules of both modalities share: splits, samplers and loaders."""

import math
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from torch.utils.data import DataLoader, DistributedSampler

from data_modules.augmentation import Augmentation
from data_modules.cohort import Modality, count_folds, hash_order, read_manifest, splits
from data_modules.cohort_dataset import Batch, CohortDataset, hand_over, in_unit_range
from data_modules.errors import InputError
from data_modules.store import read_record

HELD_OUT = 10  # patients for one that pre-training without any label is validated on


class CohortDataModule(pl.LightningDataModule):
    """Serves one modality of a cohort for one test fold.

    A batch is a dict of ``image``, ``label`` and ``index`` (see `CohortDataset`). Images come as they are stored and
    become float32 on their device, by `on_after_batch_transfer`, which halves or quarters what is handed over. The
    loaders:

    - training: the labelled cases of the training folds; or, with ``include_unlabelled``, all images of the patients
      of the training folds and of those without a fold, with their labels hidden,
    - validation: the labelled cases of fold (j + 1) mod K; in pre-training on a cohort without any label, those of one
      patient in `HELD_OUT`,
    - test: the labelled cases of the validation fold and of the test fold j, told apart by ``manifest["split"]``;
      without a fold, all labelled cases,
    - prediction: every case.

    Order depends on seed, epoch and process alone.

    Attributes:
        manifest: The modality's manifest with a column ``split``: ``train`` (image and label are trained on),
            ``unlabelled`` (at most the image is), ``unused`` (left out by `n_unlabelled` or `leave_out_unlabelled`),
            ``val`` or ``test``.

    Args:
        cohort: The cohort folder, as `poddistill ingest` writes it.
        fold: The test fold j, counted from 0; None, where nothing is trained or selected on this cohort: all.
        batch_size: Cases a batch and a process.
        include_unlabelled: Train on all images, labels hidden, as for pre-training.
        n_labelled: Train with so many labels, at least 2, drawn with the seed in the ratio of the classes; None: all.
        n_unlabelled: Train with so many images without a label, drawn with the seed; in pre-training, which hides all
            labels, so many images. None: all.
        augmentation: Changes training batches on their device.
        num_workers: Processes a loader.
        seed: Of order and draw; None: the run's own seed (``seed_everything``), else 0.
        drop_last: Leave out the last, smaller training batch of an epoch, unless it is the only one.
        cache_gb: Keep the arrays in RAM where a loader's take no more than this, in GB, and num_workers is 0.
        unlabelled_batch_size: Cases without a label, other than those that are trained on, that every training batch
            holds at its end beside `batch_size` labelled ones, their labels nan. An epoch is still a pass over the
            labelled; each takes other ones of the unlabelled.
        shuffle_labels: Deal the training labels to the training cases at random, as a control. Validation and test
            cases keep theirs.
        label_noise: Part of the training labels that are wrong, of either class alike, drawn with the seed; in
            [0, 0.5). Validation and test cases keep theirs.

    Raises:
        InputError: The cohort, the fold or an option is wrong.
    """

    modality: ClassVar[Modality]

    def __init__(
        self,
        cohort: str,
        fold: int | None = 0,
        batch_size: int = 32,
        include_unlabelled: bool = False,
        n_labelled: int | None = None,
        augmentation: Augmentation | None = None,
        num_workers: int = 0,
        seed: int | None = None,
        drop_last: bool = True,
        cache_gb: float = 4.0,
        unlabelled_batch_size: int = 0,
        shuffle_labels: bool = False,
        label_noise: float = 0.0,
        n_unlabelled: int | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0)):
            if value < least:
                raise InputError(f"{name} of {self.modality} is {value}: give at least {least}")
        if unlabelled_batch_size < 0 or (unlabelled_batch_size and include_unlabelled):
            raise InputError(
                f"unlabelled_batch_size is {unlabelled_batch_size}: give at least 0, and 0 with include_unlabelled"
            )
        if not 0 <= label_noise < 0.5:
            raise InputError(f"label_noise is {label_noise}: give a part from 0 to below 0.5")
        if n_unlabelled is not None and n_unlabelled < 1:
            raise InputError(f"n_unlabelled is {n_unlabelled}: give at least 1, or null for all")
        self.cohort = Path(cohort)
        self.fold = fold
        self.batch_size = batch_size
        self.include_unlabelled = include_unlabelled
        self.n_labelled = n_labelled
        self.n_unlabelled = n_unlabelled
        self.augmentation = augmentation
        self.num_workers = num_workers
        self.seed = int(os.environ.get("PL_GLOBAL_SEED", "0")) if seed is None else seed
        self.drop_last = drop_last
        self.cache_gb = cache_gb
        self.unlabelled_batch_size = unlabelled_batch_size
        self.manifest = read_manifest(self.cohort, self.modality)
        self.manifest["split"] = self._split()
        labels, rng = self.train_labels, np.random.default_rng(self.seed)
        if shuffle_labels:
            labels = rng.permutation(labels)
        wrong = rng.permutation(len(labels))[: round(label_noise * len(labels))]
        labels[wrong] = 1 - labels[wrong]
        self.manifest.loc[self.manifest["split"].eq("train"), "label"] = labels

    @property
    def train_labels(self) -> np.ndarray:
        """Labels (N,) that are trained on, float, 0 or 1."""
        return self.manifest["label"].to_numpy(dtype=float)[self._rows("train")]

    @property
    def trained_patients(self) -> set[str]:
        """The ``patient_id`` of all whose images are trained on, with or without a label."""
        lends = self.include_unlabelled or self.unlabelled_batch_size > 0
        return set(self.manifest["patient_id"].iloc[self._rows("train", *(["unlabelled"] if lends else []))])

    @property
    def image_form(self) -> dict[str, list[float]]:
        """What all images of a cohort have alike: ``shape``, and ``spacing`` (mm) of volumes, by the first's record."""
        stored = (read_record(self.cohort / self.manifest["path"].iloc[0]) or {}).get("stored", {})
        return {name: list(stored[name]) for name in ("shape", "spacing") if name in stored}

    def train_dataloader(self) -> DataLoader | CombinedLoader:
        """Returns the training loader; that of two kinds of batches, if unlabelled cases come beside the labelled."""
        loader = self._loader(self._trained_rows(), training=True)
        if not self.unlabelled_batch_size:
            return loader
        rows = self._unlabelled_rows()
        if not len(rows):
            raise InputError(
                f"{self.cohort}: unlabelled_batch_size is {self.unlabelled_batch_size}, but no {self.modality} case is "
                "left that is not trained on with its label: train an arm that learns from labels alone, such as "
                "student-mae, or every arm with fewer labels (n_labelled, in a run folder of its own)"
            )
        beside = self._beside(rows, self.unlabelled_batch_size, len(loader), hide_labels=True)
        return CombinedLoader({"labelled": loader, "unlabelled": beside}, "min_size")

    def train_dataloader_beside(self, steps: int, batch_size: int) -> DataLoader:
        """Returns a loader of the training cases that has at least so many whole batches.

        It is for an epoch of so many steps over other cases. Each epoch takes other ones of these or, where they are
        too few, takes them several times.
        """
        return self._beside(self._trained_rows(), batch_size, steps)

    def val_dataloader(self) -> DataLoader:
        """Returns the loader of the validation cases."""
        return self._loader(self._rows("val") if self._without_labels else self.labelled_rows("val"))

    def test_dataloader(self) -> DataLoader:
        """Returns the loader of the labelled validation and test cases."""
        return self._loader(self.labelled_rows("val", "test"))

    def predict_dataloader(self) -> DataLoader:
        """Returns the loader of every case."""
        return self._loader(np.arange(len(self.manifest)))

    def labelled_rows(self, *parts: str) -> np.ndarray:
        """Returns int (N,), the rows of the manifest in some parts of the split, such as ``"val"``, that have a label.

        Raises:
            InputError: There is none.
        """
        if "test" not in parts:
            self._refuse_no_fold()
        rows = np.flatnonzero(self.manifest["split"].isin(parts) & self.manifest["label"].notna())
        if not len(rows):
            where = "there" if self.fold is None else f"in the {parts[0]} part of fold {self.fold}"
            raise InputError(
                f"{self.cohort}: no labelled {self.modality} case is {where}; ingest more labels, or with fewer folds"
            )
        return rows

    def require_labels(self) -> None:
        """Makes sure that there are labels to train on, as many as `n_labelled` asks for.

        Raises:
            InputError: There are none, or fewer.
        """
        there = len(self._rows("train"))
        if not there:
            raise InputError(
                f"{self.cohort}: no labelled {self.modality} case is left to train on; add labels and ingest again"
            )
        if self.n_labelled is not None and there < self.n_labelled:
            raise InputError(
                f"{self.cohort}: n_labelled is {self.n_labelled}, but {there} labelled {self.modality} cases are there "
                "to train on: lower it in the profile, or set it to null for all"
            )

    def leave_out_unlabelled(self, patients: set[str]) -> None:
        """Lets, of the cases without a label, only those of these patients train, if any are theirs.

        Raises:
            InputError: There are fewer without a label than `n_unlabelled` asks for.
        """
        self._unlabelled_rows()
        unlabelled, theirs = self.manifest["split"].eq("unlabelled"), self.manifest["patient_id"].isin(patients)
        if (unlabelled & theirs).any():
            self.manifest["split"] = self.manifest["split"].mask(unlabelled & ~theirs, "unused")
            self.n_unlabelled = None  # which was of all

    def sequential_dataloader(self, rows: np.ndarray) -> DataLoader:
        """Returns a loader of these rows of the manifest in their order, whole in every process, not augmented.

        Images come as they are stored: `in_unit_range` makes them float32 in [0, 1].
        """
        return DataLoader(
            self._dataset(rows),
            batch_size=self.batch_size,
            num_workers=self.num_workers,
            collate_fn=hand_over,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # without one each pass would draw from the run's own random numbers
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Makes images float32 in [0, 1] where they now are, and augments them in training; joins the two kinds."""
        if "labelled" in batch:
            parts: tuple[Batch, Batch] = (batch["labelled"], batch["unlabelled"])  # type: ignore[assignment]
            batch = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        batch["image"] = in_unit_range(batch["image"])
        if self.augmentation is not None and self.trainer is not None and self.trainer.training:
            batch["image"] = self.augmentation(batch["image"])
        return batch

    def _split(self) -> pd.Series:
        split = splits(self.manifest, self.fold, 0 if self.fold is None else count_folds(self.cohort))
        label = self.manifest["label"]
        candidates = split.eq("train") & label.notna() & (not self.include_unlabelled)
        chosen = self.manifest["case_id"][candidates]
        if self.n_labelled is not None:
            chosen = _draw(chosen, label[candidates], self.n_labelled, self.seed, self.modality)
        unused = split.isin(["train", ""]) & ~split.index.isin(chosen.index)
        split = split.mask(unused, "unlabelled")
        if self._without_labels and self.fold is not None:
            patients = sorted(self.manifest["patient_id"].unique())
            held_out = patients[self.fold % HELD_OUT :: HELD_OUT]
            if not held_out:
                raise InputError(
                    f"fold is {self.fold}, but {self.cohort} has {len(patients)} patients, none of them with a label: "
                    "choose a lower --fold"
                )
            split = split.mask(self.manifest["patient_id"].isin(held_out), "val")
        if self.n_unlabelled is not None:
            left_out = _shuffled(self.manifest["case_id"][split.eq("unlabelled")], self.seed)[self.n_unlabelled :]
            split = split.mask(split.index.isin(left_out), "unused")
        return split

    @property
    def _without_labels(self) -> bool:
        return self.include_unlabelled and bool(self.manifest["label"].isna().all())

    def _rows(self, *parts: str) -> np.ndarray:
        return np.flatnonzero(self.manifest["split"].isin(parts))

    def _unlabelled_rows(self) -> np.ndarray:
        rows = self._rows("unlabelled")
        if self.n_unlabelled is not None and len(rows) < self.n_unlabelled:
            raise InputError(
                f"{self.cohort}: n_unlabelled is {self.n_unlabelled}, but {len(rows)} {self.modality} cases are there "
                "to train on without a label: lower it in the profile, or set it to null for all"
            )
        return rows

    def _trained_rows(self) -> np.ndarray:
        self._refuse_no_fold()
        if self.include_unlabelled:
            rows = self._unlabelled_rows()
            if not len(rows):
                raise InputError(f"{self.cohort}: no {self.modality} case is there to train on; ingest some")
            return rows
        self.require_labels()
        return self._rows("train")

    def _refuse_no_fold(self) -> None:
        if self.fold is None:
            raise InputError("fold is null, which leaves every labelled case to the test: give the number of one")

    def _beside(self, rows: np.ndarray, batch_size: int, steps: int, hide_labels: bool = False) -> DataLoader:
        world_size = self.trainer.world_size if self.trainer is not None else 1
        # Repeated as a whole, so that over many epochs, each cut short somewhere else, no case is drawn more often.
        repeated = np.tile(rows, math.ceil(steps * batch_size * world_size / len(rows)))
        return self._loader(repeated, True, hide_labels, batch_size, most=steps * batch_size)

    def _dataset(self, rows: np.ndarray, hide_labels: bool = False) -> CohortDataset:
        cache_bytes = 0 if self.num_workers else self.cache_gb * 1e9
        return CohortDataset(self.cohort, self.manifest, rows, hide_labels, cache_bytes)

    def _loader(
        self,
        rows: np.ndarray,
        training: bool = False,
        hide_labels: bool = False,
        batch_size: int | None = None,
        most: int | None = None,
    ) -> DataLoader:
        batch_size = batch_size or self.batch_size
        world_size, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer is not None else (1, 0)
        dataset = self._dataset(rows, hide_labels or (training and self.include_unlabelled))
        # Lightning leaves a DistributedSampler alone and tells it the epoch, which is all that its order depends on.
        sampler = _Beginning(most, dataset, world_size, rank, shuffle=training, seed=self.seed)
        return DataLoader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=hand_over,
            pin_memory=torch.cuda.is_available(),
            drop_last=training and self.drop_last and len(sampler) > batch_size,
            persistent_workers=self.num_workers > 0,
        )


class _Beginning(DistributedSampler):
    """The first cases, at most so many, of what a process has in an epoch: workers would read the others in vain."""

    def __init__(self, most: int | None, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.most = most

    def __iter__(self) -> Iterator[int]:
        return islice(super().__iter__(), self.most)

    def __len__(self) -> int:
        return super().__len__() if self.most is None else min(self.most, super().__len__())


def _draw(cases: pd.Series, labels: pd.Series, n: int, seed: int, modality: str) -> pd.Series:
    """At most n of the cases, at least one of each class and else in their ratio; those of a smaller n come first."""
    if n < 2:
        raise InputError(f"n_labelled {n} of {modality}: a detector needs a case of each class; give at least 2")
    if n >= len(cases):
        return cases
    order = _shuffled(cases, seed)
    positive, negative = (order[labels[order].eq(label)] for label in (1, 0))
    if not (len(positive) and len(negative)):
        missing = "free" if len(positive) else "obliterated"
        raise InputError(
            f"n_labelled is {n}, but no {modality} case to train on is {missing}: choose another --fold, or ingest such"
        )
    n_positive = min(max(round(n * len(positive) / len(cases)), 1), n - 1)
    return cases.loc[positive[:n_positive].append(negative[: n - n_positive])]


def _shuffled(cases: pd.Series, seed: int) -> pd.Index:
    """The index of cases in an order of seed and case alone, so that a smaller draw is part of a larger."""
    return cases.map(lambda case: hash_order(seed, case)).sort_values().index
