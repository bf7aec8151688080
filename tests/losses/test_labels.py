"""The losses on labels."""

import math

import pytest
import torch

from data_modules.errors import InputError
from poddistill.losses.labels import FocalLoss, WeightedBCE

NAN = float("nan")
LOGITS, LABELS = [0.4, -1.0, 2.0, -0.3, 1.5], [1.0, 0.0, NAN, 0.0, 1.0]


def slow(v0: float, v1: float, smoothing: float = 0.0, gamma: float = 0.0) -> float:
    losses = []
    for s, y in zip(LOGITS, LABELS, strict=True):
        p = 1 / (1 + math.exp(-s))
        if y == y:
            ours, other = (p, 1 - p) if y == 1 else (1 - p, p)
            entropy = -(1 - smoothing / 2) * math.log(ours) - smoothing / 2 * math.log(other)
            losses.append((v1 if y == 1 else v0) * other**gamma * entropy)
    return sum(losses) / len(losses)


@pytest.mark.parametrize(("pos_weight", "weights"), [(None, (1, 1)), (3.5, (1, 3.5)), ("balanced", (0.625, 2.5))])
def test_loss_equals_a_slow_reference_over_labelled_cases(pos_weight, weights):
    loss = WeightedBCE(pos_weight)
    loss.prepare(torch.tensor([0.0] * 8 + [1.0] * 2 + [NAN] * 5))  # 10 / (2 * 8) and 10 / (2 * 2)
    assert loss.class_weights == pytest.approx(weights)
    assert loss(torch.tensor(LOGITS), torch.tensor(LABELS)).item() == pytest.approx(slow(*weights), rel=1e-5)


def test_smoothed_labels_equal_a_slow_reference():
    loss = WeightedBCE(3.5, smoothing=0.2)
    assert loss(torch.tensor(LOGITS), torch.tensor(LABELS)).item() == pytest.approx(slow(1, 3.5, 0.2), rel=1e-5)


def test_smoothing_bounds_the_best_logit():
    logits = torch.tensor([math.log(0.9 / 0.1), math.log(0.1 / 0.9)], requires_grad=True)
    WeightedBCE(smoothing=0.2)(logits, torch.tensor([1.0, 0.0])).backward()
    assert logits.grad.tolist() == pytest.approx([0, 0], abs=1e-7)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_equals_a_slow_reference(gamma):
    loss = FocalLoss(gamma, "balanced")
    loss.prepare(torch.tensor([0.0] * 8 + [1.0] * 2))
    expected = slow(0.625, 2.5, gamma=gamma)
    assert loss(torch.tensor(LOGITS), torch.tensor(LABELS)).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_gradients_stay_finite_for_sure_cases_right_and_wrong(gamma):
    logits = torch.tensor([200.0, -200.0, 200.0, -200.0], requires_grad=True)
    FocalLoss(gamma)(logits, torch.tensor([1.0, 0.0, 0.0, 1.0])).backward()
    assert logits.grad.tolist() == pytest.approx([0, 0, 0.25, -0.25], abs=1e-6)


def test_balanced_classes_pull_equally_and_the_loss_keeps_its_size():
    labels = torch.tensor([0.0] * 9 + [1.0])
    loss = WeightedBCE("balanced")
    loss.prepare(labels)
    logits = torch.zeros(10, requires_grad=True)
    value = loss(logits, labels)
    value.backward()
    assert value.item() == pytest.approx(math.log(2))
    assert logits.grad[:9].sum().item() == pytest.approx(-logits.grad[9].item())


@pytest.mark.parametrize("loss", [WeightedBCE(), WeightedBCE(smoothing=0.1), FocalLoss()])
def test_unlabelled_cases_have_no_gradient(loss):
    logits = torch.tensor(LOGITS, requires_grad=True)
    loss(logits, torch.tensor(LABELS)).backward()
    assert torch.equal(logits.grad != 0, ~torch.tensor(LABELS).isnan())


@pytest.mark.parametrize("of_labels", [WeightedBCE(2.0, smoothing=0.1), FocalLoss(pos_weight=2.0)])
def test_a_batch_without_labels_gives_zero_with_zero_gradients(of_labels):
    logits = torch.tensor(LOGITS, requires_grad=True)
    loss = of_labels(logits, torch.full((5,), NAN))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros(5))


def test_half_precision_logits_are_scored_in_float32():
    logits = torch.tensor(LOGITS)
    loss = WeightedBCE()(logits.bfloat16(), torch.tensor(LABELS))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(slow(1, 1), rel=0.02)


@pytest.mark.parametrize("kind", [WeightedBCE, FocalLoss])
def test_balance_needs_both_classes_and_is_to_be_prepared(kind):
    loss = kind(pos_weight="balanced")
    with pytest.raises(InputError, match="3 training labels are 0 and 0 are 1"):
        loss.prepare(torch.tensor([0.0, 0.0, 0.0, NAN]))
    with pytest.raises(RuntimeError, match="call prepare"):
        loss(torch.zeros(1), torch.ones(1))


@pytest.mark.parametrize("kind", [WeightedBCE, FocalLoss])
@pytest.mark.parametrize("pos_weight", [0.0, -1.0, NAN, "equal"])
def test_bad_weights_are_refused(kind, pos_weight):
    with pytest.raises(InputError, match="pos_weight is"):
        kind(pos_weight=pos_weight)


@pytest.mark.parametrize(
    "make", [lambda: WeightedBCE(smoothing=1.0), lambda: WeightedBCE(smoothing=NAN), lambda: FocalLoss(-0.1)]
)
def test_bad_options_are_told_in_one_line(make):
    with pytest.raises(InputError, match=r"^[^\n]+ is [^\n]+: give [^\n]+$"):
        make()
