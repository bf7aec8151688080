"""Clinical covariates, tied to the disease by odds ratios of the published order."""

from dataclasses import asdict, dataclass

import numpy as np

ENDOMETRIOMA_SHARE, ENDOMETRIOMA_ODDS_RATIO = 0.12, 3.0
RETROVERSION_SHARE, RETROVERSION_ODDS_RATIO = 0.20, 1.5
INFERTILITY_SHARE, INFERTILITY_ODDS_RATIO = 0.15, 1.8
SURGERY_SHARE, SURGERY_ODDS_RATIO = 0.20, 2.0
SMOKING_SHARE = 0.20
MEAN_SEVERITY = 0.65
"""Of the obliterated."""


def share_with_sign(share: float, odds_ratio: float, disease: int, strength: float) -> float:
    """Probability of a binary sign, given the disease.

    Args:
        share: Probability without the disease, in (0, 1).
        odds_ratio: Odds ratio of the sign between diseased and healthy.
        disease: 1 = obliterated, 0 = free.
        strength: Factor on the log odds ratio; 0 makes the sign independent of the disease.

    Returns:
        A probability in (0, 1).
    """
    logit = np.log(share / (1 - share)) + strength * np.log(odds_ratio) * disease
    return float(1 / (1 + np.exp(-logit)))


@dataclass(frozen=True)
class Covariates:
    """What a hospital records beside the images; all numeric.

    Attributes:
        age: Years, 18 to 52; unrelated to the disease.
        parity: Births, 0 to 5; odds ratio below 1, for endometriosis goes with subfertility.
        pain: Worst pelvic pain, 0 to 10.
        ca125: Cancer antigen 125 in serum, U/ml; log-normal.
        endometrioma: 1 if an ovarian endometrioma was seen; the image shows the same one.
        retroverted: 1 if the uterus is retroverted; the image shows it.
        dysmenorrhea: Pain of menstruation, 0 to 10; goes with `pain` by itself, too.
        dyspareunia: Pain at intercourse, 0 to 10; likewise.
        dyschezia: Pain at defecation, 0 to 10; of these three it tells most.
        infertility: 1 if she tried for a year in vain.
        surgery: 1 if her pelvis was operated on before.
        bmi: Body mass index, kg/m2; unrelated to the disease.
        cycle_length: Days; unrelated.
        smoking: 1 if she smokes; unrelated.
    """

    age: int
    parity: int
    pain: int
    ca125: float
    endometrioma: int
    retroverted: int
    dysmenorrhea: int
    dyspareunia: int
    dyschezia: int
    infertility: int
    surgery: int
    bmi: float
    cycle_length: int
    smoking: int

    def as_row(self) -> dict[str, float]:
        """Return the columns of ``labels.csv`` in order."""
        return asdict(self)


def draw_covariates(
    rng: np.random.Generator, severity: float, endometrioma: bool, retroverted: bool, strength: float
) -> Covariates:
    """Draw one patient's covariates.

    Pain and CA-125 rise with the severity: at severity .65 (the mean of the obliterated) and strength 1 by about .8
    standard deviations, an odds ratio near 4 between the upper and the lower half; dyschezia by .5, the other pain
    scores by .3. The numbers are ours, of the order that studies of deep endometriosis report.

    Args:
        rng: Generator of the patient's covariates stream.
        severity: Severity of the obliteration in [0, 1]; 0 = free.
        endometrioma: Whether the anatomy has one.
        retroverted: Whether the anatomy's uterus is.
        strength: Factor on the ties; 0 = none.

    Returns:
        The covariates.
    """
    age = int(np.clip(rng.normal(34, 6.5), 18, 52))
    births, pain, ca125 = rng.uniform(), rng.normal(), rng.normal()
    tie = strength * severity
    parity = int(np.searchsorted(np.cumsum([0.45 + 0.15 * min(tie, 2), 0.25, 0.18, 0.08, 0.03]), births))
    # Drawn after the others, whose values therefore do not depend on how many there are of these.
    menstruation, intercourse, defecation = 0.6 * pain + 0.8 * rng.normal(size=3)
    infertility, surgery, smoking = rng.uniform(size=3)
    weight, days = rng.normal(size=2)
    return Covariates(
        age=age,
        parity=parity,
        pain=_score(4.5, pain + 1.25 * tie),
        ca125=round(float(np.exp(np.log(22) + 0.65 * (ca125 + 1.25 * tie))), 1),
        endometrioma=int(endometrioma),
        retroverted=int(retroverted),
        dysmenorrhea=_score(5.5, menstruation + 0.45 * tie),
        dyspareunia=_score(3.0, intercourse + 0.45 * tie),
        dyschezia=_score(2.5, defecation + 0.75 * tie),
        infertility=int(infertility < _share(INFERTILITY_SHARE, INFERTILITY_ODDS_RATIO, tie)),
        surgery=int(surgery < _share(SURGERY_SHARE, SURGERY_ODDS_RATIO, tie)),
        bmi=round(float(np.clip(25 + 4.5 * weight, 16, 50)), 1),
        cycle_length=int(np.clip(round(28 + 3 * days), 18, 45)),
        smoking=int(smoking < SMOKING_SHARE),
    )


def _score(mean: float, deviates: float) -> int:
    """Pain from 0 to 10, at a standard deviation of 2.4."""
    return int(np.clip(round(mean + 2.4 * deviates), 0, 10))


def _share(share: float, odds_ratio: float, tie: float) -> float:
    """`share_with_sign` at a severity: the odds ratio is that of the mean of the obliterated against the free."""
    return share_with_sign(share, odds_ratio, 1, tie / MEAN_SEVERITY)
