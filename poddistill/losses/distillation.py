"""What the student's output regresses: the distillation loss L_KD.

Zhang et al., "Distilling Missing Modality Knowledge from Ultrasound for Endometriosis Diagnosis with Magnetic
Resonance Images", ISBI 2023 (arXiv 2307.02000), minimise over the MRI student, the ultrasound teacher frozen,

    L = w L_KD + (1 - w) L_labels,    w = alpha^epoch,

where L_KD makes the student's output regress the teacher's. The paper settles that, and that MRI and
ultrasound are of different patients. Whether logits or probabilities are regressed, and by which norm, it
leaves open: each class says what is ours. Who meets whom is `poddistill.losses.pairing`; w is
`poddistill.losses.schedules`.
"""

from abc import ABC, abstractmethod
from typing import Literal

from torch import Tensor
from torch.nn import functional

from data_modules.errors import InputError


class DistillationLoss(ABC):
    """L_KD of a batch; the type by which configurations name one."""

    @abstractmethod
    def __call__(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Compares logits (B,) with logits (B,); returns a scalar."""


class OutputRegression(DistillationLoss):
    """L_KD = 1/B sum_i |f(s_i) - f(t_i)|^p.

    B is the batch size, s_i the student's logit of MRI i, t_i the frozen teacher's logit of the clip paired
    with it; f(x) = x on the logit and 1 / (1 + e^-x) on the probability; p = 2 for `l2` and 1 for `l1`. That
    outputs are regressed is the paper's; logits and p = 2 as the defaults are ours.

    Args:
        on: Compare `logit` or `probability`.
        norm: `l2`, the mean squared, or `l1`, the mean absolute difference.

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
        """Compares logits (B,) with logits (B,); returns a scalar."""
        if self.on == "probability":
            student_logits, teacher_logits = student_logits.sigmoid(), teacher_logits.sigmoid()
        distance = functional.mse_loss if self.norm == "l2" else functional.l1_loss
        return distance(student_logits, teacher_logits)


class BernoulliKL(DistillationLoss):
    """L_KD = T^2/B sum_i KL(Bernoulli(q_i) || Bernoulli(p_i)).

    q_i = sigmoid(t_i / T) and p_i = sigmoid(s_i / T), with B, s_i and t_i as in `OutputRegression`, T the
    temperature, and KL = q log(q / p) + (1 - q) log((1 - q) / (1 - p)). T^2 keeps the gradient's size when T
    changes (Hinton, Vinyals and Dean, 2015, arXiv 1503.02531). Not the paper's form: ours, the usual one in
    distillation.

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
        """Compares logits (B,) with logits (B,); returns a scalar."""
        student, teacher = student_logits / self.temperature, teacher_logits / self.temperature
        target = teacher.sigmoid()
        # KL is the cross-entropy less the target's entropy; from logits both stay finite where q or p round
        # to 0 or 1.
        cross_entropy = functional.binary_cross_entropy_with_logits(student, target)
        entropy = functional.binary_cross_entropy_with_logits(teacher, target)
        return self.temperature**2 * (cross_entropy - entropy)
