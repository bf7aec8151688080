"""Transfer through covariates, such as age or pain: both cohorts record them, so they tie patients beyond the label."""

from typing import Literal, get_args

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import expit, logit
from torch import Tensor
from torch.nn import functional

from data_modules.errors import InputError
from poddistill.losses.hidden_labels import hidden_labels
from poddistill.losses.soft_logistic import fit_soft_logistic
from poddistill.losses.transfer import Transfer
from poddistill.losses.unpaired import StudentBatch, StudentCohort, TeacherBank

FitOn = Literal["teacher", "tvus-labels", "labels-and-teacher", "labels-and-order", "mri-labels"]


class CovariateTargets(Transfer):
    """L_KD = 1/n sum_i BCE(s_i, q_i), over the n unlabelled MRI of a batch, q_i what ultrasound says of such a patient.

    s_i is the student's logit, BCE(s, q) = -q log sigmoid(s) - (1 - q) log(1 - sigmoid(s)), and q_i is sigmoid(a + b .
    x_i) with x_i the covariates of MRI i. a and b minimise sum_c BCE(a + b . x_c, p_c) + penalty / 2 |b|^2 over the
    clips c with any covariate; p_c is sigmoid(t_c / temperature), of the teacher's logit t_c (`teacher`), the clip's
    label (`tvus-labels`), the label where there is one and the teacher's output elsewhere (`labels-and-teacher`), or
    the label and elsewhere what covariates and the order of the teacher's outputs tell of it (`labels-and-order`, by
    `hidden_labels`). With `mri-labels` the sum is over the labelled MRI and their labels: covariates alone, without
    ultrasound and teacher. What ultrasound adds through covariates is the difference. Ours. A control of the teacher's
    outputs acts on what is read of them.

    Args:
        fit_on: p_c: `teacher`, `tvus-labels`, `labels-and-teacher`, `labels-and-order` or `mri-labels`.
        temperature: Of the teacher's logits, above 0.
        penalty: Ridge, above 0.
        prevalence: None leaves a as it is fitted; a number in (0, 1) shifts a until it is the mean of q over the MRI
            that train, labelled or not.
        labelled: Take labelled MRI as well.
        shuffled: Deal the q_i to the MRI that train at random, always in the same way: a control.

    Raises:
        InputError: An option is out of range.
    """

    def __init__(
        self,
        fit_on: FitOn = "teacher",
        temperature: float = 1.0,
        penalty: float = 1.0,
        prevalence: float | None = None,
        labelled: bool = False,
        shuffled: bool = False,
    ) -> None:
        super().__init__()
        if fit_on not in get_args(FitOn):
            raise InputError(f"fit_on is {fit_on!r}: choose {', '.join(get_args(FitOn)[:-1])} or {get_args(FitOn)[-1]}")
        if not temperature > 0:
            raise InputError(f"temperature is {temperature}: give a number above 0")
        _check(penalty, prevalence)
        self.fit_on = fit_on
        self.needs_teacher = fit_on != "mri-labels"
        self.reads_outputs = fit_on in ("teacher", "labels-and-teacher", "labels-and-order")
        self.temperature = temperature
        self.penalty = penalty
        self.prevalence = prevalence
        self.labelled = labelled
        self.needs_unlabelled = not labelled
        self.shuffled = shuffled
        self.targets = torch.empty(0)
        self.log_odds = torch.empty(0)
        self.fitted_mean = torch.tensor(torch.nan)

    def prepare(self, cohort: StudentCohort, bank: TeacherBank | None) -> None:
        """Sets q and logit(q), float32 (M,), for the MRI that train and have covariates, nan for all others.

        `targets` holds q and `log_odds` logit(q), which stays finite where q rounds to 0 or 1. `fitted_mean` becomes
        the mean of what the model is fitted on.

        Raises:
            InputError: There are no covariates, no MRI to learn from, or what is fitted on is of one label.
        """
        if self.fit_on == "mri-labels":
            covariates, recorded, targets = cohort.covariates, cohort.recorded, cohort.labels
        else:
            assert bank is not None
            targets = (bank.logits / self.temperature).sigmoid() if self.reads_outputs else bank.labels
            if self.fit_on == "labels-and-teacher":
                targets = bank.labels.where(~bank.labels.isnan(), targets)
            elif self.fit_on == "labels-and-order":
                targets = self._hidden_labels(bank)
            covariates, recorded = bank.covariates, bank.recorded
        require_covariates(covariates)
        known = recorded & ~targets.isnan()
        self.fitted_mean = targets[known].mean().cpu()
        model = fit_logistic(covariates[known], targets[known], self.penalty)
        scores = _log_odds(cohort, model, self.prevalence, self.labelled, self.shuffled)
        self.targets, self.log_odds = scores.sigmoid().float(), scores.float()

    def reads(self, bank: TeacherBank) -> bool:
        """Tells whether outputs matter: where every clip has a label, they may not."""
        return self.reads_outputs and (self.fit_on == "teacher" or bool(bank.labels.isnan().any()))

    def _hidden_labels(self, bank: TeacherBank) -> Tensor:
        require_covariates(bank.covariates)
        known = bank.recorded & ~bank.labels.isnan()
        start = fit_logistic(bank.covariates[known], bank.labels[known], self.penalty)
        covariates, labels, logits = (value[bank.recorded] for value in (bank.covariates, bank.labels, bank.logits))
        targets = bank.labels.cpu().clone()
        targets[bank.recorded.cpu()] = hidden_labels(covariates, labels, logits, start, self.penalty)
        return targets.to(bank.labels.device)

    def soft_labels(self) -> Tensor:
        """Returns q of all volumes, float32 (M,); nan where none is taught."""
        return self.targets

    def forward(self, student: StudentBatch, bank: TeacherBank | None) -> Tensor:
        """Returns the mean loss; 0 where a batch has no such MRI. Only `prepare` looks at the bank."""
        self.targets = self.targets.to(student.logits.device)
        return _soft_label_loss(student, self.targets, self.labelled)


def fit_logistic(covariates: Tensor, targets: Tensor, penalty: float = 1.0) -> tuple[Tensor, float]:
    """Minimises sum_c BCE(a + b . x_c, p_c) + penalty / 2 |b|^2.

    Args:
        covariates: x, float32 (N, C), with C > 0.
        targets: p, float32 (N,), in [0, 1].
        penalty: Above 0.

    Returns:
        b, float32 (C,), on the CPU, and a.

    Raises:
        InputError: There are no covariates, or all targets are 0 or all are 1.
    """
    require_covariates(covariates)
    obliterated = float(targets.sum())
    if not 0 < obliterated < len(targets):
        raise InputError(
            f"a model of covariates needs cases of both labels whose covariates are recorded, but there are "
            f"{len(targets)} with {obliterated:g} obliterated: add labelled cases, or fill in the covariates' columns"
        )
    return fit_soft_logistic(covariates, targets, penalty)


def _log_odds(
    cohort: StudentCohort, model: tuple[Tensor, float], prevalence: float | None, labelled: bool, shuffled: bool
) -> Tensor:
    """Returns logit(q) of all volumes, float64 (M,), on the CPU; nan for those that do not train or have no covariate.

    Raises:
        InputError: No volume could be learnt from.
    """
    trains = (cohort.unlabelled | ~cohort.labels.isnan()) & cohort.recorded
    if not (trains if labelled else trains & cohort.unlabelled).any():
        raise InputError(
            "targets of covariates meet no unlabelled volume with covariates: give unlabelled patients a row in the "
            "label CSV, with an empty label, or set labelled to true"
        )
    weights, intercept = model
    scores = cohort.covariates[trains].double().numpy() @ weights.double().numpy() + intercept
    if prevalence is not None:
        wanted = logit(prevalence)
        low, high = wanted - scores.max() - 1, wanted - scores.min() + 1  # all of q below, and all above
        scores = scores + brentq(lambda shift: expit(scores + shift).mean() - prevalence, low, high)
    if shuffled:
        scores = np.random.default_rng(0).permutation(scores)
    log_odds = torch.full(trains.shape, torch.nan, dtype=torch.float64)
    log_odds[trains] = torch.from_numpy(scores)
    return log_odds


def _soft_label_loss(student: StudentBatch, targets: Tensor, labelled: bool) -> Tensor:
    taught = ~targets[student.index].isnan()
    chosen = student.rows(taught if labelled else taught & student.labels.isnan())
    losses = functional.binary_cross_entropy_with_logits(chosen.logits.float(), targets[chosen.index], reduction="none")
    return losses.sum() / max(len(chosen), 1)


def require_covariates(covariates: Tensor) -> None:
    """Refuses covariates (N, C) of which there are none.

    Raises:
        InputError: C is 0.
    """
    if not covariates.shape[1]:
        raise InputError(
            "there are no covariates: name columns of both manifests in profile.covariates, or train student-mae, "
            "which needs none"
        )


def _check(penalty: float, prevalence: float | None) -> None:
    if not penalty > 0:
        raise InputError(f"penalty is {penalty}: give a number above 0")
    if prevalence is not None and not 0 < prevalence < 1:
        raise InputError(f"prevalence is {prevalence}: give a part in (0, 1), or null to leave it as it is fitted")
