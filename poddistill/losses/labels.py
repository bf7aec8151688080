"""The loss on labels, of teacher and student alike."""

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from data_modules.errors import InputError

PosWeight = float | Literal["balanced"] | None


class LabelLoss(ABC):
    """L_labels of a batch; the type by which configurations name one."""

    @abstractmethod
    def prepare(self, labels: Tensor) -> None:
        """Takes what the loss needs from the training labels (N,), nan = unlabelled; once, before training.

        Raises:
            InputError: The labels lack something; it names the remedy.
        """

    @abstractmethod
    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Scores a batch.

        Args:
            logits: (B,).
            labels: (B,), 1 = obliterated, 0 = free, nan = unlabelled.

        Returns:
            The scalar loss, float32; 0, with zero gradients, if no case is labelled.
        """


class WeightedBCE(LabelLoss):
    """L_labels = 1/n sum_i v(y_i) BCE(s_i, (1 - e) y_i + e / 2), over the n labelled cases of a batch.

    s_i is the logit and y_i the label of case i, BCE(s, y) = -y log sigmoid(s) - (1 - y) log(1 - sigmoid(s)),
    v the weight of a class and e the `smoothing`. Unlabelled cases (nan) add nothing. Label smoothing is that of
    Szegedy et al., CVPR 2016 (arXiv 1512.00567), for two classes; that class weights are offered is ours.

    Args:
        pos_weight: None weighs both classes 1. A number is v(1), with v(0) = 1, as in torch. `balanced`
            weighs class c by N / (2 N_c), N_c of the N training labels being c: v(1) / v(0) = N_0 / N_1, both
            classes add up to the same, and the mean weight of a training case is 1, so the loss keeps its
            size next to other terms.
        smoothing: e, in [0, 1): what of a label is spread over both classes.

    Raises:
        InputError: The weight is neither above 0 nor `balanced`, or the smoothing is out of range.
    """

    def __init__(self, pos_weight: PosWeight = None, smoothing: float = 0.0) -> None:
        if not 0 <= smoothing < 1:
            raise InputError(f"smoothing is {smoothing}: give a part in [0, 1)")
        self.pos_weight = pos_weight
        self.smoothing = smoothing
        self.class_weights = fixed_weights(pos_weight)

    def prepare(self, labels: Tensor) -> None:
        """Sets the balanced weights; other weights stay as they are.

        Raises:
            InputError: Weights are to be balanced and a class has no training label.
        """
        if self.pos_weight == "balanced":
            self.class_weights = balanced_weights(labels)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the scalar loss of logits (B,) against labels (B,); 0 if no case is labelled."""
        target = labels.nan_to_num() * (1 - self.smoothing) + self.smoothing / 2
        losses = functional.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
        return weighted_mean(losses, labels, self.class_weights)


class FocalLoss(LabelLoss):
    """L_labels = -1/n sum_i v(y_i) (1 - p_i)^g log p_i, over the n labelled cases of a batch.

    p_i is the probability of case i's own label, sigmoid(s_i) if it is 1 and 1 - sigmoid(s_i) if it is 0, v the weight
    of a class and g `gamma`: the surer a case is right, the less it counts. Of Lin et al., ICCV 2017 (arXiv
    1708.02002), where v is called alpha; that a batch's loss is the mean over its cases is ours.

    Args:
        gamma: g, at least 0; 0 is `WeightedBCE`.
        pos_weight: v, as in `WeightedBCE`.

    Raises:
        InputError: An option is out of range.
    """

    def __init__(self, gamma: float = 2.0, pos_weight: PosWeight = None) -> None:
        if not gamma >= 0:
            raise InputError(f"gamma is {gamma}: give at least 0")
        self.gamma = gamma
        self.pos_weight = pos_weight
        self.class_weights = fixed_weights(pos_weight)

    def prepare(self, labels: Tensor) -> None:
        """Sets the balanced weights; other weights stay as they are.

        Raises:
            InputError: Weights are to be balanced and a class has no training label.
        """
        if self.pos_weight == "balanced":
            self.class_weights = balanced_weights(labels)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the scalar loss of logits (B,) against labels (B,); 0 if no case is labelled."""
        own = logits.float() * (2 * labels.nan_to_num() - 1)  # the logit of a case's own label
        # As exp(g log(1 - p)), for the derivative of 0^g has no value where p rounds to 1 and g is below 1.
        losses = -(self.gamma * functional.logsigmoid(-own)).exp() * functional.logsigmoid(own)
        return weighted_mean(losses, labels, self.class_weights)


def fixed_weights(pos_weight: PosWeight) -> tuple[float, float] | None:
    """Returns the weights of class 0 and 1 by `pos_weight` alone, None if they are to be balanced.

    Raises:
        InputError: The weight is neither above 0 nor `balanced`.
    """
    if pos_weight == "balanced":
        return None
    if isinstance(pos_weight, str) or (pos_weight is not None and not pos_weight > 0):
        raise InputError(f"pos_weight is {pos_weight!r}: give a number above 0, balanced, or null")
    return 1.0, 1.0 if pos_weight is None else float(pos_weight)


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


def weighted_mean(losses: Tensor, labels: Tensor, class_weights: tuple[float, float] | None) -> Tensor:
    """Returns 1/n sum_i v(y_i) l_i of losses (B,), over the n of labels (B,) that are not nan; 0 if all are.

    Raises:
        RuntimeError: The weights of the classes are None, for they were to be balanced and never were.
    """
    if class_weights is None:
        raise RuntimeError("balanced weights are not set: call prepare with the training labels first")
    labelled = ~labels.isnan()
    negative, positive = class_weights
    weights = torch.where(labels == 1, positive, negative) * labelled
    return (weights * losses).sum() / labelled.sum().clamp(min=1)
