"""What the ultrasound meets: echoes of uterus, rectum and their surroundings on canvases that move with the tissue."""

from dataclasses import dataclass

import cv2
import numpy as np

from data_modules.simulate.anatomy import Anatomy
from data_modules.simulate.surroundings import Ellipsoid, behind, within
from data_modules.simulate.tubes import Array, Tube

ECHO_DB = {
    "fat": -4.0,
    "urine": -60.0,
    "bladder wall": -10.0,
    "urethra": -18.0,
    "muscle": -18.0,
    "bowel wall": -16.0,
    "bowel": -10.0,
    "bowel gas": 0.0,
    "bowel fluid": -26.0,
    "ovary": -14.0,
    "cyst": -45.0,
    "endometrioma": -20.0,
    "vein": -35.0,
    "flow void": -35.0,
    "cervix": -13.0,
    "cervical canal": -20.0,
    "myometrium": -15.0,
    "junctional zone": -20.0,
    "endometrium": -6.0,
    "fibroid": -23.0,
    "nodule": -24.0,
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
        tissues: Name to (SIZE, SIZE, 3) float32: echo in dB, signed distance to the organ's outline in
            mm, gas in [0, 1].
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
        texels = cv2.remap(self.tissues[tissue], columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(texels, dtype=np.float32)


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
    # At rest the probe's view spans from the external os upwards.
    os = anatomy.uterus.centres[0]
    extent = SIZE * TEXEL_MM
    origin = (float(os[0]) - extent / 2 + 4, float(os[1]) - extent + 36)
    coarse = round(extent / FIELD_MM)
    axis = (np.arange(coarse, dtype=np.float32) + 0.5) * np.float32(extent / coarse) - np.float32(TEXEL_MM / 2)
    x, y = axis + np.float32(origin[0]), axis + np.float32(origin[1])

    outside_uterus, outside_rectum = (_outside(tube, x, y) for tube in (anatomy.uterus, anatomy.rectum))
    uterus = _uterus_db(anatomy, outside_uterus, x, y)
    rectum, gas = _rectum_db(anatomy, outside_rectum)
    for part in within(anatomy):
        for level in (uterus, rectum):
            _paint(level, part, anatomy, x, y)
    background = np.full_like(uterus, ECHO_DB["fat"])
    for part in behind(anatomy):
        if part.tissue in ECHO_DB:  # bones lie beyond the depth
            _paint(background, part, anatomy, x, y)

    zero = np.zeros_like(background)
    layers = {
        "uterus": (uterus, outside_uterus, zero),
        "rectum": (rectum, outside_rectum, gas),
        "background": (background, zero, zero),
    }
    tissues = {
        name: _canvas(np.stack(fields, axis=-1), echo, clumps)
        for (name, fields), echo, clumps in zip(layers.items(), scatterers.echo, scatterers.clumps, strict=True)
    }
    return Canvas(tissues, origin)


def _outside(tube: Tube, x: Array, y: Array) -> Array:
    """Signed distance in mm to a tube in the mid-sagittal plane."""
    distance, radius, _ = tube.outline(x, y)
    return distance - radius


def _uterus_db(anatomy: Anatomy, outside: Array, x: Array, y: Array) -> Array:
    from_axis, _, _, arc = anatomy.uterus.axis(x, y)
    endometrium, junction = anatomy.nuisance.layers
    in_body: Array = np.clip((arc - np.float32(anatomy.cervix_length - 4)) / 8, 0, 1)
    level = np.full_like(in_body, ECHO_DB["cervix"])
    _layer(level, "myometrium", in_body)
    _layer(level, "cervical canal", (1 - in_body) * _step(from_axis - 1.5))
    _layer(level, "junctional zone", in_body * _step(from_axis - np.float32(endometrium + junction)))
    _layer(level, "endometrium", in_body * _step(from_axis - np.float32(endometrium)))
    _layer(level, "serosa", _rim(outside))
    return level


def _rectum_db(anatomy: Anatomy, outside: Array) -> tuple[Array, Array]:
    """Echo level in dB and gas in [0, 1]."""
    n = anatomy.nuisance
    inside = outside + np.float32(n.rectum_wall)
    lumen = _step(inside + 1.8)
    level = np.full_like(inside, ECHO_DB["rectal muscle"])
    _layer(level, "rectal mucosa", _step(inside))
    content, gas = {"gas": ("gas", 1.0), "stool": ("stool", 0.3), "collapsed": ("rectal mucosa", 0.0)}[n.rectum_content]
    _layer(level, content, lumen)
    _layer(level, "serosa", _rim(outside))
    return level, lumen * np.float32(gas)


def _paint(level: Array, part: Ellipsoid, anatomy: Anatomy, x: Array, y: Array) -> None:
    """Paint the cut of an ellipsoid with the plane of the uterus, in place."""
    plane = anatomy.uterus.z[:1]
    if abs(part.centre[2] - plane[0]) < part.radii[2]:
        _layer(level, part.tissue, _step(part.outside(x, y, plane)[0]))


def _layer(level: Array, tissue: str, cover: Array) -> None:
    """Put a tissue over others with soft cover in [0, 1], in place."""
    level += cover * (np.float32(ECHO_DB[tissue]) - level)


def _rim(outside: Array) -> Array:
    """Cover of a thin layer just below the surface."""
    return np.float32(0.8) * np.exp(-((outside + np.float32(0.7)) ** 2))


def _step(outside: Array) -> Array:
    """1 inside, 0 outside, soft over a millimetre or so."""
    return np.clip(0.5 - outside * np.float32(1 / 1.2), 0, 1)


def _canvas(coarse: Array, echo: Array, clumps: Array) -> Array:
    """Refine echo level, outline and gas to the resolution of the scatterers, and add the scatterers' speckle."""
    fields = np.asarray(cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR), dtype=np.float32)
    # Interference of the scatterers within the beam, then spatial compounding, which softens the speckle.
    field = cv2.GaussianBlur(echo, (0, 0), sigmaX=BEAM_MM[0] / TEXEL_MM, sigmaY=BEAM_MM[1] / TEXEL_MM)
    power = cv2.GaussianBlur((field**2).sum(axis=-1), (0, 0), COMPOUNDING_MM / TEXEL_MM)
    fields[..., 0] += 10 * np.log10(power / power.mean())
    fields[..., 0] += np.float32(CLUMPING_DB) * cv2.resize(clumps, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    return fields
