"""Transfer through anchors: the few patients with both examinations, of whom teacher and student see the same body."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from data_modules.errors import InputError
from poddistill.losses.distillation import DistillationLoss
from poddistill.losses.transfer import Transfer
from poddistill.losses.unpaired import StudentBatch, StudentCohort, TeacherBank


class AnchoredPairs(Transfer):
    """L_KD = 1/m sum_i l(s_i, t_i), over the MRI of a batch, labelled or not, whose patient has clips as well.

        m = p_1 B_1 + p_0 B_0

    s_i is the student's logit of MRI i, t_i the mean of the frozen teacher's logits on the patient's clips, l is
    `loss`. m is how many such MRI a batch of B_1 labelled and B_0 unlabelled ones has on average, p_1 and p_0 their
    shares among all that train. So the mean over accumulated batches, or over processes, is the loss of one large
    batch. Divided by the number in the batch itself, and 0 where that is 0, it would be 1 - (1 - p)^B of that on
    average: .52 where one in fifty is such and B is 36.

    Ordinary distillation between modalities where it is possible; MRI of other patients add nothing. The teacher has
    been trained on these clips, so it is surer of them than of others. Ours.

    Args:
        loss: Compares the outputs.
    """

    def __init__(self, loss: DistillationLoss) -> None:
        super().__init__()
        self.loss = loss
        self.rows = torch.empty(0, dtype=torch.int64)
        self.logits = torch.empty(0, 1)
        self.shares = (1.0, 1.0)

    def prepare(self, cohort: StudentCohort, bank: TeacherBank | None) -> None:
        """Finds the patients with both examinations.

        Raises:
            InputError: There is none among those that train.
        """
        assert bank is not None
        self.rows, self.logits = _patient_means(cohort, bank, bank.logits[:, None])
        self.shares = _shares(self.rows, cohort)
        self.needs_unlabelled = self.shares[0] == 0  # batches of labelled MRI alone would teach nothing

    def forward(self, student: StudentBatch, bank: TeacherBank | None) -> Tensor:
        """Returns the loss; 0 where a batch has no such MRI. Only `prepare` looks at the bank."""
        rows = self.rows[student.index]
        losses = self.loss(student.logits.float(), self.logits[rows, 0])
        return _anchored(losses, rows, student.labels, self.shares)


class AnchoredFeatures(Transfer):
    """L_KD = 1/m sum_i d(W h_i + c, z_i), over the MRI of a batch, labelled or not, whose patient has clips as well.

    m is how many of them such a batch has on average, as for `AnchoredPairs`. h_i is what the student's head reads of
    MRI i; z_i the mean over the patient's clips of what the teacher's head reads, each feature standardised over all
    clips (one that changes by rounding at most is 0). W and c, a linear layer, train with the student and are not used
    without the teacher. d(p, z) is 1 - p . z / (|p| |z|) for `cosine` and |p - z|^2 / F for `mse`, F the teacher's
    features. A regression of a teacher's features as in FitNets (Romero et al., ICLR 2015, arXiv 1412.6550), who
    regress hidden layers of a teacher with the same input; patients as anchors, standardised features and the cosine
    are ours.

    Args:
        student_width: Width of h.
        teacher_features: F.
        distance: d, `cosine` or `mse`.

    Raises:
        InputError: An option is out of range.
    """

    def __init__(
        self, student_width: int, teacher_features: int, distance: Literal["cosine", "mse"] = "cosine"
    ) -> None:
        super().__init__()
        for name, width in (("student_width", student_width), ("teacher_features", teacher_features)):
            if width < 1:
                raise InputError(f"{name} is {width}: give at least 1")
        if distance not in ("cosine", "mse"):
            raise InputError(f"distance is {distance!r}: choose cosine or mse")
        self.projection = nn.Linear(student_width, teacher_features)
        self.distance = distance
        self.rows = torch.empty(0, dtype=torch.int64)
        self.features = torch.empty(0, teacher_features)
        self.shares = (1.0, 1.0)

    def prepare(self, cohort: StudentCohort, bank: TeacherBank | None) -> None:
        """Finds the patients with both examinations, and standardises the teacher's features.

        Raises:
            InputError: There is no such patient among those that train, or the teacher has another number of features.
        """
        assert bank is not None
        wanted, given = self.projection.out_features, bank.features.shape[1]
        if given != wanted:
            raise InputError(f"teacher_features is {wanted}, but the teacher has {given}: set it to {given}")
        features = bank.features.cpu().double()  # not every accelerator knows float64
        deviation, mean = torch.std_mean(features, dim=0, correction=0)
        # A feature that hardly changes may have a deviation of a rounding error; divided by it, that would count.
        varies = deviation > 1e-6 * features.abs().amax(0)
        standardised = torch.where(varies, (features - mean) / deviation, 0.0).float().to(bank.features.device)
        self.rows, self.features = _patient_means(cohort, bank, standardised)
        self.shares = _shares(self.rows, cohort)
        self.needs_unlabelled = self.shares[0] == 0

    def forward(self, student: StudentBatch, bank: TeacherBank | None) -> Tensor:
        """Returns the loss; 0 where a batch has no such MRI. Only `prepare` looks at the bank.

        Raises:
            InputError: The student's features have another width.
        """
        wanted, given = self.projection.in_features, student.features.shape[1]
        if given != wanted:
            raise InputError(f"student_width is {wanted}, but the student's features have {given}: set it to {given}")
        rows = self.rows[student.index]
        # Of all MRI, so that every process has a gradient of the layer, whoever is in its batch.
        with torch.autocast(student.features.device.type, enabled=False):
            projected, target = self.projection(student.features.float()), self.features[rows]
        if self.distance == "cosine":
            losses = 1 - functional.cosine_similarity(projected, target)
        else:
            losses = (projected - target).square().mean(1)
        return _anchored(losses, rows, student.labels, self.shares)


def _patient_means(cohort: StudentCohort, bank: TeacherBank, values: Tensor) -> tuple[Tensor, Tensor]:
    """Averages values (N, K) of the clips over each patient's.

    Returns:
        Per volume (M,) the row of its patient in the second, or -1 where she has no clip or the volume does not train;
        and float32 (P, K), the means of the P patients with clips. Both on the bank's device.

    Raises:
        InputError: No volume that trains has a row.
    """
    # On the CPU, where the order of a sum does not change from run to run.
    ids, patient = bank.patients.cpu().unique(return_inverse=True)
    sums = torch.zeros(len(ids), values.shape[1]).index_add_(0, patient, values.cpu().float())
    rows = torch.searchsorted(ids, cohort.patients).clamp(max=len(ids) - 1)
    trains = cohort.unlabelled | ~cohort.labels.isnan()
    rows = torch.where(trains & (ids[rows] == cohort.patients), rows, -1)
    if (rows < 0).all():
        raise InputError(
            "no MRI that trains is of a patient with a TVUS training clip: ingest patients with both examinations under"
            " one patient_id, or simulate some (poddistill simulate --n_both)"
        )
    return rows.to(values.device), (sums / patient.bincount()[:, None]).to(values.device)


def _shares(rows: Tensor, cohort: StudentCohort) -> tuple[float, float]:
    """Returns which part of the labelled and of the unlabelled volumes that train has a row; 0 where there are none."""
    anchored = rows.cpu() >= 0
    labelled, unlabelled = (anchored[chosen] for chosen in (~cohort.labels.isnan(), cohort.unlabelled))
    of_labelled, of_unlabelled = (part.float().mean().item() if len(part) else 0.0 for part in (labelled, unlabelled))
    return of_labelled, of_unlabelled


def _anchored(losses: Tensor, rows: Tensor, labels: Tensor, shares: tuple[float, float]) -> Tensor:
    """Sums losses (B,) over the volumes with a row, divided by how many of these a batch with these labels may expect.

    0, with zero gradients, if there are none.
    """
    expected = torch.where(labels.isnan(), shares[1], shares[0]).sum()
    total = torch.where(rows >= 0, losses, 0.0).sum()
    return total / torch.where(expected > 0, expected, 1.0)
