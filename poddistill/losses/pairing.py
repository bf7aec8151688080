"""Which ultrasound clip an MRI meets in the distillation loss, though the two are of different patients."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from data_modules.errors import InputError


@dataclass(frozen=True, eq=False)
class TeacherBank:
    """The frozen teacher's outputs on the training clips.

    Attributes:
        logits: float (N,), finite.
        labels: float (N,), 1 = POD obliterated, 0 = free, nan = unlabelled.
        case_ids: The N clips' case ids.

    Raises:
        InputError: There is no clip, the lengths differ, or a logit is not finite.
    """

    logits: Tensor
    labels: Tensor
    case_ids: tuple[str, ...]

    def __post_init__(self) -> None:
        n = len(self.case_ids)
        if n == 0:
            raise InputError("the teacher's bank is empty: the TVUS training split needs at least one clip")
        if self.logits.shape != (n,) or self.labels.shape != (n,):
            shapes = f"logits {tuple(self.logits.shape)} and labels {tuple(self.labels.shape)}"
            raise InputError(f"the teacher's bank has {n} case_ids but {shapes}: give one of each a clip")
        if not self.logits.isfinite().all():
            worst = self.case_ids[int(self.logits.isfinite().logical_not().nonzero()[0])]
            raise InputError(f"the teacher's logit of {worst} is not finite: train the teacher again")


class Pairing(ABC):
    """Chooses a clip for every MRI of a batch; the type by which configurations name one."""

    @abstractmethod
    def __call__(self, labels: Tensor, bank: TeacherBank, generator: Generator | None = None) -> Tensor:
        """Returns int64 (B,), rows of the bank, for labels (B,)."""


class LabelMatchedPairing(Pairing):
    """Gives every MRI a random clip of its own label.

    The natural reading of Zhang et al. (ISBI 2023), who do not say how they pair: an MRI and a clip share
    nothing but the label. Draws are independent, uniform and with replacement, anew at every call (ours).
    """

    def __call__(self, labels: Tensor, bank: TeacherBank, generator: Generator | None = None) -> Tensor:
        """Draws a clip for every MRI.

        Args:
            labels: (B,), 1 = obliterated or 0 = free.
            bank: The clips to draw from.
            generator: A CPU generator; None draws from torch's global one.

        Returns:
            int64 (B,), rows of the bank, on the device of `labels`.

        Raises:
            InputError: An MRI is unlabelled, or the bank has no clip of a label that is needed.
        """
        wanted = labels.detach().cpu()
        offered = bank.labels.detach().cpu()
        index = torch.empty(wanted.shape, dtype=torch.int64)
        matched = 0
        for value, meaning in ((0, "free"), (1, "obliterated")):
            rows = wanted == value
            n = int(rows.sum())
            clips = (offered == value).nonzero().flatten()
            if n and not len(clips):
                raise InputError(
                    f"no TVUS training clip has label {value} ({meaning}), which an MRI needs for its pair: "
                    "add such clips or use RandomPairing"
                )
            if n:
                index[rows] = clips[torch.randint(len(clips), (n,), generator=generator)]
            matched += n
        if matched < len(wanted):
            raise InputError("LabelMatchedPairing met an MRI without label: give it labelled MRI or use RandomPairing")
        return index.to(labels.device)


class RandomPairing(Pairing):
    """Gives every MRI any clip, whatever its label: the control for matching labels (ours)."""

    def __call__(self, labels: Tensor, bank: TeacherBank, generator: Generator | None = None) -> Tensor:
        """Draws a clip for every MRI.

        Args:
            labels: (B,); only their number counts.
            bank: The clips to draw from.
            generator: A CPU generator; None draws from torch's global one.

        Returns:
            int64 (B,), rows of the bank, on the device of `labels`.
        """
        return torch.randint(len(bank.case_ids), (len(labels),), generator=generator).to(labels.device)
