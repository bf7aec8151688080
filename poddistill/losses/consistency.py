"""What unlabelled volumes teach without a teacher: a student that agrees with its own past, and one that is sure."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

from data_modules.errors import InputError
from poddistill.losses.transfer import Transfer
from poddistill.losses.unpaired import StudentBatch, StudentCohort, TeacherBank


class TemporalEnsembling(Transfer):
    """L_KD = 1/B sum_i u(k_i) (p_i - z_i)^2, over the B volumes of a batch, labelled or not.

        Z_i <- a Z_i + (1 - a) p_i,    z_i = Z_i / (1 - a^k_i),    u(k) = exp(-5 (1 - min(k / R, 1))^2),    u(0) = 0

    p_i is the student's probability of volume i and z_i the average of those that it gave in its k_i earlier visits to
    volume i, each seen with the augmentation and dropout of that visit; a is `momentum`, R is `ramp_visits`. Z_i starts
    at 0 and takes in p_i after the loss; z_i has no gradient.

    Laine and Aila, ICLR 2017 (arXiv 1610.02242). Theirs are Z, z, the squared difference (with two classes, its mean
    over both is that of one), a = .6 and the form of the ramp. That Z is updated and the ramp counted by visit is ours,
    for unlabelled volumes may come once in many epochs; theirs goes by epoch and takes 80. Its largest weight is the
    schedule's.

    What is remembered is kept in checkpoints, so a resumed run goes on where it was, and shared by all processes.
    Unlabelled volumes come with the data module's `unlabelled_batch_size`.

    Args:
        momentum: a, in [0, 1).
        ramp_visits: R, at least 1.

    Raises:
        InputError: An option is out of range.
    """

    needs_teacher = False
    reads_outputs = False

    def __init__(self, momentum: float = 0.6, ramp_visits: int = 10) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise InputError(f"momentum is {momentum}: give a number in [0, 1)")
        if ramp_visits < 1:
            raise InputError(f"ramp_visits is {ramp_visits}: give at least 1")
        self.momentum = momentum
        self.ramp_visits = ramp_visits
        # No buffers: their size is known only in `prepare`, and an average of weights would average them, too.
        self.sums = torch.empty(0)
        self.visits = torch.empty(0)

    def prepare(self, cohort: StudentCohort, bank: TeacherBank | None) -> None:
        """Makes room for what is remembered of every volume, unless a checkpoint brought it.

        Raises:
            InputError: A checkpoint brought that of another number of volumes.
        """
        n = len(cohort.case_ids)
        if not len(self.sums):
            self.sums, self.visits = torch.zeros(n), torch.zeros(n)
        if len(self.sums) != n:
            raise InputError(
                f"the checkpoint remembers {len(self.sums)} volumes, but the cohort has {n}: start a new run"
            )

    def forward(self, student: StudentBatch, bank: TeacherBank | None) -> Tensor:
        """Returns the mean loss of a batch, and remembers its probabilities."""
        self.sums, self.visits = self.sums.to(student.logits.device), self.visits.to(student.logits.device)
        probability = student.logits.sigmoid()
        visits = self.visits[student.index]
        before = self.sums[student.index] / torch.where(visits > 0, 1 - self.momentum**visits, 1.0)
        ramp = torch.exp(-5 * (1 - visits / self.ramp_visits).clamp(min=0) ** 2) * (visits > 0)
        self._remember(student.index, probability.detach())
        return (ramp * (probability - before) ** 2).sum() / max(len(student), 1)

    def get_extra_state(self) -> Tensor:
        """Returns float32 (2, M), Z and the visits of the M volumes of the cohort; M is 0 before `prepare`."""
        return torch.stack([self.sums, self.visits])

    def set_extra_state(self, state: Tensor) -> None:
        """Takes what `get_extra_state` returned."""
        self.sums, self.visits = state.clone()

    def _remember(self, index: Tensor, probability: Tensor) -> None:
        # By volume, for then what the processes saw adds up whatever the sizes of their batches, repeats included.
        seen = torch.stack([torch.zeros_like(self.sums), torch.zeros_like(self.sums)])
        seen[0].index_add_(0, index, probability)
        seen[1].index_add_(0, index, torch.ones_like(probability))
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(seen)
        total, times = seen
        average = self.momentum * self.sums + (1 - self.momentum) * total / times.clamp(min=1)
        self.sums = torch.where(times > 0, average, self.sums)
        self.visits = self.visits + (times > 0)


class MeanTeacher(Transfer):
    """L_KD = u(k) / B sum_i (p_i - q_i)^2, over the B volumes of a batch, labelled or not.

    p_i is the student's probability of volume i. q_i is that of a moving average of the student, w' <- d w' + (1 - d) w
    in every batch, which sees the volume with noise of its own and gets no gradient. In batch k the ramp is u(k) =
    exp(-5 (1 - min(k / R, 1))^2). Tarvainen and Valpola, NIPS 2017 (arXiv 1703.01780), who augment both views. Here
    both have the batch's augmentation, and the average's has Gaussian noise on top; the student's own is its dropout.

    The average is kept in checkpoints, so a resumed run goes on where it was. Unlabelled volumes come with the data
    module's `unlabelled_batch_size`.

    Args:
        decay: d, in [0, 1).
        ramp_steps: R, at least 1.
        noise: Standard deviation of the average's noise, of the range [0, 1]; at least 0.

    Raises:
        InputError: An option is out of range.
    """

    needs_teacher = False
    reads_outputs = False

    def __init__(self, decay: float = 0.99, ramp_steps: int = 100, noise: float = 0.03) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise InputError(f"decay is {decay}: give a number in [0, 1)")
        if ramp_steps < 1:
            raise InputError(f"ramp_steps is {ramp_steps}: give at least 1")
        if not noise >= 0:
            raise InputError(f"noise is {noise}: give at least 0")
        self.decay = decay
        self.ramp_steps = ramp_steps
        self.noise = noise
        self.steps = 0
        self._resumed: dict[str, Any] | None = None
        self._networks: tuple[nn.Module, nn.Module] | None = None  # in a tuple they are no part of this module

    def attach(self, network: nn.Module) -> None:
        """Copies the student, unless a checkpoint brought the average."""
        average = copy.deepcopy(network).requires_grad_(False)
        if self._resumed is not None:
            average.load_state_dict(self._resumed)
        self._networks = network, average

    def forward(self, student: StudentBatch, bank: TeacherBank | None) -> Tensor:
        """Returns the mean loss of a batch, after the average has taken in the student as it is."""
        if self._networks is None or student.volumes is None:
            raise RuntimeError("MeanTeacher has no network or no volumes: call attach, and give batches their volumes")
        network, average = self._networks
        with torch.no_grad():
            for own, theirs in zip(average.parameters(), network.parameters(), strict=True):
                own.lerp_(theirs, 1 - self.decay)
            noisy = student.volumes + self.noise * torch.randn_like(student.volumes)
            target = average(noisy).squeeze(-1).sigmoid()
        ramp = math.exp(-5 * (1 - min(self.steps / self.ramp_steps, 1)) ** 2)
        self.steps += 1
        return ramp * functional.mse_loss(student.logits.sigmoid(), target)

    def get_extra_state(self) -> dict[str, Any]:
        """Returns the steps and the average's weights, which are None before `attach`."""
        return {"steps": self.steps, "average": self._networks[1].state_dict() if self._networks else None}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Takes what `get_extra_state` returned."""
        self.steps, self._resumed = state["steps"], state["average"]


class EntropyMinimisation(Transfer):
    """L_KD = 1/n sum_i H(p_i), over the n unlabelled volumes of a batch, p_i the student's probability of volume i.

    H(p) = -p log p - (1 - p) log(1 - p), in nats: the student is to be sure of volumes whose label it does not know.
    Grandvalet and Bengio, "Semi-supervised Learning by Entropy Minimization", NIPS 2004; their lambda is w / (1 - w)
    of the schedule's w. The volumes come with the data module's `unlabelled_batch_size`.
    """

    needs_teacher = False
    reads_outputs = False
    needs_unlabelled = True

    def prepare(self, cohort: StudentCohort, bank: TeacherBank | None) -> None:
        """Checks that there is something to learn from.

        Raises:
            InputError: No volume is unlabelled.
        """
        if not cohort.unlabelled.any():
            raise InputError("EntropyMinimisation needs unlabelled volumes: ingest some or lower n_labelled")

    def forward(self, student: StudentBatch, bank: TeacherBank | None) -> Tensor:
        """Returns the mean entropy of the unlabelled volumes; 0 where a batch has none."""
        logits = student.logits[student.labels.isnan()]
        entropy = functional.binary_cross_entropy_with_logits(logits, logits.sigmoid(), reduction="sum")
        return entropy / max(len(logits), 1)
