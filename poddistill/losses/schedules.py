"""How much the distillation loss weighs in an epoch: w in L = w L_KD + (1 - w) L_labels.

Every schedule maps an epoch, counted from 0, to a weight in [0, 1].
"""

from abc import ABC, abstractmethod

from data_modules.errors import InputError


class Schedule(ABC):
    """Weight of the distillation loss by epoch; the type by which configurations name one."""

    @abstractmethod
    def __call__(self, epoch: int) -> float:
        """Returns the weight, in [0, 1], of an epoch counted from 0."""


class ExponentialSchedule(Schedule):
    """w = alpha^epoch: the first epochs follow the teacher, the last ones the labels.

    The form is that of Zhang et al. (ISBI 2023, arXiv 2307.02000), who give no value of alpha; 0.9 is ours.

    Args:
        alpha: In (0, 1).

    Raises:
        InputError: alpha is out of range.
    """

    def __init__(self, alpha: float = 0.9) -> None:
        if not 0 < alpha < 1:
            raise InputError(f"alpha is {alpha}: give a number between 0 and 1")
        self.alpha = alpha

    def __call__(self, epoch: int) -> float:
        """Returns the weight of an epoch."""
        return float(self.alpha**epoch)


class ConstantSchedule(Schedule):
    """w is the same in every epoch: 0 trains on labels alone, 1 on the teacher alone (ours).

    Args:
        weight: In [0, 1].

    Raises:
        InputError: The weight is out of range.
    """

    def __init__(self, weight: float = 0.5) -> None:
        _check_weight("weight", weight)
        self.weight = weight

    def __call__(self, epoch: int) -> float:
        """Returns the weight of an epoch."""
        return self.weight


class LinearSchedule(Schedule):
    """w goes straight from `start` in epoch 0 to `end` in epoch `epochs`, and stays there (ours).

    Args:
        epochs: Epochs until `end` is reached; at least 1.
        start: In [0, 1].
        end: In [0, 1].

    Raises:
        InputError: An option is out of range.
    """

    def __init__(self, epochs: int, start: float = 1.0, end: float = 0.0) -> None:
        if epochs < 1:
            raise InputError(f"epochs is {epochs}: give at least 1")
        _check_weight("start", start)
        _check_weight("end", end)
        self.epochs = epochs
        self.start = start
        self.end = end

    def __call__(self, epoch: int) -> float:
        """Returns the weight of an epoch."""
        progress = min(epoch / self.epochs, 1.0)
        return self.start + progress * (self.end - self.start)


def _check_weight(name: str, weight: float) -> None:
    if not 0 <= weight <= 1:
        raise InputError(f"{name} is {weight}: give a weight in [0, 1]")
