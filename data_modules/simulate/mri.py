"""T2-weighted volumes of simulated patients, as different scanners would show them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from data_modules.simulate.anatomy import patient_anatomy
from data_modules.simulate.settings import SimulationSettings
from data_modules.simulate.streams import Stream, generator
from data_modules.simulate.t2 import T2_LEVELS, TISSUES, Grid, paint_t2
from data_modules.simulate.tubes import Array

LATTICES = ((7.0, (14, 20, 20), 0.09), (3.5, (26, 36, 36), 0.05))
"""Spacing in mm, shape and strength of the texture's two octaves, so that it does not depend on the voxel size."""


@dataclass(frozen=True)
class Scanner:
    """How one site's scanner shows a volume.

    Attributes:
        gain: Factor on the signal.
        gamma: Exponent on the signal.
        bias: (9,) coefficients of the quadratic log bias field: z, y, x, zz, yy, xx, zy, zx, yx.
        noise: Standard deviation of the noise in either channel.
        blur_mm: Standard deviation (through-plane, in-plane) of the point spread.
        ghost: Relative strength of the motion ghost.
        ghost_axis: Phase-encoding axis of the volume: 1 or 2.
        ghost_shift: Its offset as a share of the field of view.
    """

    gain: float
    gamma: float
    bias: NDArray[np.float64]
    noise: float
    blur_mm: tuple[float, float]
    ghost: float
    ghost_axis: int
    ghost_shift: float


def patient_site(settings: SimulationSettings, patient: int) -> int:
    """Site (0 .. n_sites - 1) at which a patient was examined; independent of the label."""
    return int(generator(settings.seed, patient, Stream.SITE).integers(settings.n_sites))


def draw_scanner(rng: np.random.Generator, settings: SimulationSettings, site: int) -> Scanner:
    """Draw one examination on a site's scanner: the site's own character and the day's variation.

    Args:
        rng: Generator of the patient's MRI stream.
        settings: Cohort settings.
        site: Site index.

    Returns:
        The scanner's settings.
    """
    # Sites sit at the far end of the SITE stream's index, where no patient is.
    own = generator(settings.seed, 2**63 + site, Stream.SITE)
    effect = settings.site_effect
    gamma = rng.uniform(-0.10, 0.10) + effect * own.uniform(-0.08, 0.08)
    noise = rng.uniform(0.012, 0.030) * np.exp(effect * own.uniform(-0.25, 0.25))
    in_plane = rng.uniform(0.5, 1.0) * np.exp(effect * own.uniform(-0.15, 0.15))
    return Scanner(
        gain=0.85 * float(np.exp(rng.normal(0, 0.05) + effect * own.uniform(-0.15, 0.15))),
        gamma=float(np.exp(gamma)),
        bias=rng.normal(0, 0.05, 9) + effect * own.normal(0, 0.05, 9),
        noise=float(noise),
        blur_mm=(rng.uniform(0.8, 1.6), float(in_plane)),
        ghost=rng.uniform(0, 0.05),
        ghost_axis=1 + int(own.integers(2)),
        ghost_shift=rng.uniform(0.2, 0.6),
    )


def simulate_volume(
    settings: SimulationSettings, patient: int, label: int, margin: tuple[int, int, int] = (0, 0, 0)
) -> Array:
    """Simulate the T2-weighted volume of one patient.

    Args:
        settings: Cohort settings; shape, voxel size and scanners.
        patient: Patient index.
        label: 1 = POD obliterated, 0 = free.
        margin: Voxels (D, H, W) added to the settings' shape, half on either side; the voxel size stays.

    Returns:
        (D, H, W) float32 in [0, 1]; D grows to the patient's left, H inferiorly, W posteriorly.
    """
    anatomy = patient_anatomy(settings, patient, label)
    rng = generator(settings.seed, patient, Stream.MRI)
    scanner = draw_scanner(rng, settings, patient_site(settings, patient))
    spread = np.clip(rng.normal(0, 0.06, len(TISSUES)), -0.15, 0.15)
    octaves = [strength * rng.standard_normal(shape, dtype=np.float32) for _, shape, strength in LATTICES]

    d, h, w = (n + extra for n, extra in zip(settings.volume_shape, margin, strict=True))
    voxel_mm = settings.voxel_mm
    grid = Grid.centred((d, h, w), voxel_mm)
    levels = {name: level * float(1 + s) for (name, level), s in zip(T2_LEVELS.items(), spread, strict=True)}
    volume = paint_t2(anatomy, grid, levels, _texture(octaves, grid))
    return _scan(volume, grid, scanner, voxel_mm, rng)


def _texture(octaves: list[Array], grid: Grid) -> Array:
    """Interpolate lattices of random numbers linearly to the voxels, one axis after the other, and add them up."""
    total = np.zeros((len(grid.z), len(grid.y), len(grid.x)), dtype=np.float32)
    for texture, (spacing, _, _) in zip(octaves, LATTICES, strict=True):
        for axis in (grid.x, grid.y, grid.z):
            n = texture.shape[2]
            at = np.clip(axis / spacing + (n - 1) / 2, 0, n - 1)
            weights = np.maximum(0, 1 - np.abs(at - np.arange(n)[:, None])).astype(np.float32)
            # The finished axis moves to the front: x, then y, then z, so that the order ends as z, y, x again.
            texture = (texture @ weights).transpose(2, 0, 1)
        total += texture
    return total


def _scan(
    volume: Array, grid: Grid, scanner: Scanner, voxel_mm: tuple[float, float, float], rng: np.random.Generator
) -> Array:
    """Blur, ghost, bias field, contrast and Rician noise."""
    for axis, size in enumerate(voxel_mm):
        sigma = scanner.blur_mm[0 if axis == 0 else 1] / size
        volume = gaussian_filter1d(volume, sigma, axis=axis, mode="nearest", truncate=3.0)
    shift = round(scanner.ghost_shift * volume.shape[scanner.ghost_axis])
    volume = volume + np.float32(scanner.ghost) * np.roll(volume, shift, axis=scanner.ghost_axis)
    volume = np.maximum(volume, 0) ** np.float32(scanner.gamma)
    volume *= np.float32(scanner.gain) * _bias_field(scanner.bias, grid)
    noise = rng.standard_normal((2, *volume.shape), dtype=np.float32)
    noise *= np.float32(scanner.noise)
    noise[0] += volume
    return np.minimum(np.hypot(noise[0], noise[1]), 1)


def _bias_field(bias: NDArray[np.float64], grid: Grid) -> Array:
    b = bias.astype(np.float32)
    z, y, x = grid.z[:, None, None] / 32, grid.y[:, None] / 48, grid.x / 48
    plane = b[1] * y + b[2] * x + b[4] * y**2 + b[5] * x**2 + b[8] * y * x
    depth = b[0] * z + b[3] * z**2
    return np.exp(plane + depth + z * (b[6] * y + b[7] * x))
