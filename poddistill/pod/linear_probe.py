"""A head to start from: before an encoder is fine-tuned, a linear probe of what it already knows."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from data_modules.errors import InputError
from poddistill.losses.soft_logistic import fit_soft_logistic
from poddistill.nets.head import Head


class LinearProbe:
    """Sets a head to the logistic regression, on the frozen encoder's features, of what is known of training volumes.

    Linear probing, then fine-tuning (Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform
    Out-of-Distribution", ICLR 2022). A head that starts at random sends gradients of no sense through the encoder at
    first. Features are standardised over the volumes of the fit, but one that changes by rounding at most is centred
    only; the head is then scaled back to the encoder's own.

    Args:
        penalty: Ridge on the weights of standardised features, against the sum over volumes; above 0.

    Raises:
        InputError: The penalty is out of range.
    """

    def __init__(self, penalty: float = 20.0) -> None:
        if not penalty > 0:
            raise InputError(f"penalty is {penalty}: give a number above 0")
        self.penalty = penalty

    @torch.no_grad()
    def __call__(self, encoder: nn.Module, head: Head, batches: Iterable[Tensor], targets: Tensor) -> None:
        """Sets the head's weight and bias.

        Args:
            encoder: Volumes to features (B, width); it computes as in evaluation and is left as it was.
            head: Features to logits (B, 1).
            batches: Volumes (B, 1, D, H, W), N in all, where the encoder is.
            targets: Probability of obliteration of each, (N,), in [0, 1].

        Raises:
            InputError: All are free, or all are obliterated.
        """
        if not 0 < float(targets.sum()) < len(targets):
            raise InputError(
                f"model.probe needs volumes of both labels, but all {len(targets)} are alike: label others, or set it "
                "to null"
            )
        training = encoder.training
        encoder.eval()
        features = torch.cat([encoder(volumes).float().cpu() for volumes in batches]).double()
        encoder.train(training)
        mean, spread = features.mean(0), features.std(0)
        # Not 0: what a feature changes by may be a rounding error, which must not count like a feature that tells.
        spread = torch.where(spread > 1e-6 * features.abs().amax(0), spread, 1.0)
        weights, bias = fit_soft_logistic((features - mean) / spread, targets, self.penalty)
        head.weight.copy_((weights / spread)[None])
        head.bias.fill_(bias - float(weights / spread @ mean))
