"""The loss on labels, of teacher and student alike."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from data_modules.errors import InputError


class WeightedBCE:
    """L_labels = 1/n sum_i v(y_i) BCE(s_i, y_i), over the n labelled cases of a batch.

    s_i is the logit and y_i the label of case i, BCE(s, y) = -y log sigmoid(s) - (1 - y) log(1 - sigmoid(s)),
    and v the weight of a class. Unlabelled cases (nan) add nothing. That class weights are offered is ours.

    Args:
        pos_weight: None weighs both classes 1. A number is v(1), with v(0) = 1, as in torch. `balanced`
            weighs class c by N / (2 N_c), N_c of the N training labels being c: v(1) / v(0) = N_0 / N_1, both
            classes add up to the same, and the mean weight of a training case is 1, so the loss keeps its
            size next to other terms.

    Raises:
        InputError: The weight is neither above 0 nor `balanced`.
    """

    def __init__(self, pos_weight: float | Literal["balanced"] | None = None) -> None:
        if isinstance(pos_weight, str):
            if pos_weight != "balanced":
                raise InputError(f"pos_weight is {pos_weight!r}: give a number above 0, balanced, or null")
        elif pos_weight is not None and not pos_weight > 0:
            raise InputError(f"pos_weight is {pos_weight}: give a number above 0, balanced, or null")
        self.pos_weight = pos_weight
        self.class_weights: tuple[float, float] | None = None
        if not isinstance(pos_weight, str):
            self.class_weights = (1.0, 1.0 if pos_weight is None else float(pos_weight))

    def prepare(self, labels: Tensor) -> None:
        """Sets the balanced weights; to be called once, before training. Other weights stay as they are.

        Args:
            labels: The training labels (N,); nan = unlabelled.

        Raises:
            InputError: Weights are to be balanced and a class has no training label.
        """
        if self.pos_weight == "balanced":
            self.class_weights = balanced_weights(labels)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Scores a batch.

        Args:
            logits: (B,).
            labels: (B,), 1 = obliterated, 0 = free, nan = unlabelled.

        Returns:
            The scalar loss; 0, with zero gradients, if no case is labelled.
        """
        if self.class_weights is None:
            raise RuntimeError("balanced weights are not set: call prepare with the training labels first")
        labelled = ~labels.isnan()
        target = torch.where(labelled, labels, 0.0)
        negative, positive = self.class_weights
        weight = torch.where(target == 1, positive, negative) * labelled
        losses = functional.binary_cross_entropy_with_logits(logits.float(), target, weight=weight, reduction="sum")
        return losses / labelled.sum().clamp(min=1)


def balanced_weights(labels: Tensor) -> tuple[float, float]:
    """Returns N / (2 N_c) of class 0 and 1, N_c of the N labels being c; labels (M,) may hold nan, which do not count.

    Raises:
        InputError: A class has no label.
    """
    free, obliterated = int((labels == 0).sum()), int((labels == 1).sum())
    if not free or not obliterated:
        raise InputError(
            f"balanced classes need both, but {free} training labels are 0 and {obliterated} are 1: add labels or do "
            "not balance"
        )
    n = free + obliterated
    return n / (2 * free), n / (2 * obliterated)
