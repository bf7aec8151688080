import pytest
import torch
from sklearn.metrics import roc_auc_score

from poddistill.training.scores import CaseScores, auroc


def test_every_case_comes_back_once_and_in_order() -> None:
    scores = CaseScores()
    index = torch.tensor([4, 0, 2, 1, 3])
    logit, label = torch.randn(5), torch.tensor([1.0, 0.0, float("nan"), 1.0, 0.0])
    scores.update(index, logit, label)
    scores.update(index[:2], logit[:2], label[:2])  # as a sampler pads
    got_index, got_logit, got_label = scores.compute()
    order = index.argsort()
    assert got_index.tolist() == [0, 1, 2, 3, 4]
    torch.testing.assert_close(got_logit, logit[order])
    torch.testing.assert_close(got_label, label[order], equal_nan=True)


def test_auroc_is_scikit_learns_over_the_labelled_cases() -> None:
    generator = torch.Generator().manual_seed(0)
    logit = torch.randn(200, generator=generator).round(decimals=1)
    label = (logit + torch.randn(200, generator=generator) > 0).float()
    known = torch.rand(200, generator=generator) < 0.8
    expected = roc_auc_score(label[known], logit[known])
    assert auroc(logit, label.masked_fill(~known, float("nan"))).item() == pytest.approx(expected, abs=1e-6)


def test_extreme_logits_keep_their_order() -> None:
    """Sigmoids of 20 and 30 are equal in float32; the AUROC must not mistake that for a tie."""
    assert auroc(torch.tensor([20.0, 30.0]), torch.tensor([0.0, 1.0])) == 1


def test_auroc_of_a_logit_that_is_no_number_is_unknown() -> None:
    logit, label = torch.tensor([0.0, 1.0, torch.nan]), torch.tensor([0.0, 1.0, 1.0])
    assert auroc(logit, label).isnan()
    label[2] = torch.nan
    assert auroc(logit, label) == 1, "that of a case without label does not count"


def test_auroc_of_one_class_is_unknown() -> None:
    assert auroc(torch.randn(4), torch.ones(4)).isnan()
    assert auroc(torch.randn(2), torch.full((2,), float("nan"))).isnan()
