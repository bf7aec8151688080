"""The parametric pelvis: uterus, rectum and the pouch of Douglas (POD) between them.

Coordinates in mm: x grows posteriorly, y inferiorly, z to the patient's left; the origin is the centre of the MRI's
field of view.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.interpolate import CubicSpline, PchipInterpolator

from data_modules.simulate.covariates import (
    ENDOMETRIOMA_ODDS_RATIO,
    ENDOMETRIOMA_SHARE,
    RETROVERSION_ODDS_RATIO,
    RETROVERSION_SHARE,
    share_with_sign,
)
from data_modules.simulate.nuisance import Nuisance, draw_nuisance
from data_modules.simulate.settings import SimulationSettings
from data_modules.simulate.streams import Stream, generator
from data_modules.simulate.tubes import Array, Tube, arc_length, attach

UTERUS_BALLS, RECTUM_BALLS = 26, 44
FILLED_SHARE = 0.25  # of the obliterated: a retrouterine plaque as thick as a normal gap
FLUID_SHARE_FREE, FLUID_SHARE_OBLITERATED = 0.40, 0.15


@dataclass(frozen=True)
class Anatomy:
    """One patient's pelvis, ready to be imaged.

    Attributes:
        label: 1 = POD obliterated, 0 = free.
        severity: Of the obliteration in (0, 1]; 0 if free.
        gap: Distance in mm of rectum and uterus at the POD.
        site: (2,) point in mm on the posterior uterine surface where the two come closest.
        normal: (2,) unit vector that leaves the uterus there.
        uterus: External os (ball 0) to fundus.
        cervix_length: Arc in mm at which the cervix ends and the body begins.
        rectum: Anal canal to rectosigmoid; radii include the wall.
        fluid: Thickness in mm of free fluid; 0 = none.
        retroverted: Whether the uterus is.
        endometrioma: Whether an ovary has one.
        nuisance: All that the label cannot touch.
    """

    label: int
    severity: float
    gap: float
    site: Array
    normal: Array
    uterus: Tube
    cervix_length: float
    rectum: Tube
    fluid: float
    retroverted: bool
    endometrioma: bool
    nuisance: Nuisance


@lru_cache(maxsize=1)  # an MRI is of the anatomy that its row of the tables tells of
def patient_anatomy(settings: SimulationSettings, patient: int, label: int, pressed: bool = False) -> Anatomy:
    """Build a patient's anatomy from the cohort's seed.

    Args:
        settings: Cohort settings.
        patient: Patient index.
        label: 1 = obliterated, 0 = free; the other label gives the same patient with the other disease.
        pressed: Under the ultrasound probe's pressure, which brings the organs into contact in both classes alike.

    Returns:
        The anatomy.
    """
    return build_anatomy(draw_nuisance(generator(settings.seed, patient, Stream.ANATOMY)), settings, label, pressed)


def build_anatomy(nuisance: Nuisance, settings: SimulationSettings, label: int, pressed: bool) -> Anatomy:
    """Build an anatomy without drawing anything; arguments as in `patient_anatomy`."""
    n, strength = nuisance, settings.covariate_strength
    retroverted = n.retroverted_u < share_with_sign(RETROVERSION_SHARE, RETROVERSION_ODDS_RATIO, label, strength)
    endometrioma = n.endometrioma_u < share_with_sign(ENDOMETRIOMA_SHARE, ENDOMETRIOMA_ODDS_RATIO, label, strength)
    if label:
        gap = n.filled_gap if n.filled_u < FILLED_SHARE else n.tethered_gap
        window, fluid = n.tethered_window, n.fluid_u < FLUID_SHARE_OBLITERATED
    else:
        gap = n.close_gap if n.close_u < settings.close_free else n.free_gap
        window, fluid = n.free_window, n.fluid_u < FLUID_SHARE_FREE
    if pressed:
        gap, window = n.pressed_gap, n.free_window

    uterus, normals = _uterus(n, retroverted)
    at = float(np.interp(n.site, [0, 1], [0.5 * n.cervix_length, n.cervix_length + 8]))
    ball = int(np.abs(uterus.arc - at).argmin())
    site = uterus.centres[ball] + uterus.radii[ball] * normals[ball]
    rectum = _rectum(n)

    # Rectum and uterus share the approach at random, so that neither one's position alone tells the gap.
    nearest = int(np.linalg.norm(rectum.centres - site, axis=1).argmin())
    between = rectum.centres[nearest] - uterus.centres[ball]
    distance = np.linalg.norm(between)
    towards = between / distance
    room = distance - uterus.radii[ball] - rectum.radii[nearest] - gap
    offset = ((1 - n.share) * room * towards).astype(np.float32)
    uterus, site = uterus.moved(offset), (site + offset).astype(np.float32)
    return Anatomy(
        label=label,
        severity=n.severity if label else 0.0,
        gap=gap,
        site=site,
        normal=normals[ball],
        uterus=uterus,
        cervix_length=n.cervix_length,
        rectum=attach(rectum, uterus, site, gap, window),
        fluid=n.fluid_amount if fluid else 0.0,
        retroverted=retroverted,
        endometrioma=endometrioma,
        nuisance=n,
    )


def _uterus(n: Nuisance, retroverted: bool) -> tuple[Tube, Array]:
    """Uterus and its (N, 2) posterior normals."""
    version = -n.retroversion if retroverted else n.anteversion - 15 * n.filling
    length = n.cervix_length + max(n.body_length - n.body_half_width, 8.0)
    arc = np.linspace(0, length, UTERUS_BALLS)
    bend = np.clip((arc - n.cervix_length + 7) / 14, 0, 1)
    bend = bend * bend * (3 - 2 * bend)
    angle = np.deg2rad(version * (n.flexion + (1 - n.flexion) * bend))
    direction = np.stack([-np.sin(angle), -np.cos(angle)], axis=1)
    steps = np.diff(arc, prepend=0)[:, None] * direction
    start = n.external_os + n.shift[:2] + (np.array([-7.0, 0.0]) if retroverted else 0.0)
    centres = (start + np.cumsum(steps, axis=0)).astype(np.float32)
    # Pear shape: a waist at the isthmus, widest in mid-body, narrower at the fundus.
    knots = np.array([0, 0.4, 0.9, 1.0]) * n.cervix_length
    knots = np.append(knots, [n.cervix_length + 0.6 * (length - n.cervix_length), length])
    sizes = np.array([0.8, 1.0, 0.9, 0.95]) * n.cervix_radius
    sizes = np.append(sizes, [n.body_half_width, 0.88 * n.body_half_width])
    normals = np.stack([np.cos(angle), -np.sin(angle)], axis=1).astype(np.float32)
    tube = Tube(
        centres=centres,
        radii=PchipInterpolator(knots, sizes)(arc).astype(np.float32),
        arc=arc.astype(np.float32),
        z=(n.shift[2] + n.uterus_lateral[0] + n.uterus_lateral[1] * arc).astype(np.float32),
        depth=0.75,
    )
    return tube, normals


def _rectum(n: Nuisance) -> Tube:
    """Rectum as it lies before anything pulls on it."""
    nodes = np.stack([[14, 11, 17, 23, 26, 25, 18], np.linspace(64, -64, 7)], axis=1)
    nodes = nodes + n.rectum_nodes + n.shift[:2]
    at = np.linspace(0, 6, RECTUM_BALLS)
    centres = CubicSpline(np.arange(7), nodes)(at).astype(np.float32)
    lateral = CubicSpline(np.arange(7), n.rectum_lateral + n.shift[2])(at)
    widths = np.interp(at, [0, 1, 2, 3, 4, 6], [0.7, 0.8, 1.0, 1.08, 1.0, 0.9])
    widths = widths + CubicSpline(np.linspace(0, 6, 9), n.rectum_bulges)(at)
    return Tube(
        centres=centres,
        radii=(n.rectum_radius * widths).astype(np.float32),
        arc=arc_length(centres),
        z=lateral.astype(np.float32),
        depth=1.0,
    )
