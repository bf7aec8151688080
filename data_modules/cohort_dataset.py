"""The cases of a cohort as a data set that reads the store a whole batch at a time."""

import contextlib
import math
import mmap
import weakref
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from data_modules.store import read_array, read_arrays

Batch = dict[str, Tensor]
LARGE = 2**25
"""Bytes of a batch from which on its memory is kept here. New memory costs more page faults than the copy, and malloc
cuts up what it has kept, so that batch after batch is put behind it."""
KEPT = 2
"""Pieces of memory of a size: for the batch in use and the next one."""
_unused: defaultdict[int, list[mmap.mmap]] = defaultdict(list)


class CohortDataset(Dataset):
    """Cases of a cohort, read a whole batch at a time.

    An item is a dict: ``image`` (1, D, H, W) or (1, T, H, W) in the type of the store, float16 in [0, 1] or uint8,
    which `in_unit_range` makes float32; ``label`` float32, nan where unlabelled or hidden; ``index`` int64, the case's
    row in the manifest. A list of items comes stacked.

    Args:
        cohort: The cohort folder.
        manifest: The whole manifest.
        rows: int (N,), rows of the manifest that this data set holds.
        hide_labels: Give nan for every label.
        cache_bytes: Keep the arrays in RAM once they are read, if all of them take no more than this.
    """

    def __init__(
        self,
        cohort: Path,
        manifest: pd.DataFrame,
        rows: np.ndarray,
        hide_labels: bool = False,
        cache_bytes: float = 0,
    ) -> None:
        self.files = [cohort / path for path in manifest["path"].to_numpy()[rows]]
        labels = manifest["label"].to_numpy(dtype=np.float32)[rows]
        self.labels = np.full_like(labels, np.nan) if hide_labels else labels
        self.rows = rows.astype(np.int64)
        first = read_array(self.files[0])
        self.shape, self.dtype = first.shape, torch.from_numpy(np.empty(0, first.dtype)).dtype
        fits = len(rows) * first.nbytes <= cache_bytes
        self.cache = torch.empty((len(rows), 1, *self.shape), dtype=self.dtype) if fits else None
        self.cached = np.zeros(len(rows), dtype=bool)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: int) -> Batch:
        return {key: value[0] for key, value in self.__getitems__([item]).items()}

    def __getitems__(self, items: Sequence[int]) -> Batch:
        """Returns the batch of these items."""
        chosen = np.asarray(items)
        return {
            "image": self._read(chosen),
            "label": torch.from_numpy(self.labels[chosen]),
            "index": torch.from_numpy(self.rows[chosen]),
        }

    def _read(self, items: np.ndarray) -> Tensor:
        if self.cache is None:
            image = _empty((len(items), 1, *self.shape), self.dtype)
            self._fill(items, image.numpy()[:, 0])
            return image
        for item in items[~self.cached[items]]:
            self._fill([item], self.cache[item].numpy())
        self.cached[items] = True
        return self.cache[torch.from_numpy(items)]

    def _fill(self, items: Sequence[int] | np.ndarray, out: np.ndarray) -> None:
        read_arrays([self.files[item] for item in items], out)


def in_unit_range(image: Tensor) -> Tensor:
    """Returns images as float32 in [0, 1], be they stored as float16 in [0, 1] or uint8, or be they float32 already."""
    if image.dtype == torch.float32:
        return image
    large = image.device.type == "cpu" and 4 * image.numel() >= LARGE and hasattr(mmap, "MADV_HUGEPAGE")
    unit = (_in_huge_pages(image.shape) if large else torch.empty(image.shape, device=image.device)).copy_(image)
    return unit.div_(255) if image.dtype == torch.uint8 else unit


def _in_huge_pages(shape: torch.Size) -> Tensor:
    """Makes room for float32 in pages of 2 MiB, where an earlier batch of that size lay if that is gone."""
    size = 4 * shape.numel()
    try:
        memory = _unused[size].pop()
    except IndexError:
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    view = memoryview(memory)  # which the tensor and all that share its storage hold
    weakref.finalize(view, _put_back, size, memory).atexit = False
    return torch.frombuffer(view, dtype=torch.float32).view(shape)


def _put_back(size: int, memory: mmap.mmap) -> None:
    if len(_unused[size]) < KEPT:
        _unused[size].append(memory)


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Makes room for a batch; in a worker it is shared memory at once, as in `default_collate`, which saves a copy."""
    if get_worker_info() is None:
        return torch.empty(shape, dtype=dtype)
    storage = torch.UntypedStorage._new_shared(math.prod(shape) * dtype.itemsize)
    return torch.empty(0, dtype=dtype).set_(storage).view(shape)


def hand_over(batch: Any) -> Batch:
    """Collates nothing, for `CohortDataset` gives whole batches already."""
    return batch if get_worker_info() is None else _Sent(batch)


class _Sent(dict[str, Tensor]):
    """A batch that arrives from a worker as a plain dict: the image in shared memory, its few numbers by the pipe."""

    def __reduce__(self) -> Any:
        return _receive, (self["image"], self["label"].numpy(), self["index"].numpy())


def _receive(image: Tensor, label: np.ndarray, index: np.ndarray) -> Batch:
    return {"image": image, "label": torch.from_numpy(label), "index": torch.from_numpy(index)}
