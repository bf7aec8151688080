"""The formats that `store.py` compares, and what it stores in them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from timing import require
from torch.nn.functional import interpolate

from data_modules.simulate.mri import simulate_volume
from data_modules.simulate.settings import SimulationSettings
from data_modules.simulate.tvus import simulate_clip
from data_modules.store import read_array

blosc2: Any = require("blosc2")
zarr: Any = require("zarr")

SHAPES = {"volumes": (96, 160, 160), "clips": (32, 112, 112)}
CHUNKS = {(96, 160, 160): (24, 80, 80), (32, 112, 112): (16, 56, 56)}
BLOCKS = {(96, 160, 160): (12, 40, 40), (32, 112, 112): (8, 56, 56)}  # about 38 and 25 kB, an L1 cache
HOSPITAL = SimulationSettings(volume_shape=(24, 160, 160), clip_shape=(32, 128, 128))

Region = tuple[slice, ...]
WHOLE: Region = (slice(None),) * 3


@dataclass(frozen=True)
class Format:
    """A way to store an array.

    Attributes:
        suffix: Of the file or folder.
        write: Writes an array.
        read: Returns a region in the process's own memory.
        hold: Returns the whole, ready for use.
    """

    suffix: str
    write: Callable[[Path, np.ndarray], Any]
    read: Callable[[Path, Region], np.ndarray]
    hold: Callable[[Path], np.ndarray]


def compressed(
    suffix: str, write: Callable[[Path, np.ndarray], Any], read: Callable[[Path, Region], np.ndarray]
) -> Format:
    """Returns a format whose arrays can only be used once they are decompressed into the process's own memory."""
    return Format(suffix, write, read, lambda path: read(path, WHOLE))


def write_blosc2(codec: str, shuffle: str, path: Path, array: np.ndarray) -> None:
    """Writes a b2nd file with blosc2's default level."""
    parameters = blosc2.CParams(codec=blosc2.Codec[codec], filters=[blosc2.Filter[shuffle]], nthreads=1)
    chunks, blocks = CHUNKS[array.shape], BLOCKS[array.shape]
    blosc2.asarray(array, chunks=chunks, blocks=blocks, urlpath=str(path), mode="w", cparams=parameters)


def read_blosc2(path: Path, region: Region) -> np.ndarray:
    """Returns a region of a b2nd file, which is mapped."""
    parameters = blosc2.DParams(nthreads=1)
    return blosc2.open(str(path), mode="r", mmap_mode="r", dparams=parameters)[region]


def write_zarr(own_chunks: bool, path: Path, array: np.ndarray) -> None:
    """Writes a zarr v3 array with zarr's default compressor, in chunks of zarr's choice or ours."""
    zarr.create_array(path, data=array, chunks="auto" if own_chunks else CHUNKS[array.shape])


def read_zarr(path: Path, region: Region) -> np.ndarray:
    """Returns a region of a zarr array."""
    return np.asarray(zarr.open_array(path, mode="r")[region])


FORMATS = {
    ".npy, mapped": Format(".npy", np.save, lambda path, region: np.array(read_array(path)[region]), read_array),
    "blosc2, LZ4": compressed(".b2nd", partial(write_blosc2, "LZ4", "SHUFFLE"), read_blosc2),
    "blosc2, zstd + bitshuffle": compressed(".b2nd", partial(write_blosc2, "ZSTD", "BITSHUFFLE"), read_blosc2),
    "zarr v3, its chunks": compressed(".zarr", partial(write_zarr, True), read_zarr),
    "zarr v3, our chunks": compressed(".zarr", partial(write_zarr, False), read_zarr),
}


def simulate(kind: str, case: int) -> np.ndarray:
    """Returns a case as ingest stores it: volumes float16 (96, 160, 160), clips uint8 (32, 112, 112)."""
    if kind == "clips":
        frames = simulate_clip(HOSPITAL, case, case % 2)
        return np.stack([cv2.resize(frame, SHAPES[kind][:0:-1], interpolation=cv2.INTER_AREA) for frame in frames])
    volume = torch.from_numpy(simulate_volume(HOSPITAL, case, case % 2))
    fine = interpolate(volume[None, None], SHAPES[kind], mode="trilinear")[0, 0].numpy()
    low, high = np.percentile(fine, (1, 99))
    return np.clip((fine - low) / (high - low), 0, 1).astype(np.float16)
