"""The optimisation recipe: which parameter learns how fast, and when."""

import math

import pytest
import torch
from pytorch_lightning.plugins import MixedPrecision
from torch import nn

from data_modules.errors import InputError
from poddistill.nets.masked_autoencoder import MaskedAutoEncoder3D
from poddistill.nets.r2plus1d import R2Plus1D
from poddistill.nets.vision_transformer import VisionTransformer3D
from poddistill.training.optimisation import AdamWCosine


class Student(nn.Module):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(12, 1)


def encoder() -> VisionTransformer3D:
    return VisionTransformer3D((4, 4, 4), (2, 2, 2), 12, 2, 2, pooling="class")


def settings(module: nn.Module, recipe: AdamWCosine) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of every trainable parameter, by name; each must appear exactly once."""
    found = {}
    for group in recipe.parameter_groups(module):
        for parameter in group["params"]:
            assert id(parameter) not in found
            found[id(parameter)] = (group["lr"], group["weight_decay"])
    names = {id(p): name for name, p in module.named_parameters() if p.requires_grad}
    assert found.keys() == names.keys()
    return {names[key]: value for key, value in found.items()}


@pytest.mark.parametrize("wrap", [lambda e: e, torch.compile])
def test_rates_fall_by_layer_and_vectors_do_not_decay(wrap):
    student = Student(wrap(encoder()))
    recipe = AdamWCosine(lr=1.0, weight_decay=0.1, layer_decay=0.5)
    found = {name.replace("_orig_mod.", ""): value for name, value in settings(student, recipe).items()}
    expected = {
        "head.weight": (1.0, 0.1),
        "head.bias": (1.0, 0.0),
        "encoder.norm.weight": (1.0, 0.0),
        "encoder.blocks.1.attention.qkv.weight": (0.5, 0.1),
        "encoder.blocks.1.attention.qkv.bias": (0.5, 0.0),
        "encoder.blocks.0.mlp.2.weight": (0.25, 0.1),
        "encoder.blocks.0.norm_attention.weight": (0.25, 0.0),
        "encoder.patch_embedding.weight": (0.125, 0.1),
        "encoder.patch_embedding.bias": (0.125, 0.0),
        "encoder.class_token": (0.125, 0.0),
    }
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    "module", [MaskedAutoEncoder3D(encoder(), 12, 1, 2), R2Plus1D(4), nn.Linear(3, 1)], ids=lambda m: type(m).__name__
)
def test_without_layer_decay_all_learn_alike(module):
    found = settings(module, AdamWCosine(lr=0.01, weight_decay=0.2))
    shapes = {name: parameter.ndim for name, parameter in module.named_parameters()}
    assert found == {name: (0.01, 0.2 if ndim > 1 else 0.0) for name, ndim in shapes.items()}


def test_frozen_parameters_are_left_out():
    student = Student(encoder().requires_grad_(False))
    assert settings(student, AdamWCosine(layer_decay=0.5)).keys() == {"head.weight", "head.bias"}
    with pytest.raises(InputError, match="no trainable parameter"):
        AdamWCosine().parameter_groups(student.requires_grad_(False))


def rates(recipe: AdamWCosine, steps_per_epoch: int, epochs: int, module: nn.Module | None = None) -> list[list[float]]:
    optimizer, scheduler = recipe(module or nn.Linear(2, 1), steps_per_epoch, epochs)
    seen = []
    for _ in range(steps_per_epoch * epochs):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return seen


def test_rates_warm_up_to_the_peak_and_fall_as_a_cosine_to_the_floor():
    recipe = AdamWCosine(lr=2.0, warmup_epochs=1.5, min_lr_ratio=0.1)
    seen = [group[0] for group in rates(recipe, steps_per_epoch=2, epochs=10)]
    assert seen[:4] == pytest.approx([0.5, 1.0, 1.5, 2.0])  # three steps of warm-up, then the peak
    expected = [2 * (0.1 + 0.9 * (1 + math.cos(math.pi * k / 17)) / 2) for k in range(17)]
    assert seen[3:] == pytest.approx(expected)
    assert recipe.lr_factor(20, 3, 20) == pytest.approx(0.1)
    assert recipe.lr_factor(50, 3, 20) == pytest.approx(0.1)


def test_the_schedule_keeps_the_ratio_of_the_layers_and_the_first_group_is_the_fastest():
    recipe = AdamWCosine(lr=1.0, warmup_epochs=1, layer_decay=0.5)
    seen = rates(recipe, steps_per_epoch=3, epochs=4, module=Student(encoder()))
    peak = [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    assert seen[3] == pytest.approx(peak)
    for row in seen:
        assert [r / row[0] for r in row] == pytest.approx(peak)


def test_a_training_shorter_than_the_warm_up_ends_within_it():
    seen = rates(AdamWCosine(lr=1.0, warmup_epochs=5), steps_per_epoch=3, epochs=1)
    assert [row[0] for row in seen] == pytest.approx([1 / 16, 2 / 16, 3 / 16])


def test_a_resumed_schedule_goes_on_where_it_stopped():
    recipe, module = AdamWCosine(lr=1.0, warmup_epochs=1), nn.Linear(2, 1)
    whole = [row[0] for row in rates(recipe, 5, 2)]
    optimizer, scheduler = recipe(module, 5, 2)
    for _ in range(6):
        optimizer.step()
        scheduler.step()
    states = optimizer.state_dict(), scheduler.state_dict()
    optimizer, scheduler = recipe(module, 5, 2)
    optimizer.load_state_dict(states[0])
    scheduler.load_state_dict(states[1])
    seen = []
    for _ in range(4):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert seen == pytest.approx(whole[6:])


def test_a_step_is_that_of_adamw_written_out():
    module = nn.Linear(2, 1)
    weight, bias = module.weight.detach().clone(), module.bias.detach().clone()
    optimizer, _ = AdamWCosine(lr=0.1, weight_decay=0.5, warmup_epochs=0)(module, 1, 10)
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()  # the first step of Adam goes lr against the gradient's sign, here 1
    torch.testing.assert_close(module.weight.detach(), weight * (1 - 0.1 * 0.5) - 0.1)
    torch.testing.assert_close(module.bias.detach(), bias - 0.1)


def test_gradients_are_clipped_in_fp16_before_the_fused_step():
    """Against the same step without a loss scale: a scale that were divided out after clipping would leave nothing."""
    weights = []
    for scale in (None, 2.0**14):
        module = nn.Linear(2, 1)
        nn.init.ones_(module.weight)
        optimizer, _ = AdamWCosine(lr=0.1, warmup_epochs=0)(module, 1, 10)
        assert optimizer.defaults["fused"]
        scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
        precision = MixedPrecision("16-mixed", "cpu", scaler)
        for factor in (1e-3, 1.0):  # Adam does not see the length of one gradient, but that of two
            optimizer.zero_grad()
            scaler.scale(factor * module(torch.ones(1, 2)).sum()).backward()
            scaler.unscale_(optimizer)
            precision.clip_gradients(optimizer, 0.5)
            scaler.step(optimizer)
            scaler.update()
        weights.append(module.weight.detach())
    torch.testing.assert_close(*weights)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": 0.0}, "lr is 0.0"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"warmup_epochs": float("nan")}, "warmup_epochs is nan"),
        ({"min_lr_ratio": 1.5}, "min_lr_ratio is 1.5"),
        ({"betas": (0.9, 1.0)}, "betas is"),
        ({"layer_decay": 0.0}, "layer_decay is 0.0"),
    ],
)
def test_bad_options_are_told_by_name(options, words):
    with pytest.raises(InputError, match=words):
        AdamWCosine(**options)


def test_layer_decay_needs_a_layered_encoder():
    with pytest.raises(InputError, match="R2Plus1D has no layered encoder: set it to 1"):
        AdamWCosine(layer_decay=0.7).parameter_groups(R2Plus1D(4))
