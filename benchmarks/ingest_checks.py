"""Checks that the sides of `ingest.py` store the same, before they are timed."""

import json
from pathlib import Path

import cv2
import numpy as np
from ingest_sides import CLIP_SHAPE, SHAPE, SIDES, decode, monai_dataset, remove

from data_modules.store import read_array

TOLERANCE = 2e-3  # of volumes in [0, 1] stored as float16
GREY_LEVELS, LIKE = 2, 0.98  # pixels at the sector's edge may differ


def check_volumes(source: Path, scratch: Path, volumes: int) -> float:
    """Returns the greatest difference between the volumes that poddistill and MONAI store of the same files.

    Raises:
        SystemExit: They did not store the same.
    """
    SIDES["poddistill_mri"](source, scratch / "check", 1)
    ours = [read_array(file) for file in sorted((scratch / "check/mri").glob("*.npy"))]
    theirs = [np.asarray(volume)[0] for volume in monai_dataset(source, scratch / "cache")]
    if len(ours) != volumes or len(theirs) != volumes or {volume.shape for volume in (*ours, *theirs)} != {SHAPE}:
        raise SystemExit(
            f"error: {len(ours)} and {len(theirs)} volumes are stored of {volumes}, or their shapes differ"
        )
    # pseudonyms hide which is which, so each finds its like by a sample of the voxels
    samples = np.stack([volume.reshape(-1)[::997].astype(np.float32) for volume in ours])
    like = [int(np.abs(samples - volume.reshape(-1)[::997]).mean(1).argmin()) for volume in theirs]
    worst = max(
        float(np.abs(ours[index].astype(np.float32) - volume).max()) for index, volume in zip(like, theirs, strict=True)
    )
    if len(set(like)) != volumes or not worst <= TOLERANCE:
        raise SystemExit(f"error: poddistill and MONAI store other volumes: they differ by up to {worst:.4f}")
    for name in ("check", "cache"):
        remove(scratch / name)
    return worst


def check_clips(source: Path, scratch: Path, clips: int) -> float:
    """Returns how much of the clip that is least like what OpenCV decodes equals it, within `GREY_LEVELS`.

    poddistill keeps the ultrasound sector alone, so OpenCV's frames are cut to the same box, and only pixels that are
    not black are compared.

    Raises:
        SystemExit: They did not store as many clips of the same shape, one is like none that OpenCV decodes, or two are
            like the same.
    """
    SIDES["opencv"](source, scratch / "loop", 1)
    SIDES["poddistill_tvus"](source, scratch / "check", 1)
    ours = sorted((scratch / "check/tvus").glob("*.npy"))
    shapes = [np.load(file, mmap_mode="r").shape for file in (*ours, *(scratch / "loop").glob("*.npy"))]
    if shapes != [CLIP_SHAPE] * 2 * clips:
        raise SystemExit(f"error: poddistill stores {len(ours)} of {clips} clips, or shapes differ from the loop's")
    decoded = [decode(file) for file in sorted(source.glob("*.avi"))]
    shares = np.array([[likeness(file, frames) for frames in decoded] for file in ours])
    worst = float(shares.max(axis=1).min())
    if worst < LIKE or len(set(shares.argmax(axis=1))) != clips:
        raise SystemExit(
            f"error: a clip that poddistill stores is like none that OpenCV decodes, or two are like one: {worst:.1%}"
        )
    for name in ("check", "loop"):
        remove(scratch / name)
    return worst


def likeness(file: Path, frames: np.ndarray) -> float:
    """Returns the share of a stored clip's pixels that equal those of frames (T, H, W), cut and chosen alike.

    Of a clip that is black it is 0.
    """
    steps = json.loads(file.with_suffix(".json").read_text())["steps"]
    whole = {"top_bottom_left_right": (0, frames.shape[1], 0, frames.shape[2])}
    box = next((step for step in steps if "top_bottom_left_right" in step), whole)
    top, bottom, left, right = box["top_bottom_left_right"]
    chosen = [frames[index, top:bottom, left:right] for index in steps[-1]["frames"]]
    scale = min(CLIP_SHAPE[1] / (bottom - top), CLIP_SHAPE[2] / (right - left))
    width, height = size = round((right - left) * scale), round((bottom - top) * scale)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    scaled = np.stack([cv2.resize(frame, size, interpolation=method) for frame in chosen]).astype(int)
    above, before = (CLIP_SHAPE[1] - height) // 2, (CLIP_SHAPE[2] - width) // 2
    stored = np.load(file)[:, above : above + height, before : before + width]
    seen = stored > 0
    return float((np.abs(scaled - stored)[seen] <= GREY_LEVELS).sum() / max(seen.sum(), 1))
