"""Clinical covariates, tied to the disease by odds ratios of the published order."""

from dataclasses import asdict, dataclass

import numpy as np

ENDOMETRIOMA_SHARE, ENDOMETRIOMA_ODDS_RATIO = 0.12, 3.0
RETROVERSION_SHARE, RETROVERSION_ODDS_RATIO = 0.20, 1.5


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
    """

    age: int
    parity: int
    pain: int
    ca125: float
    endometrioma: int
    retroverted: int

    def as_row(self) -> dict[str, float]:
        """Return the columns of ``labels.csv`` in order."""
        return asdict(self)


def draw_covariates(
    rng: np.random.Generator, severity: float, endometrioma: bool, retroverted: bool, strength: float
) -> Covariates:
    """Draw one patient's covariates.

    Pain and CA-125 rise with the severity: at severity .65 (the mean of the obliterated) and strength 1 by about .8
    standard deviations, an odds ratio near 4 between the upper and the lower half. The numbers are ours, of the order
    that studies of deep endometriosis report.

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
    return Covariates(
        age=age,
        parity=parity,
        pain=int(np.clip(round(4.5 + 2.4 * (pain + 1.25 * tie)), 0, 10)),
        ca125=round(float(np.exp(np.log(22) + 0.65 * (ca125 + 1.25 * tie))), 1),
        endometrioma=int(endometrioma),
        retroverted=int(retroverted),
    )
