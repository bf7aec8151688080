"""Volumes and clips of which only what a loss looks at is told."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from poddistill.losses.unpaired import StudentBatch, StudentCohort, TeacherBank

MakeBank = Callable[..., TeacherBank]
MakeStudent = Callable[..., StudentBatch]
MakeCohort = Callable[..., StudentCohort]
DrawPatients = Callable[..., tuple[Tensor, Tensor]]


def _column(values: Sequence[float] | Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)


@pytest.fixture
def make_bank() -> MakeBank:
    """A bank of clips with these labels: logits 0, 1, 2, ..., the logit as feature, patients 1000, 1001, ..."""

    def make(
        labels: Sequence[float],
        logits: Sequence[float] | Tensor | None = None,
        features: Tensor | None = None,
        covariates: Tensor | None = None,
        patients: Sequence[int] | None = None,
        recorded: Sequence[bool] | None = None,
    ) -> TeacherBank:
        n = len(labels)
        outputs = torch.arange(n, dtype=torch.float32) if logits is None else _column(logits)
        return TeacherBank(
            outputs,
            _column(labels),
            tuple(f"clip{i}" for i in range(n)),
            outputs[:, None] if features is None else features,
            torch.zeros(n, 0) if covariates is None else covariates,
            1000 + torch.arange(n) if patients is None else torch.tensor(patients),
            torch.ones(n, dtype=torch.bool) if recorded is None else torch.tensor(recorded),
        )

    return make


@pytest.fixture
def make_student() -> MakeStudent:
    """A batch of volumes with these labels, rows 0, 1, 2, ... of the manifest; logits 0 by default."""

    def make(
        labels: Sequence[float] | Tensor,
        logits: Sequence[float] | Tensor | None = None,
        features: Tensor | None = None,
        covariates: Tensor | None = None,
    ) -> StudentBatch:
        n = len(labels)
        outputs = torch.zeros(n) if logits is None else torch.as_tensor(logits, dtype=torch.float32)
        return StudentBatch(
            outputs,
            outputs[:, None] if features is None else features,
            _column(labels),
            torch.zeros(n, 0) if covariates is None else covariates,
            torch.arange(n),
        )

    return make


@pytest.fixture
def make_cohort() -> MakeCohort:
    """A cohort of volumes with these labels, of patients 0, 1, 2, ...; those without are unlabelled."""

    def make(labels: Sequence[float], covariates: Tensor | None = None) -> StudentCohort:
        known = _column(labels)
        n = len(known)
        return StudentCohort(
            known,
            known.isnan(),
            torch.zeros(n, 0) if covariates is None else covariates,
            torch.arange(n),
            tuple(f"case{i}" for i in range(n)),
            torch.ones(n, dtype=torch.bool),
        )

    return make


@pytest.fixture
def draw_patients() -> DrawPatients:
    """Labels (n,) and covariates (n, 3), of which the first alone tells the label."""

    def draw(n: int, seed: int, prevalence: float = 0.4) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        labels = (torch.rand(n, generator=generator) < prevalence).float()
        covariates = torch.randn(n, 3, generator=generator)
        covariates[:, 0] += 1.5 * labels
        return labels, covariates

    return draw


@pytest.fixture
def cohorts(
    make_bank: MakeBank, make_cohort: MakeCohort, draw_patients: DrawPatients
) -> tuple[TeacherBank, StudentCohort, Tensor]:
    """400 clips whose logits follow the label; 40 labelled and 600 unlabelled MRI; what labels those have."""
    labels, covariates = draw_patients(400, seed=1)
    noise = torch.randn(400, generator=torch.Generator().manual_seed(2))
    bank = make_bank(labels.tolist(), logits=3 * (2 * labels - 1) + noise, covariates=covariates)
    truth, own = draw_patients(640, seed=3)
    known = torch.where(torch.arange(640) < 40, truth, float("nan"))
    return bank, make_cohort(known.tolist(), covariates=own), truth
