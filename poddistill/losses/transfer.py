"""What the student takes over from the other cohort: the loss L_KD of a batch.

Zhang et al., "Distilling Missing Modality Knowledge from Ultrasound for Endometriosis Diagnosis with Magnetic
Resonance Images", ISBI 2023 (arXiv 2307.02000), minimise over the MRI student, the ultrasound teacher frozen,

    L = w L_KD + (1 - w) L_labels,    w = alpha^epoch.

L_KD is a `Transfer`; w is `poddistill.losses.schedules`. The paper's form is `PairedOutputs`.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from poddistill.losses.distillation import DistillationLoss
from poddistill.losses.labels import balanced_weights
from poddistill.losses.pairing import Pairing
from poddistill.losses.unpaired import StudentBatch, StudentCohort, TeacherBank


class Transfer(nn.Module, ABC):
    """L_KD of a batch; the type by which configurations name one. Its parameters, if any, train with the student.

    Attributes:
        needs_teacher: Whether there must be a teacher; without one `bank` is None.
        reads_outputs: Whether it matters what a teacher says of the clips; if not, a control of that changes nothing
            and is refused.
        needs_unlabelled: Whether batches must hold unlabelled MRI; `prepare` may still change it.
    """

    needs_teacher: bool = True
    reads_outputs: bool = True
    needs_unlabelled: bool = False

    def reads(self, bank: TeacherBank) -> bool:
        """Tells whether it matters what the teacher says of these clips; some transfers prefer labels, where known."""
        return self.reads_outputs

    def attach(self, network: nn.Module) -> None:
        """Takes, once before training, the network that maps volumes (B, 1, D, H, W) to the student's logits (B, 1)."""

    def prepare(self, cohort: StudentCohort, bank: TeacherBank | None) -> None:
        """Takes from the cohorts, once before training, what the loss needs of them as a whole.

        Raises:
            InputError: The cohorts lack something; it names the remedy.
        """

    def soft_labels(self) -> Tensor | None:
        """Returns, after `prepare`, the probability of obliteration that each volume of the cohort is taught to have.

        float32 (M,); nan for volumes without; None where the transfer has none such.
        """
        return None

    @abstractmethod
    def forward(self, student: StudentBatch, bank: TeacherBank | None) -> Tensor:
        """Returns the scalar loss of a batch, float32, with gradients to the student."""


class PairedOutputs(Transfer):
    """L_KD = 1/n sum_i v(y_i) l(s_i, t_c(i)), over the n MRI of a batch that have a label y_i.

    s_i is the student's logit of MRI i, t_c(i) the frozen teacher's logit of the clip c(i) that `pairing` gives it,
    l is `loss`, and v = 1. The form of Zhang et al. (ISBI 2023); what follows is ours.

    Args:
        pairing: Chooses a clip for every MRI.
        loss: Compares the outputs.
        balanced: Weigh class c by v(c) = N / (2 N_c), N_c of the N training labels being c, as the labels' loss may.
        unlabelled: Whether MRI without label take part, with v = 1, so that batches must hold some; only with a
            `pairing` that does not ask for labels.
    """

    def __init__(
        self, pairing: Pairing, loss: DistillationLoss, balanced: bool = False, unlabelled: bool = False
    ) -> None:
        super().__init__()
        self.pairing = pairing
        self.loss = loss
        self.balanced = balanced
        self.unlabelled = unlabelled
        self.needs_unlabelled = unlabelled
        self.class_weights = (1.0, 1.0)

    def prepare(self, cohort: StudentCohort, bank: TeacherBank | None) -> None:
        """Sets the weights of the classes.

        Raises:
            InputError: They are to be balanced and a class has no training label.
        """
        if self.balanced:
            self.class_weights = balanced_weights(cohort.labels)

    def forward(self, student: StudentBatch, bank: TeacherBank | None) -> Tensor:
        """Returns the weighted mean loss of the pairs; 0 where a batch has none."""
        assert bank is not None
        student = student if self.unlabelled else student.rows(~student.labels.isnan())
        losses = self.loss(student.logits, bank.logits[self.pairing(student, bank)])
        negative, positive = self.class_weights
        weights = torch.where(student.labels == 1, positive, torch.where(student.labels == 0, negative, 1.0))
        return (weights * losses).sum() / max(len(student), 1)
