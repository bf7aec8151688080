"""Transfer of the teacher's head: frozen, it reads the student's features."""

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from torch import Tensor

from data_modules.errors import InputError
from poddistill.losses.discrepancy import moment_distance
from poddistill.losses.labels import WeightedBCE
from poddistill.losses.teacher_space import TeacherSpace
from poddistill.losses.transfer import Transfer
from poddistill.losses.unpaired import StudentBatch, StudentCohort, TeacherBank


class TeacherHead(Transfer):
    """L_KD = 1/n sum_i v(y_i) BCE(w . z_i + b, y_i) + moment_weight M, over the n labelled volumes of a batch.

    z_i is volume i's feature vector in the `TeacherSpace`, w and b are the teacher's frozen head there, v = 1, or
    N / (2 N_c) where classes are balanced. M is the mean of `moment_distance` over the classes of which the batch has
    two volumes or more: the mean and the covariance of their z_i against those of all clips of the class, so that the
    head meets what it knows. The loss is a help in training only: the student's logit stays that of its own head.

    The head is recovered from the bank, by ridge regression of logits on standardised features, the penalty chosen
    among 1e-6, 10^-5.5, ..., 1e4 by the leave-one-out error. A teacher's logits are linear in its features, so its own
    head comes out, up to directions in which its features do not vary. Invented outputs need not be linear: they get
    the best linear head, so that the same loss can be given them as a control. `explained` says how linear they are.

    That a student is trained for the teacher's frozen classifier, through a projection, is the idea of Chen et al.,
    "Knowledge Distillation with the Reused Teacher Classifier", CVPR 2022 (arXiv 2203.14001), and, without a
    projection and across domains, of Liang et al., "Source Hypothesis Transfer", ICML 2020 (arXiv 2002.08546). Ours:
    BCE of labels instead of the regression of paired features, moments, and keeping the student's own head at test
    time.

    Args:
        student_width: Number of features of the student's encoder.
        teacher_features: Number of features that the teacher's head reads.
        moment_weight: At least 0; 0 leaves the moments out.
        balanced: Weigh the classes in the BCE as if there were as many training labels of each.

    Attributes:
        explained: R^2 of the linear head on the bank's logits, 1 where they are linear; nan before `prepare`.

    Raises:
        InputError: An option is out of range.
    """

    weight: Tensor
    bias: Tensor
    means: Tensor
    covariances: Tensor

    def __init__(
        self, student_width: int, teacher_features: int, moment_weight: float = 0.0, balanced: bool = False
    ) -> None:
        super().__init__()
        if not moment_weight >= 0:
            raise InputError(f"moment_weight is {moment_weight}: give at least 0")
        self.space = TeacherSpace(student_width, teacher_features)
        self.moment_weight = moment_weight
        self.label_loss = WeightedBCE("balanced" if balanced else None)
        self.explained = float("nan")
        width = teacher_features if moment_weight else 0  # covariances are large: none where none are used
        self.register_buffer("weight", torch.zeros(teacher_features))
        self.register_buffer("bias", torch.zeros(()))
        self.register_buffer("means", torch.zeros(2, width))
        self.register_buffer("covariances", torch.zeros(2, width, width))

    def prepare(self, cohort: StudentCohort, bank: TeacherBank | None) -> None:
        """Recovers the head; takes the moments of the classes and the weights of their labels.

        Raises:
            InputError: The bank does not fit `teacher_features`, all its logits are equal, a class has a single clip
                and moments are to be matched, or classes are to be balanced and one has no training label.
        """
        assert bank is not None
        self.space.prepare(bank)
        self.label_loss.prepare(cohort.labels)
        features = self.space.standardised(bank.features)
        self._fit(features.cpu().double().numpy(), bank.logits.cpu().double().numpy())
        if not self.moment_weight:
            return
        for label in (0, 1):
            clips = features[bank.labelled(label)]
            if len(clips) < 2:
                raise InputError(
                    f"moment_weight is {self.moment_weight}, but one TVUS training clip has label {label}: add clips "
                    "or give 0"
                )
            self.means[label] = clips.mean(0)
            self.covariances[label] = clips.T.cov()

    def _fit(self, features: np.ndarray, logits: np.ndarray) -> None:
        if np.ptp(logits) == 0:
            raise InputError("the teacher's logits are all equal, so its head tells no classes: train it again")
        head = RidgeCV(np.logspace(-6, 4, 21)).fit(features, logits)
        self.weight.copy_(torch.from_numpy(head.coef_))
        self.bias.fill_(float(head.intercept_))
        self.explained = float(head.score(features, logits))

    def forward(self, student: StudentBatch, bank: TeacherBank | None) -> Tensor:
        """Returns the loss; 0 where no volume has a label."""
        projected = self.space(student.features)
        with torch.autocast(projected.device.type, enabled=False):
            loss = self.label_loss(projected @ self.weight + self.bias, student.labels)
            if not self.moment_weight:
                return loss
            parts = [
                moment_distance(projected[rows], self.means[label], self.covariances[label])
                for label in (0, 1)
                if int((rows := student.labels == label).sum()) > 1
            ]
            return loss + self.moment_weight * torch.stack(parts).mean() if parts else loss
