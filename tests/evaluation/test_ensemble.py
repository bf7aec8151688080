"""The mean of several trainings."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from data_modules.errors import InputError
from poddistill.evaluation.ensemble import ensemble


def test_an_ensemble_is_the_mean_of_logits_by_case(write_run, tmp_path):
    runs = [write_run("student", seed=seed) for seed in range(3)]
    shuffled = pd.read_csv(runs[1] / "predictions.csv").sample(frac=1, random_state=0)
    shuffled.to_csv(runs[1] / "predictions.csv", index=False)
    file = ensemble(runs, tmp_path / "runs" / "seed0-fold0" / "student-ensemble")
    mean = pd.read_csv(file).set_index("case_id")
    tables = [pd.read_csv(run / "predictions.csv").set_index("case_id").loc[mean.index] for run in runs]
    expected = expit(np.mean([logit(table["probability"]) for table in tables], axis=0))
    np.testing.assert_allclose(mean["probability"], expected, rtol=1e-6)
    for column in ("patient_id", "split", "label"):
        assert mean[column].equals(tables[0][column])


def test_a_member_that_is_certain_does_not_decide_alone(write_run, tmp_path):
    runs = [write_run("student", seed=seed) for seed in range(2)]
    table = pd.read_csv(runs[0] / "predictions.csv").assign(probability=1.0)
    table.to_csv(runs[0] / "predictions.csv", index=False)
    assert pd.read_csv(ensemble(runs, tmp_path / "out"))["probability"].between(0, 1, inclusive="neither").all()


def test_members_must_be_several_and_of_the_same_cases(write_run, tmp_path):
    first, other = write_run("student"), write_run("student", fold=1)
    with pytest.raises(InputError, match="an ensemble needs at least 2 runs, not 1"):
        ensemble([first], tmp_path / "out")
    with pytest.raises(InputError, match="have other cases, labels or splits; average runs of one cohort and fold"):
        ensemble([first, other], tmp_path / "out")
    with pytest.raises(InputError, match="student is named twice: an ensemble needs different runs"):
        ensemble([first, first.parent / "." / "student"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_member_is_not_written_over(write_run, tmp_path):
    runs = [write_run("student", seed=seed) for seed in range(2)]
    before = (runs[0] / "predictions.csv").read_bytes()
    with pytest.raises(InputError, match=r"student is a run that it is made of, and would be lost"):
        ensemble(runs, runs[0])
    assert (runs[0] / "predictions.csv").read_bytes() == before
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file: cannot write there .*; give another --out folder"):
        ensemble(runs, tmp_path / "file")
