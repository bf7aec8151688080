"""Covariates of both cohorts on one scale."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from data_modules.errors import InputError
from data_modules.mri import MRIDataModule
from data_modules.tvus import TVUSDataModule
from data_modules.unpaired import UnpairedDataModule

WriteCohort = Callable[..., Path]
VOLUMES, CLIPS = 66, 32  # that `write_cohort` writes


def write_pain(cohort: Path, mri: list[float], tvus: list[float]) -> None:
    for modality, values in (("mri", mri), ("tvus", tvus)):
        table = pd.read_csv(cohort / f"{modality}.csv", dtype={"label": "Int64", "fold": "Int64"})
        table["pain"] = values
        table.to_csv(cohort / f"{modality}.csv", index=False)


def unpaired(cohort: Path, *covariates: str) -> UnpairedDataModule:
    return UnpairedDataModule(MRIDataModule(str(cohort)), TVUSDataModule(str(cohort)), covariates=list(covariates))


def test_scores_are_normal_scores_of_ranks_over_the_training_cases_of_both_cohorts(write_cohort: WriteCohort) -> None:
    cohort = write_cohort()
    rng = np.random.default_rng(0)
    mri, tvus = rng.lognormal(size=VOLUMES), rng.lognormal(size=CLIPS)
    write_pain(cohort, mri.tolist(), tvus.tolist())
    data = unpaired(cohort, "pain")
    volumes, clips = data.covariate_scores()
    training = data.manifest["split"].isin(["train", "unlabelled"]).to_numpy()
    lenders = data.tvus.manifest["split"].eq("train").to_numpy()  # type: ignore[union-attr]
    pool = np.concatenate([mri[training], tvus[lenders]])
    for values, scores in ((mri[training], volumes[training, 0]), (tvus[lenders], clips[:, 0])):
        expected = [norm.ppf((pool <= value).sum() / (len(pool) + 1)) for value in values]
        np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert (volumes[~training] == 0).all()


def test_equal_values_share_a_score_and_a_missing_one_is_the_middle(write_cohort: WriteCohort) -> None:
    cohort = write_cohort()
    write_pain(cohort, [0.0, np.nan, 1.0] * (VOLUMES // 3), [0.0, 1.0] * (CLIPS // 2))
    data = unpaired(cohort, "pain", "age")
    volumes, _ = data.covariate_scores()
    training = data.manifest["split"].isin(["train", "unlabelled"]).to_numpy()
    pain = data.manifest["pain"].to_numpy()
    assert len(set(volumes[training & (pain == 0), 0])) == len(set(volumes[training & (pain == 1), 0])) == 1
    assert (volumes[training & np.isnan(pain), 0] == 0).all()
    np.testing.assert_allclose(volumes[:, 1], 0, atol=1e-6)  # all have the same age


def test_a_held_out_volume_is_ranked_among_training_cases_by_itself(write_cohort: WriteCohort) -> None:
    cohort = write_cohort()
    rng = np.random.default_rng(0)
    mri, tvus = rng.normal(size=VOLUMES).round(1), rng.normal(size=CLIPS).round(1)  # some are equal
    write_pain(cohort, mri.tolist(), tvus.tolist())
    data = unpaired(cohort, "pain")
    training = data.manifest["split"].isin(["train", "unlabelled"]).to_numpy()
    lenders = data.tvus.manifest["split"].eq("train").to_numpy()  # type: ignore[union-attr]
    pool = np.concatenate([mri[training], tvus[lenders]])
    inside, low, high, missing, equal, other = np.flatnonzero(~training)[:6]
    below, above = np.unique(pool)[4:6]
    mri[[inside, low, high, missing, equal]] = 0.75 * below + 0.25 * above, -1e9, 1e9, np.nan, below
    write_pain(cohort, mri.tolist(), tvus.tolist())
    volumes, clips = unpaired(cohort, "pain").covariate_scores(held_out=True)
    trained, same_clips = unpaired(cohort, "pain").covariate_scores()
    assert (volumes[training] == trained[training]).all()
    assert (clips == same_clips).all()

    def rank(value: float) -> float:
        return (pool < value).sum() + ((pool == value).sum() + 1) / 2

    ranks = {inside: 0.75 * rank(below) + 0.25 * rank(above), low: rank(pool.min()), high: rank(pool.max())}
    for row, expected in {**ranks, equal: rank(below), missing: (len(pool) + 1) / 2}.items():
        assert volumes[row, 0] == pytest.approx(norm.ppf(expected / (len(pool) + 1)), abs=1e-5)
    mri[[inside, low, high, missing, equal]] = 0.0
    write_pain(cohort, mri.tolist(), tvus.tolist())
    assert unpaired(cohort, "pain").covariate_scores(held_out=True)[0][other, 0] == volumes[other, 0]


def test_without_covariates_there_are_no_columns(write_cohort: WriteCohort) -> None:
    volumes, clips = unpaired(write_cohort()).covariate_scores()
    assert volumes.shape == (VOLUMES, 0)
    assert clips.shape[1] == 0


def test_a_covariate_that_a_manifest_lacks_is_named(write_cohort: WriteCohort) -> None:
    with pytest.raises(InputError, match=r"data\.covariates: .*mri\.csv has no covariate ca125"):
        unpaired(write_cohort(), "age", "ca125")
    with pytest.raises(InputError, match="has no covariate label"):
        unpaired(write_cohort(), "label")
