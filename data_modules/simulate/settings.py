"""Settings of a simulated cohort; each field is an option of ``poddistill simulate``."""

from dataclasses import dataclass
from typing import Any

from data_modules.errors import InputError

VOLUME_EXTENT_MM = (64.0, 96.0, 96.0)
"""Field of view of a volume (D, H, W), whatever its shape."""

CLIP_EXTENT_MM = (80.0, 80.0)
"""Field of view of a clip's frame (H, W), whatever its shape."""


@dataclass(frozen=True)
class SimulationSettings:
    """Size, difficulty and seed of a simulated cohort.

    Attributes:
        seed: Seed of the whole cohort, 0 <= seed < 2**63.
        n_labelled: MRI patients whose label is written.
        n_unlabelled: MRI patients without a label.
        n_clips: TVUS patients, all labelled, one clip each.
        n_both: How many of the TVUS patients are labelled MRI patients as well; 0 = the cohorts share nobody.
        volume_shape: Voxels (D, H, W); the field of view stays 64 x 96 x 96 mm.
        clip_shape: Frames and pixels (T, H, W); the field of view stays 80 x 80 mm and the sweep as long.
        prevalence: Share of patients with an obliterated pouch of Douglas, in each group, in (0, 1); about .21 in
            surgical cohorts.
        label_noise: Share of the *written* labels that is flipped, in [0, .5); ``truth.csv`` keeps the true ones.
        n_sites: Hospitals, each with its own scanner; a patient's site is independent of the label.
        site_effect: How much the sites differ in gain, contrast, bias field, noise and blur, in [0, 3]; 0 = not at
            all, 1 = moderately.
        site_folds: 1 = the hospitals are the folds, written into the MRI's ``labels.csv``, so that a student is tested
            on a scanner none of whose labels it has seen; unlabelled patients have no fold. 0 = folds are left to the
            ingest. Needs at least 3 sites.
        close_free: Share of the free patients whose rectum lies close to the uterus, in [0, 1].
        covariate_strength: Factor on the log odds ratios that tie the covariates to the disease, in [0, 5]; 0 =
            useless, 1 = about as published.

    Raises:
        InputError: If a value is outside its range.
    """

    seed: int = 0
    n_labelled: int = 400
    n_unlabelled: int = 2200
    n_clips: int = 700
    n_both: int = 0
    volume_shape: tuple[int, int, int] = (16, 48, 48)
    clip_shape: tuple[int, int, int] = (16, 64, 64)
    prevalence: float = 0.25
    label_noise: float = 0.0
    n_sites: int = 4
    site_effect: float = 1.0
    site_folds: int = 0
    close_free: float = 0.35
    covariate_strength: float = 1.0

    def __post_init__(self) -> None:
        self._check("seed", self.seed, 0 <= self.seed < 2**63, "a whole number from 0 to 2**63 - 1")
        for name in ("n_labelled", "n_unlabelled", "n_clips"):
            count = getattr(self, name)
            self._check(name, count, 0 <= count <= 1_000_000, "a whole number from 0 to 1000000")
        total = self.n_labelled + self.n_unlabelled + self.n_clips
        self._check("n_labelled", self.n_labelled, total > 0, "positive, unless n_unlabelled or n_clips is")
        most = min(self.n_labelled, self.n_clips)
        self._check("n_both", self.n_both, 0 <= self.n_both <= most, f"from 0 to {most} (n_labelled and n_clips)")
        self._check_shape("volume_shape", self.volume_shape, (4, 32, 32))
        self._check_shape("clip_shape", self.clip_shape, (4, 32, 32))
        self._check("prevalence", self.prevalence, 0 < self.prevalence < 1, "strictly between 0 and 1")
        self._check("label_noise", self.label_noise, 0 <= self.label_noise < 0.5, "at least 0 and below 0.5")
        self._check("n_sites", self.n_sites, 1 <= self.n_sites <= 100, "a whole number from 1 to 100")
        self._check("site_effect", self.site_effect, 0 <= self.site_effect <= 3, "from 0 to 3")
        valid = self.site_folds in (0, 1) and (self.site_folds == 0 or self.n_sites >= 3)
        self._check("site_folds", self.site_folds, valid, "0, or 1 with n_sites of at least 3")
        self._check("close_free", self.close_free, 0 <= self.close_free <= 1, "from 0 to 1")
        self._check("covariate_strength", self.covariate_strength, 0 <= self.covariate_strength <= 5, "from 0 to 5")

    @property
    def voxel_mm(self) -> tuple[float, float, float]:
        """Voxel size (D, H, W) in mm."""
        d, h, w = (extent / n for extent, n in zip(VOLUME_EXTENT_MM, self.volume_shape, strict=True))
        return d, h, w

    @property
    def pixel_mm(self) -> tuple[float, float]:
        """Size of a clip's pixel (H, W) in mm."""
        h, w = (extent / n for extent, n in zip(CLIP_EXTENT_MM, self.clip_shape[1:], strict=True))
        return h, w

    @staticmethod
    def _check(name: str, value: Any, valid: bool, expected: str) -> None:
        if not valid:
            raise InputError(f"{name} is {value}, but must be {expected}")

    def _check_shape(self, name: str, shape: tuple[int, int, int], least: tuple[int, int, int]) -> None:
        valid = len(shape) == 3 and all(low <= n <= 1024 for n, low in zip(shape, least, strict=False))
        self._check(name, tuple(shape), valid, f"three whole numbers from {least} to 1024")
