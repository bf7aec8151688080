"""Which clip an MRI is paired with."""

import pytest
import torch

from data_modules.errors import InputError
from poddistill.losses.pairing import LabelMatchedPairing, RandomPairing

NAN = float("nan")
MIXED = [1.0, 0.0, NAN, 0.0, 1.0, 0.0]


def test_every_mri_meets_a_clip_of_its_label_and_every_such_clip_equally_often(make_bank, make_student):
    student = make_student([0.0, 1.0] * 3000)
    torch.manual_seed(0)
    index = LabelMatchedPairing()(student, make_bank(MIXED))
    assert index.dtype == torch.int64
    assert torch.equal(torch.tensor(MIXED)[index], student.labels)
    counts = torch.bincount(index, minlength=6) / 3000
    torch.testing.assert_close(counts, torch.tensor([1 / 2, 1 / 3, 0, 1 / 3, 1 / 2, 1 / 3]), atol=0.03, rtol=0)


def test_draws_are_independent_of_each_other(make_bank, make_student):
    index = LabelMatchedPairing()(make_student([1.0] * 4000), make_bank(MIXED), torch.Generator().manual_seed(0))
    same = (index[::2] == index[1::2]).float().mean().item()
    assert same == pytest.approx(0.5, abs=0.04)


def test_a_random_pair_ignores_labels(make_bank, make_student):
    student = make_student([NAN, 0.0, 1.0] * 2000)
    index = RandomPairing()(student, make_bank(MIXED), torch.Generator().manual_seed(0))
    for label in range(3):
        counts = torch.bincount(index[label::3], minlength=6) / 2000
        torch.testing.assert_close(counts, torch.full((6,), 1 / 6), atol=0.03, rtol=0)


@pytest.mark.parametrize("pairing", [LabelMatchedPairing(), RandomPairing()])
def test_pairs_follow_the_global_seed_or_the_generator_and_change_from_call_to_call(pairing, make_bank, make_student):
    student, clips = make_student([0.0, 1.0] * 20), make_bank(MIXED)
    torch.manual_seed(5)
    first, second = pairing(student, clips), pairing(student, clips)
    assert not torch.equal(first, second)
    torch.manual_seed(5)
    assert torch.equal(pairing(student, clips), first)
    state = torch.get_rng_state()
    drawn = pairing(student, clips, torch.Generator().manual_seed(5))
    assert torch.equal(drawn, first)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_class_that_the_bank_lacks_is_told_only_when_it_is_needed(make_bank, make_student):
    clips = make_bank([0.0, 0.0, NAN])
    assert LabelMatchedPairing()(make_student([0.0] * 4), clips).max() < 2
    with pytest.raises(InputError, match=r"no TVUS training clip has label 1 \(obliterated\)"):
        LabelMatchedPairing()(make_student([0.0, 1.0]), clips)


def test_an_unlabelled_mri_cannot_be_matched(make_bank, make_student):
    with pytest.raises(InputError, match="MRI without label"):
        LabelMatchedPairing()(make_student([0.0, NAN]), make_bank(MIXED))
