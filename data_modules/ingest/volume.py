"""A volume onto the cohort's grid."""

from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from monai.data import MetaTensor, compute_shape_offset, zoom_affine
from monai.transforms import BorderPad, Orientation, ScaleIntensityRange, SpatialCrop

from data_modules.ingest.images import UnusableError

AXES = "LIP"  # the array's axes grow to the patient's left, inferior and posterior
PERCENTILES = (1.0, 99.0)
SAME_SPACING = 1e-3  # relative
VOXEL_SIZES = (0.05, 50.0)  # mm; what lies beyond is an error of the header
FIELDS_OF_VIEW = (10.0, 2000.0)  # mm; the lower limit holds in-plane, for a few slices may be thin
N4_SPACING = 6.0  # mm, at most, of the copy that the bias field is estimated on
N4_ITERATIONS = (50, 50, 50, 50)  # a level, each with twice the control points
N4_CONVERGENCE = 0.001


def to_grid(
    volume: np.ndarray,
    affine: np.ndarray,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    n4: bool = False,
    centre: np.ndarray | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Turns, resamples, crops or pads, and scales a volume.

    Axes become (D, H, W) towards left, inferior and posterior (the nearest of the volume's own axes, so oblique volumes
    stay oblique). Before an axis is sampled more coarsely it is smoothed with the Gaussian of Cardoso et al. ("Scale
    factor point spread function matching", MICCAI 2015) against aliasing. It is sampled once, from its first voxel on,
    and only where the grid is, which lies around the volume's middle or, to half a voxel, around ``centre``; beyond the
    volume it holds the lowest value. Percentiles 1 and 99 become 0 and 1, beyond them it is clipped. A volume that has
    the grid already is only scaled.

    Args:
        volume: float32 (X, Y, Z).
        affine: (4, 4) to RAS coordinates in mm.
        shape: Voxels (D, H, W).
        spacing: mm along D, H and W.
        n4: Whether to correct the bias field first, see `correct_bias`.
        centre: RAS point (3,) in mm that becomes the middle of the grid, to half a voxel; None: the volume's middle.

    Returns:
        float16 (D, H, W) in [0, 1], and a record of the geometry before and after and of each step.

    Raises:
        UnusableError: The affine is singular, voxel size or field of view are absurd, or what is left after cropping
            has no contrast.
    """
    _check_geometry(np.array(volume.shape), affine)
    original = {"shape": list(volume.shape), "spacing": _zooms(affine), "orientation": _axes(affine)}
    steps: list[dict[str, Any]] = []
    if n4:
        volume, step = correct_bias(volume, np.array(original["spacing"]))
        steps.append(step)
    image: Any = MetaTensor(torch.from_numpy(np.ascontiguousarray(volume))[None], affine=torch.from_numpy(affine))
    if original["orientation"] != AXES:
        image = Orientation(AXES)(image)
        steps.append({"step": "Orientation", "axcodes": AXES})
    zooms = np.array(_zooms(image.affine.numpy()))
    sampled = not np.allclose(zooms, spacing, rtol=SAME_SPACING)
    if sampled:
        sigma = np.sqrt(np.maximum(np.square(spacing / zooms) - 1, 0)) / np.sqrt(8 * np.log(2))  # voxels
        if (sigma > 0.1).any():
            image[0] = _smooth(image[0].numpy(), sigma)
            steps.append({"step": "DiscreteGaussian", "sigma_voxels": [round(float(value), 4) for value in sigma]})
        steps.append({"step": "Resample", "spacing": list(spacing), "interpolator": "linear"})
    image, step = _lay_grid(image, spacing if sampled else None, shape, centre)
    steps += [step] if step else []
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


def correct_bias(volume: np.ndarray, zooms: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Divides a volume by its smooth bias field, found by N4 (Tustison et al., IEEE TMI 29(6), 2010).

    The field is estimated on a copy averaged to voxels of up to `N4_SPACING`, where they lie wholly in Otsu's
    foreground, and evaluated at full resolution.

    Args:
        volume: float32 (X, Y, Z).
        zooms: mm (3,).

    Returns:
        float32 (X, Y, Z), and the step for the record.

    Raises:
        UnusableError: No field can be fitted.
    """
    # at least four voxels an axis, as many as a cubic spline has control points
    shrink = np.maximum(np.minimum(N4_SPACING // zooms, np.array(volume.shape) // 4), 1).astype(int).tolist()
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)  # the sums, and so the last bits, depend on their number
    try:
        image = sitk.GetImageFromArray(volume)  # axes in reverse order
        image.SetSpacing(zooms[::-1].tolist())
        small = sitk.BinShrink(image, shrink[::-1])
        foreground = sitk.Cast(sitk.OtsuThreshold(image, 0, 1), sitk.sitkFloat32)
        share = sitk.BinShrink(foreground, shrink[::-1])
        n4 = sitk.N4BiasFieldCorrectionImageFilter()
        n4.SetMaximumNumberOfIterations(N4_ITERATIONS)
        n4.SetConvergenceThreshold(N4_CONVERGENCE)
        unmixed = share >= 0.99 * float(sitk.GetArrayViewFromImage(share).max())
        n4.Execute(small, unmixed)
        field = np.exp(sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(image)))
    except RuntimeError as error:
        raise UnusableError("its bias field cannot be estimated", error) from error
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    step = {
        "step": "N4BiasFieldCorrection",
        "mask": "Otsu",
        "shrink": shrink,
        "iterations": list(N4_ITERATIONS),
        "convergence": N4_CONVERGENCE,
        "field": [round(float(field.min()), 4), round(float(field.max()), 4)],
    }
    return (volume / field).astype(np.float32), step


def _check_geometry(shape: np.ndarray, affine: np.ndarray) -> None:
    zooms = np.linalg.norm(affine[:3, :3], axis=0)
    directions = affine[:3, :3] / np.where(zooms > 0, zooms, 1)
    if not np.isfinite(affine).all() or abs(np.linalg.det(directions)) < 1e-3:
        raise UnusableError("its affine is singular: spacing or orientation is missing")
    if zooms.min() < VOXEL_SIZES[0] or zooms.max() > VOXEL_SIZES[1]:
        low, high = VOXEL_SIZES
        raise UnusableError(f"absurd voxel size of {_product(zooms)} mm: {low:g} to {high:g} mm are possible")
    extents = shape * zooms
    if np.sort(extents)[1] < FIELDS_OF_VIEW[0] or extents.max() > FIELDS_OF_VIEW[1]:
        low, high = FIELDS_OF_VIEW
        raise UnusableError(f"absurd field of view of {_product(extents)} mm: {low:g} to {high:g} mm are possible")


def _lay_grid(
    image: Any, spacing: Sequence[float] | None, shape: tuple[int, int, int], centre: np.ndarray | None
) -> tuple[Any, dict[str, Any]]:
    """Samples, crops and pads an image (1, X, Y, Z) to (1, D, H, W); the step is empty where it has the shape."""
    size, fine = np.array(image.shape[1:]), image.affine.numpy().copy()
    if spacing is not None:  # what the whole volume would become
        fine = zoom_affine(fine, spacing, diagonal=False)
        size, fine[:3, 3] = map(np.array, compute_shape_offset(image.shape[1:], image.affine.numpy(), fine))
    wanted = np.array(shape)
    if centre is None:
        start = np.where(size >= wanted, size // 2 - wanted // 2, -((wanted - size) // 2))
    else:
        index = nib.affines.apply_affine(np.linalg.inv(fine), centre)
        start = np.round(index - (wanted - 1) / 2).astype(int)
    first, last = np.maximum(start, 0), np.minimum(start + wanted, size)  # what of it is kept
    if (first >= last).any():
        raise UnusableError("the middle of the grid lies too far outside the volume")
    if spacing is None:
        kept = SpatialCrop(roi_start=first, roi_end=last)(image)
    else:
        fine[:3, 3] = nib.affines.apply_affine(fine, first)
        inside = np.linalg.inv(image.affine.numpy()) @ fine  # of the image's own voxels
        sampled = _sample(image[0].numpy(), inside[:3, 3], inside[:3, :3].diagonal(), last - first)
        kept = MetaTensor(sampled[None], affine=torch.from_numpy(fine))
    border = np.stack([first - start, start + wanted - last], 1).reshape(-1).tolist()
    padded = BorderPad(border, mode="constant", value=float(kept.min()))(kept)
    if centre is None and (size == wanted).all():
        return padded, {}
    step = {"step": "SpatialCrop", "from": size.tolist(), "roi_start": start.tolist(), "roi_size": list(shape)}
    return padded, step | ({} if centre is None else {"centre": np.round(centre, 3).tolist()})


def _smooth(volume: np.ndarray, sigma: np.ndarray) -> torch.Tensor:
    """Smooths along each axis, sigma in voxels; what lies beyond the edge is as what lies at it."""
    variance = np.square(sigma[::-1]).tolist()
    smoothed = sitk.DiscreteGaussian(sitk.GetImageFromArray(volume), variance, useImageSpacing=False)
    return torch.from_numpy(sitk.GetArrayFromImage(smoothed))


def _sample(volume: np.ndarray, start: np.ndarray, step: np.ndarray, shape: np.ndarray) -> torch.Tensor:
    """Values linearly between voxels at ``start + step * index``, in voxels; those of the edge beyond it."""
    sampled = sitk.Resample(
        sitk.GetImageFromArray(volume),
        size=shape[::-1].tolist(),
        outputOrigin=start[::-1].tolist(),
        outputSpacing=step[::-1].tolist(),
        interpolator=sitk.sitkLinear,
        useNearestNeighborExtrapolator=True,
    )
    return torch.from_numpy(sitk.GetArrayFromImage(sampled))


def _zooms(affine: np.ndarray) -> list[float]:
    return [round(float(length), 5) for length in np.linalg.norm(affine[:3, :3], axis=0)]


def _axes(affine: np.ndarray) -> str:
    return "".join(map(str, nib.aff2axcodes(affine)))


def _product(values: np.ndarray) -> str:
    return " x ".join(f"{value:.4g}" for value in values)
