"""The organs around the uterus, as ellipsoids: bladder, bones, ovaries, bowel, vessels, fibroids and decoys."""

from dataclasses import dataclass

import numpy as np

from data_modules.simulate.anatomy import Anatomy


@dataclass(frozen=True)
class Ellipsoid:
    """A blob of one tissue.

    Attributes:
        centre: (x, y, z) in mm.
        radii: Half axes in mm before the tilt.
        tilt: In-plane rotation in degrees, from posterior towards inferior.
        tissue: Name of the tissue.
    """

    centre: tuple[float, float, float]
    radii: tuple[float, float, float]
    tilt: float
    tissue: str


def behind(anatomy: Anatomy) -> list[Ellipsoid]:
    """What uterus and rectum overlay, in painting order."""
    return [*_bones(anatomy), *_bladder(anatomy), *_bowel(anatomy), *_ovaries(anatomy), *_vessels(anatomy)]


def within(anatomy: Anatomy) -> list[Ellipsoid]:
    """What lies in or on the uterus: fibroids and decoy dark nodules, in both classes alike."""
    return [*_fibroids(anatomy), *_decoys(anatomy)]


def _bones(anatomy: Anatomy) -> list[Ellipsoid]:
    n = anatomy.nuisance
    x, y, slope, symphysis_x, symphysis_y = n.bones
    dx, dy, dz = n.shift
    parts = []
    for level in range(4):  # S3 to the coccyx, along the sacral hollow
        along = -46 + 24 * level + 3 * y + dy
        centre = (43 + 2 * x + dx - 0.0045 * (along - 5 + 4 * slope) ** 2 + 5, along, dz)
        tilt = float(np.clip(0.45 * (along - 5), -30, 30))
        parts.append(Ellipsoid(centre, (8.5 - level, 11.5 - 0.6 * level, 30 - 4 * level), tilt, "cortex"))
        parts.append(Ellipsoid(centre, (6.8 - level, 9.8 - 0.6 * level, 28 - 4 * level), tilt, "marrow"))
    centre = (-46 + 2 * symphysis_x + dx, 36 + 3 * symphysis_y + dy, dz)
    parts.append(Ellipsoid(centre, (9.5, 17, 22), -30, "cortex"))
    parts.append(Ellipsoid(centre, (7.5, 15, 21), -30, "marrow"))
    return parts


def _bladder(anatomy: Anatomy) -> list[Ellipsoid]:
    n = anatomy.nuisance
    size = np.array([12 + 9 * n.filling, 8 + 9 * n.filling, 15 + 9 * n.filling])
    x, y = n.shift[:2] + (-27, 17 - 4 * n.filling)
    wall = 3.2 - 1.2 * n.filling
    rx, ry, rz = map(float, size)
    return [
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
        centre = (-20 + 60 * x, -45 + 85 * y, side * (16 + 18 * abs(2 * z - 1)))
        size = 1.4 + 2.2 * radius
        parts.append(Ellipsoid(centre, (size, 2.2 * size, size), 180 * kind, "vein" if kind > 0.5 else "flow void"))
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
    """Dark nodules that tether nothing: on the serosa, in the rectal wall or beside the midline."""
    uterus, rectum, parts = anatomy.uterus, anatomy.rectum, []
    for kind, arc, size, z in anatomy.nuisance.decoys:
        radius = 2.5 + 3 * size
        if kind < 0.5:
            ball = int(4 + arc * (len(uterus.radii) - 5))
            away = np.array([0.95, -0.2])
            x, y = uterus.centres[ball] + (uterus.radii[ball] - 0.4 * radius) * away
        else:
            ball = int(12 + 20 * arc)
            x, y = rectum.centres[ball] + (rectum.radii[ball] - 0.5 * radius) * np.array([-0.7, -0.7])
        parts.append(Ellipsoid((x, y, 30 * (z - 0.5)), (radius, 1.4 * radius, 1.5 * radius), -20, "nodule"))
    return parts
