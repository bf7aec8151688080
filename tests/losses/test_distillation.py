"""Distillation losses against their formulas, case by case."""

import math

import pytest
import torch

from data_modules.errors import InputError
from poddistill.losses.distillation import BernoulliKL, OutputRegression

STUDENT, TEACHER = [0.3, -1.2, 2.5, 0.0], [1.0, -2.0, 2.5, -0.7]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("on", ["logit", "probability"])
@pytest.mark.parametrize(("norm", "power"), [("l2", 2), ("l1", 1)])
def test_output_regression_is_the_distance_of_each_pair(on, norm, power):
    f = sigmoid if on == "probability" else float
    expected = [abs(f(s) - f(t)) ** power for s, t in zip(STUDENT, TEACHER, strict=True)]
    loss = OutputRegression(on, norm)(torch.tensor(STUDENT), torch.tensor(TEACHER))
    assert loss.tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_bernoulli_kl_is_the_divergence_of_softened_outputs(temperature):
    expected = []
    for s, t in zip(STUDENT, TEACHER, strict=True):
        p, q = sigmoid(s / temperature), sigmoid(t / temperature)
        expected.append(temperature**2 * (q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))))
    loss = BernoulliKL(temperature)(torch.tensor(STUDENT), torch.tensor(TEACHER))
    assert loss.tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss", [OutputRegression(), OutputRegression("probability", "l1"), BernoulliKL(2.0)])
def test_equal_outputs_cost_nothing_and_others_pull_the_student_to_the_teacher(loss):
    teacher = torch.tensor(TEACHER)
    assert loss(teacher, teacher).tolist() == pytest.approx([0.0] * 4, abs=1e-6)
    student = torch.tensor(STUDENT, requires_grad=True)
    loss(student, teacher).sum().backward()
    assert torch.equal(student.grad.sign(), (student.detach() - teacher).sign())


def test_bernoulli_kl_stays_finite_and_right_where_probabilities_round_to_one():
    student, teacher = torch.tensor([-200.0], requires_grad=True), torch.tensor([200.0])
    loss = BernoulliKL()(student, teacher)
    loss.backward()
    assert loss.item() == pytest.approx(200.0)
    assert student.grad.item() == pytest.approx(-1.0)


def test_the_temperature_leaves_the_gradient_near_agreement_alone():
    gradients = []
    for temperature in (5.0, 20.0):
        student = torch.tensor([0.2], requires_grad=True)
        BernoulliKL(temperature)(student, torch.tensor([0.1])).backward()
        gradients.append(student.grad.item())
    assert gradients[0] == pytest.approx(gradients[1], rel=0.01)


@pytest.mark.parametrize(
    "make",
    [
        lambda: OutputRegression("features"),
        lambda: OutputRegression(norm="l3"),
        lambda: BernoulliKL(0.0),
        lambda: BernoulliKL(float("nan")),
    ],
)
def test_bad_options_are_told_in_one_line(make):
    with pytest.raises(InputError, match=r"^[^\n]+ is [^\n]+: (choose|give) [^\n]+$"):
        make()
