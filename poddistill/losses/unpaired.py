"""What the two cohorts bring to unpaired distillation: the teacher's clips, and the student's volumes."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from data_modules.errors import InputError


@dataclass(frozen=True, eq=False)
class TeacherBank:
    """The frozen teacher's outputs on the training clips.

    Attributes:
        logits: float32 (N,), finite.
        labels: float32 (N,), 1 = POD obliterated, 0 = free, nan = unlabelled.
        case_ids: The N clips' case ids.
        features: float32 (N, F), finite: what the teacher's head reads.
        covariates: float32 (N, C), finite, on the scale of the student's; C is 0 where none are used.
        patients: int64 (N,), a number a patient, the same in both cohorts.
        recorded: bool (N,), whether any covariate of the clip's patient is known.

    Raises:
        InputError: There is no clip, the lengths differ, or an output is not finite.
    """

    logits: Tensor
    labels: Tensor
    case_ids: tuple[str, ...]
    features: Tensor
    covariates: Tensor
    patients: Tensor
    recorded: Tensor

    def __post_init__(self) -> None:
        n = len(self.case_ids)
        if n == 0:
            raise InputError("the teacher's bank is empty: the TVUS training split needs at least one clip")
        shapes = {
            name: tuple(getattr(self, name).shape)
            for name in ("logits", "labels", "features", "covariates", "patients", "recorded")
        }
        if any(
            shape[:1] != (n,) or len(shape) != 1 + (name in ("features", "covariates"))
            for name, shape in shapes.items()
        ):
            told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise InputError(f"the teacher's bank has {n} case_ids but {told}: give one of each a clip")
        finite = self.logits.isfinite() & self.features.isfinite().all(1)
        if not finite.all():
            worst = self.case_ids[int(finite.logical_not().nonzero()[0])]
            raise InputError(f"the teacher's output on {worst} is not finite: train the teacher again")

    def labelled(self, label: int) -> Tensor:
        """Returns int64 (n,), the rows of the clips with a label."""
        return (self.labels == label).nonzero().flatten()

    def rows(self, chosen: Tensor) -> "TeacherBank":
        """Returns the clips that a bool (N,) chooses, at least one."""
        names = tuple(self.case_ids[row] for row in chosen.nonzero().flatten().tolist())
        told = {name: value[chosen] for name, value in vars(self).items() if name != "case_ids"}
        return TeacherBank(case_ids=names, **told)


@dataclass(frozen=True, eq=False)
class StudentBatch:
    """What the student makes of a batch of MRI volumes, and what is known of them.

    Attributes:
        logits: float32 (B,).
        features: (B, width): what the student's head reads.
        labels: float32 (B,), 1 = POD obliterated, 0 = free, nan = unlabelled.
        covariates: float32 (B, C), finite; C is 0 where none are used.
        index: int64 (B,), the volumes' rows in the manifest.
        volumes: float32 (B, 1, D, H, W) in [0, 1], as the student saw them; None where only its answers count.
    """

    logits: Tensor
    features: Tensor
    labels: Tensor
    covariates: Tensor
    index: Tensor
    volumes: Tensor | None = None

    def __len__(self) -> int:
        return len(self.logits)

    def rows(self, chosen: Tensor) -> "StudentBatch":
        """Returns the part of the batch that a bool (B,) or int64 (n,) chooses."""
        if chosen.dtype == torch.bool:
            chosen = chosen.nonzero().flatten()  # the one wait for a GPU: each mask would be counted anew
        known = {name: value for name, value in vars(self).items() if value is not None}
        return replace(self, **{name: value[chosen] for name, value in known.items()})


@dataclass(frozen=True, eq=False)
class StudentCohort:
    """What is known of all MRI volumes before training; validation and test cases have no label and no covariates here.

    Attributes:
        labels: float32 (M,), those that are trained on; nan for every other volume.
        unlabelled: bool (M,), volumes that may lend their image.
        covariates: float32 (M, C), finite; 0 for validation and test cases, and where a covariate is missing.
        patients: int64 (M,), a number a patient, the same in both cohorts.
        case_ids: The M volumes' case ids, in the order of the manifest.
        recorded: bool (M,), whether any covariate of the volume's patient is known.
    """

    labels: Tensor
    unlabelled: Tensor
    covariates: Tensor
    patients: Tensor
    case_ids: tuple[str, ...]
    recorded: Tensor


def no_covariates(n: int) -> Tensor:
    """Returns (n, 0), the covariates of n cases where none are used."""
    return torch.empty(n, 0)
