"""Clips of which only some have a label: covariates and teacher as two witnesses of the others'."""

import numpy as np
import torch
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression
from torch import Tensor

from poddistill.losses.soft_logistic import fit_soft_logistic

BINS = 10
"""Of the outputs on clips without a label, with as many clips each."""

PRIOR = 10.0
"""Clips of either label that are taken to be distributed over the bins as all are."""

CLOSE, MOST = 1e-4, 200
"""Change of a probability at which the iterations end, and how many there are at most."""


def hidden_labels(
    covariates: Tensor, labels: Tensor, outputs: Tensor, start: tuple[Tensor, float], penalty: float
) -> Tensor:
    """Returns the probability that a clip shows label 1, by its covariates and by the order of the teacher's outputs.

    The label y_c of clip c is hidden where it is nan; covariates x_c and output t_c depend on each other through it
    alone. A logistic model of the covariates and, for either label, the frequencies f_y of the outputs in bins are
    fitted together, by expectation maximisation:

        r_c = y_c where it is known, else sigmoid(a + b . x_c + g(t_c)),    g = log f_1 / f_0
        a, b = argmin sum_c BCE(a + b . x_c, r_c) + penalty / 2 |b|^2
        f_1(k) = (sum_(c in k) r_c + n p_k) / (sum_c r_c + n),    f_0 likewise with 1 - r_c, over hidden labels

    p_k is the part of all in bin k, n is `PRIOR`, and g is made to rise with the output, by isotonic regression over
    the bins. It starts from a model of the known labels and g = 0. So a teacher enters by how it *orders* clips that it
    was not trained on: how sure it is of them does not matter, and one that orders them at random leaves little but
    what the labels tell.

    A regression on the outputs themselves would shrink towards their mean: with m_y the mean probability that a teacher
    gives to clips of label y, what it says of patients with covariates x is m_0 + (m_1 - m_0) P(y = 1 | x).

    Latent classes with covariates: Dayton and Macready, JASA 83, 1988; the accuracy of two tests without knowing the
    truth: Hui and Walter, Biometrics 36, 1980; expectation maximisation: Dempster, Laird and Rubin, 1977. To learn so
    from a teacher what covariates mean is ours.

    Args:
        covariates: x, float32 (N, C).
        labels: y, float32 (N,), nan where hidden.
        outputs: t, float32 (N,); only those of hidden labels are read, and only their order.
        start: b, float32 (C,), and a of the known labels.
        penalty: Ridge, above 0.

    Returns:
        r, float32 (N,), on the CPU.
    """
    x, y, t = (value.cpu().double().numpy() for value in (covariates, labels, outputs))
    hidden = np.isnan(y)
    if not hidden.any():
        return torch.from_numpy(y).float()
    edges = np.quantile(t[hidden], np.arange(1, BINS) / BINS)
    _, bins, counts = np.unique(np.searchsorted(edges, t[hidden]), return_inverse=True, return_counts=True)
    part = counts / counts.sum()
    monotone = IsotonicRegression()
    weights, intercept = start
    r = np.where(hidden, 0.0, y)
    evidence = np.zeros(len(counts))
    for _ in range(MOST):
        score = x[hidden] @ weights.double().numpy() + intercept
        told = expit(score + evidence[bins])
        change = np.abs(told - r[hidden]).max()
        r[hidden] = told
        if change < CLOSE:
            break
        positive = np.bincount(bins, told, len(counts))
        f1 = (positive + PRIOR * part) / (positive.sum() + PRIOR)
        f0 = (counts - positive + PRIOR * part) / ((counts - positive).sum() + PRIOR)
        evidence = monotone.fit_transform(np.arange(len(counts)), np.log(f1 / f0), sample_weight=counts)
        weights, intercept = fit_soft_logistic(covariates, torch.from_numpy(r), penalty)
    return torch.from_numpy(r).float()
