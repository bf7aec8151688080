"""Transfer through covariates, the label being hidden."""

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, minimize
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn.metrics import roc_auc_score
from torch.testing import assert_close

from data_modules.errors import InputError
from poddistill.losses.covariate_likelihood import CovariateLikelihood
from poddistill.losses.covariates import CovariateTargets, fit_logistic
from poddistill.losses.labels import WeightedBCE

NAN = float("nan")


def prepared(transfer, cohort, bank):
    transfer.prepare(cohort, bank)
    return transfer


def unlabelled_batch(make_student, logits, start=40):
    batch = make_student([NAN] * len(logits), logits)
    batch.index.copy_(torch.arange(start, start + len(logits)))
    return batch


@pytest.mark.parametrize("fit_on", ["teacher", "tvus-labels", "mri-labels"])
def test_the_loss_is_the_likelihood_of_covariates_summed_over_the_label(fit_on, cohorts, make_student):
    bank, cohort, _ = cohorts
    transfer = prepared(CovariateLikelihood(fit_on, penalty=2.0), cohort, bank)
    targets = prepared(CovariateTargets(fit_on, penalty=2.0), cohort, bank)
    q = targets.targets[40:140].double()
    fitted_on = {"teacher": bank.logits.sigmoid(), "tvus-labels": bank.labels, "mri-labels": cohort.labels[:40]}
    pi = fitted_on[fit_on].double().mean()
    s = torch.linspace(-4, 4, 100).sigmoid().double()
    # By Bayes p(x | y = 1) / p(x) is q / pi. What does not depend on the student is left out: p(x | y = 0) / p(x).
    likelihood = (s * q / pi + (1 - s) * (1 - q) / (1 - pi)) / ((1 - q) / (1 - pi))
    loss = transfer(unlabelled_batch(make_student, torch.linspace(-4, 4, 100)), bank)
    assert loss.item() == pytest.approx(-likelihood.log().mean().item(), rel=1e-4)


def test_a_student_who_knows_nothing_is_taught_like_by_soft_labels_and_a_sure_one_is_left_alone(cohorts, make_student):
    bank, cohort, _ = cohorts
    transfer, targets = (prepared(kind(), cohort, bank) for kind in (CovariateLikelihood, CovariateTargets))

    def gradient(loss, logit):
        logits = torch.full((50,), logit, requires_grad=True)
        loss(unlabelled_batch(make_student, logits), bank).backward()
        return logits.grad

    ignorant = bank.logits.sigmoid().mean().logit().item()
    assert_close(gradient(transfer, ignorant), gradient(targets, ignorant), rtol=1e-3, atol=1e-6)
    assert gradient(transfer, 9.0).abs().max() < 0.02 * gradient(targets, 9.0).abs().max()


def test_a_student_who_learns_from_covariates_alone_says_the_probability_of_the_label(cohorts, make_student):
    """A logistic regression of an image's one feature; the soft labels' own student can only repeat their hedging."""
    bank, cohort, truth = cohorts
    unlabelled = truth[40:].numpy()
    feature = np.random.default_rng(0).normal(2 * unlabelled - 1, 1.0)  # log odds: 2 feature + log(.4 / .6)

    def slope(transfer):
        def loss(theta):
            logits = torch.tensor(theta[0] + theta[1] * feature, dtype=torch.float32)
            return transfer(unlabelled_batch(make_student, logits), bank).item()

        return minimize(loss, [0.0, 0.1], method="Nelder-Mead").x[1]

    likelihood, targets = (
        prepared(kind("tvus-labels"), cohort, bank) for kind in (CovariateLikelihood, CovariateTargets)
    )
    assert slope(likelihood) == pytest.approx(2.0, abs=0.5)
    assert slope(targets) < 1.0


@pytest.mark.parametrize("pos_weight", [None, "balanced"])
def test_weights_of_the_classes_shift_what_exact_evidence_and_labels_teach_and_keep_its_order(pos_weight, make_student):
    """Of volumes with a probability r of obliteration, where one in four is obliterated and e is N(+-1/2, 1)."""
    spread = norm.ppf((np.arange(400) + 0.5) / 400)
    likelihood, labels = CovariateLikelihood("mri-labels"), WeightedBCE(pos_weight)
    likelihood.evidence = torch.tensor(np.concatenate([spread - 0.5, spread + 0.5]), dtype=torch.float32)
    labels.prepare(torch.tensor([0.0, 0.0, 0.0, 1.0]))

    def best(r, weight):
        def slope(s):
            student, parts = torch.tensor(s, requires_grad=True), []
            for y, share in ((0, 1 - r), (1, r)):
                evidence = unlabelled_batch(make_student, student.expand(400), start=400 * y)
                label = labels(student.expand(1), torch.tensor([float(y)]))
                parts.append(share * (weight * likelihood(evidence, None) + (1 - weight) * label))
            return torch.autograd.grad(sum(parts), student)[0].item()

        return brentq(slope, -10.0, 10.0, xtol=1e-4)

    r = [0.05, 0.25, 0.5, 0.75, 0.95]
    truth = logit(r)
    alone, together, last = (np.array([best(each, weight) for each in r]) for weight in (0.999, 0.7, 0.0))
    assert alone == pytest.approx(truth, abs=0.05)
    most = 0.0 if pos_weight is None else np.log(3)
    assert last == pytest.approx(truth + most, abs=0.01)
    if pos_weight is None:
        assert together == pytest.approx(truth, abs=0.01)
    else:
        assert (together - truth > 0.7).all() and (together - truth < 1.05).all()
    assert (np.diff(together) > 0).all()


def test_evidence_does_not_depend_on_how_frequent_the_disease_is_among_the_clips(cohorts, make_bank, draw_patients):
    _, cohort, _ = cohorts
    banks = []
    for prevalence in (0.1, 0.5):
        labels, covariates = draw_patients(20000, seed=4, prevalence=prevalence)
        banks.append(make_bank(labels.tolist(), covariates=covariates))
    rare, frequent = (prepared(CovariateLikelihood("tvus-labels"), cohort, bank).evidence[40:] for bank in banks)
    assert_close(rare, frequent, atol=0.3, rtol=0)
    assert frequent.std() > 1


def test_shuffled_evidence_is_the_same_values_and_tells_nothing(cohorts):
    bank, cohort, truth = cohorts
    cohort.labels[:40] = NAN  # volumes of no part, so that all that is dealt is seen
    own, shuffled = (
        prepared(CovariateLikelihood(shuffled=dealt), cohort, bank).evidence[40:] for dealt in (False, True)
    )
    assert_close(own.sort().values, shuffled.sort().values)
    assert roc_auc_score(truth[40:], own) > 0.8
    assert 0.4 < roc_auc_score(truth[40:], shuffled) < 0.6


def test_only_unlabelled_volumes_that_train_take_part(cohorts, make_student):
    bank, cohort, _ = cohorts
    transfer = prepared(CovariateLikelihood("mri-labels"), cohort, None)
    logits = torch.tensor([0.5, -1.0, 0.2], requires_grad=True)
    batch = make_student([1.0, NAN, 0.0], logits)
    batch.index.copy_(torch.tensor([3, 50, 4]))
    loss = transfer(batch, bank)
    loss.backward()
    e = transfer.evidence[50].item()
    assert loss.item() == pytest.approx(np.log1p(np.exp(-1)) - np.log1p(np.exp(-1 + e)), rel=1e-4)
    assert logits.grad.tolist() == pytest.approx([0, expit(-1) - expit(-1 + e), 0], abs=1e-6)
    nothing = torch.zeros(2, requires_grad=True)
    transfer(make_student([1.0, 0.0], nothing), bank).backward()
    assert nothing.grad.tolist() == [0, 0]


def test_volumes_without_any_covariate_teach_nothing(cohorts, make_student):
    bank, cohort, _ = cohorts
    cohort.recorded[50:] = False
    transfer = prepared(CovariateLikelihood(), cohort, bank)
    logits = torch.linspace(-1, 1, 60)
    some = transfer(unlabelled_batch(make_student, logits), bank)
    assert_close(some, transfer(unlabelled_batch(make_student, logits[:10]), bank))


def test_evidence_of_patients_of_whom_the_model_is_sure_is_finite(make_cohort, make_student):
    """Few labels, which many covariates separate, and next to no ridge: probabilities are 0 and 1 in float32."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.arange(320) % 2).float()
    covariates = torch.randn(320, 12, generator=generator) + 2 * (2 * labels[:, None] - 1)
    covariates[20:] *= 4
    known = torch.where(torch.arange(320) < 20, labels, NAN)
    transfer = prepared(
        CovariateLikelihood("mri-labels", penalty=0.01), make_cohort(known.tolist(), covariates=covariates), None
    )
    assert (transfer.soft_labels()[20:] == 1).any()
    model = fit_logistic(covariates[:20], labels[:20], 0.01)
    expected = covariates.double() @ model[0].double() + model[1]  # of as many free as obliterated, so logit(pi) = 0
    assert_close(transfer.evidence, expected.float())
    logits = torch.zeros(300, requires_grad=True)
    loss = transfer(unlabelled_batch(make_student, logits, start=20), None)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_bad_options_are_told_in_one_line(cohorts, make_cohort):
    for options in ({"fit_on": "mri"}, {"temperature": 0.0}, {"penalty": 0.0}):
        with pytest.raises(InputError, match=r"^[^\n]+ is [^\n]+: (give|choose) [^\n]+$"):
            CovariateLikelihood(**options)
    bank, _, _ = cohorts
    with pytest.raises(InputError, match=r"meet no unlabelled volume"):
        CovariateLikelihood().prepare(make_cohort([0.0, 1.0], covariates=torch.zeros(2, 2)), bank)
