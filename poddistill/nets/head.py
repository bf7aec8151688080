"""The layer that turns features into logits."""

import torch
from torch import Tensor, nn


class Head(nn.Linear):
    """A linear layer that computes in its weights' precision under autocast, too.

    A logit in bfloat16 has 8 bits, too few to rank cases by: scores fall together, which AUROC counts as ties.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Maps features (..., in_features) to logits (..., out_features), float32 unless the weights are double."""
        with torch.autocast(features.device.type, enabled=False):
            return super().forward(features.to(self.weight.dtype))
