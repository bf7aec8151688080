"""Noise-free T2-weighted picture of an anatomy: signed distances painted softly, back to front."""

from dataclasses import dataclass

import numpy as np

from data_modules.simulate.anatomy import Anatomy
from data_modules.simulate.surroundings import Ellipsoid, behind, within
from data_modules.simulate.tubes import Array, Tube

T2_LEVELS = {
    "fat": 0.66,
    "cortex": 0.10,
    "marrow": 0.50,
    "bladder wall": 0.26,
    "muscle": 0.24,
    "urethra": 0.36,
    "urine": 1.0,
    "bowel wall": 0.30,
    "bowel": 0.50,
    "bowel gas": 0.05,
    "bowel fluid": 0.85,
    "ovary": 0.52,
    "cyst": 0.95,
    "endometrioma": 0.34,
    "vein": 0.80,
    "flow void": 0.12,
    "ligament": 0.27,
    "vaginal wall": 0.30,
    "vaginal lumen": 0.72,
    "myometrium": 0.46,
    "junctional zone": 0.24,
    "endometrium": 0.88,
    "cervical stroma": 0.20,
    "outer cervix": 0.42,
    "cervical canal": 0.80,
    "fibroid": 0.20,
    "nodule": 0.18,
    "rectal wall": 0.30,
    "rectal mucosa": 0.62,
    "rectal gas": 0.04,
    "stool": 0.44,
    "fat plane": 0.86,
    "fluid": 0.98,
    "plaque": 0.17,
}
"""Signal of each tissue relative to urine; a patient's values lie within a few per cent."""

TISSUES = tuple(T2_LEVELS)
EDGE_MM = 1.6  # thickness of a painted border, about a voxel at demo scale


@dataclass(frozen=True)
class Grid:
    """Voxel centres in mm of a volume that is centred in the field of view.

    Attributes:
        x: (W,) posterior.
        y: (H,) inferior.
        z: (D,) left.
    """

    x: Array
    y: Array
    z: Array

    @classmethod
    def centred(cls, shape: tuple[int, int, int], voxel_mm: tuple[float, float, float]) -> "Grid":
        """Build the grid of a (D, H, W) volume."""
        z, y, x = (
            ((np.arange(n) - (n - 1) / 2) * size).astype(np.float32) for n, size in zip(shape, voxel_mm, strict=True)
        )
        return cls(x, y, z)


def paint_t2(anatomy: Anatomy, grid: Grid, levels: dict[str, float], texture: Array) -> Array:
    """Paint an anatomy.

    Args:
        anatomy: What to paint.
        grid: Where the voxels lie.
        levels: Signal of every tissue of `T2_LEVELS`.
        texture: (D, H, W) float32 of mean 0, the relative heterogeneity of the soft tissues.

    Returns:
        (D, H, W) float32, about [0, 1].
    """
    n = anatomy.nuisance
    volume = levels["fat"] * (1 + texture)
    for part in behind(anatomy):
        _paint_ellipsoid(volume, grid, part, levels)
    _paint_vagina(volume, grid, anatomy, levels)
    _paint_ligaments(volume, grid, anatomy, levels)

    outside_rectum = _outside(anatomy.rectum, grid)
    _blend(volume, outside_rectum, levels["rectal wall"])
    _blend(volume, outside_rectum + n.rectum_wall, levels["rectal mucosa"])
    if n.rectum_content != "collapsed":
        content = levels["rectal gas"] if n.rectum_content == "gas" else levels["stool"] * (1 + 3 * texture)
        _blend(volume, outside_rectum + n.rectum_wall + 1.6, content)

    outside_uterus = _outside(anatomy.uterus, grid)
    _paint_uterus(volume, grid, outside_uterus, anatomy, levels, texture)
    for part in within(anatomy):
        _paint_ellipsoid(volume, grid, part, levels)
    _paint_pouch(volume, grid, anatomy, levels, outside_uterus, outside_rectum)
    return volume


def _outside(tube: Tube, grid: Grid) -> Array:
    """Signed distance (D, H, W) in mm to a tube; negative inside."""
    distance, radius, z = tube.outline(grid.x, grid.y)
    beside = np.float32(tube.depth) * (grid.z[:, None, None] - z)
    return np.sqrt(distance**2 + beside**2) - radius


def _blend(volume: Array, distance: Array, level: float | Array, opacity: float | Array = 1.0) -> None:
    """Paint where the signed distance in mm is negative, with a soft edge, in place."""
    cover = np.clip(0.5 - distance * np.float32(1 / EDGE_MM), 0, 1)
    cover *= opacity
    volume += cover * (level - volume)


def _paint_ellipsoid(volume: Array, grid: Grid, part: Ellipsoid, levels: dict[str, float]) -> None:
    reach = max(part.radii) + EDGE_MM
    box = tuple(
        slice(*np.searchsorted(axis, (centre - reach, centre + reach)))
        for axis, centre in zip((grid.z, grid.y, grid.x), part.centre[::-1], strict=True)
    )
    inside = volume[box]
    if inside.size == 0:
        return
    _blend(inside, part.outside(grid.x[box[2]], grid.y[box[1]], grid.z[box[0]]), levels[part.tissue])


def _paint_uterus(
    volume: Array,
    grid: Grid,
    outside: Array,
    anatomy: Anatomy,
    levels: dict[str, float],
    texture: Array,
) -> None:
    """Zonal anatomy: bright endometrium, dark junctional zone, grey myometrium; dark stroma in the cervix."""
    endometrium, junction = anatomy.nuisance.layers
    distance, radius, z, arc = anatomy.uterus.axis(grid.x, grid.y)
    from_axis = np.sqrt(distance**2 + (np.float32(anatomy.uterus.depth) * (grid.z[:, None, None] - z)) ** 2)
    body = np.clip((arc - anatomy.cervix_length + 4) / 8, 0, 1)
    edge = np.float32(1 / EDGE_MM)

    def cover(limit: float | np.float32 | Array) -> Array:
        return np.clip(0.5 - (from_axis - limit) * edge, 0, 1)

    cervix = np.full_like(volume, levels["outer cervix"])
    cervix += cover(0.78 * radius) * (levels["cervical stroma"] - cervix)
    cervix += cover(np.float32(2.2)) * (levels["cervical canal"] - cervix)
    corpus = levels["myometrium"] * (1 + texture)
    corpus += cover(endometrium + junction) * (levels["junctional zone"] - corpus)
    corpus += cover(endometrium) * (levels["endometrium"] - corpus)
    _blend(volume, outside, cervix + body * (corpus - cervix))


def _paint_vagina(volume: Array, grid: Grid, anatomy: Anatomy, levels: dict[str, float]) -> None:
    start = anatomy.uterus.centres[0]
    along = np.linspace(0, 1, 32, dtype=np.float32)[:, None]
    centres = start + along * np.array([-14.0, 50.0], dtype=np.float32)
    radii, z = np.full((2, 32), [[5.5], [anatomy.uterus.z[0]]], dtype=np.float32)
    tube = Tube(centres, radii, along[:, 0], z, depth=0.4)
    outside = _outside(tube, grid)
    _blend(volume, outside, levels["vaginal wall"])
    _blend(volume, outside + 4.4, levels["vaginal lumen"])


def _paint_ligaments(volume: Array, grid: Grid, anatomy: Anatomy, levels: dict[str, float]) -> None:
    """Uterosacral ligaments: dark bands beside the rectum, in both classes."""
    ball = int(np.abs(anatomy.uterus.arc - 0.6 * anatomy.cervix_length).argmin())
    for side, (thickness, reach, z) in zip((-1, 1), anatomy.nuisance.ligaments, strict=True):
        along = np.linspace(0, 1, 10, dtype=np.float32)
        end = np.array([24 + 10 * reach, -14 - 8 * reach], dtype=np.float32)
        centres = anatomy.uterus.centres[ball] + along[:, None] * end
        depth = anatomy.uterus.z[ball] + side * (11 + 8 * z + 6 * along)
        size = np.full(10, 1.6 + 1.6 * thickness, dtype=np.float32)
        tube = Tube(centres, size, along, depth.astype(np.float32), depth=0.8)
        _blend(volume, _outside(tube, grid), levels["ligament"], 0.85)


def _paint_pouch(
    volume: Array,
    grid: Grid,
    anatomy: Anatomy,
    levels: dict[str, float],
    outside_uterus: Array,
    outside_rectum: Array,
) -> None:
    """Fat plane, fluid and fibrosis between uterus and rectum; the one place where the label is painted."""
    n, severity = anatomy.nuisance, np.float32(anatomy.severity)
    channel = outside_uterus + outside_rectum
    beside = np.abs(grid.z - anatomy.uterus.z[0])[:, None, None]

    def window(centre: Array, reach: float) -> Array:
        x, y = grid.x - centre[0], grid.y[:, None] - centre[1]
        return np.exp(-(((x**2 + y**2) / np.float32(reach**2)) ** 2))

    opacity = (0.3 if anatomy.label else 0.8) + n.fat_plane
    near = window(anatomy.site, 26)
    _blend(
        volume,
        channel - anatomy.gap - 4.0,
        levels["fat plane"],
        np.float32(opacity) * near * _both(outside_uterus, outside_rectum),
    )
    if anatomy.fluid:
        # Adhesions displace fluid upwards, out of the pouch's bottom (Macario et al.).
        centre = anatomy.site + np.array([2.0, -17.0 if anatomy.label else 2.0], dtype=np.float32)
        pool = window(centre, 13) * np.exp(-((beside / np.float32(18)) ** 4))
        _blend(
            volume, channel - anatomy.gap - anatomy.fluid, levels["fluid"], pool * _both(outside_uterus, outside_rectum)
        )
    if anatomy.label:
        # Smooth minimum of the two distances: a fillet of fibrosis where the organs meet, k = its reach in mm.
        k = np.maximum(n.fillet * severity, 2 * np.float32(anatomy.gap) + 2.5)
        reach = window(anatomy.site, n.plaque_half_width) * np.exp(-((beside / np.float32(n.plaque_half_width)) ** 4))
        k = np.maximum(k * reach, np.float32(0.05))
        share = np.clip(0.5 + 0.5 * (outside_rectum - outside_uterus) / k, 0, 1)
        fillet = outside_rectum + share * (outside_uterus - outside_rectum) - k * share * (1 - share)
        # Fibrosis invades a little of both walls.
        invaded = np.minimum(outside_uterus, outside_rectum) > -2.5
        _blend(volume, fillet, levels["plaque"], np.float32(0.9) * reach * invaded)


def _both(outside_uterus: Array, outside_rectum: Array) -> Array:
    """1 outside both organs, 0 inside either, soft between."""
    nearest = np.minimum(outside_uterus, outside_rectum)
    return np.clip(0.5 + nearest * np.float32(1 / EDGE_MM), 0, 1)
