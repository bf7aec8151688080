"""Transfer through covariates."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from data_modules.errors import InputError
from poddistill.losses.covariates import CovariateTargets, fit_logistic
from poddistill.losses.unpaired import TeacherBank

NAN = float("nan")


def slow_soft_labels(covariates, targets, penalty, at):
    """Every soft target as 1000 cases, so many of them obliterated."""
    ones = (1000 * targets.double()).round().long().tolist()
    x = np.repeat(covariates.double().numpy(), 1000, axis=0)
    y = np.concatenate([np.arange(1000) < count for count in ones]).astype(int)
    model = LogisticRegression(C=1 / (1000 * penalty), tol=1e-6).fit(x, y)
    return torch.from_numpy(model.predict_proba(at.double().numpy())[:, 1]).float()


def test_soft_labels_are_those_of_a_model_of_the_teacher_and_match_explicit_cases(cohorts):
    bank, cohort, truth = cohorts
    transfer = CovariateTargets(temperature=2.0, penalty=3.0)
    transfer.prepare(cohort, bank)
    expected = slow_soft_labels(bank.covariates, (bank.logits / 2).sigmoid(), 3.0, cohort.covariates)
    torch.testing.assert_close(transfer.targets, expected, atol=1e-3, rtol=0)
    assert roc_auc_score(truth, transfer.targets) > 0.8


def test_labels_of_clips_or_of_the_mri_can_stand_in_for_the_teacher(cohorts):
    bank, cohort, truth = cohorts
    known = ~cohort.labels.isnan()
    for transfer, x, y in (
        (CovariateTargets(fit_on="tvus-labels"), bank.covariates, bank.labels),
        (CovariateTargets("mri-labels"), cohort.covariates[known], cohort.labels[known]),
    ):
        transfer.prepare(cohort, bank if transfer.needs_teacher else None)
        model = LogisticRegression(C=1.0, tol=1e-6).fit(x.numpy(), y.numpy())
        expected = torch.from_numpy(model.predict_proba(cohort.covariates.numpy())[:, 1]).float()
        torch.testing.assert_close(transfer.targets, expected, atol=1e-3, rtol=0)
        assert roc_auc_score(truth, transfer.targets) > 0.75


def test_labels_come_before_the_teacher_who_speaks_for_clips_without(cohorts):
    bank, cohort, _ = cohorts
    hidden = torch.arange(len(bank.labels)) % 3 > 0
    labels = bank.labels.where(~hidden, torch.tensor(NAN))
    transfer = CovariateTargets("labels-and-teacher", temperature=2.0)
    transfer.prepare(cohort, replace(bank, labels=labels))
    told = torch.where(hidden, (bank.logits / 2).sigmoid(), bank.labels)
    expected = slow_soft_labels(bank.covariates, told, 1.0, cohort.covariates)
    torch.testing.assert_close(transfer.targets, expected, atol=1e-3, rtol=0)
    assert transfer.fitted_mean == pytest.approx(told.mean().item())
    assert transfer.needs_teacher and transfer.reads_outputs


def test_log_odds_are_kept_where_a_probability_rounds_to_one(cohorts):
    bank, cohort, _ = cohorts
    transfer = CovariateTargets()
    transfer.prepare(cohort, replace(bank, covariates=bank.covariates / 30))
    torch.testing.assert_close(transfer.log_odds.sigmoid(), transfer.targets)
    weights, intercept = fit_logistic(bank.covariates / 30, bank.logits.sigmoid())
    expected = cohort.covariates.double() @ weights.double() + intercept
    torch.testing.assert_close(transfer.log_odds, expected.float())
    cohort.covariates[:] *= 30
    transfer.prepare(cohort, bank)
    assert (transfer.targets == 1).any()
    assert transfer.log_odds.isfinite().all()


@pytest.mark.parametrize("kind", [CovariateTargets, partial(CovariateTargets, "mri-labels")])
def test_shuffled_soft_labels_are_the_same_values_and_tell_nothing(kind, cohorts):
    bank, cohort, truth = cohorts
    own, first, again = kind(), kind(shuffled=True), kind(shuffled=True)
    for transfer in (own, first, again):
        transfer.prepare(cohort, bank)
    assert torch.equal(first.targets.sort().values, own.targets.sort().values)
    assert torch.equal(first.targets, again.targets)
    assert 0.4 < roc_auc_score(truth, first.targets) < 0.6


def test_the_prevalence_is_met_and_the_order_of_patients_stays(cohorts):
    bank, cohort, _ = cohorts
    fitted, moved = CovariateTargets(), CovariateTargets(prevalence=0.05)
    fitted.prepare(cohort, bank)
    moved.prepare(cohort, bank)
    assert fitted.targets.mean().item() == pytest.approx(0.4, abs=0.06)
    assert moved.targets.mean().item() == pytest.approx(0.05, abs=1e-6)
    shift = moved.targets.logit() - fitted.targets.logit()
    torch.testing.assert_close(shift, shift.mean().expand(len(shift)), atol=1e-3, rtol=0)


def test_validation_and_test_volumes_get_no_soft_label(cohorts):
    bank, cohort, _ = cohorts
    cohort.unlabelled[-100:] = False
    transfer = CovariateTargets(prevalence=0.2)
    transfer.prepare(cohort, bank)
    assert transfer.targets[-100:].isnan().all()
    assert transfer.targets[:-100].mean().item() == pytest.approx(0.2, abs=1e-6)


def test_volumes_without_any_covariate_teach_nothing(cohorts, make_student):
    """The model is the same, and the loss that of the others."""
    bank, cohort, _ = cohorts
    whole, part = CovariateTargets("mri-labels"), CovariateTargets("mri-labels")
    whole.prepare(cohort, bank)
    cohort.recorded[50:] = False
    part.prepare(cohort, bank)
    assert part.targets[50:].isnan().all()
    torch.testing.assert_close(part.targets[:50], whole.targets[:50])
    logits = torch.linspace(-1, 1, 60)
    truth = [0.0] * 40 + [NAN] * 20
    expected = whole(make_student(truth, logits).rows(torch.arange(60) < 50), bank)
    torch.testing.assert_close(part(make_student(truth, logits), bank), expected)
    cohort.recorded[:20] = False  # nor do they take part in the model
    part.prepare(cohort, bank)
    weights, intercept = fit_logistic(cohort.covariates[20:40], cohort.labels[20:40])
    torch.testing.assert_close(part.targets[40:50], (cohort.covariates[40:50] @ weights + intercept).sigmoid())
    cohort.recorded[40:] = False
    with pytest.raises(InputError, match=r"no unlabelled volume with covariates: give unlabelled patients a row"):
        part.prepare(cohort, bank)


@pytest.mark.parametrize(("labelled", "rows"), [(False, [1, 3]), (True, [0, 1, 2, 3])])
def test_the_loss_is_the_cross_entropy_of_the_intended_volumes_alone(labelled, rows, cohorts, make_student):
    bank, cohort, _ = cohorts
    transfer = CovariateTargets(labelled=labelled)
    transfer.prepare(cohort, bank)
    logits = torch.tensor([0.3, -1.0, 2.0, 0.7], requires_grad=True)
    loss = transfer(make_student([1.0, NAN, 0.0, NAN], logits), bank)
    loss.backward()
    q, p = transfer.targets[rows], logits.detach()[rows].sigmoid()
    assert loss.item() == pytest.approx(-(q * p.log() + (1 - q) * (1 - p).log()).mean().item(), rel=1e-5)
    expected = torch.zeros(4).index_put((torch.tensor(rows),), (p - q) / len(rows))
    torch.testing.assert_close(logits.grad, expected)


def test_a_batch_of_labelled_volumes_adds_nothing_and_keeps_a_gradient(cohorts, make_student):
    _, cohort, _ = cohorts
    transfer = CovariateTargets("mri-labels")
    transfer.prepare(cohort, None)
    logits = torch.zeros(2, requires_grad=True)
    loss = transfer(make_student([1.0, 0.0], logits), None)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.tolist() == [0, 0]


@pytest.mark.parametrize("fit_on", ["teacher", "tvus-labels"])
def test_clips_without_any_covariate_take_no_part_in_the_model(fit_on, cohorts):
    bank, cohort, _ = cohorts
    recorded = torch.arange(len(bank.logits)) % 3 > 0
    some, whole = CovariateTargets(fit_on), CovariateTargets(fit_on)
    some.prepare(cohort, replace(bank, recorded=recorded))
    part = {name: getattr(bank, name)[recorded] for name in ("logits", "labels", "features", "covariates", "patients")}
    names = tuple(name for name, known in zip(bank.case_ids, recorded, strict=True) if known)
    whole.prepare(cohort, TeacherBank(case_ids=names, recorded=recorded[recorded], **part))
    torch.testing.assert_close(some.targets, whole.targets, equal_nan=True)
    assert some.fitted_mean == whole.fitted_mean
    with pytest.raises(InputError, match="fill in the covariates' columns"):
        some.prepare(cohort, replace(bank, recorded=torch.zeros_like(recorded)))


def test_targets_tell_what_they_lack(cohorts, make_bank, make_cohort):
    bank, cohort, _ = cohorts
    with pytest.raises(InputError, match=r"profile\.covariates"):
        CovariateTargets().prepare(cohort, make_bank([0.0, 1.0]))
    with pytest.raises(InputError, match="no unlabelled volume"):
        CovariateTargets().prepare(make_cohort([0.0, 1.0], covariates=torch.zeros(2, 3)), bank)
    with pytest.raises(InputError, match="whose covariates are recorded, but there are 2 with 2 obliterated"):
        CovariateTargets("mri-labels").prepare(make_cohort([1.0, 1.0, NAN], covariates=torch.zeros(3, 3)), None)


@pytest.mark.parametrize(
    "make",
    [
        lambda: CovariateTargets(fit_on="mri"),
        lambda: CovariateTargets(temperature=0.0),
        lambda: CovariateTargets(penalty=0.0),
        lambda: CovariateTargets(prevalence=1.0),
    ],
)
def test_bad_options_are_told_in_one_line(make):
    with pytest.raises(InputError, match=r"^[^\n]+ is [^\n]+: (give|choose) [^\n]+$"):
        make()
