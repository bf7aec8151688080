"""Transfer by rank."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

from data_modules.errors import InputError
from poddistill.losses.distillation import BernoulliKL, OutputRegression
from poddistill.losses.ordered import QuantileAlignment, SortedPairing
from poddistill.losses.transfer import PairedOutputs

NAN = float("nan")
LOSSES = [
    OutputRegression(),
    OutputRegression(norm="l1"),
    OutputRegression(on="probability"),
    BernoulliKL(temperature=2.0),
]


@pytest.mark.parametrize("loss", LOSSES)
def test_sorted_pairs_are_an_optimal_assignment_within_every_class(loss, make_bank, make_student):
    generator = torch.Generator().manual_seed(0)
    labels = [0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0]
    student = make_student(labels, logits=2 * torch.randn(9, generator=generator))
    bank = make_bank([*reversed(labels), NAN], logits=2 * torch.randn(10, generator=generator))
    index = SortedPairing()(student, bank)
    assert torch.equal(bank.labels[index], student.labels)
    assert len(index.unique()) == 9
    for label in (0, 1):
        rows, clips = (student.labels == label).nonzero().flatten(), bank.labelled(label)
        cost = loss(student.logits[rows].repeat_interleave(len(clips)), bank.logits[clips].repeat(len(rows)))
        cost = cost.view(len(rows), len(clips)).double().numpy()
        paired = loss(student.logits[rows], bank.logits[index[rows]]).sum().item()
        assert paired == pytest.approx(cost[linear_sum_assignment(cost)].sum(), rel=1e-5)


@pytest.mark.parametrize(("n", "clips", "expected"), [(2, 8, [2, 6]), (3, 3, [0, 1, 2]), (4, 2, [0, 0, 1, 1])])
def test_mri_meet_the_clips_at_the_middle_of_their_quantiles(n, clips, expected, make_bank, make_student):
    student = make_student([1.0] * n, logits=[-float(i) for i in range(n)])
    bank = make_bank([1.0] * clips)
    assert SortedPairing()(student, bank).tolist() == expected[::-1]


def test_only_the_order_of_the_students_logits_counts(make_bank, make_student):
    bank, labels = make_bank([0.0, 1.0] * 10), [0.0, 1.0] * 4
    logits = torch.randn(8, generator=torch.Generator().manual_seed(1))
    first = SortedPairing()(make_student(labels, logits), bank)
    assert torch.equal(first, SortedPairing()(make_student(labels, 3 + logits.exp()), bank))


def test_sorted_pairing_tells_what_it_lacks(make_bank, make_student):
    with pytest.raises(InputError, match="MRI without label"):
        SortedPairing()(make_student([0.0, NAN]), make_bank([0.0, 1.0]))
    with pytest.raises(InputError, match="no TVUS training clip has label 1"):
        SortedPairing()(make_student([0.0, 1.0]), make_bank([0.0]))
    assert SortedPairing()(make_student([0.0]), make_bank([0.0])).tolist() == [0]


def test_a_student_of_the_teachers_quantiles_has_no_loss_and_one_beside_them_is_drawn_back(make_bank, make_student):
    bank = make_bank([0.0, 1.0] * 5)
    transfer = QuantileAlignment(OutputRegression(), prevalence=0.5)
    logits = bank.logits.flip(0)
    assert transfer(make_student([NAN] * 10, logits), bank).item() == pytest.approx(0)
    shifted = (logits + 3).requires_grad_()
    transfer(make_student([NAN] * 10, shifted), bank).backward()
    torch.testing.assert_close(shifted.grad, torch.full((10,), 2 * 3 / 10))


def test_targets_are_quantiles_at_the_wanted_prevalence_by_the_students_order(make_bank, make_student):
    """Against numpy's quantiles of a sample in which the clips are repeated until the prevalence is right."""
    generator = torch.Generator().manual_seed(0)
    bank = make_bank([0.0] * 6 + [1.0] * 14, logits=torch.randn(20, generator=generator))
    logits = torch.randn(9, generator=generator, requires_grad=True)
    loss = QuantileAlignment(OutputRegression(), prevalence=0.3)(make_student([NAN] * 9, logits), bank)
    clips = bank.logits.numpy()
    sample = np.concatenate([np.repeat(clips[:6], 7 * 14), np.repeat(clips[6:], 3 * 6)])
    ranks = logits.detach().numpy().argsort().argsort()
    targets = np.quantile(sample, (ranks + 0.5) / 9, method="inverted_cdf")
    assert loss.item() == pytest.approx(((logits.detach().numpy() - targets) ** 2).mean(), rel=1e-5)


def test_the_prevalence_is_that_of_the_training_labels_unless_given(make_bank, make_student, make_cohort):
    bank = make_bank([0.0] * 3 + [1.0] * 5, logits=[-2.0] * 3 + [2.0] * 5)
    transfer = QuantileAlignment(OutputRegression())
    transfer.prepare(make_cohort([0.0, 0.0, 0.0, 1.0, NAN]), bank)
    logits = torch.arange(8.0, requires_grad=True)
    transfer(make_student([NAN] * 8, logits), bank).backward()
    targets = logits.detach() - logits.grad * 8 / 2
    torch.testing.assert_close(targets, torch.tensor([-2.0] * 6 + [2.0] * 2))


def test_labelled_volumes_take_part_only_when_asked(make_bank, make_student):
    bank = make_bank([0.0, 1.0])
    for labelled, reached in ((False, [False, True, False]), (True, [True, True, True])):
        logits = torch.tensor([5.0, 6.0, 7.0], requires_grad=True)
        transfer = QuantileAlignment(OutputRegression(), prevalence=0.5, labelled=labelled)
        transfer(make_student([1.0, NAN, 0.0], logits), bank).backward()
        assert (logits.grad != 0).tolist() == reached


def test_a_batch_without_such_volumes_adds_nothing_and_keeps_a_gradient(make_bank, make_student):
    logits = torch.zeros(2, requires_grad=True)
    loss = QuantileAlignment(OutputRegression(), prevalence=0.5)(
        make_student([0.0, 1.0], logits), make_bank([0.0, 1.0])
    )
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.tolist() == [0, 0]


def test_ranks_are_taken_among_the_last_logits_of_the_queue(make_bank, make_student):
    bank = make_bank([0.0] * 50 + [1.0] * 50)
    transfer = QuantileAlignment(OutputRegression(norm="l1"), prevalence=0.5, queue=3)
    targets = []
    for logits in ([-9.0, -8.0], [-1.0, 1.0], [0.0]):
        student = make_student([NAN] * len(logits), logits)
        targets.append(transfer(student, bank).item())
    # 0 is the second of [-8, -1, 1, 0] from above, so at the quantile 2.5 / 4, where the logits 0, ..., 99 have 62.
    assert targets[-1] == pytest.approx(62)


class Stage(nn.Module):
    def __init__(self, queue: int = 6) -> None:
        super().__init__()
        self.transfer = QuantileAlignment(OutputRegression(), prevalence=0.5, queue=queue)


def test_a_resumed_run_ranks_as_the_whole_one(tmp_path, make_bank, make_student):
    bank = make_bank([0.0, 1.0] * 20)
    steps = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    whole = Stage()
    for logits in steps[:4]:
        whole.transfer(make_student([NAN] * 4, logits), bank)
    torch.save(whole.state_dict(), tmp_path / "last.ckpt")
    expected = [whole.transfer(make_student([NAN] * 4, logits), bank).item() for logits in steps[4:]]
    resumed = Stage()
    resumed.load_state_dict(torch.load(tmp_path / "last.ckpt", weights_only=True))
    assert [resumed.transfer(make_student([NAN] * 4, logits), bank).item() for logits in steps[4:]] == expected
    without = Stage()
    assert [without.transfer(make_student([NAN] * 4, logits), bank).item() for logits in steps[4:]] != expected


def test_a_checkpoint_of_another_queue_loads(make_bank, make_student):
    whole = Stage()
    whole.transfer(make_student([NAN] * 5, [1.0, 2.0, 3.0, 4.0, 5.0]), make_bank([0.0, 1.0]))
    shorter, never = Stage(queue=2), Stage(queue=0)
    for stage in (shorter, never):
        stage.load_state_dict(whole.state_dict())
    assert shorter.transfer.get_extra_state().tolist() == [4.0, 5.0]
    assert not len(never.transfer.get_extra_state())


def test_equal_logits_share_their_rank(make_bank, make_student):
    bank = make_bank([0.0, 1.0] * 5)
    logits = torch.zeros(4, requires_grad=True)
    QuantileAlignment(OutputRegression(), prevalence=0.5)(make_student([NAN] * 4, logits), bank).backward()
    torch.testing.assert_close(logits.grad, torch.full((4,), -2 * 4.0 / 4))


def test_alignment_tells_what_it_lacks(make_bank, make_cohort):
    with pytest.raises(InputError, match="prevalence is 1"):
        QuantileAlignment(OutputRegression(), prevalence=1.0)
    with pytest.raises(InputError, match="queue is -1"):
        QuantileAlignment(OutputRegression(), queue=-1)
    with pytest.raises(InputError, match="no unlabelled volume"):
        QuantileAlignment(OutputRegression()).prepare(make_cohort([0.0, 1.0]), make_bank([0.0, 1.0]))
    with pytest.raises(InputError, match="tells no prevalence"):
        QuantileAlignment(OutputRegression()).prepare(make_cohort([1.0, NAN]), make_bank([0.0, 1.0]))


def test_sorted_pairs_teach_the_student(make_bank, make_student):
    logits = torch.tensor([3.0, -1.0], requires_grad=True)
    loss = PairedOutputs(SortedPairing(), OutputRegression())(make_student([1.0, 1.0], logits), make_bank([1.0, 1.0]))
    loss.backward()
    assert loss.item() == pytest.approx(((3 - 1) ** 2 + (-1 - 0) ** 2) / 2)
    assert logits.grad.tolist() == pytest.approx([2.0, -1.0])
