"""What varies between pelves and has nothing to do with the label: drawn by functions that never see it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Nuisance:
    """All random numbers of one patient's anatomy, in mm and degrees unless said otherwise.

    Both what a free and what an obliterated pouch would look like is here, so that the same patient can be built
    with either label and differs in nothing else. Fields that end in ``_u`` are uniform in [0, 1] and decide a sign
    by a threshold.
    """

    shift: Floats  # (3,) of the whole pelvis: posterior, inferior, left
    external_os: Floats  # (2,) x, y
    cervix_length: float
    cervix_radius: float
    body_length: float
    body_half_width: float
    anteversion: float
    retroversion: float
    retroverted_u: float
    flexion: float  # share of the version that the cervix follows
    filling: float  # of the bladder, 0..1
    uterus_lateral: Floats  # (2,) offset and slope per mm of arc
    layers: Floats  # (2,) thickness of half the endometrium and of the junctional zone
    rectum_radius: float
    rectum_wall: float
    rectum_content: str  # gas, stool or collapsed
    rectum_nodes: Floats  # (7, 2) offsets in the plane
    rectum_lateral: Floats  # (7,) z
    rectum_bulges: Floats  # (9,) relative width along the arc
    site: float  # 0 = mid-cervix .. 1 = lower body
    share: float  # of the approach that the rectum makes; the uterus makes the rest
    close_u: float
    close_gap: float
    free_gap: float
    free_window: float
    severity: float
    filled_u: float  # whether fibrosis fills a wide gap
    tethered_gap: float
    filled_gap: float
    tethered_window: float
    fillet: float  # reach of the fibrosis between the organs, at severity 1
    plaque_half_width: float
    pressed_gap: float  # under the ultrasound probe's pressure
    fat_plane: float
    fluid_u: float
    fluid_amount: float
    endometrioma_u: float
    endometrioma_side: int
    fibroids: Floats  # (n, 4) uniform: arc, depth, side, size
    ovaries: Floats  # (2, 5) normal: x, y, z, size, stretch
    cysts: Floats  # (n, 5) uniform: side, x, y, size, kind
    bowel: Floats  # (n, 6) uniform: x, y, z, two sizes, content
    vessels: Floats  # (n, 5) uniform: x, y, z, radius, kind
    decoys: Floats  # (n, 4) uniform: kind, arc, size, z
    bones: Floats  # (5,) normal: sacrum x, y, slope; symphysis x, y
    ligaments: Floats  # (2, 3) uniform: thickness, reach, z
    walls: Floats  # (2, 4) normal: muscles of the pelvic side wall: x, y, z, thickness


def draw_nuisance(rng: np.random.Generator) -> Nuisance:
    """Draw everything about an anatomy but its label.

    Args:
        rng: Generator of the patient's anatomy stream.

    Returns:
        The numbers; the sizes are ours, of the order of normal anatomy.
    """
    uniform, normal = rng.uniform, rng.normal
    return Nuisance(
        shift=normal(0, [4.0, 4.0, 3.0]),
        external_os=normal([-2, 14], [3.0, 3.5]),
        cervix_length=float(np.clip(normal(27, 3), 20, 34)),
        cervix_radius=float(np.clip(normal(12, 1.2), 9, 15)),
        body_length=float(np.clip(normal(44, 7), 28, 60)),
        body_half_width=float(np.clip(normal(17.5, 2.8), 12, 24)),
        anteversion=float(np.clip(normal(55, 18), 5, 95)),
        retroversion=float(np.clip(normal(30, 12), 5, 50)),
        retroverted_u=uniform(),
        flexion=uniform(0.2, 0.5),
        filling=uniform(),
        uterus_lateral=normal(0, [2.5, 0.12]),
        layers=uniform([1.5, 3.0], [4.0, 6.0]),
        rectum_radius=float(np.clip(normal(10, 2.2), 6, 16)),
        rectum_wall=uniform(2.0, 4.5),
        rectum_content=str(rng.choice(["gas", "stool", "collapsed"], p=[0.35, 0.40, 0.25])),
        rectum_nodes=normal(0, [2.5, 1.5], (7, 2)),
        rectum_lateral=normal(0, 3.0, 7),
        rectum_bulges=np.clip(normal(0, 0.10, 9), -0.2, 0.2),
        site=uniform(),
        share=uniform(),
        close_u=uniform(),
        close_gap=uniform(1.6, 3.2),
        free_gap=uniform(3.3, 7.5),
        free_window=uniform(14, 30),
        severity=rng.beta(3, 1.6),
        filled_u=uniform(),
        tethered_gap=uniform(0.0, 0.9),
        filled_gap=uniform(1.0, 5.0),
        tethered_window=uniform(8, 18),
        fillet=uniform(12, 22),
        plaque_half_width=uniform(11, 19),
        pressed_gap=uniform(0.5, 2.5),
        fat_plane=uniform(-0.12, 0.12),
        fluid_u=uniform(),
        fluid_amount=uniform(1.5, 5.0),
        endometrioma_u=uniform(),
        endometrioma_side=int(rng.integers(2)),
        fibroids=uniform(size=(int(rng.choice(4, p=[0.55, 0.25, 0.13, 0.07])), 4)),
        ovaries=normal(size=(2, 5)),
        cysts=uniform(size=(int(rng.integers(1, 7)), 5)),
        bowel=uniform(size=(int(rng.integers(6, 12)), 6)),
        vessels=uniform(size=(int(rng.integers(20, 36)), 5)),
        decoys=uniform(size=(int(rng.choice(3, p=[0.35, 0.4, 0.25])), 4)),
        bones=normal(size=5),
        ligaments=uniform(size=(2, 3)),
        walls=normal(size=(2, 4)),
    )
