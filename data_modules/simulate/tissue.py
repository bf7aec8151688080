"""What the ultrasound meets: scatterers of uterus, rectum and their surroundings on canvases that move with the tissue."""

from dataclasses import dataclass

import cv2
import numpy as np

from data_modules.simulate.anatomy import Anatomy
from data_modules.simulate.tubes import Array, Tube

TEXEL_MM = 0.8
FIELD_MM = 2.4  # resolution of the distance fields before interpolation
SIZE = 168  # texels along either axis: 134 mm, the sector and its motion


@dataclass(frozen=True)
class Canvas:
    """Scatterers of the three tissues in their position at rest.

    Attributes:
        tissues: Name to (SIZE, SIZE, 4) float32: real and imaginary echo, signed distance to the organ's outline in mm, gas.
        origin: (x, y) in mm of the first texel.
    """

    tissues: dict[str, Array]
    origin: tuple[float, float]

    def sample(self, tissue: str, x: Array, y: Array, dx: Array | float, dy: Array | float) -> Array:
        """Look a tissue up where it lay before it moved.

        Args:
            tissue: "uterus", "rectum" or "background".
            x: Posterior coordinates in mm.
            y: Inferior coordinates in mm, of the same shape.
            dx: Posterior displacement in mm.
            dy: Inferior displacement in mm.

        Returns:
            Texels with a last axis of four.
        """
        columns = (x - np.float32(self.origin[0]) - dx) * np.float32(1 / TEXEL_MM)
        rows = (y - np.float32(self.origin[1]) - dy) * np.float32(1 / TEXEL_MM)
        columns, rows = columns.astype(np.float32, copy=False), rows.astype(np.float32, copy=False)
        return cv2.remap(self.tissues[tissue], columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def draw_scatterers(rng: np.random.Generator) -> Array:
    """Draw the random part: (3, SIZE, SIZE, 2) unit complex scatterers, then smoothed to the texture's grain."""
    return rng.standard_normal((3, SIZE, SIZE, 2), dtype=np.float32)


def scatter(anatomy: Anatomy, scatterers: Array) -> Canvas:
    """Give the scatterers the echogenicity of the anatomy.

    Args:
        anatomy: Anatomy under the probe's pressure.
        scatterers: From `draw_scatterers`.

    Returns:
        The canvas.
    """
    n = anatomy.nuisance
    # At rest the probe's view spans from the external os upwards.
    os = anatomy.uterus.centres[0]
    origin = (float(os[0]) - SIZE * TEXEL_MM / 2 + 4, float(os[1]) - SIZE * TEXEL_MM + 36)
    extent = SIZE * TEXEL_MM
    coarse = round(extent / FIELD_MM)
    axis = ((np.arange(coarse, dtype=np.float32) + 0.5) * np.float32(extent / coarse)) - np.float32(TEXEL_MM / 2)
    x, y = axis + np.float32(origin[0]), axis + np.float32(origin[1])

    outside_uterus, from_axis, arc = _fields(anatomy.uterus, x, y)
    outside_rectum, _, _ = _fields(anatomy.rectum, x, y)

    in_body = np.clip((arc - anatomy.cervix_length + 4) / 8, 0, 1)
    uterus = 0.26 + 0.10 * (1 - in_body)
    uterus *= 1 - 0.35 * _step(from_axis - n.layers.sum())  # hypoechoic junctional zone
    uterus += in_body * 0.45 * _step(from_axis - n.layers[0])  # endometrial stripe
    uterus += 0.35 * np.exp(-((outside_uterus + 0.6) ** 2))  # serosa
    for u_arc, depth, side, size in n.fibroids:
        ball = int(np.interp(u_arc, [0, 1], [12, len(anatomy.uterus.radii) - 1]))
        reach, angle = anatomy.uterus.radii[ball] * (0.35 + 0.5 * depth), 2 * np.pi * side
        centre = anatomy.uterus.centres[ball] + reach * np.array([np.cos(angle), np.sin(angle)])
        blob = np.hypot(x - np.float32(centre[0]), y[:, None] - np.float32(centre[1])) - (3 + 8 * size**2)
        uterus *= 1 - 0.5 * _step(blob)

    inside = outside_rectum + n.rectum_wall
    collapsed, gassy = n.rectum_content_u >= 0.75, n.rectum_content_u < 0.35
    rectum = 0.14 + 0.40 * np.exp(-((outside_rectum + 0.5) ** 2))  # muscularis and bright outer layer
    rectum += 0.35 * _step(inside) * np.exp(-((inside + 0.8) ** 2))  # mucosa
    lumen = _step(inside + 1.6)
    rectum += lumen * (0.25 if collapsed else 0.85 if gassy else 0.30)
    gas = lumen * (0.0 if collapsed else 1.0 if gassy else 0.35)

    background = np.full_like(outside_rectum, 0.42)
    filling = n.filling
    bladder = np.hypot(
        (x - np.float32(n.shift[0] - 27)) / np.float32(12 + 9 * filling),
        (y[:, None] - np.float32(n.shift[1] + 17 - 4 * filling)) / np.float32(8 + 9 * filling),
    )
    background *= 1 - 0.97 * _step((bladder - 1) * np.float32(8 + 9 * filling))
    for u_x, u_y, _, long, _, content in n.bowel[:4]:
        centre_x, centre_y = -45 + 75 * u_x, -52 + 26 * u_y
        loop = np.hypot(x - np.float32(centre_x), y[:, None] - np.float32(centre_y)) - (6 + 6 * long)
        background *= 1 - (0.7 if content > 0.5 else 0.3) * _step(loop)

    zero = np.zeros_like(background)
    tissues = {
        name: _canvas(amplitude, outline, lumen_gas, noise)
        for (name, amplitude, outline, lumen_gas), noise in zip(
            [
                ("uterus", uterus, outside_uterus, zero),
                ("rectum", rectum, outside_rectum, gas),
                ("background", background, zero, zero),
            ],
            scatterers,
            strict=True,
        )
    }
    return Canvas(tissues, origin)


def _fields(tube: Tube, x: Array, y: Array) -> tuple[Array, Array, Array]:
    """Distance to the outline and to the axis, and arc length, on a grid."""
    distance, radius, arc, _ = tube.field(x, y)
    return distance - radius, distance, arc


def _step(distance: Array) -> Array:
    """1 inside, 0 outside, soft over a millimetre or so."""
    return np.clip(0.5 - distance * np.float32(1 / 1.2), 0, 1).astype(np.float32)


def _canvas(amplitude: Array, outline: Array, gas: Array, noise: Array) -> Array:
    """Stack echo, outline and gas at the resolution of the scatterers."""
    fields = np.stack([amplitude, outline, gas], axis=-1).astype(np.float32)
    fields = cv2.resize(fields, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    grain = cv2.GaussianBlur(noise, (0, 0), 0.7)
    echo = fields[..., :1] * grain
    return np.concatenate([echo, fields[..., 1:]], axis=-1)
