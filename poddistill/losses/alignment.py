"""Transfer by distributions: the student's features and probabilities are to be distributed as the teacher's."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from data_modules.errors import InputError
from poddistill.losses.discrepancy import mmd, moment_distance, sinkhorn
from poddistill.losses.teacher_space import TeacherSpace
from poddistill.losses.transfer import Transfer
from poddistill.losses.unpaired import StudentBatch, StudentCohort, TeacherBank


class DistributionAlignment(Transfer):
    """L_KD = feature_weight D + label_weight KL(Bernoulli(q) || Bernoulli(p)).

    D compares the features of the batch's volumes with features of random clips, drawn anew at every call, uniformly
    and with replacement, in the `TeacherSpace`: by `mmd`, by `moment_distance` (`coral`) or by `sinkhorn`. Conditional,
    D is the mean over the classes of which the batch has two labelled volumes or more, each against `draws` clips of
    the class. Not conditional, all volumes of the batch, unlabelled ones too, meet `draws` clips, a share `prevalence`
    of them obliterated, lest a difference in prevalence is aligned away.

    p is the mean probability sigmoid(s_i) of the batch's unlabelled volumes, q = prevalence m_1 + (1 - prevalence) m_0,
    m_c the mean probability that the teacher gives clips of class c. KL is 0 where the batch has none, so a
    `label_weight` above 0 needs unlabelled volumes in the batches.

    After Tran et al., "Cross-Modal Knowledge Distillation without Paired Data: Theoretical Foundation and Algorithm",
    2026 (arXiv 2606.10504). Theirs is to align distributions instead of pairs, on two levels, the features and the
    predictions given them. Their code aligns the features of a batch, not by class, by entropic optimal transport
    with a cosine cost, which is `sinkhorn` with `conditional` false; and the predictions by comparing, at the label,
    the student's likelihood with that of the teacher's head on the student's features, in an inner loop of training.
    Ours: `mmd` and `coral`, conditioning on the class, the KL of mean predictions, the projection, and one loss
    instead of inner loops.

    Args:
        student_width: Number of features of the student's encoder.
        teacher_features: Number of features that the teacher's head reads.
        kind: `mmd`, `coral` or `sinkhorn`.
        conditional: Compare features class by class.
        feature_weight: At least 0.
        label_weight: At least 0.
        draws: Clips to compare features with, at least 2.
        prevalence: Share of the student's volumes that are obliterated, in (0, 1); None takes the share of the
            training labels.

    Raises:
        InputError: An option is out of range.
    """

    def __init__(
        self,
        student_width: int,
        teacher_features: int,
        kind: Literal["mmd", "coral", "sinkhorn"] = "mmd",
        conditional: bool = True,
        feature_weight: float = 1.0,
        label_weight: float = 1.0,
        draws: int = 64,
        prevalence: float | None = None,
    ) -> None:
        super().__init__()
        if kind not in ("mmd", "coral", "sinkhorn"):
            raise InputError(f"kind is {kind!r}: choose mmd, coral or sinkhorn")
        for name, value in (("feature_weight", feature_weight), ("label_weight", label_weight)):
            if not value >= 0:
                raise InputError(f"{name} is {value}: give at least 0")
        if draws < 2:
            raise InputError(f"draws is {draws}: give at least 2")
        if prevalence is not None and not 0 < prevalence < 1:
            raise InputError(f"prevalence is {prevalence}: give a number in (0, 1), or null")
        self.space = TeacherSpace(student_width, teacher_features)
        self.kind = kind
        self.conditional = conditional
        self.feature_weight = feature_weight
        self.label_weight = label_weight
        self.draws = draws
        self.prevalence = prevalence
        self.needs_unlabelled = label_weight > 0
        self.share = 0.5 if prevalence is None else prevalence
        self.expected = (0.5, 0.5)

    def prepare(self, cohort: StudentCohort, bank: TeacherBank | None) -> None:
        """Sets the prevalence, if none is given, and q.

        Raises:
            InputError: The bank does not fit `teacher_features`, or there is no label to take the prevalence from.
        """
        assert bank is not None
        self.space.prepare(bank)
        if self.prevalence is None:
            known = cohort.labels[~cohort.labels.isnan()]
            if not len(known):
                raise InputError("prevalence is null, but no MRI has a training label: give a number in (0, 1)")
            self.share = float(known.mean())
        means = [bank.logits[bank.labelled(label)].cpu().double().sigmoid().mean().item() for label in (0, 1)]
        obliterated = (1 - self.share) * means[0] + self.share * means[1]
        self.expected = (1 - obliterated, obliterated)

    def forward(self, student: StudentBatch, bank: TeacherBank | None) -> Tensor:
        """Returns the loss; 0 where the batch has neither an unlabelled volume nor two to compare features of."""
        assert bank is not None
        projected = self.space(student.features)
        with torch.autocast(projected.device.type, enabled=False):
            features = self._features(projected, student.labels, bank)
            labels = self._labels(student.logits[student.labels.isnan()].float())
            # 0 times all keeps the loss in the graph: every process has a gradient for each weight.
            return self.feature_weight * features + self.label_weight * labels + 0 * projected.sum()

    def _features(self, projected: Tensor, labels: Tensor, bank: TeacherBank) -> Tensor:
        if self.conditional:
            counts = ((self.draws, 0), (0, self.draws))  # clips of label 0 and of label 1
            pairs = [(projected[labels == label], counts[label]) for label in (0, 1)]
        else:
            obliterated = round(self.draws * self.share)
            pairs = [(projected, (self.draws - obliterated, obliterated))]
        parts = [self._distance(volumes, self._drawn(bank, counts)) for volumes, counts in pairs if len(volumes) > 1]
        return torch.stack(parts).mean() if parts else projected.new_zeros(())

    def _distance(self, volumes: Tensor, clips: Tensor) -> Tensor:
        if self.kind == "mmd":
            return mmd(volumes, clips)
        if self.kind == "coral":
            return moment_distance(volumes, clips.mean(0), clips.T.cov())
        return sinkhorn(volumes, clips)

    def _drawn(self, bank: TeacherBank, counts: tuple[int, int]) -> Tensor:
        """Draws as many clips of label 0 and of label 1; returns their standardised features."""
        rows = []
        for label, count in enumerate(counts):
            clips = bank.labelled(label)
            rows.append(clips[torch.randint(len(clips), (count,)).to(clips.device)])
        return self.space.standardised(bank.features[torch.cat(rows)])

    def _labels(self, logits: Tensor) -> Tensor:
        if not len(logits):
            return logits.sum()
        # The logarithm of a mean probability, from logits: it stays finite where probabilities round to 0 or 1.
        signed = torch.stack([-logits, logits])
        log_means = functional.logsigmoid(signed).logsumexp(1) - math.log(len(logits))
        expected = log_means.new_tensor(self.expected)
        return (torch.xlogy(expected, expected) - expected * log_means).sum()
