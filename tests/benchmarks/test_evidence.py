"""How the evidence of covariates agrees with what all labels of the clips would tell."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from poddistill.losses.unpaired import StudentCohort, TeacherBank


@pytest.fixture
def evidence(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("evidence")


def patients(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Covariates (n, 2) and labels (n,) that follow them."""
    generator = torch.Generator().manual_seed(seed)
    covariates = torch.randn(n, 2, generator=generator)
    return covariates, (torch.rand(n, generator=generator) < (2 * covariates[:, 0]).sigmoid()).float()


@pytest.fixture
def cohort() -> StudentCohort:
    """300 volumes, the first 20 of them labelled."""
    covariates, labels = patients(300, seed=0)
    known = torch.arange(300) < 20
    names = tuple(f"case{i}" for i in range(300))
    everyone = torch.ones(300, dtype=torch.bool)
    return StudentCohort(labels.where(known, torch.nan), ~known, covariates, torch.arange(300), names, everyone)


@pytest.fixture
def bank() -> tuple[TeacherBank, torch.Tensor]:
    """800 clips, the first 60 of them labelled, of a teacher who is far too sure; and their true labels."""
    covariates, truth = patients(800, seed=1)
    outputs = 9 * (1.5 * truth - 0.75 + torch.randn(800, generator=torch.Generator().manual_seed(2)))
    labels = truth.where(torch.arange(800) < 60, torch.nan)
    names = tuple(f"clip{i}" for i in range(800))
    everyone = torch.ones(800, dtype=torch.bool)
    return TeacherBank(outputs, labels, names, outputs[:, None], covariates, 1000 + torch.arange(800), everyone), truth


def test_correlation_and_slope_are_numpys(evidence: ModuleType) -> None:
    rng = np.random.default_rng(0)
    reference = rng.normal(size=50)
    e = 0.4 * reference + rng.normal(size=50) + 3
    correlation, slope = evidence.agreement(e, reference)
    assert correlation == pytest.approx(np.corrcoef(e, reference)[0, 1])
    assert slope == pytest.approx(np.polyfit(reference, e, 1)[0])
    assert evidence.agreement(2 * reference + 1, reference) == pytest.approx((1, 2))


def test_too_sure_a_teacher_weakens_a_regression_and_not_the_order(
    evidence: ModuleType, cohort: StudentCohort, bank: tuple[TeacherBank, torch.Tensor]
) -> None:
    told = evidence.evidence(cohort, *bank)
    assert all(values.shape == (280,) for values in told.values())
    slopes = {way: evidence.agreement(values, told[evidence.ALL])[1] for way, values in told.items()}
    assert slopes[evidence.ALL] == pytest.approx(1)
    assert slopes["teacher"] < 0.8 < slopes["labels-and-order"] < 1.2


def test_outputs_that_are_dealt_tell_less_than_those_of_the_clips(
    evidence: ModuleType, cohort: StudentCohort, bank: tuple[TeacherBank, torch.Tensor]
) -> None:
    told = evidence.evidence(cohort, *bank)
    order, dealt = (
        evidence.agreement(told[way], told[evidence.ALL])[0] for way in ("labels-and-order", evidence.DEALT)
    )
    assert dealt < order


def test_labels_that_are_all_known_are_all_that_could_be_told(
    evidence: ModuleType, cohort: StudentCohort, bank: tuple[TeacherBank, torch.Tensor]
) -> None:
    clips, truth = bank
    told = evidence.evidence(cohort, replace(clips, labels=truth), truth)
    np.testing.assert_array_equal(told["tvus-labels"], told[evidence.ALL])


def test_a_study_without_the_method_is_told(
    evidence: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["evidence.py", str(tmp_path), "--method", "student"])
    with pytest.raises(SystemExit, match=f"error: {tmp_path}: no run of student; name a study's folder"):
        evidence.main()
