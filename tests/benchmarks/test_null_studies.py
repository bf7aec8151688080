"""Studies in which no method differs."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from poddistill.evaluation.runs import find_runs
from poddistill.evaluation.scores import score_methods

METHODS = ["student-mae", "student", "student--dealt"]


@pytest.fixture
def null_studies(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("null_studies")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Six cohorts of 40 test cases, in which the student is far better than the others."""
    rng = np.random.default_rng(0)
    label = np.tile([1, 0], 20)
    for cohort in range(6):
        ids = [f"c{cohort}p{number:02d}" for number in range(40)]
        for method in METHODS:
            run = tmp_path / f"cohort{cohort}" / f"seed{cohort}-fold0" / method
            run.mkdir(parents=True)
            score = rng.uniform(size=40) + (label if method == "student" else 0)
            table = pd.DataFrame({"case_id": ids, "patient_id": ids, "split": "test", "label": label})
            table.assign(probability=score / 2).to_csv(run / "predictions.csv", index=False)
    return tmp_path


def test_names_are_dealt_within_a_cohort(null_studies: ModuleType, study: Path) -> None:
    scored, _ = score_methods(find_runs([study]), resamples=2, bootstrap_seed=0)
    dealt = null_studies.dealt(scored, np.random.default_rng(0))
    assert [method.name for method in dealt] == [method.name for method in scored]
    bearers = set()
    for key in scored[0].folds:
        given = [next(m.name for m in scored if m.folds[key] is other.folds[key]) for other in dealt]
        assert sorted(given) == sorted(METHODS), "each of the cohort's runs once"
        bearers.add(given[0])
    assert len(bearers) > 1, "another one in another cohort"


def test_a_true_difference_is_gone(
    null_studies: ModuleType, study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["null_studies.py", str(study), *METHODS, "--studies", "40"])
    null_studies.main()
    printed = capsys.readouterr().out
    (share,) = (line.split("|")[2] for line in printed.splitlines() if "and over its controls" in line)
    assert float(share.strip().rstrip("%")) <= 15
