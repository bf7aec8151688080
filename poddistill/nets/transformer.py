"""The transformer block of encoder and decoder.

Vaswani et al., "Attention Is All You Need", NeurIPS 2017, with the norms in front (Xiong et al., ICML 2020).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from data_modules.errors import InputError

# Up to so many keys a CPU is faster in bfloat16 with two plain matrix products than with the kernel that never holds
# all scores. Those of a longer context are not held, so that memory grows in proportion to the tokens.
SHORT_CONTEXT = 512


class Attention(nn.Module):
    """Multi-head attention of queries (B, Q, width) to a context (B, K, width).

    By torch's fused kernel, or, in bfloat16 on a CPU and for a short context, by plain matrix products: the same sums.

    Args:
        width: Channels of queries and context.
        heads: Number of heads; divides `width`.

    Raises:
        InputError: `heads` does not divide `width`.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise InputError(f"{heads} attention heads do not divide a width of {width}: choose a divisor")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)

    def forward(self, queries: Tensor, context: Tensor | None = None) -> Tensor:
        """Returns (B, Q, width); without a context the queries attend to each other."""
        width = queries.shape[-1]
        if context is None:
            q, k, v = (self._split(x) for x in self.qkv(queries).chunk(3, dim=-1))  # (B, heads, Q, width / heads)
        else:
            weight, bias = self.qkv.weight, self.qkv.bias
            q = self._split(functional.linear(queries, weight[:width], bias[:width]))
            k, v = (self._split(x) for x in functional.linear(context, weight[width:], bias[width:]).chunk(2, dim=-1))
        attended = _attend(q, k, v)  # (B, heads, Q, width / heads)
        return self.projection(attended.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention of (B, heads, Q, C) to keys and values (B, heads, K, C)."""
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or k.shape[2] > SHORT_CONTEXT:
        return functional.scaled_dot_product_attention(q, k, v)
    queries, keys, values = (x.flatten(0, 1) for x in (q * q.shape[-1] ** -0.5, k, v))  # (B * heads, ., C)
    scores = torch.bmm(queries, keys.transpose(1, 2))  # (B * heads, Q, K)
    return torch.bmm(scores.softmax(dim=-1), values).view_as(q)


class TransformerBlock(nn.Module):
    """A pre-norm block: x + attention(norm(x)), then x + mlp(norm(x)).

    Args:
        width: Channels of a token.
        heads: Attention heads.
        mlp_ratio: Hidden channels of the MLP, in units of `width`.
        dropout: Probability of dropping a channel of either branch.
        drop_path: Probability of skipping either branch of a sample in training.
        cross: Attends to a context, which has a norm of its own, instead of to itself.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        cross: bool = False,
    ) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm_attention = nn.LayerNorm(width)
        self.norm_context = nn.LayerNorm(width) if cross else None
        self.attention = Attention(width, heads)
        self.norm_mlp = nn.LayerNorm(width)
        hidden = max(1, round(width * mlp_ratio))
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        """Maps tokens (B, K, width) to the same shape; a cross block also takes a context (B, M, width)."""
        if self.norm_context is not None and context is not None:
            context = self.norm_context(context)
        tokens = tokens + self._branch(self.attention(self.norm_attention(tokens), context))
        return tokens + self._branch(self.mlp(self.norm_mlp(tokens)))

    def _branch(self, x: Tensor) -> Tensor:
        x = self.dropout(x)
        if not self.training or self.drop_path == 0:
            return x
        survives = torch.rand(len(x), 1, 1, device=x.device) >= self.drop_path
        return x * survives / (1 - self.drop_path)


def run_blocks(blocks: nn.ModuleList, tokens: Tensor, context: Tensor | None = None, recompute: bool = False) -> Tensor:
    """Runs blocks one after the other.

    Args:
        blocks: Transformer blocks.
        tokens: (B, K, width).
        context: (B, M, width), which cross blocks attend to.
        recompute: Keep only what enters each block and compute the rest again on the way back (Chen et al., "Training
            Deep Nets with Sublinear Memory Cost", 2016): less memory for a third more work.

    Returns:
        Tokens (B, K, width).
    """
    for block in blocks:
        if recompute and torch.is_grad_enabled():
            tokens = checkpoint(block, tokens, context, use_reentrant=False)
        else:
            tokens = block(tokens, context)
    return tokens


def initialise_linear(module: nn.Module) -> None:
    """Sets a linear layer's weights by Glorot's uniform rule and its bias to 0; leaves other modules."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
