"""The networks that benchmarks compare with do the work of poddistill's own."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import nn

from poddistill.nets.r2plus1d import R2Plus1D
from poddistill.nets.vision_transformer import VisionTransformer3D


@pytest.fixture
def peers(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("peers")


@pytest.mark.parametrize("subtract_mean", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_plain_r2plus1d_answers_like_ours_with_equal_weights(peers: ModuleType, subtract_mean: bool, training: bool):
    torch.manual_seed(0)
    options = {"width": 8, "layers": (1, 2, 1, 1), "subtract_mean": subtract_mean}
    plain, ours = peers.PlainR2Plus1D(**options), R2Plus1D(**options)
    for value in plain.state_dict().values():  # batch norms and head away from their neutral start
        if value.is_floating_point() and value.ndim <= 2:
            value.uniform_(0.5, 1.5)
    ours.load_state_dict(plain.state_dict())
    clips = torch.rand(4, 1, 16, 32, 32, dtype=torch.float64)  # in float32 rounding grows through the batch norms
    expected = plain.double().train(training)(clips)
    answer = ours.double().train(training)(clips)
    torch.testing.assert_close(answer, expected)
    expected.square().mean().backward()
    answer.square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-5, atol=1e-8, msg=name)


def test_plain_r2plus1d_has_torchvisions_parameters(peers: ModuleType):
    network = peers.PlainR2Plus1D(in_channels=3, num_classes=400)
    assert sum(parameter.numel() for parameter in network.parameters()) == 31_505_325  # r2plus1d_18, Kinetics-400
    assert network.state_dict().keys() == R2Plus1D(in_channels=3, num_classes=400).state_dict().keys()


def test_monai_loss_is_the_error_of_masked_voxels_alone(peers: ModuleType):
    pytest.importorskip("einops")
    mae = peers.MonaiMAE((8, 8, 16), (4, 4, 8), width=12, depth=1, heads=2, decoder_width=8, decoder_heads=2)
    volumes = torch.rand(2, 1, 8, 8, 16)
    encoder = VisionTransformer3D((8, 8, 16), (4, 4, 8), width=12, depth=1, heads=2)
    torch.testing.assert_close(mae.patchify(volumes), encoder.patchify(volumes))
    torch.manual_seed(1)
    loss = mae(volumes)
    torch.manual_seed(1)
    prediction, mask = mae.network(volumes)
    hidden = mask.bool()
    expected = nn.functional.mse_loss(prediction[hidden], encoder.patchify(volumes)[hidden])
    torch.testing.assert_close(loss, expected)
    assert mask.float().mean() == 0.75
