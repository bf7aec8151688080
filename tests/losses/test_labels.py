"""The weighted loss on labels."""

import math

import pytest
import torch

from data_modules.errors import InputError
from poddistill.losses.labels import WeightedBCE

NAN = float("nan")
LOGITS, LABELS = [0.4, -1.0, 2.0, -0.3, 1.5], [1.0, 0.0, NAN, 0.0, 1.0]


def slow(v0: float, v1: float) -> float:
    losses = []
    for s, y in zip(LOGITS, LABELS, strict=True):
        p = 1 / (1 + math.exp(-s))
        if y == y:
            losses.append(-v1 * math.log(p) if y == 1 else -v0 * math.log(1 - p))
    return sum(losses) / len(losses)


@pytest.mark.parametrize(("pos_weight", "weights"), [(None, (1, 1)), (3.5, (1, 3.5)), ("balanced", (0.625, 2.5))])
def test_loss_equals_a_slow_reference_over_labelled_cases(pos_weight, weights):
    loss = WeightedBCE(pos_weight)
    loss.prepare(torch.tensor([0.0] * 8 + [1.0] * 2 + [NAN] * 5))  # 10 / (2 * 8) and 10 / (2 * 2)
    assert loss.class_weights == pytest.approx(weights)
    assert loss(torch.tensor(LOGITS), torch.tensor(LABELS)).item() == pytest.approx(slow(*weights), rel=1e-5)


def test_balanced_classes_pull_equally_and_the_loss_keeps_its_size():
    labels = torch.tensor([0.0] * 9 + [1.0])
    loss = WeightedBCE("balanced")
    loss.prepare(labels)
    logits = torch.zeros(10, requires_grad=True)
    value = loss(logits, labels)
    value.backward()
    assert value.item() == pytest.approx(math.log(2))
    assert logits.grad[:9].sum().item() == pytest.approx(-logits.grad[9].item())


def test_unlabelled_cases_have_no_gradient():
    logits = torch.tensor(LOGITS, requires_grad=True)
    WeightedBCE()(logits, torch.tensor(LABELS)).backward()
    assert torch.equal(logits.grad != 0, ~torch.tensor(LABELS).isnan())


def test_a_batch_without_labels_gives_zero_with_zero_gradients():
    logits = torch.tensor(LOGITS, requires_grad=True)
    loss = WeightedBCE(2.0)(logits, torch.full((5,), NAN))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros(5))


def test_half_precision_logits_are_scored_in_float32():
    logits = torch.tensor(LOGITS)
    loss = WeightedBCE()(logits.bfloat16(), torch.tensor(LABELS))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(slow(1, 1), rel=0.02)


def test_balance_needs_both_classes_and_is_to_be_prepared():
    loss = WeightedBCE("balanced")
    with pytest.raises(InputError, match="3 training labels are 0 and 0 are 1"):
        loss.prepare(torch.tensor([0.0, 0.0, 0.0, NAN]))
    with pytest.raises(RuntimeError, match="call prepare"):
        loss(torch.zeros(1), torch.ones(1))


@pytest.mark.parametrize("pos_weight", [0.0, -1.0, NAN, "equal"])
def test_bad_weights_are_refused(pos_weight):
    with pytest.raises(InputError, match="pos_weight is"):
        WeightedBCE(pos_weight)
