"""What stands in for the teacher."""

import pytest
import torch

from data_modules.errors import InputError
from poddistill.losses.controls import InventedOutputs, ShuffledOutputs

NAN = float("nan")


def test_constant_outputs_tell_the_label_and_nothing_else(make_bank):
    bank = InventedOutputs(2.0)(make_bank([1.0, 0.0, 1.0, 0.0], features=torch.rand(4, 3)))
    assert bank.logits.tolist() == [2.0, -2.0, 2.0, -2.0]
    assert torch.equal(bank.features[0], bank.features[2])
    assert torch.equal(bank.features[1], bank.features[3])
    assert not torch.equal(bank.features[0], bank.features[1])


def test_gaussian_outputs_have_the_moments_that_were_asked_for_and_repeat(make_bank):
    clips = make_bank([1.0, 0.0] * 5000, features=torch.zeros(10000, 2))
    bank = InventedOutputs(1.5, 0.7, seed=3)(clips)
    for label, mean in ((1, 1.5), (0, -1.5)):
        logits = bank.logits[clips.labelled(label)]
        assert logits.mean().item() == pytest.approx(mean, abs=0.04)
        assert logits.std().item() == pytest.approx(0.7, abs=0.03)
        features = bank.features[clips.labelled(label)]
        assert features.std(0).tolist() == pytest.approx([1.0, 1.0], abs=0.03)
        assert torch.corrcoef(torch.cat([features, logits[:, None]], 1).T).triu(1).abs().max() < 0.05
    centres = [bank.features[clips.labelled(label)].mean(0) for label in (0, 1)]
    assert (centres[1] - centres[0]).abs().min() > 0.1
    assert torch.equal(InventedOutputs(1.5, 0.7, seed=3)(clips).logits, bank.logits)
    assert not torch.equal(InventedOutputs(1.5, 0.7, seed=4)(clips).logits, bank.logits)


def test_nothing_is_invented_for_clips_without_label(make_bank):
    """What were invented for them would be noise, beside which any teacher looks good."""
    few = make_bank([NAN, 1.0, NAN, 0.0, 1.0], features=torch.rand(5, 3), covariates=torch.rand(5, 2))
    bank, alone = InventedOutputs(2.5, 0.7)(few), InventedOutputs(2.5, 0.7)(few.rows(~few.labels.isnan()))
    assert bank.case_ids == ("clip1", "clip3", "clip4")
    assert bank.labels.tolist() == [1, 0, 1]
    assert torch.equal(bank.covariates, few.covariates[[1, 3, 4]])
    assert torch.equal(bank.logits, alone.logits)
    with pytest.raises(InputError, match="the teacher's bank is empty"):
        InventedOutputs()(make_bank([NAN] * 3))


def test_shuffled_outputs_are_the_same_values_elsewhere(make_bank):
    clips = make_bank([1.0, 0.0] * 500, covariates=torch.rand(1000, 2))
    bank = ShuffledOutputs()(clips)
    assert torch.equal(bank.logits.sort().values, clips.logits)
    assert torch.equal(bank.features[:, 0], bank.logits), "a clip's outputs stay together"
    assert torch.equal(bank.labels, clips.labels)
    assert torch.equal(bank.covariates, clips.covariates)
    assert (bank.logits == clips.logits).float().mean() < 0.02


@pytest.mark.parametrize("make", [lambda: InventedOutputs(0.0), lambda: InventedOutputs(deviation=-1.0)])
def test_bad_options_are_told_in_one_line(make):
    with pytest.raises(InputError, match=r"^[^\n]+ is [^\n]+: give [^\n]+$"):
        make()
