"""Pairs of patients with like covariates."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from data_modules.errors import InputError
from poddistill.losses.covariate_pairing import CovariatePairing

NAN = float("nan")


@pytest.mark.parametrize("by", ["distance", "propensity"])
@pytest.mark.parametrize("match_labels", [True, False])
def test_pairs_are_drawn_evenly_from_the_nearest_clips(by, match_labels, make_bank, make_student, draw_patients):
    labels, covariates = draw_patients(40, seed=4)
    bank = make_bank(labels.tolist(), covariates=covariates)
    wanted, own = draw_patients(3, seed=5)
    student = make_student(wanted.repeat(1000), covariates=own.repeat(1000, 1))
    pairing = CovariatePairing(neighbours=4, match_labels=match_labels, by=by)
    index = pairing(student, bank, torch.Generator().manual_seed(0))
    score = LogisticRegression(tol=1e-6).fit(covariates.numpy(), labels.numpy())
    for i in range(3):
        if by == "distance":
            away = ((covariates - own[i]) ** 2).sum(1).numpy()
        else:
            away = np.abs(score.decision_function(covariates.numpy()) - score.decision_function(own[i : i + 1].numpy()))
        offered = [j for j in np.argsort(away).tolist() if not match_labels or labels[j] == wanted[i]]
        drawn = index[i::3].bincount(minlength=40)
        assert set(drawn.nonzero().flatten().tolist()) == set(offered[:4])
        assert drawn[offered[:4]].min() > 200


def test_clips_as_near_as_each_other_are_drawn_alike(make_bank, make_student):
    """A yes-or-no covariate: a hundred clips are at the same place, and none may be left out."""
    bank = make_bank([1.0] * 100, covariates=torch.ones(100, 1))
    student = make_student([1.0], covariates=torch.ones(1, 1))
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([CovariatePairing(neighbours=2)(student, bank, generator) for _ in range(1500)])
    assert len(drawn.unique()) == 100


def test_the_score_is_fitted_anew_for_another_bank(make_bank, make_student):
    covariates = torch.tensor([[-2.0, 1.0], [-1.0, -1.0], [1.0, 1.0], [2.0, -1.0]])
    student = make_student([NAN], covariates=torch.tensor([[2.0, 1.1]]))
    pairing = CovariatePairing(neighbours=1, match_labels=False, by="propensity")
    by_first = pairing(student, make_bank([0.0, 0.0, 1.0, 1.0], covariates=covariates))
    by_second = pairing(student, make_bank([1.0, 0.0, 1.0, 0.0], covariates=covariates))
    assert by_first.item() == 3
    assert by_second.item() in (0, 2)


def test_fewer_clips_than_neighbours_will_do(make_bank, make_student):
    bank = make_bank([1.0, 0.0, 1.0], covariates=torch.rand(3, 2))
    index = CovariatePairing(neighbours=5)(make_student([1.0, 0.0], covariates=torch.rand(2, 2)), bank)
    assert index[0].item() in (0, 2)
    assert index[1].item() == 1


@pytest.mark.parametrize("by", ["distance", "propensity"])
@pytest.mark.parametrize("match_labels", [True, False])
def test_without_covariates_there_is_no_nearness(by, match_labels, make_bank, make_student, draw_patients):
    """Clips without any are next to the first MRI and the last MRI has none; both come after what is recorded."""
    labels, covariates = draw_patients(30, seed=6)
    recorded = torch.arange(30) % 3 > 0
    covariates[~recorded] = 0
    bank = make_bank(labels.tolist(), covariates=covariates, recorded=recorded.tolist())
    own = torch.tensor([[0.001, 0.0, 0.0], [0.0, 0.0, 0.0]])
    student = make_student([1.0] * 2000, covariates=own.repeat(1000, 1))
    pairing = CovariatePairing(neighbours=3, match_labels=match_labels, by=by)
    index = pairing(student, bank, torch.Generator().manual_seed(0))
    allowed = (labels == 1) | (not match_labels)
    offered = (allowed & recorded).nonzero().flatten()
    away = covariates - own[0]
    if by == "propensity":
        score = LogisticRegression(tol=1e-6).fit(covariates[recorded].numpy(), labels[recorded].numpy())
        away = away @ torch.from_numpy(score.coef_[0]).float()[:, None]
    near = offered[away[offered].square().sum(1).argsort()[:3]]
    assert set(index[0::2].tolist()) == set(near.tolist())
    assert torch.equal(index[1::2].unique(), allowed.nonzero().flatten())


def test_covariates_of_clips_that_have_none_are_told(make_bank, make_student):
    bank = make_bank([0.0, 1.0], covariates=torch.tensor([[0.5], [0.0]]), recorded=[True, False])
    student = make_student([1.0], covariates=torch.ones(1, 1))
    with pytest.raises(InputError, match=r"no TVUS training clip with label 1 has any covariate.*fill in the"):
        CovariatePairing()(student, bank)
    assert CovariatePairing(match_labels=False)(student, bank).tolist() == [0]
    assert CovariatePairing()(make_student([1.0], covariates=torch.zeros(1, 1)), bank).tolist() == [1]
    nothing = make_bank([0.0, 1.0], covariates=torch.zeros(2, 1), recorded=[False, False])
    with pytest.raises(InputError, match=r"no TVUS training clip has any covariate.*fill in the"):
        CovariatePairing(match_labels=False)(student, nothing)
    with pytest.raises(InputError, match="cases of both labels whose covariates are recorded"):
        CovariatePairing(by="propensity")(student, bank)


def test_pairing_tells_what_it_lacks(make_bank, make_student):
    with pytest.raises(InputError, match=r"profile\.covariates"):
        CovariatePairing()(make_student([1.0]), make_bank([1.0]))
    bank = make_bank([0.0, 0.0], covariates=torch.zeros(2, 1))
    with pytest.raises(InputError, match="MRI without label"):
        CovariatePairing()(make_student([NAN], covariates=torch.zeros(1, 1)), bank)
    with pytest.raises(InputError, match="no TVUS training clip has label 1"):
        CovariatePairing()(make_student([1.0], covariates=torch.zeros(1, 1)), bank)
    with pytest.raises(InputError, match="both labels"):
        CovariatePairing(by="propensity")(make_student([0.0], covariates=torch.zeros(1, 1)), bank)


@pytest.mark.parametrize("make", [lambda: CovariatePairing(neighbours=0), lambda: CovariatePairing(by="age")])
def test_bad_options_are_told_in_one_line(make):
    with pytest.raises(InputError, match=r"^[^\n]+ is [^\n]+: (give|choose) [^\n]+$"):
        make()
