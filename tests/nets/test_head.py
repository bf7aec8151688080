import torch
from torch.nn import functional

from poddistill.nets.head import Head
from poddistill.nets.r2plus1d import R2Plus1D


def test_logits_are_those_of_float32_under_autocast() -> None:
    torch.manual_seed(0)
    head, features = Head(24, 1), torch.randn(8, 24)
    expected = functional.linear(features, head.weight, head.bias)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(head(features), expected)
        assert head(features.bfloat16()).dtype == torch.float32


def test_clips_that_differ_little_do_not_tie_under_autocast() -> None:
    torch.manual_seed(0)
    clips = torch.rand(1, 1, 8, 16, 16) + torch.linspace(0, 0.01, 32).view(-1, 1, 1, 1, 1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = R2Plus1D(4, (1, 1, 1, 1)).eval()(clips)
    assert logits.dtype == torch.float32
    assert len(logits.unique()) > 24
