"""What the student takes over from paired clips."""

import math

import pytest
import torch

from data_modules.errors import InputError
from poddistill.losses.distillation import OutputRegression
from poddistill.losses.pairing import LabelMatchedPairing, RandomPairing
from poddistill.losses.transfer import PairedOutputs

NAN = float("nan")


def test_paired_outputs_are_the_mean_loss_over_labelled_volumes(make_bank, make_student):
    student = make_student([1.0, NAN, 0.0], logits=[0.5, 9.0, -1.0])
    bank = make_bank([0.0, 1.0], logits=[-2.0, 3.0])  # one clip a class, so the pairs are known
    loss = PairedOutputs(LabelMatchedPairing(), OutputRegression())(student, bank)
    assert loss.item() == pytest.approx(((0.5 - 3) ** 2 + (-1 + 2) ** 2) / 2)


def test_balanced_classes_weigh_as_in_the_loss_of_labels(make_bank, make_student, make_cohort):
    transfer = PairedOutputs(LabelMatchedPairing(), OutputRegression(), balanced=True)
    bank = make_bank([0.0, 1.0], logits=[-2.0, 3.0])
    transfer.prepare(make_cohort([0.0, 0.0, 0.0, 1.0, NAN]), bank)
    loss = transfer(make_student([1.0, 0.0], logits=[0.0, 0.0]), bank)
    assert loss.item() == pytest.approx((4 / 2 * 9 + 4 / 6 * 4) / 2)
    with pytest.raises(InputError, match="balanced classes need both"):
        transfer.prepare(make_cohort([0.0, NAN]), bank)


def test_unlabelled_volumes_take_part_only_when_asked(make_bank, make_student):
    student = make_student([NAN, NAN], logits=[1.0, 2.0])
    bank = make_bank([1.0], logits=[0.0])
    left_out = PairedOutputs(RandomPairing(), OutputRegression())
    taking_part = PairedOutputs(RandomPairing(), OutputRegression(), unlabelled=True)
    assert left_out(student, bank).item() == 0
    assert taking_part(student, bank).item() == pytest.approx(2.5)
    assert (left_out.needs_unlabelled, taking_part.needs_unlabelled) == (False, True)


def test_the_expected_loss_sees_the_teacher_through_class_means_alone(make_bank, make_student):
    """The identity E (s - t)^2 = (s - E t)^2 + var t: its gradient is that of the class mean."""
    torch.manual_seed(0)
    bank = make_bank([1.0] * 4, logits=[1.0, 2.0, 4.0, 5.0])
    logits = torch.zeros(20000, requires_grad=True)
    PairedOutputs(LabelMatchedPairing(), OutputRegression())(make_student([1.0] * 20000, logits), bank).backward()
    assert logits.grad.sum().item() == pytest.approx(-2 * 3.0, abs=5 * 2 * math.sqrt(2.5 / 20000))
