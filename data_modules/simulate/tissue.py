"""What the ultrasound meets: scatterers of uterus, rectum and their surroundings on canvases that move with the tissue."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from data_modules.simulate.anatomy import Anatomy
from data_modules.simulate.tubes import Array, Tube

ECHO_DB = {
    "fat": -4.0,
    "urine": -60.0,
    "bowel": -10.0,
    "bowel fluid": -24.0,
    "cervix": -13.0,
    "cervical canal": -20.0,
    "myometrium": -15.0,
    "junctional zone": -20.0,
    "endometrium": -6.0,
    "fibroid": -23.0,
    "serosa": 2.0,
    "rectal muscle": -24.0,
    "rectal mucosa": -9.0,
    "gas": 4.0,
    "stool": -12.0,
}
"""Echo of each tissue relative to bright fat."""

TEXEL_MM = 0.8
CLUMPING_DB = 4.5
BEAM_MM, COMPOUNDING_MM = (1.2, 0.8), 0.4  # standard deviations; lateral and axial
FIELD_MM = 2.4  # resolution of the distance fields before interpolation
CLUMPS = 36  # lattice of the tissue's own heterogeneity, 3.7 mm
SIZE = 168  # texels along either axis: 134 mm, the sector and its motion


@dataclass(frozen=True)
class Canvas:
    """Scatterers of the three tissues in their position at rest.

    Attributes:
        tissues: Name to (SIZE, SIZE, 3) float32: echo in dB, signed distance to the organ's outline in mm, gas in [0, 1].
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
            Texels with a last axis of three.
        """
        columns = (x - np.float32(self.origin[0]) - dx) * np.float32(1 / TEXEL_MM)
        rows = (y - np.float32(self.origin[1]) - dy) * np.float32(1 / TEXEL_MM)
        columns, rows = columns.astype(np.float32, copy=False), rows.astype(np.float32, copy=False)
        return cv2.remap(self.tissues[tissue], columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@dataclass(frozen=True)
class Scatterers:
    """The random part of three tissues, drawn without the label.

    Attributes:
        echo: (3, SIZE, SIZE, 2) real and imaginary part of single scatterers.
        clumps: (3, CLUMPS, CLUMPS) lattice of where they are dense.
    """

    echo: Array
    clumps: Array


def draw_scatterers(rng: np.random.Generator) -> Scatterers:
    """Draw the scatterers from the patient's TVUS stream."""
    return Scatterers(
        echo=rng.standard_normal((3, SIZE, SIZE, 2), dtype=np.float32),
        clumps=rng.standard_normal((3, CLUMPS, CLUMPS), dtype=np.float32),
    )


def scatter(anatomy: Anatomy, scatterers: Scatterers) -> Canvas:
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

    outside_uterus, outside_rectum = (_outside(tube, x, y) for tube in (anatomy.uterus, anatomy.rectum))
    from_axis, _, _, arc = anatomy.uterus.axis(x, y)

    in_body = np.clip((arc - anatomy.cervix_length + 4) / 8, 0, 1)
    uterus = ECHO_DB["cervix"] + in_body * (ECHO_DB["myometrium"] - ECHO_DB["cervix"])
    uterus = _layer(uterus, ECHO_DB["junctional zone"], in_body * _step(from_axis - n.layers.sum()))
    uterus = _layer(uterus, ECHO_DB["endometrium"], in_body * _step(from_axis - n.layers[0]))
    uterus = _layer(uterus, ECHO_DB["cervical canal"], (1 - in_body) * _step(from_axis - 1.5))
    for u_arc, depth, side, size in n.fibroids:
        ball = int(np.interp(u_arc, [0, 1], [12, len(anatomy.uterus.radii) - 1]))
        reach, angle = anatomy.uterus.radii[ball] * (0.35 + 0.5 * depth), 2 * np.pi * side
        centre = anatomy.uterus.centres[ball] + reach * np.array([np.cos(angle), np.sin(angle)])
        uterus = _layer(uterus, ECHO_DB["fibroid"], _disc(x, y, centre, 3 + 8 * size**2))
    uterus = _layer(uterus, ECHO_DB["serosa"], 0.8 * np.exp(-((outside_uterus + 0.7) ** 2)))

    inside = outside_rectum + n.rectum_wall
    collapsed, gassy = n.rectum_content_u >= 0.75, n.rectum_content_u < 0.35
    lumen = _step(inside + 1.8)
    content = "rectal mucosa" if collapsed else "gas" if gassy else "stool"
    rectum = np.full_like(inside, ECHO_DB["rectal muscle"])
    rectum = _layer(rectum, ECHO_DB["rectal mucosa"], _step(inside))
    rectum = _layer(rectum, ECHO_DB[content], lumen)
    rectum = _layer(rectum, ECHO_DB["serosa"], 0.8 * np.exp(-((outside_rectum + 0.7) ** 2)))
    gas = lumen * (0.0 if collapsed else 1.0 if gassy else 0.3)

    background = np.full_like(inside, ECHO_DB["fat"])
    for u_x, u_y, _, long, _, content_u in n.bowel:
        name = "bowel" if content_u > 0.5 else "bowel fluid"
        loop = _disc(x, y, np.array([-45 + 75 * u_x, -52 + 26 * u_y]), 6 + 6 * long)
        background = _layer(background, ECHO_DB[name], loop)
    stretch = np.array([12 + 9 * n.filling, 8 + 9 * n.filling], dtype=np.float32)
    centre = n.shift[:2] + (-27, 17 - 4 * n.filling)
    bladder = np.hypot((x - np.float32(centre[0])) / stretch[0], (y[:, None] - np.float32(centre[1])) / stretch[1])
    background = _layer(background, ECHO_DB["urine"], _step((bladder - 1) * stretch[1]))

    zero = np.zeros_like(background)
    tissues = {
        name: _canvas(level_db, outline, lumen_gas, echo, clumps)
        for (name, level_db, outline, lumen_gas), echo, clumps in zip(
            [
                ("uterus", uterus, outside_uterus, zero),
                ("rectum", rectum, outside_rectum, gas),
                ("background", background, zero, zero),
            ],
            scatterers.echo,
            scatterers.clumps,
            strict=True,
        )
    }
    return Canvas(tissues, origin)


def _outside(tube: Tube, x: Array, y: Array) -> Array:
    """Signed distance in mm to a tube in the mid-sagittal plane."""
    distance, radius, _ = tube.outline(x, y)
    return distance - radius


def _step(distance: Array) -> Array:
    """1 inside, 0 outside, soft over a millimetre or so."""
    return np.clip(0.5 - distance * np.float32(1 / 1.2), 0, 1).astype(np.float32)


def _layer(below: Array, level_db: float, cover: Array) -> Array:
    """Put a tissue's echo level in dB over another, with soft cover in [0, 1]."""
    return below + cover * (level_db - below)


def _disc(x: Array, y: Array, centre: NDArray[np.floating], radius: float) -> Array:
    """Soft cover of a disc on a grid."""
    return _step(np.hypot(x - np.float32(centre[0]), y[:, None] - np.float32(centre[1])) - np.float32(radius))


def _canvas(level_db: Array, outline: Array, gas: Array, echo: Array, clumps: Array) -> Array:
    """Stack echo, outline and gas at the resolution of the scatterers."""
    fields = np.stack([level_db, outline, gas], axis=-1).astype(np.float32)
    fields = cv2.resize(fields, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
    # Interference of the scatterers within the beam, then spatial compounding, which softens the speckle.
    field = cv2.GaussianBlur(echo, (0, 0), sigmaX=BEAM_MM[0] / TEXEL_MM, sigmaY=BEAM_MM[1] / TEXEL_MM)
    power = cv2.GaussianBlur((field**2).sum(axis=-1), (0, 0), COMPOUNDING_MM / TEXEL_MM)
    fields[..., 0] += 10 * np.log10(power / power.mean())
    fields[..., 0] += np.float32(CLUMPING_DB) * cv2.resize(clumps, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    return fields
