"""Curved tubes in the mid-sagittal plane, the building blocks of uterus, vagina and rectum."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Tube:
    """Union of N balls along a curve, flattened or widened across the plane.

    A point (x, y, z) has the signed distance ``sqrt(|(x, y) - centre_i|^2 + (depth (z - z_i))^2) - radius_i``, in which
    ball i is the one that is nearest in the plane.

    Attributes:
        centres: (N, 2) points (x, y) in mm; x posterior, y inferior.
        radii: (N,) in mm.
        arc: (N,) arc length of each centre in mm.
        z: (N,) position to the left of the midline in mm.
        depth: Factor on z; below 1 = wider than thick.
    """

    centres: Array
    radii: Array
    arc: Array
    z: Array
    depth: float

    def distances(self, points: Array) -> Array:
        """Signed distances (M,) in mm of (M, 2) in-plane points to the tube's outline."""
        offsets = np.linalg.norm(points[:, None] - self.centres, axis=-1) - self.radii
        return offsets.min(axis=1)

    def outward(self, points: Array) -> Array:
        """Unit vectors (M, 2) that lead (M, 2) points straight away from the tube."""
        offsets = points[:, None] - self.centres
        nearest = (np.linalg.norm(offsets, axis=-1) - self.radii).argmin(axis=1)
        away = offsets[np.arange(len(points)), nearest]
        return away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-3)

    def outline(self, x: Array, y: Array) -> tuple[Array, Array, Array]:
        """Look up the ball whose surface is nearest, on a grid.

        Args:
            x: (W,) posterior coordinates in mm.
            y: (H,) inferior coordinates in mm.

        Returns:
            Three (H, W) arrays: distance to the ball's centre, its radius and its z.
        """
        distance = self._to_centres(x, y)
        nearest = (distance - self.radii[:, None, None]).argmin(axis=0)
        chosen = np.take_along_axis(distance, nearest[None], axis=0)[0]
        return chosen, self.radii[nearest], self.z[nearest]

    def axis(self, x: Array, y: Array) -> tuple[Array, Array, Array, Array]:
        """Look up the ball whose centre is nearest; arguments as in `outline`.

        Returns:
            Four (H, W) arrays: distance to the ball's centre, its radius, its z and its arc length.
        """
        distance = self._to_centres(x, y)
        nearest = distance.argmin(axis=0)
        chosen = np.take_along_axis(distance, nearest[None], axis=0)[0]
        return chosen, self.radii[nearest], self.z[nearest], self.arc[nearest]

    def _to_centres(self, x: Array, y: Array) -> Array:
        cx, cy = self.centres[:, 0, None, None], self.centres[:, 1, None, None]
        return np.sqrt((x - cx) ** 2 + (y[:, None] - cy) ** 2)

    def moved(self, offset: Array) -> "Tube":
        """Return the tube shifted by an in-plane (2,) vector in mm."""
        return replace(self, centres=self.centres + offset.astype(np.float32))


def arc_length(centres: Array) -> Array:
    """Cumulative length (N,) in mm along (N, 2) points."""
    steps = np.linalg.norm(np.diff(centres, axis=0), axis=1)
    return np.concatenate([[0.0], np.cumsum(steps)]).astype(np.float32)


def attach(tube: Tube, to: Tube, site: Array, gap: float, window: float) -> Tube:
    """Bend a tube towards a site on another until the two are a given gap apart there.

    The tube is pulled within a Gaussian window along its arc, then pushed out of the other tube and smoothed, several
    times. Smoothing opens the gap again, so the last pull is exact and the last push is not smoothed.

    Args:
        tube: The tube to bend (rectum).
        to: The tube that stays (uterus).
        site: (2,) point in mm on the surface of ``to``.
        gap: Smallest distance in mm that remains between the two.
        window: Standard deviation in mm of the pull along the arc.

    Returns:
        The bent tube; the smallest distance of its outline from ``to`` within its balls is ``gap``.
    """
    centres = tube.centres.copy()
    nearest = int(np.linalg.norm(centres - site, axis=1).argmin())
    weight = np.exp(-0.5 * ((tube.arc - tube.arc[nearest]) / window) ** 2)[:, None]

    def pull() -> None:
        room = to.distances(centres[nearest : nearest + 1]) - tube.radii[nearest] - gap
        towards = -to.outward(centres[nearest : nearest + 1])
        centres[:] += weight * room * towards

    def push(smooth: bool) -> None:
        lacking = np.maximum(0, gap + tube.radii - to.distances(centres))[:, None]
        step = lacking * to.outward(centres)
        if smooth:
            step[1:-1] = (step[:-2] + 2 * step[1:-1] + step[2:]) / 4
        centres[:] += step

    for _ in range(4):
        pull()
        push(smooth=True)
    pull()
    for _ in range(3):
        push(smooth=False)
    return replace(tube, centres=centres.astype(np.float32))
