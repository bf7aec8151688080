"""MRI to train on, and beside it the ultrasound clips of other patients."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.combined_loader import CombinedLoader
from scipy.stats import norm, rankdata
from torch.utils.data import DataLoader

from data_modules.cohort import COLUMNS, hash_order
from data_modules.cohort_dataset import Batch, in_unit_range
from data_modules.errors import InputError
from data_modules.mri import MRIDataModule
from data_modules.store import read_record
from data_modules.tvus import TVUSDataModule

NOBODY = np.empty(0, dtype=int)


class UnpairedDataModule(pl.LightningDataModule):
    """Serves MRI like its `MRIDataModule`, and the ultrasound clips of the training folds through `clips`.

    No patient of the MRI validation or test fold lends a clip: the two share one cohort, whose folds are by patient
    across both modalities, and one test fold.

    With `clips_in_batches` every training batch also holds clips: it is a dict of two batches, ``mri`` and ``tvus``. An
    epoch is still a pass over the MRI, and each takes other clips or, where they are few, the same in another order.

    Attributes:
        manifest: That of the MRI.

    Args:
        mri: The MRI, which all loaders serve.
        tvus: The ultrasound; None where nothing is distilled. With an augmentation, what `clips` gives is augmented.
        clip_copies: How many times `clips` gives every clip, each time augmented anew; more than 1 only with an
            augmentation of `tvus`.
        covariates: Columns of both manifests that `covariate_scores` gives, such as age or pain.
        clips_in_batches: Clips of the training folds that every training batch of a process holds: the labelled ones,
            or with ``include_unlabelled`` of `tvus` all of them, labels hidden; augmented as `tvus` says. 0: none.
        unlabelled_clips: Whether `clips` also gives those without a label, of patients of the training folds or without
            a fold, after the labelled ones. A teacher that was trained on few labels may have something to say of them.
        n_both: Of the patients with both examinations who train, so many are known to be such, at least 1, drawn with
            the seed in the ratio of their clips' labels, a smaller draw being part of a larger; None: all.
        unlabelled_with_both: Whether only volumes of such patients train without a label, where there are any. Among
            thousands of others, who teach a transfer between examinations nothing, a batch would seldom hold one.

    Raises:
        InputError: The two have another cohort or another fold, a covariate is missing, or `clip_copies`,
            `clips_in_batches` or `n_both` is out of range, or with `unlabelled_with_both` too large.
    """

    def __init__(
        self,
        mri: MRIDataModule,
        tvus: TVUSDataModule | None = None,
        clip_copies: int = 1,
        covariates: list[str] | None = None,
        clips_in_batches: int = 0,
        unlabelled_clips: bool = False,
        n_both: int | None = None,
        unlabelled_with_both: bool = False,
    ) -> None:
        super().__init__()
        if clip_copies < 1:
            raise InputError(f"data.clip_copies is {clip_copies}: give at least 1")
        if clip_copies > 1 and (tvus is None or tvus.augmentation is None):
            raise InputError(
                f"data.clip_copies is {clip_copies}, but data.tvus has no augmentation: all would be alike"
            )
        if clips_in_batches < 0:
            raise InputError(f"data.clips_in_batches is {clips_in_batches}: give at least 0")
        if clips_in_batches and tvus is None:
            raise InputError(f"data.clips_in_batches is {clips_in_batches}, but data.tvus is not set: give both")
        if n_both is not None and n_both < 1:
            raise InputError(f"n_both is {n_both}: give at least 1, or null for all")
        if tvus is not None and tvus.cohort.resolve() != mri.cohort.resolve():
            raise InputError(f"data.tvus.cohort {tvus.cohort} is not data.mri.cohort {mri.cohort}; give both the same")
        if tvus is not None and tvus.fold != mri.fold:
            raise InputError(f"data.tvus.fold {tvus.fold} is not data.mri.fold {mri.fold}; give both the same")
        self.mri = mri
        self.tvus = tvus
        self.clip_copies = clip_copies
        self.covariates = covariates or []
        self.clips_in_batches = clips_in_batches
        self.unlabelled_clips = unlabelled_clips
        self.n_both = n_both
        self._with_both: set[str] | None = None
        for part in (mri, tvus):
            for name in self.covariates if part is not None else ():
                if part is not None and name not in part.manifest.columns[len(COLUMNS) :]:
                    raise InputError(
                        f"data.covariates: {part.cohort / part.modality}.csv has no covariate {name}; it must be a "
                        "column of both manifests"
                    )
        if unlabelled_with_both:
            self._with_both = self.patients_with_both()  # drawn among all, and kept when some are left out
            mri.leave_out_unlabelled(self.patients_with_both())

    @property
    def manifest(self) -> pd.DataFrame:
        """Manifest of the MRI, with its column ``split``."""
        return self.mri.manifest

    @property
    def train_labels(self) -> np.ndarray:
        """Labels (N,) of the MRI that are trained on, float, 0 or 1."""
        return self.mri.train_labels

    @property
    def trained_patients(self) -> set[str]:
        """The ``patient_id`` of all whose images are trained on, those of the clips among them."""
        if self.tvus is None:
            return self.mri.trained_patients
        lenders = self.tvus.manifest["patient_id"].iloc[self._lent()]
        return self.mri.trained_patients | self.tvus.trained_patients | set(lenders)

    @property
    def image_form(self) -> dict[str, list[float]]:
        """That of the MRI, as of a `CohortDataModule`."""
        return self.mri.image_form

    def setup(self, stage: str) -> None:
        """Lets the parts know the trainer, from which they learn their process."""
        self.mri.trainer = self.trainer
        if self.tvus is not None:
            self.tvus.trainer = self.trainer

    def train_dataloader(self) -> DataLoader | CombinedLoader:
        """Returns the MRI's training loader, or with `clips_in_batches` that of both."""
        volumes = self.mri.train_dataloader()
        if self.tvus is None or not self.clips_in_batches:
            return volumes
        parts = volumes.iterables if isinstance(volumes, CombinedLoader) else volumes  # a loader, or one of each kind
        steps = min(len(loader) for loader in CombinedLoader(parts).flattened)
        clips = self.tvus.train_dataloader_beside(steps, self.clips_in_batches)
        return CombinedLoader({"mri": parts, "tvus": clips}, "min_size")

    def val_dataloader(self) -> DataLoader:
        """Returns the MRI's validation loader."""
        return self.mri.val_dataloader()

    def test_dataloader(self) -> DataLoader:
        """Returns the MRI's loader of validation and test cases."""
        return self.mri.test_dataloader()

    def predict_dataloader(self) -> DataLoader:
        """Returns the MRI's loader of every case."""
        return self.mri.predict_dataloader()

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Makes images float32 in [0, 1] where they now are, and augments those of training batches."""
        if self.tvus is None or "tvus" not in batch:
            return self.mri.on_after_batch_transfer(batch, dataloader_idx)
        parts = {"mri": self.mri, "tvus": self.tvus}
        return {name: part.on_after_batch_transfer(batch[name], dataloader_idx) for name, part in parts.items()}

    def covariate_scores(self, held_out: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Returns the covariates of all volumes (M, C) and of the training clips (N, C), float32, on one scale.

        A covariate becomes the normal score of its rank, Phi^-1(rank / (n + 1)), among the n training cases of both
        cohorts, labelled or not: skewed ones, such as CA-125, need no transformation of their own, and an outlier
        cannot lead. Equal values share their mean rank; a missing value is 0, the middle. Validation and test volumes
        are 0, for their covariates take no part in training. Clips come in the order of `clips`, without copies.

        Args:
            held_out: Score validation and test volumes, too, each by itself: its rank is interpolated linearly between
                the training cases with the next values, and is the first or last where it lies outside of all.
        """
        clips, lent = (self._lent(), self._lent(True)) if self.tvus is not None else (NOBODY, NOBODY)
        trains = self.manifest["split"].isin(["train", "unlabelled"]).to_numpy()
        scored = trains | held_out
        mri_scores = np.zeros((len(self.manifest), len(self.covariates)), dtype=np.float32)
        tvus_scores = np.zeros((len(clips), len(self.covariates)), dtype=np.float32)
        for column, name in enumerate(self.covariates):
            of_mri = self.manifest[name].to_numpy(dtype=float)
            of_tvus = np.empty(0) if self.tvus is None else self.tvus.manifest[name].to_numpy(dtype=float)
            reference = np.concatenate([of_mri[trains], of_tvus[lent]])
            mri_scores[scored, column] = _normal_scores(of_mri[scored], reference)
            tvus_scores[:, column] = _normal_scores(of_tvus[clips], reference)
        return mri_scores, tvus_scores

    def covariates_recorded(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns whether any covariate is known, of all volumes (M,) and of the training clips (N,), bool."""
        tables = [self.manifest]
        if self.tvus is not None:
            tables.append(self.tvus.manifest.iloc[self._lent()])
        known = [table[self.covariates].notna().any(axis=1).to_numpy(copy=True) for table in tables]
        return known[0], known[1] if len(known) > 1 else np.empty(0, dtype=bool)

    def patients_with_both(self) -> set[str]:
        """Returns the ``patient_id`` of those whose volume and clip both train, of whom `n_both` are drawn.

        Raises:
            InputError: There are fewer than `n_both`.
        """
        if self._with_both is not None:
            return self._with_both
        if self.tvus is None:
            return set()
        lent = self.tvus.manifest.iloc[self._lent()]
        trains = self.manifest["split"].isin(["train", "unlabelled"])
        lent = lent[lent["patient_id"].isin(self.manifest.loc[trains, "patient_id"])]
        obliterated = lent["label"].where(lent["split"].eq("train")).eq(1).groupby(lent["patient_id"]).any()
        if self.n_both is None:
            return set(obliterated.index)
        if len(obliterated) < self.n_both:
            raise InputError(
                f"{self.mri.cohort}: n_both is {self.n_both}, but {len(obliterated)} patients who train have an MRI "
                "and a TVUS clip: lower it in the profile, or set it to null for all"
            )
        turn = obliterated.index.map(lambda patient: hash_order(self.mri.seed, patient))
        in_turn = obliterated.iloc[np.argsort(turn)]
        classes = in_turn.groupby(in_turn)
        share = (classes.cumcount() + 0.5) / classes.transform("size")  # of her class that comes before her
        return set(share.sort_values(kind="stable").index[: self.n_both])

    def clips(self, device: torch.device | str = "cpu") -> Iterator[Batch]:
        """Yields the training clips in their order, whole in every process, `clip_copies` times.

        Batches are dicts of ``image`` float32 (B, 1, T, H, W) in [0, 1], ``label`` (B,), nan where it is not trained
        on, and ``index`` (B,), rows of ``tvus.manifest``. Augmentation follows the data module's seed, not the run's
        random numbers.

        Args:
            device: Where images are augmented and handed over.

        Raises:
            InputError: There is no ultrasound, or none that has a label in the training folds.
        """
        tvus, rows = self._clip_rows()
        return self._clips(tvus, tvus.sequential_dataloader(rows), torch.device(device))

    def _clips(self, tvus: TVUSDataModule, loader: DataLoader, device: torch.device) -> Iterator[Batch]:
        generator = torch.Generator(device).manual_seed(tvus.seed)
        for _ in range(self.clip_copies):
            for batch in loader:
                image = in_unit_range(batch["image"].to(device, non_blocking=True))
                if tvus.augmentation is not None:
                    image = tvus.augmentation(image, generator)
                trained = tvus.manifest["split"].iloc[batch["index"].numpy()].eq("train").to_numpy(copy=True)
                yield {**batch, "image": image, "label": batch["label"].where(torch.from_numpy(trained), torch.nan)}

    def clip_fingerprint(self, device: torch.device | str = "cpu") -> str:
        """Returns a hash that changes with the set of clips, their labels, their content or their augmentation.

        Args:
            device: Where images would be augmented: each kind draws random numbers of its own, a batch at a time.

        Raises:
            InputError: As `clips`.
        """
        tvus, rows = self._clip_rows()
        digest = hashlib.sha256()
        if tvus.augmentation is not None:
            options = sorted(vars(tvus.augmentation).items())
            digest.update(
                f"{self.clip_copies} {tvus.seed} {tvus.batch_size} {torch.device(device).type} "
                f"{tvus.augmentation.__class__.__qualname__} {options}".encode()
            )
        labels = tvus.manifest["label"].where(tvus.manifest["split"].eq("train"))
        for case_id, path, label in (
            tvus.manifest.assign(label=labels).loc[rows, ["case_id", "path", "label"]].to_numpy()
        ):
            file = tvus.cohort / path
            record = read_record(file) or {}
            status = file.stat()
            content = record.get("sha256") or (status.st_size, status.st_mtime_ns)
            digest.update(f"{case_id} {label:g} {content}\n".encode())
        return digest.hexdigest()

    def _clip_rows(self) -> tuple[TVUSDataModule, np.ndarray]:
        if self.tvus is None:
            raise InputError("data.tvus is not set: give the TVUS data module to distil from ultrasound")
        self.tvus.require_labels()
        return self.tvus, self._lent()

    def _lent(self, unlabelled: bool | None = None) -> np.ndarray:
        """Rows of the clips that `clips` gives, or all that may train, labelled ones first."""
        assert self.tvus is not None
        split = self.tvus.manifest["split"]
        parts = ("train", "unlabelled") if (self.unlabelled_clips if unlabelled is None else unlabelled) else ("train",)
        return np.concatenate([np.flatnonzero(split == part) for part in parts])


def _normal_scores(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Normal scores (N,) of the values' ranks among the reference (M,); a rank between two of its values is linear."""
    scores = np.zeros(len(values))
    known, lent = ~np.isnan(values), reference[~np.isnan(reference)]
    if len(lent):
        knots, first = np.unique(lent, return_index=True)
        scores[known] = norm.ppf(np.interp(values[known], knots, rankdata(lent)[first]) / (len(lent) + 1))
    return scores
