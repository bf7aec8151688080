"""Sliding-sign clips: a transvaginal sector sweep under gentle, rhythmic probe pressure.

Each tissue carries its own speckle, which moves with it. The pouch of Douglas is free when the rectum glides over the
moving uterus (a positive sliding sign), obliterated when it is dragged along.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from data_modules.simulate.anatomy import Anatomy, patient_anatomy
from data_modules.simulate.settings import CLIP_EXTENT_MM, SimulationSettings
from data_modules.simulate.streams import Stream, generator
from data_modules.simulate.tissue import Canvas, draw_scatterers, scatter
from data_modules.simulate.tubes import Array

APEX_MM = 11.0  # radius of the curved probe face
DEPTH_MM = CLIP_EXTENT_MM[0]
DRAG_DECAY_MM = 32.0
POOR_SHARE = 0.06


@dataclass(frozen=True)
class Sweep:
    """One examination: how probe and organs move, and how the machine shows it; drawn without the label.

    Attributes:
        amplitude: Of the uterus' motion in mm.
        cycles: Pushes within the clip.
        phase: Of the first push, radians.
        harmonic: Relative strength of the second harmonic.
        heading: Angle in degrees between the motion and the uterine surface.
        glide: Share of the motion that a free rectum follows.
        drag_offset: Added to the share that a tethered rectum follows.
        carried: Share of the motion that the surrounding fat follows.
        own: (3,) motion of the rectum itself along the interface, with breath and bowel: amplitude in mm, cycles
            and phase.
        wander: (2, 2) amplitude and phase of the probe's drift in mm (x, y).
        rock: Amplitude of the probe's rotation in degrees.
        tilt: Angle in degrees of the beam's axis, from superior towards posterior.
        half_angle: Half of the sector in degrees.
        dynamic_range: In dB.
        gain: In dB.
        attenuation: Loss in dB per mm that the time gain compensation leaves.
        noise: Power of the receiver's noise, relative to full scale.
        shadow: (3,) centre, half-width (in shares of the sector) and loss in dB of a shadow.
        duration: Of the clip in s.
    """

    amplitude: float
    cycles: float
    phase: float
    harmonic: float
    heading: float
    glide: float
    drag_offset: float
    carried: float
    own: NDArray[np.float64]
    wander: NDArray[np.float64]
    rock: float
    tilt: float
    half_angle: float
    dynamic_range: float
    gain: float
    attenuation: float
    noise: float
    shadow: NDArray[np.float64]
    duration: float


def draw_sweep(rng: np.random.Generator) -> Sweep:
    """Draw an examination from the patient's TVUS stream."""
    uniform, normal = rng.uniform, rng.normal
    poor, usual = uniform(1, 2), uniform(4.5, 9)
    return Sweep(
        amplitude=poor if uniform() < POOR_SHARE else usual,
        cycles=uniform(1, 2.2),
        phase=uniform(0, 2 * np.pi),
        harmonic=uniform(-0.2, 0.2),
        heading=normal(0, 10),
        glide=uniform(0, 0.32),
        drag_offset=float(np.clip(normal(0, 0.07), -0.15, 0.15)),
        carried=uniform(0.1, 0.4),
        own=uniform([0, 0.5, 0], [0.6, 2.0, 2 * np.pi]),
        wander=uniform([[0, 0], [0, 0]], [[2.5, 2.5], [6.28, 6.28]]),
        rock=uniform(0, 3),
        tilt=normal(8, 8),
        half_angle=uniform(56, 66),
        dynamic_range=uniform(42, 54),
        gain=normal(0, 3),
        attenuation=uniform(0, 0.15),
        noise=10 ** uniform(-4.6, -3.6),
        shadow=uniform([0, 0.03, 0], [1, 0.15, 14]),
        duration=uniform(2.4, 4.0),
    )


def drag(anatomy: Anatomy, sweep: Sweep) -> float:
    """Share of the uterus' motion along the interface that the rectum follows; the sliding sign in one number."""
    if anatomy.label:
        return 0.55 + 0.4 * anatomy.severity + sweep.drag_offset
    return sweep.glide


def simulate_clip(settings: SimulationSettings, patient: int, label: int) -> NDArray[np.uint8]:
    """Simulate the sliding-sign clip of one patient.

    Args:
        settings: Cohort settings; clip shape.
        patient: Patient index.
        label: 1 = POD obliterated (negative sliding sign), 0 = free.

    Returns:
        (T, H, W) uint8; the probe is at the top, bladder and uterus to the left, the rectum to the right; 0 outside
        the sector.
    """
    anatomy = patient_anatomy(settings, patient, label, pressed=True)
    rng = generator(settings.seed, patient, Stream.TVUS)
    sweep = draw_sweep(rng)
    canvas = scatter(anatomy, draw_scatterers(rng))
    echo, gas = _insonify(anatomy, canvas, sweep, settings.clip_shape)
    noise = rng.standard_exponential(settings.clip_shape, dtype=np.float32)
    return _display(echo, gas, noise, sweep, settings)


def _insonify(anatomy: Anatomy, canvas: Canvas, sweep: Sweep, shape: tuple[int, int, int]) -> tuple[Array, Array]:
    """Echo in dB and gas in [0, 1], both (T, R, A), at R depths along A beams."""
    frames, depths, angles = shape
    seconds = np.arange(frames) / frames
    push = np.sin(2 * np.pi * sweep.cycles * seconds + sweep.phase)
    push = push + sweep.harmonic * np.sin(4 * np.pi * sweep.cycles * seconds + 2 * sweep.phase)
    along = np.array([anatomy.normal[1], -anatomy.normal[0]])
    heading = np.deg2rad(sweep.heading)
    slide, press = sweep.amplitude * np.cos(heading) * along, sweep.amplitude * np.sin(heading) * anatomy.normal
    wander = sweep.wander[0] * np.sin(2 * np.pi * 0.7 * seconds[:, None] + sweep.wander[1])
    rock = np.deg2rad(sweep.rock * np.sin(2 * np.pi * 0.9 * seconds + sweep.wander[1, 0]))

    amplitude, cycles, phase = sweep.own
    own = amplitude * np.sin(2 * np.pi * cycles * seconds + phase)[:, None] * along

    radius = APEX_MM + (np.arange(depths, dtype=np.float32) + 0.5)[:, None] * np.float32(DEPTH_MM / depths)
    angle = np.linspace(-1, 1, angles, dtype=np.float32) * np.float32(np.deg2rad(sweep.half_angle))
    # The face of the probe touches the posterior fornix, just below the external os.
    os = anatomy.uterus.centres[0] + np.array([2.0, anatomy.uterus.radii[0] + 2.0], dtype=np.float32)
    follow = drag(anatomy, sweep)

    echo, gas = np.empty((2, frames, depths, angles), dtype=np.float32)
    for frame in range(frames):
        beam = angle + np.float32(np.deg2rad(sweep.tilt) + rock[frame])
        centre = (
            os + wander[frame] + APEX_MM * np.array([-np.sin(np.deg2rad(sweep.tilt)), np.cos(np.deg2rad(sweep.tilt))])
        )
        x = np.float32(centre[0]) + radius * np.sin(beam)
        y = np.float32(centre[1]) - radius * np.cos(beam)
        move = push[frame] * (slide + press)
        background = canvas.sample("background", x, y, sweep.carried * move[0], sweep.carried * move[1])
        uterus = canvas.sample("uterus", x, y, move[0], move[1])
        # What clings to the uterus moves with it; the pull fades with the distance from its surface.
        reach = np.exp(np.maximum(uterus[..., 1], 0) * np.float32(-1 / DRAG_DECAY_MM))
        dragged = push[frame] * (follow * slide + press)
        rectum = canvas.sample(
            "rectum", x, y, *(reach * np.float32(dragged[i]) + np.float32(own[frame, i]) for i in (0, 1))
        )
        in_rectum, in_uterus = (np.clip(0.5 - part[..., 1], 0, 1) for part in (rectum, uterus))
        level = background[..., 0] + in_rectum * (rectum[..., 0] - background[..., 0])
        echo[frame] = level + in_uterus * (uterus[..., 0] - level)
        gas[frame] = rectum[..., 2] * in_rectum * (1 - in_uterus)
    return echo, gas


def _display(echo: Array, gas: Array, noise: Array, sweep: Sweep, settings: SimulationSettings) -> NDArray[np.uint8]:
    """Attenuation and shadows, log compression and scan conversion."""
    frames, depths, angles = echo.shape
    step_mm = DEPTH_MM / depths
    depth = (np.arange(depths, dtype=np.float32) + 0.5) * np.float32(step_mm)
    across = np.linspace(0, 1, angles, dtype=np.float32)
    where, width, loss = sweep.shadow
    shadow = np.float32(-loss) * np.exp(-(((across - np.float32(where)) / np.float32(width)) ** 2))
    static = np.float32(sweep.gain) + shadow - np.float32(sweep.attenuation) * depth[:, None]
    behind_gas = np.cumsum(gas, axis=1, dtype=np.float32) * np.float32(-1.8 * step_mm)

    rows, columns = _scan_conversion(sweep, settings)
    clip = np.empty(settings.clip_shape, dtype=np.uint8)
    for frame in range(frames):
        level = echo[frame] + static + np.maximum(behind_gas[frame], -26)
        power = 10 ** (level / 10) + np.float32(sweep.noise) * noise[frame]
        shown = 1 + 10 * np.log10(power + np.float32(1e-9)) / np.float32(sweep.dynamic_range)
        picture = cv2.remap(np.clip(shown, 0, 1), columns, rows, cv2.INTER_LINEAR, borderValue=0)
        clip[frame] = np.rint(255 * picture)
    return clip


def _scan_conversion(sweep: Sweep, settings: SimulationSettings) -> tuple[Array, Array]:
    """Fractional depth and beam index (H, W) of every pixel; far outside the sector where there is no beam."""
    h, w = settings.clip_shape[1:]
    pixel_h, pixel_w = settings.pixel_mm
    # The middle of the probe's face touches the top edge; its sides curve away below.
    y = APEX_MM + (np.arange(h, dtype=np.float32)[:, None] + 0.5) * np.float32(pixel_h) - 2
    x = (np.arange(w, dtype=np.float32) - (w - 1) / 2) * np.float32(pixel_w)
    radius, angle = np.hypot(x, y), np.rad2deg(np.arctan2(x, y))
    rows = (radius - APEX_MM) * np.float32(h / DEPTH_MM) - 0.5
    columns = (angle / sweep.half_angle + 1) * (w - 1) / 2
    return rows.astype(np.float32), columns.astype(np.float32)
