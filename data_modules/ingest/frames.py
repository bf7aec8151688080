"""Clips that are folders of pictures."""

import math
import re
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from data_modules.ingest.images import UnusableError
from data_modules.ingest.recording import Recording, check_size

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "BMP", "TIFF")
PAGED = ("PNG", "TIFF")  # may hold several pictures
LEAST = 8  # pictures; fewer are rather stills
BESIDE = "pictures beside a clip are taken for stills: give the frames of a clip a folder of their own"
UNORDERED = (
    "its pictures are no clip, for they are not numbered one by one under one name: "
    "number the frames of a clip so, and give each clip a folder of its own"
)


def frame_folders(files: Sequence[str]) -> dict[str, list[str]]:
    """Returns the pictures of each folder that holds at least two, frame2 before frame10.

    Args:
        files: Paths relative to the source folder.

    Returns:
        Pictures by folder; ``""`` is the source folder itself.
    """
    folders: dict[str, list[str]] = {}
    for file in sorted(files, key=_natural_order):
        if file.lower().endswith(SUFFIXES):
            folders.setdefault(file.rpartition("/")[0], []).append(file)
    return {folder: pictures for folder, pictures in folders.items() if len(pictures) > 1}


def why_no_clip(pictures: Sequence[str]) -> str:
    """Returns why the pictures of a folder, in natural order, are stills rather than a clip; empty: they are a clip.

    A clip has at least `LEAST`, whose names differ in a single number that counts them one by one.
    """
    if len(pictures) < LEAST:
        return (
            f"{len(pictures)} pictures are taken for stills: a clip needs at least {LEAST}, give all its frames or none"
        )
    names = [_natural_order(PurePosixPath(picture).stem)[0] for picture in pictures]
    if len({len(name) for name in names}) > 1:
        return UNORDERED
    varying = [column for column in zip(*names, strict=True) if len(set(column)) > 1]
    numbers = [part for part in varying[0] if isinstance(part, int)] if len(varying) == 1 else []
    return "" if numbers and numbers == [*range(numbers[0], numbers[0] + len(names))] else UNORDERED


def open_pictures(files: Sequence[Path]) -> Recording:
    """Opens pictures as the frames of a clip, whose frame time nobody knows.

    Colours become luma; of more than 8 bits, those are kept that the brightest pixel of the clip needs.

    Args:
        files: PNG, JPEG, BMP or TIFF of one page, of 8 or 16 bits and of one size, in the order of time.

    Raises:
        UnusableError: A picture is damaged, has several pages or is of another kind.
    """
    bits = 8
    if _read(files[0]).dtype != np.uint8:
        bits = max(8, *(int(_read(file).max()).bit_length() for file in files))
    steps = ({"step": "scale down to 8 bits", "from_bits": bits},) if bits > 8 else ()
    source = {"format": f"folder of {PurePosixPath(files[0]).suffix[1:].upper()}"}
    return Recording(source, partial(_frames, files, bits), stated=len(files), steps=steps)


def _natural_order(file: str) -> tuple[list[str | int], str]:
    parts = re.split(r"([0-9]+)", file.lower())  # text and number in turns, so that like meets like
    return [int(part) if part.isdecimal() else part for part in parts], file


def _frames(files: Sequence[Path], bits: int, chosen: Sequence[int] | None) -> Iterator[tuple[float, np.ndarray]]:
    for index in range(len(files)) if chosen is None else chosen:
        picture = _read(files[index])
        deep = picture.dtype != np.uint8
        yield math.nan, (picture >> (bits - 8)).astype(np.uint8) if deep else picture


def _read(file: Path) -> np.ndarray:
    """Returns a picture (rows, columns) as uint8, or as an integer of more bits.

    Pillow reads it: OpenCV fills what a truncated JPEG lacks with grey, and prints the names of damaged files.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote what the file holds
            with Image.open(file, formats=FORMATS) as image:
                check_size(image.height, image.width)
                if image.format in PAGED and getattr(image, "n_frames", 1) > 1:
                    raise UnusableError("a picture of several pages: save each frame as a picture of its own")
                deep = image.mode.startswith("I")
                picture = np.asarray(image if deep else image.convert("L"))
    except UnusableError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnusableError("a picture cannot be decoded", error) from error
    if deep and (picture.min() < 0 or picture.max() >= 2**16):
        raise UnusableError("a picture of more than 16 bits")
    return picture
