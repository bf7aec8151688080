"""The sides that `reading.py` compares: each gives loaders of training batches and makes them ready for a network."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import monai.data
import numpy as np
import torch
from ingest_sides import CLIP_SHAPE, monai_dataset
from monai.data import CacheDataset, set_track_meta
from monai.transforms import Compose, Lambda
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from data_modules.cohort_module import CohortDataModule
from data_modules.mri import MRIDataModule
from data_modules.tvus import TVUSDataModule

BATCH = 4


@dataclass(frozen=True)
class Side:
    """A way to read an epoch.

    Attributes:
        loader: Gives batches.
        ready: Makes a batch a float32 tensor (B, 1, ., ., .).
    """

    loader: Iterable[Any]
    ready: Callable[[Any], Tensor]

    def epoch(self) -> Iterator[Tensor]:
        """Yields the batches of an epoch as float32, one at a time."""
        for batch in self.loader:
            yield self.ready(batch)


def data_module(cohort: Path, modality: str, workers: int) -> CohortDataModule:
    """Returns poddistill's data of pre-training, which reads all images."""
    kind = MRIDataModule if modality == "mri" else TVUSDataModule
    return kind(str(cohort), include_unlabelled=True, batch_size=BATCH, num_workers=workers)


def training_files(cohort: Path, modality: str) -> list[Path]:
    """Returns the stored arrays of the training cases."""
    manifest = data_module(cohort, modality, 0).manifest
    return [cohort / path for path in manifest["path"][manifest["split"].isin(["train", "unlabelled"])]]


def poddistill(cohort: Path, modality: str, workers: int) -> Side:
    """Reads the store."""
    data = data_module(cohort, modality, workers)
    return Side(data.train_dataloader(), lambda batch: data.on_after_batch_transfer(batch, 0)["image"])


def cached(cohort: Path) -> CacheDataset:
    """Keeps the same volumes in memory, float32, by MONAI's `CacheDataset`."""
    set_track_meta(False)  # with it every volume takes a header along
    dataset = CacheDataset(training_files(cohort, "mri"), Compose([Lambda(load)]), progress=False)
    set_track_meta(True)
    return dataset


def load(file: Path) -> Tensor:
    """Returns a stored volume as float32 (1, D, H, W)."""
    return torch.from_numpy(np.load(file)).float().unsqueeze(0)


def raw(source: Path, scratch: Path) -> monai.data.Dataset:
    """Brings the hospital's NIfTI files to the grid and range of the store in every epoch, by MONAI's transforms."""
    stored = monai_dataset(source, scratch)
    chain = Compose(stored.transform.transforms[:-1])  # all but the last, which makes float16 of what is to be stored
    return monai.data.Dataset(stored.data, chain)


def through_monai(dataset: monai.data.Dataset, workers: int) -> Side:
    """Reads a data set by MONAI's loader."""
    loader = monai.data.DataLoader(
        dataset, batch_size=BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    return Side(loader, lambda batch: batch)


class Videos(Dataset):
    """Decodes clips anew each time they are asked for.

    Args:
        files: The videos.
    """

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, item: int) -> Tensor:
        """Returns a clip, float32 (1, T, H, W) in [0, 1]; frames that are not among the T are decoded alone."""
        capture, frames = cv2.VideoCapture(str(self.files[item])), []
        count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        chosen = set(np.linspace(0, count - 1, CLIP_SHAPE[0]).round().astype(int).tolist())
        for index in range(count):
            capture.grab()
            if index in chosen:
                grey = cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2GRAY)
                frames.append(cv2.resize(grey, CLIP_SHAPE[:0:-1], interpolation=cv2.INTER_AREA))
        capture.release()
        return torch.from_numpy(np.stack(frames)).float().div_(255).unsqueeze(0)


def opencv(source: Path, workers: int) -> Side:
    """Decodes the hospital's videos in every epoch."""
    loader = DataLoader(
        Videos(sorted(source.glob("*.avi"))),
        BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    return Side(loader, lambda batch: batch)
