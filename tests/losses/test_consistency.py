"""A student that agrees with its own past, and one that is sure."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn

from data_modules.errors import InputError
from poddistill.losses.consistency import EntropyMinimisation, MeanTeacher, TemporalEnsembling
from poddistill.losses.unpaired import StudentBatch, StudentCohort

NAN = float("nan")
VOLUMES = 6


def batch(index: list[int], logits: Tensor) -> StudentBatch:
    n = len(index)
    return StudentBatch(logits, logits[:, None], torch.full((n,), NAN), torch.zeros(n, 0), torch.tensor(index))


def cohort_of(n: int) -> StudentCohort:
    nothing = torch.full((n,), NAN)
    return StudentCohort(
        nothing, nothing.isnan(), torch.zeros(n, 0), torch.arange(n), tuple(map(str, range(n))), nothing.isnan()
    )


def prepared(**options: float) -> TemporalEnsembling:
    transfer = TemporalEnsembling(**options)
    transfer.prepare(cohort_of(VOLUMES), None)
    return transfer


def visits(n: int) -> list[tuple[list[int], Tensor]]:
    """Batches of volumes in no order, some of them seldom."""
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randperm(VOLUMES - (step % 2), generator=generator)[:3].tolist(), torch.randn(3, generator=generator))
        for step in range(n)
    ]


def slow(history: dict[int, list[float]], index: list[int], logits: list[float], a: float, ramp: int) -> float:
    """The loss from all earlier probabilities of each volume, written out as one weighted average of them."""
    losses = []
    for row, logit in zip(index, logits, strict=True):
        p, earlier = 1 / (1 + math.exp(-logit)), history.setdefault(row, [])
        if earlier:
            weights = [a ** (len(earlier) - 1 - i) for i in range(len(earlier))]
            z = sum(w * q for w, q in zip(weights, earlier, strict=True)) / sum(weights)
            losses.append(math.exp(-5 * (1 - min(len(earlier) / ramp, 1)) ** 2) * (p - z) ** 2)
        earlier.append(p)
    return sum(losses) / len(index)


@pytest.mark.parametrize(("momentum", "ramp"), [(0.6, 4), (0.0, 1), (0.95, 10)])
def test_the_loss_equals_a_slow_reference(momentum, ramp):
    transfer, history = prepared(momentum=momentum, ramp_visits=ramp), {}
    for index, logits in visits(12):
        expected = slow(history, index, logits.tolist(), momentum, ramp)
        assert transfer(batch(index, logits), None).item() == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_the_gradient_pulls_towards_the_past_and_not_the_past_towards_the_student():
    transfer = prepared(ramp_visits=1)
    first = torch.tensor([2.0, -2.0], requires_grad=True)
    assert transfer(batch([0, 1], first), None).item() == 0
    second = torch.tensor([0.0, 0.0], requires_grad=True)
    transfer(batch([0, 1], second), None).backward()
    assert first.grad is None
    pull = (0.5 - torch.tensor([2.0, -2.0]).sigmoid()) * 0.25  # 2 (p - z) p (1 - p) / B
    assert second.grad.tolist() == pytest.approx(pull.tolist())


def test_a_volume_that_comes_twice_in_a_batch_counts_as_one_visit_with_its_mean():
    twice, once = prepared(), prepared()
    twice(batch([3, 3], torch.tensor([1.0, -0.5])), None)
    p = torch.tensor([1.0, -0.5]).sigmoid().mean()
    once(batch([3], torch.logit(p)[None]), None)
    torch.testing.assert_close(twice.get_extra_state(), once.get_extra_state())


class Stage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.transfer = TemporalEnsembling(ramp_visits=3)


def test_a_resumed_run_goes_on_exactly(tmp_path):
    steps = visits(10)
    whole = Stage()
    whole.transfer.prepare(cohort_of(VOLUMES), None)
    for index, logits in steps[:6]:
        whole.transfer(batch(index, logits), None)
    torch.save(whole.state_dict(), tmp_path / "last.ckpt")
    expected = [whole.transfer(batch(index, logits), None).item() for index, logits in steps[6:]]

    resumed = Stage()  # weights are loaded before `prepare`, as by a trainer
    resumed.load_state_dict(torch.load(tmp_path / "last.ckpt", weights_only=True))
    resumed.transfer.prepare(cohort_of(VOLUMES), None)
    assert [resumed.transfer(batch(index, logits), None).item() for index, logits in steps[6:]] == expected
    assert sum(expected) > 0

    with pytest.raises(InputError, match=r"remembers 6 volumes, but the cohort has 7: start a new run$"):
        resumed.transfer.prepare(cohort_of(7), None)


def _second_process(init: str) -> None:
    distributed.init_process_group("gloo", init_method=init, rank=1, world_size=2)
    transfer = prepared()
    for index, logits in visits(4):
        transfer(batch(index[2:], logits[2:]), None)
    distributed.destroy_process_group()


def test_two_processes_remember_what_one_would(tmp_path: Path):
    alone = prepared()
    for index, logits in visits(4):
        alone(batch(index, logits), None)
    init = (tmp_path / "meet").as_uri()
    context = multiprocessing.get_context("spawn")
    other = context.Process(target=_second_process, args=(init,))
    other.start()
    distributed.init_process_group("gloo", init_method=init, rank=0, world_size=2)
    together = prepared()
    for index, logits in visits(4):
        together(batch(index[:2], logits[:2]), None)
    distributed.destroy_process_group()
    other.join()
    assert other.exitcode == 0
    torch.testing.assert_close(together.get_extra_state(), alone.get_extra_state())


def test_entropy_and_its_gradient_are_those_of_unlabelled_volumes(make_student):
    logits = torch.tensor([3.0, 1.0, -0.5], requires_grad=True)
    loss = EntropyMinimisation()(make_student([1.0, NAN, NAN], logits), None)
    p = logits.detach()[1:].sigmoid()
    assert loss.item() == pytest.approx(-(p * p.log() + (1 - p) * (1 - p).log()).mean().item(), rel=1e-5)
    loss.backward()
    expected = -logits.detach()[1:] * p * (1 - p) / 2
    assert logits.grad.tolist() == pytest.approx([0.0, *expected.tolist()])


def test_entropy_of_labelled_volumes_alone_is_zero_and_unlabelled_ones_are_asked_for(make_student, make_cohort):
    logits = torch.zeros(2, requires_grad=True)
    loss = EntropyMinimisation()(replace(make_student([1.0, 0.0]), logits=logits), None)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.tolist() == [0.0, 0.0]
    with pytest.raises(InputError, match="EntropyMinimisation needs unlabelled volumes: ingest some or lower"):
        EntropyMinimisation().prepare(make_cohort([0.0, 1.0]), None)


@pytest.mark.parametrize("options", [{"momentum": 1.0}, {"momentum": -0.1}, {"ramp_visits": 0}])
def test_bad_options_are_told_in_one_line(options):
    with pytest.raises(InputError, match=r"^[^\n]+ is [^\n]+: give [^\n]+$"):
        TemporalEnsembling(**options)


def steps_of_a_mean_teacher(transfer: MeanTeacher, network: nn.Module, volumes: Tensor) -> list[float]:
    losses = []
    for _ in range(4):
        logits = network(volumes).squeeze(-1)
        n = len(volumes)
        student = StudentBatch(logits, volumes, torch.full((n,), NAN), torch.zeros(n, 0), torch.arange(n), volumes)
        losses.append(transfer(student, None).item())
        with torch.no_grad():
            network[0].weight.add_(0.5)  # a step of some optimiser
    return losses


def test_the_mean_teacher_is_a_moving_average_of_the_student():
    torch.manual_seed(0)
    network, volumes = nn.Sequential(nn.Linear(3, 1)), torch.randn(5, 3)
    weight = network[0].weight.detach().clone()
    transfer = MeanTeacher(decay=0.8, ramp_steps=1, noise=0.0)
    transfer.attach(network)
    losses = steps_of_a_mean_teacher(transfer, network, volumes)
    average, expected = weight.clone(), []
    for step in range(4):
        current = weight + 0.5 * step
        average = 0.8 * average + 0.2 * current
        p, q = ((volumes @ w.T + network[0].bias.detach()).sigmoid() for w in (current, average))
        expected.append(((p - q) ** 2).mean().item() * (math.exp(-5) if step == 0 else 1))
    assert losses == pytest.approx(expected, rel=1e-4, abs=1e-9)
    assert not list(transfer.parameters()), "the average is not trained"


def test_no_gradient_flows_through_the_average_of_the_student():
    torch.manual_seed(0)
    network, volumes = nn.Sequential(nn.Linear(3, 1)), torch.randn(5, 3)
    transfer = MeanTeacher(decay=0.5, ramp_steps=1, noise=0.0)
    transfer.attach(network)
    transfer.steps = 1  # the ramp is over
    with torch.no_grad():
        before = network[0].weight.clone()
        network[0].weight.add_(1.0)
    logits = network(volumes).squeeze(-1)
    logits.retain_grad()
    n = len(volumes)
    student = StudentBatch(logits, volumes, torch.full((n,), NAN), torch.zeros(n, 0), torch.arange(n), volumes)
    transfer(student, None).backward()
    p = logits.detach().sigmoid()
    q = (volumes @ (before + 0.5).T + network[0].bias.detach()).squeeze(-1).sigmoid()
    pull = 2 * (p - q) * p * (1 - p) / n
    torch.testing.assert_close(logits.grad, pull)
    torch.testing.assert_close(network[0].weight.grad, pull[None] @ volumes)


def test_the_noise_of_the_average_has_the_deviation_that_was_asked_for():
    """Of small noise e on a logit of 0 a probability changes by e / 4."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(1, 1, bias=False))
    nn.init.ones_(network[0].weight)
    losses = {}
    for noise in (0.0, 0.1):
        transfer = MeanTeacher(ramp_steps=1, noise=noise)
        transfer.attach(network)
        n = 20000
        nothing = torch.zeros(n, 1)
        student = StudentBatch(
            torch.zeros(n), nothing, torch.full((n,), NAN), torch.zeros(n, 0), torch.arange(n), nothing
        )
        losses[noise] = [transfer(student, None).item() for _ in range(3)][1:]
    assert losses[0.0] == [0.0, 0.0]
    assert losses[0.1] == pytest.approx([0.1**2 / 16] * 2, rel=0.05)
    assert losses[0.1][0] != losses[0.1][1], "drawn anew in every batch"


def test_a_mean_teacher_that_is_resumed_goes_on_where_it_was():
    torch.manual_seed(0)
    first, volumes = nn.Sequential(nn.Linear(3, 1)), torch.randn(5, 3)
    transfer = MeanTeacher(noise=0.0, ramp_steps=2)
    transfer.attach(first)
    steps_of_a_mean_teacher(transfer, first, volumes)
    kept = copy.deepcopy(transfer.state_dict())
    second = copy.deepcopy(first)
    whole = steps_of_a_mean_teacher(transfer, first, volumes)
    again = MeanTeacher(noise=0.0, ramp_steps=2)
    again.load_state_dict(kept)
    again.attach(second)
    assert steps_of_a_mean_teacher(again, second, volumes) == whole


def test_no_teacher_is_read():
    for transfer in (TemporalEnsembling(), MeanTeacher(), EntropyMinimisation()):
        assert not (transfer.needs_teacher or transfer.reads_outputs)
