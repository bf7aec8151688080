"""Which clip an MRI is paired with."""

import pytest
import torch

from data_modules.errors import InputError
from poddistill.losses.pairing import LabelMatchedPairing, RandomPairing, TeacherBank

NAN = float("nan")


def bank(labels: list[float]) -> TeacherBank:
    ids = tuple(f"clip{i}" for i in range(len(labels)))
    return TeacherBank(torch.arange(len(labels), dtype=torch.float32), torch.tensor(labels), ids)


MIXED = [1.0, 0.0, NAN, 0.0, 1.0, 0.0]


def test_every_mri_meets_a_clip_of_its_label_and_every_such_clip_equally_often():
    labels = torch.tensor([0.0, 1.0]).repeat(3000)
    torch.manual_seed(0)
    index = LabelMatchedPairing()(labels, bank(MIXED))
    assert index.dtype == torch.int64
    assert torch.equal(torch.tensor(MIXED)[index], labels)
    counts = torch.bincount(index, minlength=6) / 3000
    torch.testing.assert_close(counts, torch.tensor([1 / 2, 1 / 3, 0, 1 / 3, 1 / 2, 1 / 3]), atol=0.03, rtol=0)


def test_draws_are_independent_of_each_other():
    index = LabelMatchedPairing()(torch.ones(4000), bank(MIXED), torch.Generator().manual_seed(0))
    same = (index[::2] == index[1::2]).float().mean().item()
    assert same == pytest.approx(0.5, abs=0.04)


def test_a_random_pair_ignores_labels():
    labels = torch.tensor([NAN, 0.0, 1.0]).repeat(2000)
    index = RandomPairing()(labels, bank(MIXED), torch.Generator().manual_seed(0))
    for label in range(3):
        counts = torch.bincount(index[label::3], minlength=6) / 2000
        torch.testing.assert_close(counts, torch.full((6,), 1 / 6), atol=0.03, rtol=0)


@pytest.mark.parametrize("pairing", [LabelMatchedPairing(), RandomPairing()])
def test_pairs_follow_the_global_seed_or_the_generator_and_change_from_call_to_call(pairing):
    labels, clips = torch.tensor([0.0, 1.0]).repeat(20), bank(MIXED)
    torch.manual_seed(5)
    first, second = pairing(labels, clips), pairing(labels, clips)
    assert not torch.equal(first, second)
    torch.manual_seed(5)
    assert torch.equal(pairing(labels, clips), first)
    state = torch.get_rng_state()
    drawn = pairing(labels, clips, torch.Generator().manual_seed(5))
    assert torch.equal(drawn, first)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_class_that_the_bank_lacks_is_told_only_when_it_is_needed():
    clips = bank([0.0, 0.0, NAN])
    assert LabelMatchedPairing()(torch.zeros(4), clips).max() < 2
    with pytest.raises(InputError, match=r"no TVUS training clip has label 1 \(obliterated\)"):
        LabelMatchedPairing()(torch.tensor([0.0, 1.0]), clips)


def test_an_unlabelled_mri_cannot_be_matched():
    with pytest.raises(InputError, match="MRI without label"):
        LabelMatchedPairing()(torch.tensor([0.0, NAN]), bank(MIXED))


@pytest.mark.parametrize(
    ("logits", "labels", "ids", "words"),
    [
        ([], [], (), "empty"),
        ([1.0, 2.0], [1.0], ("a", "b"), r"2 case_ids but logits \(2,\) and labels \(1,\)"),
        ([1.0, float("inf")], [1.0, 0.0], ("a", "b"), "logit of b is not finite"),
    ],
)
def test_a_bad_bank_is_refused(logits, labels, ids, words):
    with pytest.raises(InputError, match=words):
        TeacherBank(torch.tensor(logits), torch.tensor(labels), ids)
