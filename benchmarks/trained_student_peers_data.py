"""The peers' data: the cohort's arrays, kept in memory by MONAI, with its dictionary transforms.

Everything up to the first random transform is done once a run and kept in memory (`CacheDataset`). Where volumes and
clips are only shifted, they are padded once and cropped at random, which costs a copy; only where they are turned and
scaled are they interpolated, once, by `RandAffined`.
"""

import math

import numpy as np
import pandas as pd
from monai.data import CacheDataset, set_track_meta
from monai.data import DataLoader as MonaiLoader
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    Lambdad,
    LoadImaged,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandScaleIntensityFixedMeand,
    RandSpatialCropd,
    ScaleIntensityRanged,
    SpatialPadd,
    ToTensord,
)
from torch import Tensor
from torch.utils.data import DataLoader


def loader(cases: pd.DataFrame, batch_size: int, augmentation: str | None = None) -> DataLoader:
    """Returns a loader of float32 images (B, 1, ., ., .) in [0, 1] and labels (B,).

    It has no worker processes: on two cores the network needs both, and one or two workers make an epoch slower.

    Args:
        cases: Columns image, an .npy file, and label.
        batch_size: Cases a batch.
        augmentation: ``pretraining``, ``clips`` or ``volumes``: shuffled, changed at random, without a smaller last
            batch. None: all cases, in their order, as they are.
    """
    set_track_meta(False)  # with it every transform copies a header along
    items, training = cases[["image", "label"]].to_dict("records"), augmentation is not None
    # Nothing changes an image in place, so none has to be copied first.
    cached = CacheDataset(items, transforms(items[0]["image"], augmentation), copy_cache=False, progress=False)
    drop_last = training and len(items) > batch_size
    return MonaiLoader(cached, batch_size=batch_size, shuffle=training, drop_last=drop_last)


def transforms(first: str, augmentation: str | None) -> Compose:
    """Returns the transforms of files like the first: reading, and random changes of the size of poddistill's."""
    array = np.load(first, mmap_mode="r")
    read = [LoadImaged("image"), EnsureChannelFirstd("image", channel_dim="no_channel")]
    if array.dtype == np.uint8:
        read.append(ScaleIntensityRanged("image", 0, 255, 0, 1))  # grey levels
    read.append(ToTensord("image"))
    if augmentation is None:
        return Compose(read)
    mirrored = RandFlipd("image", prob=0.5, spatial_axis=0)  # a volume's left and right, a clip's direction
    contrast = [RandScaleIntensityFixedMeand("image", prob=1, factors=0.2, fixed_mean=True), Lambdad("image", clamped)]
    _, height, width = array.shape
    if augmentation == "volumes":
        affine = RandAffined(
            "image",
            prob=1,
            rotate_range=(math.radians(10), 0, 0),
            translate_range=(1, 0.05 * height, 0.05 * width),
            scale_range=((0, 0), (-0.1, 0.1), (-0.1, 0.1)),
            padding_mode="border",
            spatial_size=array.shape,
            cache_grid=True,
        )
        gamma = RandAdjustContrastd("image", prob=1, gamma=(math.exp(-0.2), math.exp(0.2)))
        return Compose([*read, mirrored, affine, *contrast, gamma])
    margins = [1 if augmentation == "pretraining" else 0, int(0.05 * height), int(0.05 * width)]
    padded = [side + 2 * margin for side, margin in zip(array.shape, margins, strict=True)]
    shifted = RandSpatialCropd("image", roi_size=array.shape, random_size=False)
    return Compose([*read, SpatialPadd("image", padded, mode="edge"), shifted, mirrored, *contrast])


def clamped(image: Tensor) -> Tensor:
    """Returns the image, kept within [0, 1]."""
    return image.clamp(0, 1)
