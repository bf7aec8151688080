"""Transfer through covariates, the label of a volume being a hidden variable."""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from poddistill.losses.covariates import CovariateTargets, FitOn
from poddistill.losses.transfer import Transfer
from poddistill.losses.unpaired import StudentBatch, StudentCohort, TeacherBank


class CovariateLikelihood(Transfer):
    """L_KD = 1/n sum_i softplus(s_i) - softplus(s_i + e_i), over the n unlabelled MRI of a batch.

    It is minus the log-likelihood of the covariates x_i of MRI i given its volume v_i, up to a constant. The label y_i
    is not known, and x_i is taken to depend on v_i through y_i alone, so that

        p(x | v) = p(x | y = 1) sigmoid(s) + p(x | y = 0) (1 - sigmoid(s))
                 = p(x | y = 0) (1 + exp(s + e)) / (1 + exp(s))

    with s_i the student's logit and e_i = log p(x_i | y = 1) / p(x_i | y = 0), what covariates tell for obliteration.
    e_i = logit(q_i) - logit(pi), with q_i the soft label that `CovariateTargets` would give, by the same model of the
    clips, and pi the mean of what that is fitted on. So e does not depend on how frequent obliteration is in either
    cohort, if covariates are distributed alike given the label in both; and where e is exact, the expected loss is
    least at the s whose sigmoid is P(y = 1 | v) in the student's own cohort. Fitted to a teacher's outputs, q is m_0 +
    (m_1 - m_0) P(y = 1 | x), m_y the mean output on label y, and e is nearer 0 than the ratio; fitted to labels, or to
    labels and the order of the outputs, it is the ratio.

    The gradient by s_i is sigmoid(s_i) - sigmoid(s_i + e_i): that of the cross-entropy against what student and
    covariates say together, the E-step of an expectation maximisation (Dempster, Laird and Rubin, 1977). As long as
    the student says pi of everybody, it is the gradient of `CovariateTargets`; later it does not, like that, draw a
    student who is sure of a volume back to what is known from covariates alone. The loss is that of labels with known
    noise (Patrini et al., CVPR 2017), the noise being each patient's own; that two views of a patient are independent
    given the label is what co-training builds on (Blum and Mitchell, COLT 1998). Their use for what ultrasound tells
    of covariates is ours.

    Beside a loss of labels whose classes are balanced, sigmoid(s) is not P(y = 1 | v). Balanced labels alone add
    logit(1 - p) to its logit, p being the part of the labelled volumes that is obliterated; both losses together shift
    it by less, the less the more covariates tell. In that limit s still rises with P(y = 1 | v): probabilities are
    changed, and with them the Brier score and the calibration error, but no ranking.

    Covariates that the volume shows, such as an endometrioma, break the assumption: the student then learns to see
    those.

    Args:
        fit_on: What the model of covariates is fitted on, as for `CovariateTargets`.
        temperature: Of the teacher's logits, above 0.
        penalty: Ridge, above 0.
        shuffled: Deal the e_i to all MRI that train at random, always in the same way: a control.

    Raises:
        InputError: An option is out of range.
    """

    needs_unlabelled = True

    def __init__(
        self,
        fit_on: FitOn = "teacher",
        temperature: float = 1.0,
        penalty: float = 1.0,
        shuffled: bool = False,
    ) -> None:
        super().__init__()
        self.covariates = CovariateTargets(fit_on, temperature, penalty, shuffled=shuffled)
        self.needs_teacher = self.covariates.needs_teacher
        self.reads_outputs = self.covariates.reads_outputs
        self.evidence = torch.empty(0)

    def prepare(self, cohort: StudentCohort, bank: TeacherBank | None) -> None:
        """Fits the model and sets e, float32 (M,), for MRI that train; nan for others and those without any covariate.

        Raises:
            InputError: There are no covariates, no MRI to learn from, or what is fitted on is of one label.
        """
        self.covariates.prepare(cohort, bank)
        # Not from q, which rounds to 0 or 1 for a patient of whom the model is sure: her evidence would be infinite.
        self.evidence = self.covariates.log_odds - self.covariates.fitted_mean.logit()

    def reads(self, bank: TeacherBank) -> bool:
        """Tells whether outputs matter, as `CovariateTargets` does."""
        return self.covariates.reads(bank)

    def soft_labels(self) -> Tensor:
        """Returns what the covariates alone tell of all volumes, float32 (M,); nan for those that are not taught."""
        return self.covariates.soft_labels()

    def forward(self, student: StudentBatch, bank: TeacherBank | None) -> Tensor:
        """Returns the mean loss; 0 where a batch has no unlabelled MRI. Only `prepare` looks at the bank."""
        self.evidence = self.evidence.to(student.logits.device)
        chosen = student.rows(student.labels.isnan() & ~self.evidence[student.index].isnan())
        logits = chosen.logits.float()
        losses = softplus(logits) - softplus(logits + self.evidence[chosen.index])
        return losses.sum() / max(len(chosen), 1)
