"""The organs around the uterus, as ellipsoids: bladder, bones, ovaries, bowel, vessels, fibroids and decoys."""

from dataclasses import dataclass

import numpy as np

from data_modules.simulate.anatomy import Anatomy
from data_modules.simulate.tubes import Array


@dataclass(frozen=True)
class Ellipsoid:
    """A blob of one tissue.

    Attributes:
        centre: (x, y, z) in mm.
        radii: Half axes in mm before the tilt.
        tilt: In-plane rotation in degrees, from posterior towards inferior.
        tissue: Name of the tissue.
        square: Superellipsoid of exponent 4, almost a box, for bones.
    """

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    tilt: float
    tissue: str
    square: bool = False

    def outside(self, x: Array, y: Array, z: Array) -> Array:
        """Signed distance in mm from the surface, exact along the shortest half axis.

        Args:
            x: (W,) posterior coordinates in mm.
            y: (H,) inferior coordinates in mm.
            z: (D,) coordinates to the left in mm.

        Returns:
            (D, H, W), negative inside.
        """
        cx, cy, cz = (np.float32(c) for c in self.centre)
        rx, ry, rz = (np.float32(r) for r in self.radii)
        angle = np.deg2rad(self.tilt)
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        beside, below, behind_centre = (z[:, None, None] - cz) / rz, y[:, None] - cy, x - cx
        along, across = (cos * behind_centre + sin * below) / rx, (cos * below - sin * behind_centre) / ry
        if self.square:
            scaled = np.sqrt(np.sqrt(along**4 + across**4 + beside**4))
        else:
            scaled = np.sqrt(along**2 + across**2 + beside**2)
        return (scaled - 1) * np.float32(min(self.radii))


def behind(anatomy: Anatomy) -> list[Ellipsoid]:
    """What uterus and rectum overlay, in painting order."""
    return [
        *_side_walls(anatomy),
        *_bones(anatomy),
        *_vessels(anatomy),
        *_bowel(anatomy),
        *_bladder(anatomy),
        *_ovaries(anatomy),
    ]


def within(anatomy: Anatomy) -> list[Ellipsoid]:
    """What lies in or on the uterus: fibroids and decoy dark nodules, in both classes alike."""
    return [*_fibroids(anatomy), *_decoys(anatomy)]


def _bones(anatomy: Anatomy) -> list[Ellipsoid]:
    n = anatomy.nuisance
    x, y, slope, symphysis_x, symphysis_y = n.bones
    dx, dy, dz = n.shift
    parts = []
    along = -58 + 3 * y + dy
    for level in range(5):  # S2 to the coccyx, along the sacral hollow
        height = 11.0 - 1.6 * level
        along += height
        bend = along + 8 + 3 * slope
        centre = (47 + 2 * x + dx - 0.006 * bend**2, along, dz)
        tilt = float(np.clip(0.7 * bend, -45, 45))
        size = (9.5 - 1.2 * level, height, 30 - 4.5 * level)
        parts.append(Ellipsoid(centre, size, tilt, "cortex", square=True))
        inner = (size[0] - 1.0, size[1] - 1.3, size[2] - 1.0)
        parts.append(Ellipsoid(centre, inner, tilt, "marrow", square=True))
        along += height
    centre = (-47 + 2 * symphysis_x + dx, 37 + 3 * symphysis_y + dy, dz)
    parts.append(Ellipsoid(centre, (9.5, 17, 22), -35, "cortex"))
    parts.append(Ellipsoid(centre, (8, 15.5, 21), -35, "marrow"))
    return parts


def _side_walls(anatomy: Anatomy) -> list[Ellipsoid]:
    """Obturator internus and levator ani on either side, piriformis behind."""
    n, parts = anatomy.nuisance, []
    dx, dy, dz = n.shift
    for side, (x, y, z, thickness) in zip((-1, 1), n.walls, strict=True):
        lateral = side * (34 + 1.5 * z) + dz
        thick = 6.5 + 0.8 * float(np.clip(thickness, -2, 2))
        parts.append(Ellipsoid((-8 + 3 * x + dx, 20 + 3 * y + dy, lateral), (30, 20, thick), 15, "muscle"))
        parts.append(Ellipsoid((8 + 2 * x + dx, 42 + 2 * y + dy, 0.7 * lateral), (22, 3.5, thick), 20, "muscle"))
        parts.append(Ellipsoid((34 + 3 * x + dx, -20 + 4 * y + dy, lateral), (13, 16, thick), -30, "muscle"))
    return parts


def _bladder(anatomy: Anatomy) -> list[Ellipsoid]:
    n = anatomy.nuisance
    size = np.array([12 + 9 * n.filling, 8 + 9 * n.filling, 15 + 9 * n.filling])
    x, y = float(n.shift[0]) - 27, float(n.shift[1]) + 17 - 4 * n.filling
    wall = 3.2 - 1.2 * n.filling
    rx, ry, rz = map(float, size)
    return [
        Ellipsoid((x + 4, y + ry + 13, n.shift[2]), (4.5, 14, 5), 12, "urethra"),
        Ellipsoid((x, y, n.shift[2]), (rx + wall, ry + wall, rz + wall), -20, "bladder wall"),
        Ellipsoid((x, y, n.shift[2]), (rx, ry, rz), -20, "urine"),
    ]


def _bowel(anatomy: Anatomy) -> list[Ellipsoid]:
    parts = []
    for x, y, z, long, short, content in anatomy.nuisance.bowel:
        centre = (-45 + 75 * x, -52 + 26 * y, -36 + 72 * z)
        radii = (7 + 9 * long, 5 + 4 * short, 7 + 6 * short)
        tilt = 180 * content - 90
        parts.append(Ellipsoid(centre, radii, tilt, "bowel wall"))
        inner = (radii[0] - 2, radii[1] - 2, radii[2] - 2)
        parts.append(Ellipsoid(centre, inner, tilt, ("bowel gas", "bowel", "bowel fluid")[int(3 * content) % 3]))
    return parts


def _ovary_centre(anatomy: Anatomy, side: int) -> tuple[float, float, float]:
    n = anatomy.nuisance
    x, y, z = n.ovaries[side, :3]
    return n.shift[0] + 2 + 5 * x, n.shift[1] - 20 + 5 * y, (2 * side - 1) * (23 + 2.5 * z) + n.shift[2]


def _ovaries(anatomy: Anatomy) -> list[Ellipsoid]:
    n, parts = anatomy.nuisance, []
    for side in (0, 1):
        size, stretch = np.clip(n.ovaries[side, 3:], -2, 2)
        radii = (11 + 1.5 * size, 8 + 1.2 * stretch, 7.5 + size)
        parts.append(Ellipsoid(_ovary_centre(anatomy, side), radii, 20 * stretch, "ovary"))
    for u_side, u_x, u_y, u_size, kind in n.cysts:
        x, y, z = _ovary_centre(anatomy, int(u_side < 0.5))
        radius = 2 + 3.5 * u_size
        centre = (x + 12 * (u_x - 0.5), y + 8 * (u_y - 0.5), z + 6 * (kind - 0.5))
        parts.append(Ellipsoid(centre, (radius, radius, radius), 0, "cyst"))
    if anatomy.endometrioma:
        x, y, z = _ovary_centre(anatomy, n.endometrioma_side)
        parts.append(Ellipsoid((x, y, z), (13, 11, 10), 0, "endometrioma"))
    return parts


def _vessels(anatomy: Anatomy) -> list[Ellipsoid]:
    parts = []
    for x, y, z, radius, kind in anatomy.nuisance.vessels:
        side = 1 if z > 0.5 else -1
        centre = (-30 + 70 * x, -45 + 80 * y, side * (4 + 28 * abs(2 * z - 1)))
        size = 1.1 + 1.9 * radius
        tissue = "vein" if kind > 0.4 else "flow void"
        parts.append(Ellipsoid(centre, (size, (1.5 + 2 * radius) * size, size), 360 * kind, tissue))
    return parts


def _fibroids(anatomy: Anatomy) -> list[Ellipsoid]:
    uterus, parts = anatomy.uterus, []
    for arc, depth, side, size in anatomy.nuisance.fibroids:
        ball = int(np.interp(arc, [0, 1], [12, len(uterus.radii) - 1]))
        angle, radius = 2 * np.pi * side, 3 + 8 * size**2
        x, y = uterus.centres[ball]
        reach = uterus.radii[ball] * (0.35 + 0.5 * depth)
        centre = (x + reach * np.cos(angle), y + reach * np.sin(angle), uterus.z[ball] + 18 * (depth - 0.5))
        parts.append(Ellipsoid(centre, (radius, 0.9 * radius, radius), 0, "fibroid"))
    return parts


def _decoys(anatomy: Anatomy) -> list[Ellipsoid]:
    """Dark nodules that tether nothing: just below the surface of the uterus (as focal adenomyosis) or of the rectum.

    Most lie where an obliterated pouch would, so that a dark spot there means little unless it bridges the gap.
    """
    parts = []
    for kind, arc, size, z in anatomy.nuisance.decoys:
        organ = anatomy.uterus if kind < 0.6 else anatomy.rectum
        other = anatomy.rectum if kind < 0.6 else anatomy.uterus
        radius = 2.5 + 3 * size
        facing = int(np.linalg.norm(organ.centres - anatomy.site, axis=1).argmin())
        offset = (arc - 0.5) * 36  # mm along the organ
        ball = int(np.abs(organ.arc - organ.arc[facing] - offset).argmin())
        towards = -other.outward(organ.centres[ball : ball + 1])[0]
        x, y = organ.centres[ball] + (organ.radii[ball] - 0.9 * radius) * towards
        tilt = float(np.degrees(np.arctan2(towards[1], towards[0])))
        centre = (float(x), float(y), float(organ.z[ball]) + 16 * (z - 0.5))
        parts.append(Ellipsoid(centre, (radius, 1.8 * radius, 1.8 * radius), tilt, "nodule"))
    return parts
