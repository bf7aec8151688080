"""Transfer by rank: the order of the cases is the student's, the values they are given are the teacher's."""

import torch
from torch import Generator, Tensor

from data_modules.errors import InputError
from poddistill.losses.distillation import DistillationLoss
from poddistill.losses.pairing import Pairing
from poddistill.losses.quantiles import mixture_quantiles
from poddistill.losses.transfer import Transfer
from poddistill.losses.unpaired import StudentBatch, StudentCohort, TeacherBank


class SortedPairing(Pairing):
    """Lets the MRI of a label, ranked by the student's logit, meet the clips at the same quantiles of the teacher's.

    Of n MRI with label y in a batch, the one of rank r = 0, ..., n - 1 is at the quantile u = (r + 1/2) / n; of the N_y
    clips with label y, ranked by the teacher's logit, it meets the one of rank floor(u N_y), whose part [j / N_y,
    (j + 1) / N_y) of the quantiles holds u. Equal logits keep their order.

    Optimal transport in one dimension (Peyre and Cuturi, "Computational Optimal Transport", 2019, arXiv 1803.00567,
    section 2.6): for n = N_y this is an exact optimal coupling of the two sets of logits, for every cost h(s - t) with
    h convex, and for every l(s, t) with d2l / ds dt <= 0, which all of `poddistill.losses.distillation` have. For n <
    N_y the optimal coupling spreads an MRI over neighbouring clips, of which it meets the middle one. Within classes,
    within a batch, and mid-ranks: ours. It draws nothing.
    """

    def __call__(self, student: StudentBatch, bank: TeacherBank, generator: Generator | None = None) -> Tensor:
        """Ranks both sides.

        Args:
            student: The MRI, all with a label.
            bank: The clips.
            generator: Not used.

        Returns:
            int64 (B,), rows of the bank, on the student's device.

        Raises:
            InputError: An MRI is unlabelled, or the bank has no clip of a label that is needed.
        """
        if student.labels.isnan().any():
            raise InputError("SortedPairing met an MRI without label: give it labelled MRI or use QuantileAlignment")
        index = torch.empty_like(student.index)
        for label in (0, 1):
            rows, clips = (student.labels == label).nonzero().flatten(), bank.labelled(label)
            n = len(rows)
            if n and not len(clips):
                raise InputError(
                    f"no TVUS training clip has label {label}, which an MRI needs for its pair: add such clips"
                )
            ranked = clips[bank.logits[clips].argsort(stable=True)]
            # floor((r + 1/2) / n * N_y) in whole numbers, which round nowhere.
            at = (2 * torch.arange(n, device=rows.device) + 1) * len(clips) // max(2 * n, 1)
            index[rows[student.logits[rows].argsort(stable=True)]] = ranked[at]
        return index


class QuantileAlignment(Transfer):
    """L_KD = 1/n sum_i l(s_i, Q(u_i)), over the n unlabelled MRI of a batch.

    u_i is the mid-rank of the student's logit s_i among the n logits and the last `queue` ones before them: the part
    of them that is below s_i, and half of the part that equals it, itself included. Q is the quantile function of
    pi F_1 + (1 - pi) F_0, F_y the empirical distribution of the teacher's logits on clips with label y, and pi the
    prevalence: the student's distribution is drawn to the one that the teacher would give a cohort of this prevalence.
    l is `loss`. No gradient flows through ranks. Ours.

    The queue is kept in checkpoints, so a run of one process that is resumed goes on where it was. Where a run has
    several, each ranks its own cases among its own queue, and a checkpoint holds that of process 0 alone: resumed, all
    start from it, so the ranks of the others, and what is learnt from them, are no longer those of a run that was never
    interrupted.

    Args:
        loss: Compares the outputs.
        prevalence: pi, in (0, 1); None takes that of the training labels.
        queue: Logits of earlier batches, without gradient, to rank among as well: a small batch ranks coarsely, but
            old logits are of an older student. 0 ranks within the batch.
        labelled: Take labelled MRI as well, ranked together with the others.

    Raises:
        InputError: An option is out of range.
    """

    def __init__(
        self, loss: DistillationLoss, prevalence: float | None = None, queue: int = 0, labelled: bool = False
    ) -> None:
        super().__init__()
        if prevalence is not None and not 0 < prevalence < 1:
            raise InputError(f"prevalence is {prevalence}: give a part in (0, 1), or null for that of the labels")
        if queue < 0:
            raise InputError(f"queue is {queue}: give at least 0")
        self.loss = loss
        self.prevalence = prevalence
        self.queue = queue
        self.labelled = labelled
        self.needs_unlabelled = not labelled
        self.pi = prevalence
        # No buffer: its size changes, an average of weights would average it, too, and process 0 would overwrite it.
        self.recent = torch.empty(0)

    def prepare(self, cohort: StudentCohort, bank: TeacherBank | None) -> None:
        """Takes the prevalence from the training labels, unless it is given.

        Raises:
            InputError: It is to be taken from labels that are not of both classes; or no volume is unlabelled.
        """
        if not self.labelled and not cohort.unlabelled.any():
            raise InputError(
                "QuantileAlignment has no unlabelled volume: set labelled to true, or ingest unlabelled MRI"
            )
        if self.prevalence is None:
            known = cohort.labels[~cohort.labels.isnan()]
            ones = int(known.sum())
            if not 0 < ones < len(known):
                raise InputError(
                    f"of {len(known)} training labels {ones} are 1, which tells no prevalence: set prevalence"
                )
            self.pi = known.mean().item()

    def forward(self, student: StudentBatch, bank: TeacherBank | None) -> Tensor:
        """Returns the mean loss; 0 where a batch has no such MRI."""
        assert bank is not None
        if self.pi is None:
            raise RuntimeError("the prevalence is not set: call prepare with the cohort first")
        logits = (student.logits if self.labelled else student.logits[student.labels.isnan()]).float()
        pool = torch.cat([self.recent.to(logits.device), logits.detach()])
        self.recent = self._last(pool)
        below, equal = ((compare(pool, logits[:, None])).sum(1) for compare in (torch.lt, torch.eq))
        free, obliterated = (bank.logits[bank.labelled(label)] for label in (0, 1))
        targets = mixture_quantiles(free, obliterated, self.pi, (below + equal / 2) / max(len(pool), 1))
        return self.loss(logits, targets).sum() / max(len(logits), 1)

    def get_extra_state(self) -> Tensor:
        """Returns float32 (n,), the queue from the oldest logit to the latest; n is 0 before the first batch."""
        return self.recent

    def set_extra_state(self, state: Tensor) -> None:
        """Takes what `get_extra_state` returned; of a longer queue than this one, the latest logits."""
        self.recent = self._last(state).clone()

    def _last(self, logits: Tensor) -> Tensor:
        return logits[max(len(logits) - self.queue, 0) :]
