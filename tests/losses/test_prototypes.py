"""Groups of a class in one modality meet those of the class in the other."""

import math
from dataclasses import replace

import pytest
import torch
from torch import distributed, multiprocessing

from data_modules.errors import InputError
from poddistill.losses.controls import InventedOutputs
from poddistill.losses.prototypes import GroupPrototypes
from poddistill.losses.unpaired import StudentBatch

NAN = float("nan")


@pytest.fixture
def bank(make_bank):
    torch.manual_seed(0)
    labels = [0.0] * 12 + [1.0] * 8
    features = torch.randn(20, 4) + torch.tensor(labels)[:, None]
    return make_bank(labels, features=features)


@pytest.fixture
def student(make_student):
    torch.manual_seed(1)
    return make_student([1.0, 0.0, NAN, 0.0, 1.0], features=torch.randn(5, 3))


def prepared(bank, cohort, **options):
    torch.manual_seed(2)
    transfer = GroupPrototypes(3, 4, **options)
    transfer.prepare(cohort, bank)
    return transfer


def cosine(a, b):
    return (sum(a * b) / math.sqrt(sum(a * a)) / math.sqrt(sum(b * b))).item()


@pytest.mark.parametrize(("distance", "per_class"), [("cosine", 1), ("mse", 1), ("cosine", 2), ("mse", 2)])
def test_both_terms_are_those_of_the_formula(distance, per_class, bank, student, make_cohort):
    options = {"distance": distance, "per_class": per_class, "temperature": 0.5}
    group = prepared(bank, make_cohort([0.0, 1.0]), **options, contrast_weight=0.0)
    contrast = prepared(bank, make_cohort([0.0, 1.0]), **options, group_weight=0.0)
    both = prepared(bank, make_cohort([0.0, 1.0]), **options, group_weight=2.0, contrast_weight=3.0)
    teacher = group.teacher_prototypes
    projected = group.space(student.features).detach()
    members, losses = {}, []
    for z, label in zip(projected, student.labels.tolist(), strict=True):
        if math.isnan(label):
            continue
        own = [cosine(z, prototype) for prototype in teacher[int(label)]]
        members.setdefault((int(label), own.index(max(own))), []).append(z)
        every = [cosine(z, prototype) for prototype in teacher.flatten(0, 1)]
        losses.append(-math.log(sum(math.exp(c / 0.5) for c in own) / sum(math.exp(c / 0.5) for c in every)))
    distances = []
    for (label, k), volumes in members.items():
        mean, prototype = sum(volumes) / len(volumes), teacher[label, k]
        square = (sum((mean - prototype) ** 2) / 4).item()
        distances.append(1 - cosine(mean, prototype) if distance == "cosine" else square)
    expected = sum(distances) / len(distances), sum(losses) / len(losses)
    assert group(student, bank).item() == pytest.approx(expected[0], rel=1e-4)
    assert contrast(student, bank).item() == pytest.approx(expected[1], rel=1e-4)
    assert both(student, bank).item() == pytest.approx(2 * expected[0] + 3 * expected[1], rel=1e-4)


def test_one_prototype_a_class_is_the_mean_of_the_standardised_features(bank, make_cohort):
    transfer = prepared(bank, make_cohort([0.0, 1.0]))
    mapped = transfer.space.standardised(bank.features)
    torch.testing.assert_close(transfer.teacher_prototypes[0, 0], mapped[:12].mean(0))
    torch.testing.assert_close(transfer.teacher_prototypes[1, 0], mapped[12:].mean(0))
    # The mean of all is 0, so the two point in opposite directions.
    assert cosine(*transfer.teacher_prototypes[:, 0]) == pytest.approx(-1, abs=1e-4)


def test_sub_groups_of_a_class_are_found(make_bank, make_cohort):
    torch.manual_seed(0)
    corners = torch.tensor([[3.0, 0, 0, 0], [0, 3.0, 0, 0], [0, 0, 3.0, 0]])
    features = torch.cat([torch.randn(10, 4), corners.repeat_interleave(10, 0) + 0.1 * torch.randn(30, 4)])
    transfer = prepared(make_bank([0.0] * 10 + [1.0] * 30, features=features), make_cohort([0.0, 1.0]), per_class=3)
    found = transfer.teacher_prototypes[1] * transfer.space.scale + transfer.space.mean
    assert (torch.cdist(found, corners).min(0).values < 0.2).all()


def test_the_order_of_the_batch_does_not_matter_and_unlabelled_volumes_take_no_part(bank, student, make_cohort):
    transfer = prepared(bank, make_cohort([0.0, 1.0]), per_class=2, momentum=0.0)
    expected = transfer(student, bank).item()
    assert transfer(student.rows(torch.tensor([4, 2, 0, 3, 1])), bank).item() == pytest.approx(expected, rel=1e-5)
    assert transfer(student.rows(torch.tensor([0, 1, 3, 4])), bank).item() == pytest.approx(expected, rel=1e-5)


def test_earlier_batches_count_in_the_value_and_not_against_the_gradient(bank, student, make_cohort):
    transfer = prepared(bank, make_cohort([0.0, 1.0]), distance="mse", momentum=0.75, contrast_weight=0.0)
    obliterated = student.rows(student.labels == 1)
    mean = transfer.space(obliterated.features).mean(0)
    transfer(obliterated, bank)
    torch.testing.assert_close(transfer.student_prototypes[1], mean)
    assert transfer.seen.flatten().tolist() == [0, 1]
    other = obliterated.features.flip(1).requires_grad_()
    second = transfer.space(other).mean(0)
    expected = 0.75 * mean + 0.25 * second
    loss = transfer(replace(obliterated, features=other), bank)
    target = transfer.teacher_prototypes[1, 0]
    assert loss.item() == pytest.approx((expected - target).square().mean().item(), rel=1e-4)
    (slope,) = torch.autograd.grad(loss, other, retain_graph=True)
    (full,) = torch.autograd.grad(second, other, 2 * (expected - target) / 4)
    torch.testing.assert_close(slope, full)
    torch.testing.assert_close(transfer.student_prototypes[1], expected)
    transfer.eval()(obliterated, bank)
    torch.testing.assert_close(transfer.student_prototypes[1], expected)


def test_learning_moves_volumes_to_the_prototypes_of_their_class(bank, make_student, make_cohort):
    transfer = prepared(bank, make_cohort([0.0, 1.0]))
    features = torch.randn(4, 3, requires_grad=True)
    labels = [0.0, 0.0, 1.0, 1.0]
    optimiser = torch.optim.Adam([features, *transfer.parameters()], 0.1)
    for _ in range(60):
        optimiser.zero_grad()
        loss = transfer(make_student(labels, features=features), bank)
        loss.backward()
        optimiser.step()
    projected = transfer.space(features).detach()
    prototypes = transfer.teacher_prototypes[:, 0]
    assert all(cosine(z, prototypes[int(label)]) > 0.9 for z, label in zip(projected, labels, strict=True))
    assert transfer.space.projection.weight.grad.abs().sum() > 0


def test_balanced_classes_weigh_as_in_the_loss_of_labels(bank, student, make_cohort):
    free, obliterated = student.rows(student.labels == 0), student.rows(student.labels == 1)
    plain = prepared(bank, make_cohort([0.0, 0.0, 0.0, 1.0]), group_weight=0.0)
    balanced = prepared(bank, make_cohort([0.0, 0.0, 0.0, 1.0]), group_weight=0.0, balanced=True)
    assert balanced(free, bank).item() == pytest.approx(4 / 6 * plain(free, bank).item(), rel=1e-5)
    assert balanced(obliterated, bank).item() == pytest.approx(4 / 2 * plain(obliterated, bank).item(), rel=1e-5)


def test_a_batch_without_labels_costs_nothing_and_one_class_is_enough(bank, make_student, make_cohort):
    transfer = prepared(bank, make_cohort([0.0, 1.0]))
    features = torch.randn(2, 3, requires_grad=True)
    loss = transfer(make_student([NAN, NAN], features=features), bank)
    loss.backward()
    assert loss.item() == 0
    assert features.grad.abs().sum() == 0
    assert transfer.seen.sum() == 0
    loss = transfer(make_student([1.0, NAN], features=features), bank)
    loss.backward()
    assert features.grad.isfinite().all()
    assert features.grad[0].abs().sum() > 0 == features.grad[1].abs().sum()


@pytest.mark.parametrize("per_class", [1, 3])
def test_a_control_whose_features_are_equal_within_a_class_has_a_finite_loss(per_class, bank, student, make_cohort):
    transfer = prepared(InventedOutputs()(bank), make_cohort([0.0, 1.0]), per_class=per_class)
    loss = transfer(student, bank)
    loss.backward()
    assert loss.isfinite()
    assert transfer.space.projection.weight.grad.isfinite().all()


def test_autocast_does_not_change_the_loss(bank, student, make_cohort):
    transfer = prepared(bank, make_cohort([0.0, 1.0]), momentum=0.0)
    expected = transfer(student, bank)
    with torch.autocast("cpu", torch.bfloat16):
        assert transfer(student, bank).item() == expected.item()


def shares() -> list[list[StudentBatch]]:
    """Of each of two processes, three batches: other classes, other sizes, and in the last one of them no label."""
    generator = torch.Generator().manual_seed(3)
    labels = [[[0.0, 0.0, NAN], [0.0], [1.0, 0.0]], [[1.0], [1.0, 1.0, 0.0], [NAN, NAN]]]
    return [
        [
            StudentBatch(
                torch.zeros(len(of)),
                torch.randn(len(of), 3, generator=generator),
                torch.tensor(of),
                torch.zeros(len(of), 0),
                torch.arange(len(of)),
            )
            for of in process
        ]
        for process in labels
    ]


def _process(init: str, rank: int, transfer: GroupPrototypes) -> GroupPrototypes:
    distributed.init_process_group("gloo", init_method=init, rank=rank, world_size=2)
    for batch in shares()[rank]:
        transfer(batch, None)
    distributed.destroy_process_group()
    return transfer


def _second_process(init: str, folder: str, transfer: GroupPrototypes) -> None:
    torch.save(_process(init, 1, transfer).state_dict(), f"{folder}/second.pt")


def test_two_processes_keep_the_prototypes_that_one_would(bank, make_cohort, tmp_path):
    alone, together, apart = (prepared(bank, make_cohort([0.0, 1.0]), momentum=0.75) for _ in range(3))
    for own, other in zip(*shares(), strict=True):
        features, labels = (torch.cat([getattr(of, name) for of in (own, other)]) for name in ("features", "labels"))
        n = len(labels)
        alone(StudentBatch(torch.zeros(n), features, labels, torch.zeros(n, 0), torch.arange(n)), bank)
    init = (tmp_path / "meet").as_uri()
    context = multiprocessing.get_context("spawn")
    second = context.Process(target=_second_process, args=(init, str(tmp_path), apart))
    second.start()
    _process(init, 0, together)
    second.join()
    assert second.exitcode == 0
    others = torch.load(tmp_path / "second.pt", weights_only=True)
    for name in ("student_prototypes", "seen"):
        torch.testing.assert_close(getattr(together, name), getattr(alone, name))
        assert torch.equal(getattr(together, name), others[name])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"per_class": 0}, "per_class is 0: give at least 1"),
        ({"distance": "l1"}, "distance is 'l1': choose cosine or mse"),
        ({"temperature": 0.0}, "temperature is 0.0: give a number above 0"),
        ({"momentum": 1.0}, r"momentum is 1.0: give a number in \[0, 1\)"),
        ({"group_weight": -1.0}, "group_weight is -1.0: give at least 0"),
        ({"contrast_weight": NAN}, "contrast_weight is nan: give at least 0"),
    ],
)
def test_options_out_of_range_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        GroupPrototypes(3, 4, **options)


def test_more_prototypes_than_clips_are_refused(bank, make_cohort):
    with pytest.raises(InputError, match="per_class is 9, but 8 TVUS training clips have label 1: give at most 8"):
        prepared(bank, make_cohort([0.0, 1.0]), per_class=9)
