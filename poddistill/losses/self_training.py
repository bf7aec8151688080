"""Self-training in two stages: soft targets for unlabelled volumes from the predictions of a finished student."""

from pathlib import Path
from typing import Literal

import pandas as pd
import torch
from scipy.stats import rankdata
from torch import Tensor
from torch.nn import functional

from data_modules.errors import InputError
from poddistill.losses.quantiles import mixture_quantiles
from poddistill.losses.transfer import Transfer
from poddistill.losses.unpaired import StudentBatch, StudentCohort, TeacherBank

COLUMNS = ("case_id", "split", "probability")


class SelfTrainingTargets(Transfer):
    """L_KD = 1/n sum_i BCE(s_i, g_i), over the n volumes of a batch that have a target g_i.

        g_i = sigmoid(Q((r_i - 1/2) / N)),    Q the quantile function of pi F_1 + (1 - pi) F_0

    s_i is the student's logit; r_i is the rank, 1 to N, of volume i among the N unlabelled training volumes by the
    probability that a finished run gave it, equal ones sharing their mean rank; pi is the prevalence. F_y is what the
    logits of label y look like: those of the frozen teacher on its clips, or a single point. The order of the targets
    is then the first student's and their values are given, so that its scores may be too sure or not sure enough.

    Write the predictions with ``poddistill predict`` on the first run, of the same cohort, fold, seed and number of
    labels. Volumes without a target, validation and test volumes among them, take no part; unlabelled ones come with
    the data module's `unlabelled_batch_size`. That a finished model's soft predictions train a new one is from
    self-training as by Xie et al., CVPR 2020 (arXiv 1911.04252); targets by rank and prevalence are ours.

    Args:
        predictions: The first run's ``predictions_all.csv``.
        quantiles: F_y: `two-point` puts all of it at +-`centre`, + where obliterated; `teacher` takes the teacher's
            logits on the clips of label y; `own` leaves F and Q out, g_i being the first run's probability as it is.
        prevalence: pi, in (0, 1); None: the part of the training labels that is 1.
        centre: Above 0.
        labelled: Whether the labelled training volumes are ranked and have a target, too.

    Raises:
        InputError: An option is out of range.
    """

    def __init__(
        self,
        predictions: str,
        quantiles: Literal["two-point", "teacher", "own"] = "two-point",
        prevalence: float | None = None,
        centre: float = 2.6,
        labelled: bool = False,
    ) -> None:
        super().__init__()
        if quantiles not in ("two-point", "teacher", "own"):
            raise InputError(f"quantiles is {quantiles!r}: choose two-point, teacher or own")
        if prevalence is not None and not 0 < prevalence < 1:
            raise InputError(f"prevalence is {prevalence}: give a part between 0 and 1, or null")
        if not centre > 0:
            raise InputError(f"centre is {centre}: give a logit above 0")
        self.predictions = predictions
        self.quantiles = quantiles
        self.needs_teacher = self.reads_outputs = quantiles == "teacher"
        self.prevalence = prevalence
        self.centre = centre
        self.labelled = labelled
        self.needs_unlabelled = not labelled
        self.targets = torch.empty(0)

    def prepare(self, cohort: StudentCohort, bank: TeacherBank | None) -> None:
        """Computes the targets.

        Raises:
            InputError: The predictions cannot be read, lack a volume or saw labels that this run does not train on;
                no volume is unlabelled; or the quantiles or the prevalence lack what they are taken from.
        """
        known = ~cohort.labels.isnan()
        if not cohort.unlabelled.any():
            raise InputError("SelfTrainingTargets needs unlabelled volumes: ingest some or lower n_labelled")
        rows = (cohort.unlabelled | known if self.labelled else cohort.unlabelled).nonzero().flatten()
        probabilities = self._read(cohort, rows)
        targets = probabilities if self.quantiles == "own" else self._by_rank(probabilities, cohort.labels[known], bank)
        self.targets = torch.full((len(cohort.case_ids),), torch.nan)
        self.targets[rows] = targets

    def forward(self, student: StudentBatch, bank: TeacherBank | None) -> Tensor:
        """Returns the mean loss of the volumes with a target; 0 where a batch has none."""
        self.targets = self.targets.to(student.logits.device)
        targets = self.targets[student.index]
        chosen = ~targets.isnan()
        entropy = functional.binary_cross_entropy_with_logits(student.logits[chosen], targets[chosen], reduction="sum")
        return entropy / chosen.sum().clamp(min=1)

    def _read(self, cohort: StudentCohort, rows: Tensor) -> Tensor:
        """The probabilities of these rows of the cohort, float32."""
        file = Path(self.predictions)
        if not file.is_file():
            raise InputError(f"{file}: no such file; write it with poddistill predict on the finished first run")
        try:
            table = pd.read_csv(file, dtype=str, keep_default_na=False)
        except ValueError as error:  # pandas' own errors and that of a wrong encoding are kinds of it
            raise InputError(f"{file}: not a table of predictions; write it with poddistill predict") from error
        missing = [name for name in COLUMNS if name not in table]
        if missing:
            raise InputError(f"{file}: has no column {missing[0]}; give the predictions_all.csv of a student's run")
        seen = set(table.loc[table["split"].eq("train"), "case_id"])
        known = {cohort.case_ids[row] for row in (~cohort.labels.isnan()).nonzero().flatten().tolist()}
        if seen - known:
            raise InputError(
                f"{file}: its run trained on the label of {min(seen - known)}, which this run does not: give a run of "
                "the same cohort, fold, seed and n_labelled"
            )
        probability = pd.to_numeric(table["probability"], errors="coerce")
        by_case = dict(zip(table["case_id"], probability.where(probability.between(0, 1)), strict=True))
        wanted = [cohort.case_ids[row] for row in rows.tolist()]
        for case_id in wanted:
            if not by_case.get(case_id, torch.nan) >= 0:
                raise InputError(
                    f"{file}: has no probability of {case_id}; write it anew with poddistill predict on this cohort"
                )
        return torch.tensor([by_case[case_id] for case_id in wanted], dtype=torch.float32)

    def _by_rank(self, probabilities: Tensor, labels: Tensor, bank: TeacherBank | None) -> Tensor:
        prevalence = float(labels.mean()) if self.prevalence is None else self.prevalence
        if not 0 < prevalence < 1:
            raise InputError(f"{len(labels)} training labels are of fewer than two classes: set transfer.prevalence")
        if self.quantiles == "two-point":
            free, obliterated = torch.tensor([-self.centre]), torch.tensor([self.centre])
        elif bank is None:
            raise InputError("quantiles is teacher, but there is none: set model.teacher or quantiles to two-point")
        else:
            free, obliterated = (bank.logits[bank.labelled(label)].cpu() for label in (0, 1))
        levels = (torch.from_numpy(rankdata(probabilities)) - 0.5) / len(probabilities)
        return mixture_quantiles(free, obliterated, prevalence, levels).sigmoid()
