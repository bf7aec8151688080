"""Which ultrasound clip an MRI meets in the distillation loss, though the two are of different patients."""

from abc import ABC, abstractmethod

import torch
from torch import Generator, Tensor

from data_modules.errors import InputError
from poddistill.losses.unpaired import StudentBatch, TeacherBank


class Pairing(ABC):
    """Chooses a clip for every MRI of a batch; the type by which configurations name one."""

    @abstractmethod
    def __call__(self, student: StudentBatch, bank: TeacherBank, generator: Generator | None = None) -> Tensor:
        """Returns int64 (B,), rows of the bank, for a batch of B volumes."""


class LabelMatchedPairing(Pairing):
    """Gives every MRI a random clip of its own label.

    The natural reading of Zhang et al. (ISBI 2023), who do not say how they pair: an MRI and a clip share
    nothing but the label. Draws are independent, uniform and with replacement, anew at every call (ours).
    """

    def __call__(self, student: StudentBatch, bank: TeacherBank, generator: Generator | None = None) -> Tensor:
        """Draws a clip for every MRI.

        Args:
            student: The MRI, all with a label.
            bank: The clips to draw from.
            generator: A CPU generator; None draws from torch's global one.

        Returns:
            int64 (B,), rows of the bank, on the student's device.

        Raises:
            InputError: An MRI is unlabelled, or the bank has no clip of a label that is needed.
        """
        wanted = student.labels.cpu()
        offered = bank.labels.cpu()
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
        return index.to(student.labels.device)


class RandomPairing(Pairing):
    """Gives every MRI any clip, whatever its label: the control for matching labels (ours)."""

    def __call__(self, student: StudentBatch, bank: TeacherBank, generator: Generator | None = None) -> Tensor:
        """Draws a clip for every MRI.

        Args:
            student: The MRI; only their number counts.
            bank: The clips to draw from.
            generator: A CPU generator; None draws from torch's global one.

        Returns:
            int64 (B,), rows of the bank, on the student's device.
        """
        return torch.randint(len(bank.case_ids), (len(student),), generator=generator).to(student.labels.device)
