"""R(2+1)D against a functional reference, and the loading of torchvision's weights."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from data_modules.errors import InputError
from poddistill.nets.r2plus1d import Conv3d, R2Plus1D


def make(**options) -> R2Plus1D:
    torch.manual_seed(0)
    network = R2Plus1D(**{"width": 4, **options})
    for name, value in network.state_dict().items():  # batch norms away from their neutral start
        if value.ndim == 1 and value.is_floating_point():
            (value.uniform_(0.5, 1.5) if name.endswith("var") else value.normal_(std=0.5))
    return network


def expected_shapes(in_channels: int, num_classes: int) -> dict[str, tuple[int, ...]]:
    """The state dict of torchvision's r2plus1d_18, written out from its architecture."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(key: str, n: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{key}.{part}"] = (n,)
        shapes[f"{key}.num_batches_tracked"] = ()

    shapes["stem.0.weight"] = (45, in_channels, 1, 7, 7)
    norm("stem.1", 45)
    shapes["stem.3.weight"] = (64, 45, 3, 1, 1)
    norm("stem.4", 64)
    middles = {1: (144, 144), 2: (230, 288), 3: (460, 576), 4: (921, 1152)}
    inputs = 64
    for stage, outputs in enumerate((64, 128, 256, 512), start=1):
        for block in (0, 1):
            key, middle = f"layer{stage}.{block}", middles[stage][block]
            for conv, channels in (("conv1", inputs), ("conv2", outputs)):
                shapes[f"{key}.{conv}.0.0.weight"] = (middle, channels, 1, 3, 3)
                norm(f"{key}.{conv}.0.1", middle)
                shapes[f"{key}.{conv}.0.3.weight"] = (outputs, middle, 3, 1, 1)
                norm(f"{key}.{conv}.1", outputs)
            if inputs != outputs:
                shapes[f"{key}.downsample.0.weight"] = (outputs, inputs, 1, 1, 1)
                norm(f"{key}.downsample.1", outputs)
            inputs = outputs
    shapes["fc.weight"], shapes["fc.bias"] = (num_classes, 512), (num_classes,)
    return shapes


def test_full_width_has_torchvisions_parameters_key_for_key():
    network = R2Plus1D(in_channels=3, num_classes=400)
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert shapes == expected_shapes(3, 400)
    headless = sum(p.numel() for name, p in network.named_parameters() if not name.startswith("fc."))
    assert headless == 31_300_125


def slow_features(weights: dict[str, Tensor], clip: Tensor, training: bool) -> Tensor:
    def conv(x: Tensor, key: str, stride: tuple[int, int, int]) -> Tensor:
        weight = weights[f"{key}.weight"]
        padding = [side // 2 for side in weight.shape[2:]]
        x = functional.pad(x, [p for side in reversed(padding) for p in (side, side)])
        for axis, (side, step) in enumerate(zip(weight.shape[2:], stride, strict=True)):
            x = x.unfold(2 + axis, side, step)
        return torch.einsum("bithwxyz,oixyz->bothw", x, weight)

    def norm(x: Tensor, key: str) -> Tensor:
        mean, var = weights[f"{key}.running_mean"], weights[f"{key}.running_var"]
        if training:
            rows = x.transpose(0, 1).flatten(1)
            mean, var = rows.mean(1), rows.var(1, unbiased=False)
        gain, bias = weights[f"{key}.weight"], weights[f"{key}.bias"]
        shape = (-1, 1, 1, 1)
        return (x - mean.view(shape)) / (var.view(shape) + 1e-5).sqrt() * gain.view(shape) + bias.view(shape)

    def conv2plus1d(x: Tensor, key: str, s: int) -> Tensor:
        x = norm(conv(x, f"{key}.0", (1, s, s)), f"{key}.1").clamp(min=0)
        return conv(x, f"{key}.3", (s, 1, 1))

    x = norm(conv(clip, "stem.0", (1, 2, 2)), "stem.1").clamp(min=0)
    x = norm(conv(x, "stem.3", (1, 1, 1)), "stem.4").clamp(min=0)
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            key, s = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = norm(conv2plus1d(x, f"{key}.conv1.0", s), f"{key}.conv1.1").clamp(min=0)
            y = norm(conv2plus1d(y, f"{key}.conv2.0", 1), f"{key}.conv2.1")
            if s == 2:
                x = norm(conv(x, f"{key}.downsample.0", (2, 2, 2)), f"{key}.downsample.1")
            x = (x + y).clamp(min=0)
    return x.mean(dim=(2, 3, 4))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_features_and_logits_equal_a_slow_reference(in_channels, training):
    network = make(in_channels=in_channels).train(training)
    clip = torch.rand(2, in_channels, 9, 34, 20)
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    expected = slow_features(weights, clip, training)
    torch.testing.assert_close(network.features(clip), expected, atol=1e-4, rtol=1e-3)
    logits = expected @ weights["fc.weight"][0] + weights["fc.bias"][0]
    torch.testing.assert_close(network(clip), logits, atol=1e-4, rtol=1e-3)


def test_one_class_gives_a_logit_a_clip_and_more_give_a_row():
    clip = torch.rand(2, 1, 8, 16, 16)
    assert make().eval()(clip).shape == (2,)
    assert make().eval()(clip[:1]).shape == (1,)
    assert make(num_classes=3).eval()(clip).shape == (2, 3)
    assert make(layers=(1, 1, 1, 2)).eval().features(clip).shape == (2, 32)


@pytest.fixture
def kinetics(tmp_path):
    network = make(in_channels=3, num_classes=400).eval()
    path = tmp_path / "kinetics.pth"
    torch.save(network.state_dict(), path)
    return network, path


def test_kinetics_weights_load_and_the_head_stays(kinetics):
    pretrained, path = kinetics
    network = R2Plus1D(4, in_channels=3).eval()
    head = network.fc.weight.clone()
    network.load_kinetics(path)
    clip = torch.rand(1, 3, 8, 16, 16)
    assert torch.equal(network.features(clip), pretrained.features(clip))
    assert torch.equal(network.fc.weight, head)


def test_a_grey_network_answers_as_the_colour_one_does_to_a_grey_clip(kinetics):
    pretrained, path = kinetics
    network = R2Plus1D(4, in_channels=1).eval()
    network.load_kinetics(str(path))
    clip = torch.rand(2, 1, 8, 16, 16)
    expected = pretrained.features(clip.expand(-1, 3, -1, -1, -1))
    torch.testing.assert_close(network.features(clip), expected, atol=1e-5, rtol=1e-4)


def test_wrapped_weights_without_step_counters_load(kinetics, tmp_path):
    pretrained, _ = kinetics
    weights = {k: v for k, v in pretrained.state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save({"epoch": 45, "state_dict": weights}, tmp_path / "wrapped.pth")
    network = R2Plus1D(4, in_channels=3).eval()
    network.load_kinetics(tmp_path / "wrapped.pth")
    clip = torch.rand(1, 3, 8, 16, 16)
    assert torch.equal(network.features(clip), pretrained.features(clip))


def without(key: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in weights.items() if k != key}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: without("layer3.1.conv2.0.3.weight", w), "layer3.1.conv2.0.3.weight is absent in the file"),
        (lambda w: {**w, "layer5.weight": torch.ones(1)}, "layer5.weight is (1,) in the file and absent"),
        (lambda w: {**w, "stem.3.weight": torch.ones(4, 2, 3, 1, 1)}, "stem.3.weight is (4, 2, 3, 1, 1)"),
        (lambda w: {**w, "stem.0.weight": torch.ones(3, 2, 1, 7, 7)}, "stem.0.weight is (3, 2, 1, 7, 7)"),
        (lambda w: [1, 2], "holds no state dict"),
        (lambda w: {"epoch": 3}, "holds no state dict"),
    ],
)
def test_weights_that_do_not_fit_are_told_by_file_and_key_and_nothing_is_loaded(kinetics, tmp_path, change, words):
    pretrained, _ = kinetics
    path = tmp_path / "other.pth"
    torch.save(change(pretrained.state_dict()), path)
    network = R2Plus1D(4, in_channels=3)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(InputError) as error:
        network.load_kinetics(path)
    assert str(path) in str(error.value)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_an_absent_and_a_damaged_file_are_told_in_one_line(tmp_path):
    with pytest.raises(InputError, match=r"kinetics\.pth: no such file"):
        R2Plus1D(4).load_kinetics(tmp_path / "kinetics.pth")
    (tmp_path / "kinetics.pth").write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match=r"^[^\n]*kinetics\.pth: not a readable file of weights[^\n]*$"):
        R2Plus1D(4).load_kinetics(tmp_path / "kinetics.pth")


def test_without_the_mean_a_still_background_has_no_part_in_it():
    torch.manual_seed(0)
    network = R2Plus1D(width=4, layers=(1, 1, 1, 1), subtract_mean=True).eval()
    plain = R2Plus1D(width=4, layers=(1, 1, 1, 1)).eval()
    plain.load_state_dict(network.state_dict())  # no weight more or less
    clip, background = torch.rand(2, 1, 8, 16, 16), torch.rand(2, 1, 1, 16, 16)
    torch.testing.assert_close(network(clip + background), network(clip), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(network(clip), plain(clip - clip.mean(2, keepdim=True)))
    assert not torch.allclose(plain(clip + background), plain(clip))


def test_clips_of_other_channels_and_bad_options_are_refused():
    with pytest.raises(InputError, match="in_channels 1"):
        make()(torch.rand(1, 3, 8, 16, 16))
    with pytest.raises(InputError, match="at least 1"):
        R2Plus1D(width=0)
    with pytest.raises(InputError, match="four layers"):
        R2Plus1D(layers=(2, 2, 2))  # type: ignore[arg-type]


@pytest.mark.parametrize(("size", "stride", "shape"), [((3, 1, 1), 1, (2, 4, 4)), ((1, 3, 3), 2, (2, 1, 1))])
def test_convolutions_of_short_inputs_have_the_gradients_of_float32_under_autocast(size, stride, shape):
    torch.manual_seed(0)
    convolution, x = Conv3d(29, 16, size, stride=(1, stride, stride)), torch.rand(4, 29, *shape)
    (expected,) = torch.autograd.grad(convolution(x).square().sum(), convolution.weight)
    for _ in range(5):  # what is wrong without care is not wrong every time
        with torch.autocast("cpu", torch.bfloat16):
            loss = convolution(x).float().square().sum()
        (gradient,) = torch.autograd.grad(loss, convolution.weight)
        torch.testing.assert_close(gradient, expected)
