"""Attention by both of its ways, short contexts and long ones, against sums in double precision."""

import math

import pytest
import torch
from torch import Tensor

from poddistill.nets.transformer import SHORT_CONTEXT, Attention, TransformerBlock, run_blocks


def slow(attention: Attention, queries: Tensor, context: Tensor) -> Tensor:
    """Every head and query by itself."""
    width = queries.shape[-1]
    (wq, wk, wv), (bq, bk, bv) = attention.qkv.weight.split(width), attention.qkv.bias.split(width)
    q, k, v = queries @ wq.T + bq, context @ wk.T + bk, context @ wv.T + bv
    heads = []
    for part in torch.arange(width).chunk(attention.heads):
        scores = torch.einsum("bqc,bkc->bqk", q[..., part], k[..., part]) / math.sqrt(len(part))
        weights = scores.exp() / scores.exp().sum(dim=2, keepdim=True)
        heads.append(torch.einsum("bqk,bkc->bqc", weights, v[..., part]))
    return torch.cat(heads, dim=2) @ attention.projection.weight.T + attention.projection.bias


@pytest.mark.parametrize("n_keys", [1, 7, SHORT_CONTEXT, SHORT_CONTEXT + 1])
@pytest.mark.parametrize("cross", [False, True])
def test_output_and_gradients_equal_a_slow_reference(n_keys, cross):
    torch.manual_seed(0)
    attention = Attention(12, 3).double()
    queries = torch.randn(2, 5 if cross else n_keys, 12, dtype=torch.float64, requires_grad=True)
    context = torch.randn(2, n_keys, 12, dtype=torch.float64, requires_grad=True) if cross else queries
    out = attention(queries, context if cross else None)
    expected = slow(attention, queries, context)
    torch.testing.assert_close(out, expected)
    inputs = [queries, context, *attention.parameters()] if cross else [queries, *attention.parameters()]
    seed = torch.randn_like(out)
    found = torch.autograd.grad(out, inputs, seed)
    torch.testing.assert_close(found, torch.autograd.grad(expected, inputs, seed))


@pytest.mark.parametrize("n_keys", [SHORT_CONTEXT, SHORT_CONTEXT + 1])
def test_bf16_stays_close_on_both_ways(n_keys):
    torch.manual_seed(0)
    attention, tokens = Attention(16, 2), torch.randn(1, n_keys, 16)
    with torch.autocast("cpu", torch.bfloat16):
        out = attention(tokens)
    torch.testing.assert_close(out.float(), slow(attention, tokens, tokens), atol=0.02, rtol=0.05)


def test_recomputed_blocks_drop_the_same_branches_on_the_way_back():
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        blocks = torch.nn.ModuleList(TransformerBlock(12, 2, dropout=0.3, drop_path=0.3) for _ in range(3))
        tokens = torch.randn(4, 6, 12, requires_grad=True)
        run_blocks(blocks, tokens, recompute=recompute).square().sum().backward()
        gradients.append([tokens.grad, *(parameter.grad for parameter in blocks.parameters())])
    torch.testing.assert_close(*gradients)
