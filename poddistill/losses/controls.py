"""Stand-ins for the teacher that know less than it does: a gain that one of them gives as well is not distillation."""

from abc import ABC, abstractmethod
from dataclasses import replace

import torch
from torch import Tensor

from data_modules.errors import InputError
from poddistill.losses.unpaired import TeacherBank


class Control(ABC):
    """Replaces the teacher's outputs; the type by which configurations name one."""

    @abstractmethod
    def __call__(self, bank: TeacherBank) -> TeacherBank:
        """Returns a bank of these clips, with their labels and covariates and other logits and features."""


class InventedOutputs(Control):
    """Invents the outputs from the clips' labels: t ~ N(+-centre, deviation^2), + where obliterated, and no teacher.

    Features are invented alike: f ~ N(m_y, I), with m_0 and m_1 two random points, each N(0, I). With `deviation` 0 all
    outputs of a class are equal, and so are its features.

    Whatever sees the teacher through the distribution of its outputs given the label alone can be given this instead.
    Clips without a label are left out: whatever was invented for them would be noise that no user would learn from.

    Args:
        centre: Logit of the obliterated clips, less than which the free ones have; above 0.
        deviation: At least 0.
        seed: Of what is drawn.

    Raises:
        InputError: An option is out of range.
    """

    def __init__(self, centre: float = 2.6, deviation: float = 0.0, seed: int = 0) -> None:
        if not centre > 0:
            raise InputError(f"centre is {centre}: give a logit above 0")
        if not deviation >= 0:
            raise InputError(f"deviation is {deviation}: give at least 0")
        self.centre = centre
        self.deviation = deviation
        self.seed = seed

    def __call__(self, bank: TeacherBank) -> TeacherBank:
        """Returns the labelled clips with invented outputs."""
        bank = bank.rows(~bank.labels.isnan())
        generator = torch.Generator().manual_seed(self.seed)
        n, width = bank.features.shape
        label = bank.labels.cpu()
        centres = torch.randn(2, width, generator=generator)
        logits = self.centre * (2 * label - 1) + self.deviation * torch.randn(n, generator=generator)
        spread = torch.randn(n, width, generator=generator) * (self.deviation > 0)
        return _with(bank, logits, centres[label.long()] + spread)


class ShuffledOutputs(Control):
    """Deals the teacher's outputs to the clips at random: the same values, tied to no label and to no covariate.

    Args:
        seed: Of the order.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def __call__(self, bank: TeacherBank) -> TeacherBank:
        """Returns the bank with its outputs in another order, a clip's logit and features together."""
        order = torch.randperm(len(bank.case_ids), generator=torch.Generator().manual_seed(self.seed))
        order = order.to(bank.logits.device)
        return _with(bank, bank.logits[order], bank.features[order])


def _with(bank: TeacherBank, logits: Tensor, features: Tensor) -> TeacherBank:
    device = bank.logits.device
    return replace(bank, logits=logits.to(device), features=features.to(device))
