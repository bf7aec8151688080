"""Power laws through measured costs: y = factor * x ** exponent, by least squares on the logarithms."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class PowerLaw:
    """A fitted power law.

    Attributes:
        exponent: The slope of log y against log x.
        low: Lower end of the exponent's 95% interval (Student's t; nan for two points).
        high: Upper end.
        factor: y at x = 1.
        last: The slope between the last two points: where the law bends, this tells what comes next.
    """

    exponent: float
    low: float
    high: float
    factor: float
    last: float

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Returns y, of the shape of x."""
        return self.factor * x**self.exponent


def power_law(x: Sequence[float], y: Sequence[float]) -> PowerLaw:
    """Fits a power law to at least two points.

    The interval is that of a line with independent errors. Repeated measurements scatter little here, so it tells
    above all how far the points are from any one power law.

    Args:
        x: Sizes, positive and in growing order.
        y: Costs, positive.

    Raises:
        ValueError: There are fewer than two points, or one is not positive.
    """
    if len(x) != len(y) or len(x) < 2 or min(*x, *y) <= 0:
        raise ValueError(f"a power law needs two or more points above 0, not x {list(x)} and y {list(y)}")
    log_x, log_y = np.log(x), np.log(y)
    line = stats.linregress(log_x, log_y)
    margin = stats.t.ppf(0.975, len(x) - 2) * line.stderr if len(x) > 2 else np.nan
    last = (log_y[-1] - log_y[-2]) / (log_x[-1] - log_x[-2])
    return PowerLaw(
        float(line.slope),
        float(line.slope - margin),
        float(line.slope + margin),
        float(np.exp(line.intercept)),
        float(last),
    )
