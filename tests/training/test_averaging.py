"""The average of the weights: against the formula, and in trainings too short for a fixed decay."""

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn
from torch.utils.data import DataLoader

from data_modules.errors import InputError
from poddistill.training.averaging import WeightEMA


def averaged(weights: list[float], ema: WeightEMA | None = None, fixed: float = 0.0) -> float:
    """The average after these weights, by `ema` or with a fixed decay."""
    model = nn.Linear(1, 1, bias=False)
    average = AveragedModel(model, avg_fn=get_ema_avg_fn(fixed))
    for weight in weights:
        model.weight.data.fill_(weight)
        if ema is None:
            average.update_parameters(model)
        else:
            ema.update(average, model)
    assert average.n_averaged == len(weights)
    return average.module.weight.item()


@pytest.mark.parametrize("decay", [0.5, 0.98])
def test_it_is_the_formula(decay):
    weights = torch.randn(60, generator=torch.Generator().manual_seed(0)).tolist()
    expected = weights[0]
    for n, weight in enumerate(weights[1:], start=2):
        d = min(decay, n / (n + 9))
        expected = d * expected + (1 - d) * weight
    assert averaged(weights, WeightEMA(decay)) == pytest.approx(expected, rel=1e-4)


def test_a_short_training_is_not_judged_by_how_it_started():
    """1 at the start, 0 ever after: what is left of the start."""
    for steps in (20, 100, 1000):
        assert averaged([1.0] + [0.0] * steps, WeightEMA(0.999)) < 1e-3
    assert averaged([1.0] + [0.0] * 100, fixed=0.999) > 0.9


def test_a_long_training_has_the_average_of_a_fixed_decay():
    weights = torch.randn(1500, generator=torch.Generator().manual_seed(1)).tolist()
    assert averaged(weights, WeightEMA(0.98)) == pytest.approx(averaged(weights, fixed=0.98), abs=1e-6)


def test_integers_are_the_last_ones_and_buffers_are_averaged():
    model = nn.BatchNorm1d(2)
    average, ema = AveragedModel(model), WeightEMA(0.5)
    for value in (1.0, 3.0, 5.0):
        model.running_mean.fill_(value)
        model.num_batches_tracked.fill_(int(value))
        ema.update(average, model)
    first = 2 / 11 * 1 + 9 / 11 * 3
    assert average.module.running_mean.tolist() == pytest.approx([3 / 12 * first + 9 / 12 * 5] * 2)
    assert average.module.num_batches_tracked == 5


def test_a_resumed_average_goes_on_where_it_was():
    model, whole, parts = nn.Linear(3, 1), WeightEMA(0.9), (WeightEMA(0.9), WeightEMA(0.9))
    one, two = AveragedModel(model), AveragedModel(model)
    for step in range(8):
        model.weight.data.normal_()
        whole.update(one, model)
        parts[step >= 4].update(two, model)
    assert torch.equal(one.module.weight, two.module.weight)


def test_it_lies_where_the_training_runs(tmp_path):
    """The module is still on the host when a fit is set up."""
    trainer = pl.Trainer(default_root_dir=tmp_path, accelerator="cpu", logger=False)
    trainer.strategy.parallel_devices = None
    trainer.strategy._root_device = torch.device("meta")  # any that is not the module's
    ema = WeightEMA(0.9)
    ema.setup(trainer, pl.LightningModule(), "fit")
    assert ema._average_model.n_averaged.device.type == "meta"


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_fit_takes_every_step_of_the_optimiser_into_the_average(tmp_path, accumulate):
    class Line(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(1, 1, bias=False)
            self.weights = []

        def training_step(self, batch, batch_idx):
            return self.layer(batch).square().mean()

        def optimizer_step(self, *args, **kwargs):
            super().optimizer_step(*args, **kwargs)
            self.weights.append(self.layer.weight.item())

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    module = Line()
    trainer = pl.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        max_epochs=3,
        accumulate_grad_batches=accumulate,
        callbacks=[WeightEMA(0.6)],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(torch.ones(8, 1), batch_size=2))
    assert len(module.weights) == 12 / accumulate
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    checkpoint = torch.load(tmp_path / "end.ckpt")
    assert checkpoint["averaging_state"]["n_averaged"] == len(module.weights)
    expected = averaged(module.weights, WeightEMA(0.6))
    assert checkpoint["state_dict"]["layer.weight"].item() == pytest.approx(expected)
    assert expected != pytest.approx(module.weights[-1], rel=0.01)


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1])
def test_a_decay_out_of_range_is_told(decay):
    with pytest.raises(InputError, match=r"decay is .*: give a part in \(0, 1\)"):
        WeightEMA(decay)
