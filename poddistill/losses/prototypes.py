"""Transfer by groups: prototypes of a class in one modality meet those of the class in the other."""

from typing import Literal

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor, distributed
from torch.nn import functional

from data_modules.errors import InputError
from poddistill.losses.labels import balanced_weights
from poddistill.losses.teacher_space import TeacherSpace
from poddistill.losses.transfer import Transfer
from poddistill.losses.unpaired import StudentBatch, StudentCohort, TeacherBank


class GroupPrototypes(Transfer):
    """L_KD = group_weight L_group + contrast_weight L_contrast, over the n volumes of a batch that have a label.

    z_i is volume i's feature vector in the `TeacherSpace`. The teacher's prototypes t_ck, k = 1 .. `per_class`, are
    the mean of the standardised features of class c, or the k-means centres where there are several. Volume i of class
    y belongs to the group (y, k) whose t_yk is nearest by cosine; s_ck is the mean of its z_i in the batch, and

        p_ck       = momentum p_ck' + (1 - momentum) s_ck,    p_ck' its value at the last batch that had the group,
        L_group    = mean over the batch's groups of 1 - cos(p_ck, t_ck), or of |p_ck - t_ck|^2 / teacher_features,
        L_contrast = 1/n sum_i v(y_i) (-log(sum_k e^(cos(z_i, t_yk) / T) / sum_ck e^(cos(z_i, t_ck) / T))).

    v = 1, or N / (2 N_c) where classes are balanced. The first p_ck is s_ck. Its gradient is taken as that of s_ck in
    full, not 1 - momentum of it: the weights that made p_ck' have hardly moved since.

    In a run of several processes each has the loss of its own batch, with its own s_ck; the p_ck that is kept for the
    next batch takes in the mean over the batches of all, so it is the same in every process and the one that a
    checkpoint holds.

    After Hu et al., "Pairing-free Group-level Knowledge Distillation for Robust Gastrointestinal Lesion Classification
    in White-Light Endoscopy", AAAI 2026 (arXiv 2601.09209). Theirs is to form groups of one class in either modality
    without pairs, to sum each up in a few prototypes, and to pull prototypes of a class together across the modalities
    and those of other classes apart. There learnt queries, shared by both modalities, attend over the places of a
    group's feature maps, and a contrastive loss compares prototypes with prototypes; a second loss aligns the maps
    densely. Ours: a feature vector a case and no maps, means and k-means centres instead of queries, fixed for the
    teacher; the running mean, for a batch has few cases of a class; contrasting cases with prototypes.

    With one prototype a class the teacher enters only through the two class means of its standardised features.

    Args:
        student_width: Number of features of the student's encoder.
        teacher_features: Number of features that the teacher's head reads.
        per_class: Prototypes a class, at least 1 and no more than a class has clips.
        distance: `cosine` or `mse`, of prototypes.
        temperature: T, above 0.
        momentum: In [0, 1); 0 leaves earlier batches out.
        group_weight: At least 0.
        contrast_weight: At least 0.
        balanced: Weigh the classes in L_contrast as if there were as many training labels of each.

    Raises:
        InputError: An option is out of range.
    """

    teacher_prototypes: Tensor
    student_prototypes: Tensor
    seen: Tensor

    def __init__(
        self,
        student_width: int,
        teacher_features: int,
        per_class: int = 1,
        distance: Literal["cosine", "mse"] = "cosine",
        temperature: float = 0.1,
        momentum: float = 0.9,
        group_weight: float = 1.0,
        contrast_weight: float = 1.0,
        balanced: bool = False,
    ) -> None:
        super().__init__()
        if per_class < 1:
            raise InputError(f"per_class is {per_class}: give at least 1")
        if distance not in ("cosine", "mse"):
            raise InputError(f"distance is {distance!r}: choose cosine or mse")
        if not temperature > 0:
            raise InputError(f"temperature is {temperature}: give a number above 0")
        if not 0 <= momentum < 1:
            raise InputError(f"momentum is {momentum}: give a number in [0, 1)")
        for name, value in (("group_weight", group_weight), ("contrast_weight", contrast_weight)):
            if not value >= 0:
                raise InputError(f"{name} is {value}: give at least 0")
        self.space = TeacherSpace(student_width, teacher_features)
        self.distance = distance
        self.temperature = temperature
        self.momentum = momentum
        self.group_weight = group_weight
        self.contrast_weight = contrast_weight
        self.balanced = balanced
        self.class_weights = (1.0, 1.0)
        self.register_buffer("teacher_prototypes", torch.zeros(2, per_class, teacher_features))
        self.register_buffer("student_prototypes", torch.zeros(2 * per_class, teacher_features))
        self.register_buffer("seen", torch.zeros(2 * per_class, 1))  # 0 or 1; a float, for weights are averaged

    def prepare(self, cohort: StudentCohort, bank: TeacherBank | None) -> None:
        """Finds the teacher's prototypes and the weights of the classes.

        Raises:
            InputError: The bank does not fit `teacher_features`, a class has fewer clips than prototypes, or classes
                are to be balanced and one has no training label.
        """
        assert bank is not None
        self.space.prepare(bank)
        if self.balanced:
            self.class_weights = balanced_weights(cohort.labels)
        per_class = self.teacher_prototypes.shape[1]
        for label in (0, 1):
            clips = self.space.standardised(bank.features[bank.labelled(label)])
            if len(clips) < per_class:
                raise InputError(
                    f"per_class is {per_class}, but {len(clips)} TVUS training clips have label {label}: "
                    f"give at most {len(clips)}"
                )
            self.teacher_prototypes[label] = _centres(clips, per_class)

    def forward(self, student: StudentBatch, bank: TeacherBank | None) -> Tensor:
        """Returns the loss; 0 where no volume has a label. A group that the batch lacks adds nothing."""
        projected = self.space(student.features)
        labelled = ~student.labels.isnan()
        with torch.autocast(projected.device.type, enabled=False):
            loss = self._loss(projected[labelled], student.labels[labelled].long())
        # 0 of the graph: every process has a gradient for each weight.
        return loss if labelled.any() else 0 * projected.sum()

    def _loss(self, projected: Tensor, labels: Tensor) -> Tensor:
        _, per_class, width = self.teacher_prototypes.shape
        cosines = functional.cosine_similarity(projected[:, None, None], self.teacher_prototypes, dim=-1)  # (n, 2, K)
        own = cosines[torch.arange(len(labels), device=labels.device), labels]  # (n, K)
        losses = (cosines.flatten(1) / self.temperature).logsumexp(1) - (own / self.temperature).logsumexp(1)
        negative, positive = self.class_weights
        contrast = (torch.where(labels == 1, positive, negative) * losses).mean()

        members = functional.one_hot(labels * per_class + own.argmax(1), 2 * per_class).to(projected.dtype)  # (n, 2K)
        counts, sums = members.sum(0)[:, None], members.T @ projected  # (2K, 1), (2K, F)
        groups = self._moved(sums / counts.clamp(min=1))
        present = counts[:, 0] > 0
        if self.training:
            self._remember(sums.detach(), counts)
        teacher = self.teacher_prototypes.flatten(0, 1)
        if self.distance == "cosine":
            distances = 1 - functional.cosine_similarity(groups, teacher, dim=-1)
        else:
            distances = (groups - teacher).square().sum(-1) / width
        group = distances[present].mean()
        return self.group_weight * group + self.contrast_weight * contrast

    def _moved(self, means: Tensor) -> Tensor:
        """Returns p (2K, F) after a batch with the means s (2K, F), with the gradient of those."""
        return means + (self.momentum * self.seen * (self.student_prototypes - means)).detach()

    def _remember(self, sums: Tensor, counts: Tensor) -> None:
        # Of all processes, for each begins a batch with the buffers of process 0; one without labels takes part, too.
        seen = torch.cat([sums, counts], 1)
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(seen)
        sums, counts = seen[:, :-1], seen[:, -1:]
        present = counts > 0
        kept = self._moved(sums / counts.clamp(min=1))
        self.student_prototypes.copy_(torch.where(present, kept, self.student_prototypes))
        self.seen.copy_(torch.maximum(self.seen, present.float()))


def _centres(features: Tensor, k: int) -> Tensor:
    """Returns k centres (k, F) of features (n, F), n at least k; where fewer than k differ, each several times."""
    if k == 1:
        return features.mean(0, keepdim=True)
    points = features.cpu().double().numpy()
    distinct = np.unique(points, axis=0)
    if len(distinct) <= k:
        centres = distinct[np.arange(k) % len(distinct)]
    else:
        centres = KMeans(k, n_init=10, random_state=0).fit(points).cluster_centers_
    return torch.from_numpy(centres).to(features)
