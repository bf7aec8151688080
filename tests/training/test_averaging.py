"""The average of the weights: against the formula, and in trainings too short for a fixed decay."""

import pytest
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

from poddistill.training.averaging import WeightEMA


def averaged(avg_fn, weights: list[float]) -> float:
    model = nn.Linear(1, 1, bias=False)
    average = AveragedModel(model, avg_fn=avg_fn)
    for weight in weights:
        model.weight.data.fill_(weight)
        average.update_parameters(model)
    return average.module.weight.item()


@pytest.mark.parametrize("decay", [0.5, 0.98])
def test_it_is_the_formula(decay):
    weights = torch.randn(60, generator=torch.Generator().manual_seed(0)).tolist()
    expected = weights[0]
    for n, weight in enumerate(weights[1:], start=2):
        d = min(decay, n / (n + 9))
        expected = d * expected + (1 - d) * weight
    assert averaged(WeightEMA(decay)._average, weights) == pytest.approx(expected, rel=1e-4)


def test_a_short_training_is_not_judged_by_how_it_started():
    """1 at the start, 0 ever after: what is left of the start."""
    for steps in (20, 100, 1000):
        assert averaged(WeightEMA(0.999)._average, [1.0] + [0.0] * steps) < 1e-3
    assert averaged(get_ema_avg_fn(0.999), [1.0] + [0.0] * 100) > 0.9


def test_a_long_training_has_the_average_of_a_fixed_decay():
    weights = torch.randn(1500, generator=torch.Generator().manual_seed(1)).tolist()
    assert averaged(WeightEMA(0.98)._average, weights) == pytest.approx(
        averaged(get_ema_avg_fn(0.98), weights), abs=1e-6
    )


def test_it_is_taken_at_every_step_as_lightnings_own():
    mine, theirs = WeightEMA(0.9), EMAWeightAveraging(decay=0.9)
    assert [mine.should_update(step_idx=step) for step in range(5)] == [True] * 5
    assert [theirs.should_update(step_idx=step) for step in range(5)] == [True] * 5
    assert not mine.should_update(epoch_idx=1)


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1])
def test_a_decay_out_of_range_is_told(decay):
    with pytest.raises(ValueError, match=r"decay is .*: give a part in \(0, 1\)"):
        WeightEMA(decay)
