"""The teacher's head, frozen, reads the student's features."""

import math

import pytest
import torch

from data_modules.errors import InputError
from poddistill.losses.controls import InventedOutputs
from poddistill.losses.teacher_head import TeacherHead

NAN = float("nan")
HEAD = torch.tensor([1.5, -2.0, 0.5, 0.0])


@pytest.fixture
def bank(make_bank):
    torch.manual_seed(0)
    labels = [0.0] * 40 + [1.0] * 20
    features = (torch.randn(60, 4) + torch.tensor(labels)[:, None]).relu() * torch.tensor([1.0, 5.0, 0.1, 0.0])
    return make_bank(labels, logits=features @ HEAD - 0.7, features=features)


@pytest.fixture
def student(make_student):
    torch.manual_seed(1)
    return make_student([1.0, 0.0, NAN, 0.0, 1.0], features=torch.randn(5, 3))


def prepared(bank, cohort, **options):
    torch.manual_seed(2)
    transfer = TeacherHead(3, 4, **options)
    transfer.prepare(cohort, bank)
    return transfer


@pytest.mark.parametrize("clips", [60, 3])
def test_the_head_is_recovered_from_what_it_gave(clips, bank, make_bank, make_cohort):
    """From more clips than features, and from fewer."""
    kept = torch.arange(0, 60, 60 // clips)[:clips]
    part = make_bank(bank.labels[kept].tolist(), bank.logits[kept], bank.features[kept])
    transfer = prepared(part, make_cohort([0.0, 1.0]))
    recovered = transfer.space.standardised(part.features) @ transfer.weight + transfer.bias
    torch.testing.assert_close(recovered, part.logits, atol=2e-3, rtol=1e-3)
    assert transfer.explained == pytest.approx(1, abs=1e-5)
    if clips == 60:
        torch.testing.assert_close((transfer.weight / transfer.space.scale)[:3], HEAD[:3], atol=1e-3, rtol=1e-3)
        assert transfer.weight[3] == 0  # of a feature that does not vary nothing is known


def test_labels_are_scored_through_the_teachers_head(bank, student, make_cohort):
    transfer = prepared(bank, make_cohort([0.0, 0.0, 0.0, 1.0]), balanced=True)
    losses = []
    for h, label in zip(student.features, student.labels.tolist(), strict=True):
        if math.isnan(label):
            continue
        z = [sum(w * h).item() + a.item() for w, a in zip(*transfer.space.projection.parameters(), strict=True)]
        feature = [z[j] * transfer.space.scale[j].item() + transfer.space.mean[j].item() for j in range(4)]
        logit = sum(HEAD[j].item() * feature[j] for j in range(4)) - 0.7
        weight = 4 / 2 if label == 1 else 4 / 6
        losses.append(weight * math.log1p(math.exp(-logit if label == 1 else logit)))
    assert transfer(student, bank).item() == pytest.approx(sum(losses) / 4, rel=1e-3)
    assert transfer(student.rows(torch.tensor([3, 2, 4, 0, 1])), bank).item() == pytest.approx(
        sum(losses) / 4, rel=1e-3
    )


def test_moments_of_a_class_are_compared_with_those_of_its_clips(bank, student, make_cohort):
    plain = prepared(bank, make_cohort([0.0, 1.0]))
    with_moments = prepared(bank, make_cohort([0.0, 1.0]), moment_weight=3.0)
    projected = plain.space(student.features).detach().double()
    parts = []
    for label in (0, 1):
        clips = plain.space.standardised(bank.features[bank.labels == label]).double()
        volumes = projected[student.labels == label]
        means = [sum(points) / len(points) for points in (clips, volumes)]
        covariances = [
            sum(torch.outer(point - mean, point - mean) for point in points) / (len(points) - 1)
            for points, mean in zip((clips, volumes), means, strict=True)
        ]
        distance = sum((means[0] - means[1]) ** 2) / 4
        parts.append(distance + ((covariances[0] - covariances[1]) ** 2).sum() / (4 * 4**2))
    expected = plain(student, bank).item() + 3 * (parts[0] + parts[1]).item() / 2
    assert with_moments(student, bank).item() == pytest.approx(expected, rel=1e-4)


def test_clips_themselves_have_the_moments_that_are_asked_for(bank, make_student, make_cohort):
    transfer = TeacherHead(4, 4, moment_weight=1.0)
    transfer.prepare(make_cohort([0.0, 1.0]), bank)
    torch.nn.init.eye_(transfer.space.projection.weight)
    torch.nn.init.zeros_(transfer.space.projection.bias)
    as_clips = make_student(bank.labels, features=transfer.space.standardised(bank.features))
    moments = transfer(as_clips, bank).item() - torch.nn.functional.binary_cross_entropy_with_logits(
        bank.logits, bank.labels
    )
    assert moments.item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("moment_weight", [0.0, 1.0])
def test_gradients_reach_the_student_and_the_projection_and_not_the_head(
    moment_weight, bank, make_student, make_cohort
):
    transfer = prepared(bank, make_cohort([0.0, 1.0]), moment_weight=moment_weight)
    features = torch.randn(5, 3, requires_grad=True)
    transfer(make_student([1.0, 0.0, NAN, 0.0, 1.0], features=features), bank).backward()
    assert (features.grad.abs().sum(1) > 0).tolist() == [True, True, False, True, True]
    assert transfer.space.projection.weight.grad.abs().sum() > 0
    assert {name for name, _ in transfer.named_parameters()} == {"space.projection.weight", "space.projection.bias"}


@pytest.mark.parametrize("labels", [[NAN, NAN], [1.0, NAN], [1.0, 1.0], [0.0, 1.0]])
def test_a_class_that_the_batch_lacks_costs_nothing(labels, bank, make_student, make_cohort):
    transfer = prepared(bank, make_cohort([0.0, 1.0]), moment_weight=1.0)
    features = torch.randn(2, 3, requires_grad=True)
    loss = transfer(make_student(labels, features=features), bank)
    loss.backward()
    assert loss.isfinite()
    assert (features.grad.abs().sum(1) > 0).tolist() == [not math.isnan(label) for label in labels]
    assert (loss.item() == 0) == all(math.isnan(label) for label in labels)


def test_invented_outputs_get_the_best_linear_head(bank, student, make_cohort):
    exact = prepared(InventedOutputs()(bank), make_cohort([0.0, 1.0]), moment_weight=1.0)
    assert exact.explained == pytest.approx(1, abs=1e-5)
    loss = exact(student, bank)
    loss.backward()
    assert loss.isfinite()
    assert exact.space.projection.weight.grad.isfinite().all()
    noisy = prepared(InventedOutputs(deviation=2.0)(bank), make_cohort([0.0, 1.0]))
    assert 0.1 < noisy.explained < 0.9
    assert noisy.weight.isfinite().all()


def test_autocast_does_not_change_the_loss(bank, student, make_cohort):
    transfer = prepared(bank, make_cohort([0.0, 1.0]), moment_weight=1.0)
    expected = transfer(student, bank)
    with torch.autocast("cpu", torch.bfloat16):
        assert transfer(student, bank).item() == expected.item()


def test_what_cannot_be_used_is_refused(bank, make_bank, make_cohort):
    with pytest.raises(InputError, match=r"moment_weight is -1\.0: give at least 0"):
        TeacherHead(3, 4, moment_weight=-1.0)
    constant = make_bank([0.0, 1.0], logits=[1.0, 1.0], features=torch.randn(2, 4))
    with pytest.raises(InputError, match="the teacher's logits are all equal"):
        prepared(constant, make_cohort([0.0, 1.0]))
    single = make_bank([0.0, 0.0, 1.0], features=torch.randn(3, 4))
    with pytest.raises(InputError, match="one TVUS training clip has label 1: add clips or give 0"):
        prepared(single, make_cohort([0.0, 1.0]), moment_weight=1.0)
