"""Batch normalisation of few channels against PyTorch's."""

import copy

import pytest
import torch
from torch import nn

from poddistill.nets.batch_norm import BatchNorm3d


def pair(channels: int) -> tuple[BatchNorm3d, nn.BatchNorm3d]:
    own, reference = BatchNorm3d(channels), nn.BatchNorm3d(channels)
    with torch.no_grad():
        own.weight.uniform_(0.5, 2)
        own.bias.normal_()
    reference.load_state_dict(own.state_dict())
    return own, reference


@pytest.mark.parametrize(
    "shape", [(2, 6, 4, 8, 8), (3, 18, 5, 7, 3), (4, 45, 2, 4, 4), (2, 8, 1, 3, 5), (2, 16, 4, 4, 4)]
)
@pytest.mark.parametrize("layout", [torch.channels_last_3d, torch.contiguous_format])
def test_outputs_gradients_and_running_statistics_are_pytorchs(shape, layout):
    torch.manual_seed(0)
    own, reference = pair(shape[1])
    for _ in range(3):
        x = (3 * torch.randn(shape) + 5).to(memory_format=layout).requires_grad_()
        twin = x.detach().clone().requires_grad_()
        grad = torch.randn(shape)
        y, expected = own(x), reference(twin)
        torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-4)
        assert y.is_contiguous(memory_format=layout)
        y.backward(grad)
        expected.backward(grad)
        torch.testing.assert_close(x.grad, twin.grad, atol=1e-4, rtol=1e-3)
    for name in ("weight", "bias"):
        torch.testing.assert_close(getattr(own, name).grad, getattr(reference, name).grad, atol=1e-3, rtol=1e-4)
    for name, buffer in reference.named_buffers():
        torch.testing.assert_close(dict(own.named_buffers())[name], buffer, atol=1e-5, rtol=1e-5)
    own.eval()
    reference.eval()
    torch.testing.assert_close(own(x), reference(x), atol=1e-5, rtol=1e-4)


def test_the_gradient_is_right_to_double_precision():
    torch.manual_seed(0)
    own, _ = pair(6)
    own.double()
    x = torch.randn(2, 6, 2, 4, 2, dtype=torch.float64).to(memory_format=torch.channels_last_3d).requires_grad_()
    assert torch.autograd.gradcheck(own, (x,))


def test_bfloat16_stays_bfloat16_and_as_exact_as_it_is():
    torch.manual_seed(0)
    own, reference = pair(6)
    x = torch.randn(4, 6, 4, 16, 16).to(memory_format=torch.channels_last_3d)
    y = own(x.bfloat16())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), reference(x), atol=0.05, rtol=0.02)
    torch.testing.assert_close(own.running_var, reference.running_var, rtol=1e-2, atol=1e-3)


def test_a_large_mean_does_not_cancel():
    own, reference = pair(6)
    x = (torch.randn(4, 6, 4, 8, 8) + 1000).to(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(own(x), copy.deepcopy(reference)(x), atol=5e-3, rtol=1e-2)
