"""Do predicted probabilities mean what they say: Brier score, expected calibration error, reliability."""

from dataclasses import dataclass

import numpy as np

from poddistill.evaluation.statistics import FloatArray, IntArray


@dataclass(frozen=True)
class Reliability:
    """The cases of each occupied probability bin.

    Attributes:
        count: int (bins,), cases in the bin, each > 0.
        predicted: (bins,), mean predicted probability.
        observed: (bins,), share of positives.
    """

    count: IntArray
    predicted: FloatArray
    observed: FloatArray


def brier(labels: IntArray, probabilities: FloatArray) -> float:
    """Return the mean squared error of the probabilities (Brier, Mon. Weather Rev. 1950): in [0, 1], lower is better.

    Predicting the prevalence pi for everyone gives pi (1 - pi). nan without cases.
    """
    return float(np.mean((probabilities - labels) ** 2)) if len(labels) else float("nan")


def reliability(labels: IntArray, probabilities: FloatArray, bins: int = 10) -> Reliability:
    """Return predicted probability and observed frequency per bin of equal width.

    Bin k of B is [k/B, (k+1)/B), the last one closed; bins without cases are left out.

    Args:
        labels: int (N,), 0 or 1.
        probabilities: float (N,) in [0, 1].
        bins: B, number of bins of equal width.
    """
    index = np.minimum((probabilities * bins).astype(int), bins - 1)
    count = np.bincount(index, minlength=bins)
    filled = count > 0
    predicted = np.bincount(index, weights=probabilities, minlength=bins)[filled] / count[filled]
    observed = np.bincount(index, weights=labels, minlength=bins)[filled] / count[filled]
    return Reliability(count[filled], predicted, observed)


def expected_calibration_error(labels: IntArray, probabilities: FloatArray, bins: int = 10) -> float:
    """Return the expected calibration error over bins of equal width (Naeini et al., AAAI 2015).

        ECE = sum_k  n_k / N * | mean label in bin k - mean probability in bin k |

    with the bins of `reliability`. Customary are 10 or 15 bins; the estimate is biased upwards when bins hold few
    cases, so it compares methods on the same cases, and is no absolute verdict. In [0, 1]; nan without cases.
    """
    if not len(labels):
        return float("nan")
    curve = reliability(labels, probabilities, bins)
    return float(np.sum(curve.count * np.abs(curve.observed - curve.predicted)) / len(labels))
