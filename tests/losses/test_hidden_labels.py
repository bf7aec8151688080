"""Clips without a label, of which covariates and the order of a teacher's outputs tell."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from data_modules.errors import InputError
from poddistill.losses.covariates import CovariateTargets, fit_logistic
from poddistill.losses.hidden_labels import hidden_labels

WEIGHTS = torch.tensor([1.5, -1.0, 0.0])


def clips(n: int, n_labelled: int, separation: float, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Covariates (N, 3), true labels, labels that are known, and outputs of a teacher who is far too sure."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=generator)
    truth = (torch.rand(n, generator=generator) < (x @ WEIGHTS - 1).sigmoid()).float()
    outputs = 9 * (separation * truth + torch.randn(n, generator=generator)) - 3
    labels = truth.where(torch.arange(n) < n_labelled, torch.nan)
    return x, truth, labels, outputs


def model(x: torch.Tensor, labels: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """The covariates' weights (3,)."""
    known = ~labels.isnan()
    r = hidden_labels(x, labels, outputs, fit_logistic(x[known], labels[known]), 1.0)
    assert torch.equal(r[known], labels[known])
    return fit_logistic(x, r)[0]


def test_it_finds_the_weights_that_true_labels_give():
    """A regression on the outputs shrinks them; on the few labels it is the least certain."""
    errors: dict[str, list[float]] = {"hidden": [], "labels": [], "outputs": []}
    for seed in range(20):
        x, truth, labels, outputs = clips(1000, 60, 1.5, seed)
        best, known = fit_logistic(x, truth)[0], ~labels.isnan()
        naive = fit_logistic(x, labels.where(known, outputs.sigmoid()))[0]
        errors["hidden"].append((model(x, labels, outputs) - best).norm().item())
        errors["labels"].append((fit_logistic(x[known], labels[known])[0] - best).norm().item())
        errors["outputs"].append((naive - best).norm().item())
        assert naive[0] < 0.75 * best[0]
    mean = {name: np.mean(values) for name, values in errors.items()}
    assert mean["hidden"] < 0.75 * min(mean["labels"], mean["outputs"])


def test_the_order_of_the_outputs_is_all_that_counts():
    x, _, labels, outputs = clips(400, 50, 1.5)
    plain = model(x, labels, outputs)
    torch.testing.assert_close(model(x, labels, (outputs / 10).exp()), plain, atol=1e-3, rtol=0)
    known = ~labels.isnan()
    assert torch.equal(model(x, labels, outputs.where(~known, 100.0)), plain), "not of clips whose label is known"


def test_a_teacher_who_knows_nothing_leaves_what_the_labels_tell():
    """Or takes away little of it: by chance some order looks like one."""
    distances = []
    for seed in range(10):
        x, _, labels, outputs = clips(1000, 200, 0.0, seed)
        known = ~labels.isnan()
        distances.append((model(x, labels, outputs) - fit_logistic(x[known], labels[known])[0]).norm().item())
    assert np.mean(distances) < 0.4


def test_a_teacher_in_reverse_is_not_believed():
    x, _, labels, outputs = clips(1000, 200, 2.0)
    known = ~labels.isnan()
    assert (model(x, labels, -outputs) - fit_logistic(x[known], labels[known])[0]).norm() < 0.4


@pytest.mark.parametrize("outputs", [torch.zeros(40), torch.arange(40.0) % 2])
def test_few_different_outputs_do(outputs):
    x, _, labels, _ = clips(40, 20, 1.0)
    assert model(x, labels, outputs).isfinite().all()


def test_with_every_label_known_it_is_the_model_of_the_labels(cohorts):
    bank, cohort, _ = cohorts
    order, labels = CovariateTargets("labels-and-order"), CovariateTargets("tvus-labels")
    for transfer in (order, labels):
        transfer.prepare(cohort, bank)
    assert torch.equal(order.targets, labels.targets)


def test_an_order_that_tells_nothing_leaves_the_model_of_the_labels_whatever_its_penalty(cohorts):
    """Where all outputs are equal, a hidden label is what the model says of it, and so draws that nowhere."""
    bank, cohort, _ = cohorts
    known = torch.arange(len(bank.labels)) < 12
    hidden = replace(bank, labels=bank.labels.where(known, torch.nan), logits=torch.zeros_like(bank.logits))
    order, labels, weak = (
        CovariateTargets("labels-and-order", penalty=20.0),
        CovariateTargets("tvus-labels", penalty=20.0),
        CovariateTargets("tvus-labels", penalty=1.0),
    )
    order.prepare(cohort, hidden)
    labels.prepare(cohort, bank.rows(known))
    weak.prepare(cohort, bank.rows(known))
    torch.testing.assert_close(order.log_odds, labels.log_odds, atol=1e-3, rtol=0)
    assert (labels.log_odds - weak.log_odds).abs().mean() > 0.3


def test_a_clip_without_covariates_tells_nothing_and_one_label_is_not_enough(cohorts):
    bank, cohort, _ = cohorts
    hidden = torch.arange(len(bank.labels)) % 3 > 0
    some = replace(bank, labels=bank.labels.where(~hidden, torch.nan))
    silent = torch.arange(len(bank.labels)) % 5 == 0
    partly, without = CovariateTargets("labels-and-order"), CovariateTargets("labels-and-order")
    partly.prepare(cohort, replace(some, recorded=~silent))
    without.prepare(cohort, some.rows(~silent))
    torch.testing.assert_close(partly.targets, without.targets)
    assert partly.fitted_mean == pytest.approx(without.fitted_mean.item())
    with pytest.raises(InputError, match="a model of covariates needs cases of both labels"):
        partly.prepare(cohort, replace(bank, labels=torch.where(bank.labels == 1, torch.nan, bank.labels)))
