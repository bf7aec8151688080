"""A volume onto the cohort's grid."""

from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import (
    GaussianSmooth,
    Orientation,
    ResizeWithPadOrCrop,
    ScaleIntensityRange,
    Spacing,
)

from data_modules.ingest.images import UnusableError

AXES = "LIP"  # the array's axes grow to the patient's left, inferior and posterior
PERCENTILES = (1.0, 99.0)
SAME_SPACING = 1e-3  # relative


def to_grid(
    volume: np.ndarray, affine: np.ndarray, shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> tuple[np.ndarray, dict[str, Any]]:
    """Turns, resamples, crops or pads, and scales a volume.

    Axes become (D, H, W) towards left, inferior and posterior (the nearest of the volume's own axes, so oblique volumes
    stay oblique). Before an axis is sampled more coarsely it is smoothed with the Gaussian of Cardoso et al. ("Scale
    factor point spread function matching", MICCAI 2015) against aliasing. Cropping and padding, with the lowest value,
    are centred. Percentiles 1 and 99 become 0 and 1, beyond them it is clipped. A volume that has the grid already is
    only scaled.

    Args:
        volume: float32 (X, Y, Z).
        affine: (4, 4) to RAS coordinates in mm.
        shape: Voxels (D, H, W).
        spacing: mm along D, H and W.

    Returns:
        float16 (D, H, W) in [0, 1], and a record of the geometry before and after and of each step.

    Raises:
        UnusableError: The affine is singular, or what is left after cropping has no contrast.
    """
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6:
        raise UnusableError("its affine is singular: spacing or orientation is missing")
    original = {"shape": list(volume.shape), "spacing": _zooms(affine), "orientation": _axes(affine)}
    image: Any = MetaTensor(torch.from_numpy(np.ascontiguousarray(volume))[None], affine=torch.from_numpy(affine))
    steps: list[dict[str, Any]] = []
    if original["orientation"] != AXES:
        image = Orientation(AXES)(image)
        steps.append({"step": "Orientation", "axcodes": AXES})
    zooms = np.array(_zooms(image.affine.numpy()))
    if not np.allclose(zooms, spacing, rtol=SAME_SPACING):
        sigma = np.sqrt(np.maximum(np.square(spacing / zooms) - 1, 0)) / np.sqrt(8 * np.log(2))  # voxels
        if (sigma > 0.1).any():
            image = GaussianSmooth(sigma.tolist())(image)
            steps.append({"step": "GaussianSmooth", "sigma_voxels": [round(float(value), 4) for value in sigma]})
        image = Spacing(spacing, mode="bilinear", padding_mode="border")(image)
        steps.append({"step": "Spacing", "pixdim": list(spacing), "mode": "bilinear"})
    if tuple(image.shape[1:]) != tuple(shape):
        steps.append({"step": "ResizeWithPadOrCrop", "from": list(image.shape[1:]), "spatial_size": list(shape)})
        image = ResizeWithPadOrCrop(shape, mode="constant", value=float(image.min()))(image)
    low, high = np.percentile(image.numpy(), PERCENTILES)
    if not high > low:
        raise UnusableError("no contrast within the stored field of view")
    scaled = ScaleIntensityRange(low, high, 0.0, 1.0, clip=True)(image)
    steps.append(
        {
            "step": "ScaleIntensityRange",
            "percentiles": list(PERCENTILES),
            "values": [float(low), float(high)],
            "to": [0.0, 1.0],
        }
    )
    stored = {"shape": list(shape), "orientation": AXES, "affine": np.round(image.affine.numpy(), 5).tolist()}
    array = torch.as_tensor(scaled)[0].numpy().astype(np.float16)
    return array, {"original": original, "stored": {**stored, "spacing": list(spacing)}, "steps": steps}


def _zooms(affine: np.ndarray) -> list[float]:
    return [round(float(length), 5) for length in np.linalg.norm(affine[:3, :3], axis=0)]


def _axes(affine: np.ndarray) -> str:
    return "".join(map(str, nib.aff2axcodes(affine)))
