"""How an output of the student is compared with one of the teacher.

Zhang et al., "Distilling Missing Modality Knowledge from Ultrasound for Endometriosis Diagnosis with Magnetic
Resonance Images", ISBI 2023 (arXiv 2307.02000), let the student's output regress the teacher's. Whether logits or
probabilities are regressed, and by which norm, the paper leaves open: each class says what is ours.
"""

from abc import ABC, abstractmethod
from typing import Literal

from torch import Tensor
from torch.nn import functional

from data_modules.errors import InputError


class DistillationLoss(ABC):
    """Loss l(s, t) of pairs of outputs; the type by which configurations name one."""

    @abstractmethod
    def __call__(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Compares logits (B,) with logits (B,); returns float32 (B,)."""


class OutputRegression(DistillationLoss):
    """l(s, t) = |f(s) - f(t)|^p.

    s is the student's logit of an MRI, t the frozen teacher's logit of the clip paired with it; f(x) = x on the logit
    and 1 / (1 + e^-x) on the probability; p = 2 for `l2` and 1 for `l1`. That outputs are regressed is the paper's;
    logits and p = 2 as the defaults are ours.

    Args:
        on: Compare `logit` or `probability`.
        norm: `l2`, the squared, or `l1`, the absolute difference.

    Raises:
        InputError: An option is none of these.
    """

    def __init__(self, on: Literal["logit", "probability"] = "logit", norm: Literal["l2", "l1"] = "l2") -> None:
        if on not in ("logit", "probability"):
            raise InputError(f"on is {on!r}: choose logit or probability")
        if norm not in ("l2", "l1"):
            raise InputError(f"norm is {norm!r}: choose l2 or l1")
        self.on = on
        self.norm = norm

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Compares logits (B,) with logits (B,); returns float32 (B,)."""
        if self.on == "probability":
            student_logits, teacher_logits = student_logits.sigmoid(), teacher_logits.sigmoid()
        distance = functional.mse_loss if self.norm == "l2" else functional.l1_loss
        return distance(student_logits, teacher_logits, reduction="none")


class BernoulliKL(DistillationLoss):
    """l(s, t) = T^2 KL(Bernoulli(q) || Bernoulli(p)).

    q = sigmoid(t / T) and p = sigmoid(s / T), with s and t as in `OutputRegression`, T the temperature, and
    KL = q log(q / p) + (1 - q) log((1 - q) / (1 - p)). T^2 keeps the gradient's size when T changes (Hinton, Vinyals
    and Dean, 2015, arXiv 1503.02531). Not the paper's form: ours, the usual one in distillation.

    Args:
        temperature: T, above 0.

    Raises:
        InputError: The temperature is not above 0.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        if not temperature > 0:
            raise InputError(f"temperature is {temperature}: give a number above 0")
        self.temperature = temperature

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Compares logits (B,) with logits (B,); returns float32 (B,)."""
        student, teacher = student_logits / self.temperature, teacher_logits / self.temperature
        target = teacher.sigmoid()
        # KL is the cross-entropy less the target's entropy; from logits both stay finite where q or p round
        # to 0 or 1.
        cross_entropy = functional.binary_cross_entropy_with_logits(student, target, reduction="none")
        entropy = functional.binary_cross_entropy_with_logits(teacher, target, reduction="none")
        return self.temperature**2 * (cross_entropy - entropy)
