"""How far two samples of features are apart as distributions."""

import math

import torch
from torch import Tensor
from torch.nn import functional

BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Of the Gaussian kernels, in parts of the median squared distance."""


def mmd(x: Tensor, y: Tensor) -> Tensor:
    """Returns the unbiased estimate of the squared maximum mean discrepancy of two samples.

    mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{ij} k(x_i, y_j), which may be below 0, with
    k(a, b) = 1/5 sum_r exp(-|a - b|^2 / (r h)), r one of `BANDWIDTHS` and h the median squared distance above 0 of the
    points of both samples (the median heuristic), through which no gradient goes.

    Gretton et al., "A Kernel Two-Sample Test", JMLR 2012; several bandwidths as in Long et al., 2015 (arXiv
    1502.02791).

    Args:
        x: float32 (n, F), n at least 2.
        y: float32 (m, F), m at least 2.
    """
    n, m = len(x), len(y)
    points = torch.cat([x, y])
    # Not by the dot product, whose rounding errors would pass for distances of equal points.
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist").square()
    apart = distances.detach()[distances.detach() > 0]
    bandwidth = apart.median() if len(apart) else distances.new_ones(())
    kernel = torch.stack([(-distances / (ratio * bandwidth)).exp() for ratio in BANDWIDTHS]).mean(0)
    within_x = (kernel[:n, :n].sum() - n) / (n * (n - 1))  # the diagonal is 1
    within_y = (kernel[n:, n:].sum() - m) / (m * (m - 1))
    return within_x + within_y - 2 * kernel[:n, n:].mean()


def moment_distance(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """Returns |mean(x) - mean|^2 / F + |cov(x) - covariance|^2 / (4 F^2), the latter the squared Frobenius norm.

    The second part is that of Sun and Saenko, "Deep CORAL", 2016 (arXiv 1607.01719); the first is ours, for
    covariances alone leave open where a class lies. The covariance of few points is poor: it is of rank n - 1.

    Args:
        x: float32 (n, F), n at least 2.
        mean: float32 (F,).
        covariance: float32 (F, F), of n - 1, as is that of x.
    """
    width = x.shape[1]
    centred = x - x.mean(0)
    own = centred.T @ centred / (len(x) - 1)
    return (x.mean(0) - mean).square().sum() / width + (own - covariance).square().sum() / (4 * width**2)


def sinkhorn(x: Tensor, y: Tensor, blur: float = 0.1, iterations: int = 100) -> Tensor:
    """Returns sum_ij P_ij (1 - cos(x_i, y_j)), P the entropic optimal transport plan between two samples.

    P minimises sum_ij P_ij (1 - cos(x_i, y_j)) + blur sum_ij P_ij log P_ij among the plans with row sums 1/n and
    column sums 1/m; Sinkhorn's iteration finds it (Cuturi, 2013, arXiv 1306.0895). The gradient is that of the
    minimum, in which P is constant. Above 0 even for equal samples, which the entropy blurs.

    Args:
        x: float32 (n, F).
        y: float32 (m, F).
        blur: Above 0.
        iterations: At least 1.
    """
    cost = 1 - functional.normalize(x) @ functional.normalize(y).T  # (n, m)
    with torch.no_grad():
        scaled = -cost / blur
        columns = torch.zeros_like(scaled[:1])
        for _ in range(iterations):
            rows = -math.log(len(x)) - (scaled + columns).logsumexp(1, keepdim=True)
            columns = -math.log(len(y)) - (scaled + rows).logsumexp(0, keepdim=True)
        plan = (scaled + rows + columns).exp()
    return (plan * cost).sum()
