"""Predictions from covariates alone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from data_modules.mri import MRIDataModule
from data_modules.tvus import TVUSDataModule
from data_modules.unpaired import UnpairedDataModule
from poddistill.cli import main
from poddistill.evaluation.runs import read_predictions
from poddistill.losses.covariates import CovariateTargets
from poddistill.losses.unpaired import TeacherBank
from poddistill.pod.cohorts import student_cohort
from poddistill.pod.covariate_model import predict_from_covariates

COVARIATES = ["age", "ca125"]
WriteTables = Callable[..., Path]


def manifest(modality: str, n: int, seed: int) -> pd.DataFrame:
    """Cases in 5 folds whose labels follow age and log CA-125 by a logistic model with the weights 1.5 and -1."""
    rng = np.random.default_rng(seed)
    age, ca125 = rng.normal(size=(2, n))
    names = [f"{modality}-{row:03d}" for row in range(n)]
    return pd.DataFrame(
        {
            "case_id": names,
            "patient_id": names,
            "path": [f"{name}.npy" for name in names],
            "label": (rng.random(n) < expit(1.5 * age - ca125 - 0.5)).astype(int),
            "fold": np.arange(n) % 5,
            "age": 35 + 6 * age,
            "ca125": np.exp(3 + ca125),
        }
    )


@pytest.fixture
def write(tmp_path: Path) -> WriteTables:
    """Writes the manifests of 300 volumes, those of 20 without label, and 400 clips; `change` sees both first."""

    def write(change: Callable[[pd.DataFrame, pd.DataFrame], object] = lambda mri, tvus: None) -> Path:
        mri, tvus = manifest("mri", 300, seed=1), manifest("tvus", 400, seed=2)
        mri = mri.astype({"label": "Int64", "fold": "Int64"})
        mri.loc[280:, ["label", "fold"]] = pd.NA
        change(mri, tvus)
        for table, name in ((mri, "mri"), (tvus, "tvus")):
            table.to_csv(tmp_path / f"{name}.csv", index=False)
            for path in table["path"]:
                (tmp_path / path).touch()
        return tmp_path

    return write


def predicted(cohort: Path, **options: object) -> pd.DataFrame:
    file = predict_from_covariates(cohort, COVARIATES, cohort / "run", **options)  # type: ignore[arg-type]
    return read_predictions(file).set_index("case_id")


def slow_scores(values: pd.DataFrame, reference: pd.DataFrame) -> np.ndarray:
    """Normal scores of ranks among the reference, in which no two values are equal."""
    columns = []
    for name in values:
        ordered = np.sort(reference[name])
        ranks = [np.clip(np.interp(value, ordered, np.arange(len(ordered)) + 1), 1, None) for value in values[name]]
        columns.append(norm.ppf(np.array(ranks) / (len(ordered) + 1)))
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("fit_on", ["tvus-labels", "mri-labels"])
def test_a_known_relation_is_recovered_for_held_out_patients(fit_on: str, write: WriteTables) -> None:
    cohort = write()
    table = predicted(cohort, fit_on=fit_on, fold=2)
    mri, tvus = pd.read_csv(cohort / "mri.csv", index_col=0), pd.read_csv(cohort / "tvus.csv", index_col=0)
    assert set(table.index[table["split"] == "test"]) == set(mri.index[mri["fold"] == 2])
    assert set(table.index[table["split"] == "val"]) == set(mri.index[mri["fold"] == 3])
    assert table["label"].equals(mri.loc[table.index, "label"])

    lenders, trained = tvus[~tvus["fold"].isin([2, 3])], mri[~mri["fold"].isin([2, 3])]
    reference = pd.concat([lenders, trained])[COVARIATES]
    source = lenders if fit_on == "tvus-labels" else trained.dropna(subset=["label"])
    model = LogisticRegression(tol=1e-6).fit(slow_scores(source[COVARIATES], reference), source["label"])
    held_out = mri.loc[table.index, COVARIATES]
    expected = model.predict_proba(slow_scores(held_out, reference))[:, 1]
    np.testing.assert_allclose(table["probability"], expected, atol=1e-3)

    truth = 1.5 * (held_out["age"] - 35) / 6 - (np.log(held_out["ca125"]) - 3)
    known = roc_auc_score(table["label"], truth)
    assert roc_auc_score(table["label"], table["probability"]) == pytest.approx(known, abs=0.02)
    assert known > 0.8


def test_held_out_labels_and_other_held_out_patients_change_nobodys_probability(write: WriteTables) -> None:
    def change(mri: pd.DataFrame, tvus: pd.DataFrame) -> None:
        for table in (mri, tvus):
            held_out = table["fold"].isin([0, 1])
            table.loc[held_out, "label"] = 1 - table.loc[held_out, "label"]
        mri.loc[[0, 1], COVARIATES] = [90.0, 1e6]

    for fit_on in ("tvus-labels", "mri-labels"):
        before, after = predicted(write(), fit_on=fit_on), predicted(write(change), fit_on=fit_on)
        same = before.index.difference(["mri-000", "mri-001"])
        assert before.loc[same, "probability"].equals(after.loc[same, "probability"])
        assert after.loc["mri-000", "probability"] != before.loc["mri-000", "probability"]
        assert (after["label"] == 1 - before["label"]).all()


def test_few_labelled_clips_are_drawn_as_for_the_teacher(write: WriteTables) -> None:
    cohort = write()
    few = predicted(cohort, n_labelled_clips=30, seed=5)
    drawn = TVUSDataModule(str(cohort), n_labelled=30, seed=5).manifest

    def only_the_draw(mri: pd.DataFrame, tvus: pd.DataFrame) -> None:
        tvus["label"] = tvus["label"].astype("Int64")
        tvus.loc[drawn["split"].eq("unlabelled"), "label"] = pd.NA

    assert predicted(write(only_the_draw))["probability"].equals(few["probability"])
    assert not predicted(write())["probability"].equals(few["probability"])


def test_the_scale_is_that_of_the_volumes_that_a_student_has(write: WriteTables) -> None:
    cohort = write()
    there = int(MRIDataModule(str(cohort), n_labelled=24, seed=5).manifest["split"].eq("unlabelled").sum())
    few, all_of_them, plain = (
        predicted(cohort, n_labelled=24, seed=5, n_unlabelled=n)["probability"] for n in (3, there, None)
    )
    assert all_of_them.equals(plain)
    assert not few.equals(plain)


def test_the_labels_fitted_on_are_those_of_the_students_and_no_others(write: WriteTables) -> None:
    cohort = write()
    draw = {"n_labelled": 24, "seed": 5, "label_noise": 0.25}
    drawn = MRIDataModule(str(cohort), **draw)  # type: ignore[arg-type]
    labels = drawn.manifest["label"].where(drawn.manifest["split"].eq("train"))
    own, of_clips = predicted(cohort, fit_on="mri-labels", **draw), predicted(cohort, **draw)

    def only_the_draw(mri: pd.DataFrame, tvus: pd.DataFrame) -> None:
        training = ~mri["fold"].isin([0, 1])
        mri.loc[training, "label"] = labels.astype("Int64")[training]
        tvus["label"] = 1 - tvus["label"]

    cohort = write(only_the_draw)
    assert predicted(cohort, fit_on="mri-labels")["probability"].equals(own["probability"])
    mirrored = predicted(cohort)["probability"]
    np.testing.assert_allclose(mirrored, 1 - of_clips["probability"], atol=1e-3)


def test_it_is_the_model_that_covariate_targets_teach(write: WriteTables) -> None:
    def twin(mri: pd.DataFrame, tvus: pd.DataFrame) -> None:
        mri.loc[0, COVARIATES] = mri.loc[2, COVARIATES]

    cohort = write(twin)
    tested, trained = "mri-000", 2
    assert predicted(cohort).loc[tested, "probability"] == pytest.approx(taught(cohort)[trained], abs=1e-6)


def test_a_patient_of_whom_nothing_is_recorded_teaches_nothing(write: WriteTables) -> None:
    def forgotten(mri: pd.DataFrame, tvus: pd.DataFrame) -> None:
        mri.loc[290:294, COVARIATES] = np.nan
        mri.loc[295:, "age"] = np.nan

    assert np.isnan(taught(write(forgotten))[280:]).tolist() == [False] * 10 + [True] * 5 + [False] * 5


def taught(cohort: Path) -> np.ndarray:
    """What `CovariateTargets` teaches of all volumes of a cohort, from the clips' labels."""
    tvus = TVUSDataModule(str(cohort))
    data = UnpairedDataModule(MRIDataModule(str(cohort)), tvus, covariates=COVARIATES)
    clips = tvus.manifest[tvus.manifest["split"] == "train"]
    n = len(clips)
    labels, scores = torch.from_numpy(tvus.train_labels).float(), torch.from_numpy(data.covariate_scores()[1])
    patients, recorded = torch.arange(n), torch.from_numpy(data.covariates_recorded()[1])
    bank = TeacherBank(torch.zeros(n), labels, tuple(clips["case_id"]), torch.zeros(n, 1), scores, patients, recorded)
    transfer = CovariateTargets("tvus-labels", labelled=True)
    transfer.prepare(student_cohort(data), bank)
    return transfer.targets.numpy()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--covariates", "age", "height"], "mri.csv has no covariate height; it must be a column of both manifests"),
        (["--covariates", "age", "--n_labelled", "1"], "n_labelled 1 of mri: a detector needs a case of each class"),
        (["--covariates", "age", "--label_noise", "0.7"], "label_noise is 0.7: give a part from 0 to below 0.5"),
        (["--covariates", "age", "--fold", "7"], "fold 7: the cohort has folds 0 to 4"),
    ],
)
def test_bad_options_are_told_in_one_line(
    options: list[str], message: str, write: WriteTables, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = write()
    assert main(["logistic", "--cohort", str(cohort), "--out", str(cohort / "run"), *options]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (cohort / "run").exists()


def test_the_verb_hands_its_options_on(write: WriteTables) -> None:
    cohort = write()
    options = ["--fit_on", "mri-labels", "--fold", "3", "--seed", "2", "--n_labelled", "30", "--label_noise", "0.1"]
    run = cohort / "seed2-fold3" / "covariates--own"
    assert main(["logistic", "--cohort", str(cohort), "--covariates", *COVARIATES, "--out", str(run), *options]) == 0
    written = read_predictions(run / "predictions.csv").set_index("case_id")
    expected = predicted(cohort, fit_on="mri-labels", fold=3, seed=2, n_labelled=30, label_noise=0.1)
    pd.testing.assert_frame_equal(written, expected)
