"""Transfer through patients with both examinations."""

import copy

import pytest
import torch
from torch import nn

from data_modules.errors import InputError
from poddistill.losses.anchors import AnchoredFeatures, AnchoredPairs
from poddistill.losses.distillation import OutputRegression
from poddistill.losses.unpaired import StudentBatch

NAN = float("nan")


@pytest.fixture
def cohorts(make_bank, make_cohort):
    """Clips of patients 3, 1, 3, 90, 1, 4; volumes of patients 0 to 4, of which 3 is unlabelled and 4 is for test."""
    features = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    features[:, 2] = 0.1
    bank = make_bank([1.0, 0.0, 1.0, 0.0, 0.0, 1.0], features=features, patients=[3, 1, 3, 90, 1, 4])
    cohort = make_cohort([0.0, 0.0, 1.0, NAN, NAN])
    cohort.unlabelled[4] = False
    return bank, cohort


def test_the_loss_is_that_of_anchored_patients_and_the_mean_of_their_clips(cohorts, make_student):
    transfer = AnchoredPairs(OutputRegression())
    transfer.prepare(cohorts[1], cohorts[0])
    logits = torch.tensor([0.5, 0.5, 0.5, 0.5], requires_grad=True)
    loss = transfer(make_student([0.0, 0.0, 1.0, NAN], logits), cohorts[0])
    loss.backward()
    means = {1: (1 + 4) / 2, 3: (0 + 2) / 2}  # of the logits 0, ..., 5
    assert loss.item() == pytest.approx(sum((0.5 - mean) ** 2 for mean in means.values()) / 2)
    torch.testing.assert_close(logits.grad, torch.tensor([0.0, 0.5 - 2.5, 0.0, 0.5 - 1.0]))


def test_volumes_are_known_by_their_row_in_the_manifest(cohorts, make_student):
    transfer = AnchoredPairs(OutputRegression())
    transfer.prepare(cohorts[1], cohorts[0])
    student = make_student([0.0, 0.0, 1.0, NAN, NAN]).rows(torch.tensor([3, 0]))
    # To be expected: the one unlabelled volume, which is anchored, and a third of a labelled one.
    assert transfer(student, cohorts[0]).item() == pytest.approx(1.0 / (1 + 1 / 3))


@pytest.mark.parametrize("distance", ["cosine", "mse"])
def test_features_of_anchored_patients_regress_the_standardised_ones_of_the_teacher(distance, cohorts, make_student):
    bank, cohort = cohorts
    transfer = AnchoredFeatures(4, 3, distance)
    transfer.prepare(cohort, bank)
    features = torch.randn(4, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
    loss = transfer(make_student([0.0, 0.0, 1.0, NAN], features=features), bank)
    loss.backward()
    z = (bank.features - bank.features.mean(0)) / bank.features.std(0, correction=0)
    z[:, 2] = 0
    expected = []
    for volume, clips in ((1, [1, 4]), (3, [0, 2])):
        p, t = transfer.projection.weight @ features[volume] + transfer.projection.bias, z[clips].mean(0)
        away = ((p - t) ** 2).mean() if distance == "mse" else 1 - p.dot(t) / (p.norm() * t.norm())
        expected.append(away.item())
    assert loss.item() == pytest.approx(sum(expected) / 2, rel=1e-5)
    assert (features.grad != 0).any(1).tolist() == [False, True, False, True]
    assert transfer.projection.weight.grad.abs().sum() > 0


def test_a_feature_that_changes_by_rounding_alone_is_not_standardised(make_bank, make_cohort):
    features = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    features[:, 2] = 0.1
    features[::2, 2] = torch.tensor(0.1).nextafter(torch.tensor(1.0))
    features[:, 1] = 100 + 1e-3 * features[:, 1]  # little, but more than rounding
    bank = make_bank([1.0, 0.0] * 3, features=features, patients=range(6))
    transfer = AnchoredFeatures(4, 3)
    transfer.prepare(make_cohort([0.0] * 6), bank)
    assert not transfer.features[:, 2].any()
    expected = (features - features.double().mean(0)) / features.double().std(0, correction=0)
    torch.testing.assert_close(transfer.features[:, :2], expected[:, :2].float())


@pytest.mark.parametrize("distance", ["cosine", "mse"])
def test_a_batch_without_anchored_patients_adds_nothing_but_reaches_every_parameter(distance, cohorts, make_student):
    transfer = AnchoredFeatures(4, 3, distance)
    transfer.prepare(cohorts[1], cohorts[0])
    features = torch.randn(1, 4, requires_grad=True)
    loss = transfer(make_student([0.0], features=features), cohorts[0])
    loss.backward()
    assert loss.item() == 0
    assert not features.grad.any()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in transfer.parameters())
    logits = torch.ones(1, requires_grad=True)
    pairs = AnchoredPairs(OutputRegression())
    pairs.prepare(cohorts[1], cohorts[0])
    pairs(make_student([0.0], logits), cohorts[0]).backward()
    assert logits.grad.tolist() == [0]


def test_a_projection_can_be_learnt_and_a_copy_made_before_keeps_its_shape(cohorts, make_student):
    """Features that are a linear map of the teacher's are found by the projection alone."""
    bank, cohort = cohorts
    torch.manual_seed(0)
    transfer = AnchoredFeatures(8, 3, "mse")
    before = copy.deepcopy(transfer)
    transfer.prepare(cohort, bank)
    student = make_student([0.0] * 5, features=torch.randn(5, 8))
    optimiser = torch.optim.Adam(transfer.parameters(), lr=0.05)
    for _ in range(200):
        optimiser.zero_grad()
        loss = transfer(student, bank)
        loss.backward()
        optimiser.step()
    assert loss.item() < 1e-3
    before.load_state_dict(transfer.state_dict())
    assert isinstance(before.projection, nn.Linear)


@pytest.mark.parametrize("make", [lambda: AnchoredPairs(OutputRegression()), lambda: AnchoredFeatures(2, 1, "mse")])
def test_parts_of_a_batch_give_on_average_the_loss_and_the_gradient_of_the_whole(make, make_bank, make_cohort):
    """As accumulated batches and processes do; few of the labelled volumes are anchored, and more of the others."""
    generator = torch.Generator().manual_seed(0)
    unlabelled = torch.arange(288) % 4 == 3
    patients = [*range(0, 288, 96), *range(3, 288, 24)]  # 3 of 216, 12 of 72
    bank = make_bank([0.0, 1.0] * 7 + [0.0], patients=patients)
    transfer = make()
    transfer.prepare(make_cohort([NAN if hidden else 0.0 for hidden in unlabelled]), bank)
    features = torch.randn(288, 2, generator=generator, requires_grad=True)

    def loss(index):
        labels = torch.where(unlabelled[index], NAN, 0.0)
        student = StudentBatch(features[index].sum(1), features[index], labels, torch.zeros(len(index), 0), index)
        return transfer(student, bank)

    (whole,) = torch.autograd.grad(expected := loss(torch.arange(288)), features)
    labelled, others = ((rows.nonzero().flatten()) for rows in (~unlabelled, unlabelled))
    labelled, others = (rows[torch.randperm(len(rows), generator=generator)] for rows in (labelled, others))
    batches = [torch.cat(parts) for parts in zip(labelled.split(9), others.split(3), strict=True)]
    mean = torch.stack([loss(index) for index in batches]).mean()
    assert any(loss(index) == 0 for index in batches)
    assert mean.item() == pytest.approx(expected.item(), rel=1e-5)
    torch.testing.assert_close(torch.autograd.grad(mean, features)[0], whole)


def test_a_cohort_without_anchors_is_refused(make_bank, make_cohort):
    bank = make_bank([0.0, 1.0], patients=[7, 1])
    cohort = make_cohort([1.0, NAN])
    cohort.unlabelled[1] = False  # patient 1 is there, but for validation
    for transfer in (AnchoredPairs(OutputRegression()), AnchoredFeatures(2, 1)):
        with pytest.raises(InputError, match=r"both examinations under one patient_id.*simulate --n_both"):
            transfer.prepare(cohort, bank)


def test_anchors_without_a_label_need_batches_with_unlabelled_volumes(cohorts, make_bank, make_cohort):
    for transfer in (AnchoredPairs(OutputRegression()), AnchoredFeatures(2, 3)):
        transfer.prepare(cohorts[1], cohorts[0])
        assert not transfer.needs_unlabelled  # volume 1 has a label
        bank = make_bank([1.0, 0.0], features=torch.randn(2, 3), patients=[3, 90])
        transfer.prepare(make_cohort([0.0, 0.0, 1.0, NAN]), bank)
        assert transfer.needs_unlabelled


def test_wrong_widths_are_told_with_the_right_ones(cohorts, make_student):
    with pytest.raises(InputError, match="teacher_features is 5, but the teacher has 3: set it to 3"):
        AnchoredFeatures(4, 5).prepare(cohorts[1], cohorts[0])
    transfer = AnchoredFeatures(4, 3)
    transfer.prepare(cohorts[1], cohorts[0])
    with pytest.raises(InputError, match="student_width is 4, but the student's features have 6: set it to 6"):
        transfer(make_student([0.0], features=torch.zeros(1, 6)), cohorts[0])
    with pytest.raises(InputError, match="student_width is 0"):
        AnchoredFeatures(0, 3)
    with pytest.raises(InputError, match="distance is 'l2': choose cosine or mse"):
        AnchoredFeatures(4, 3, "l2")
