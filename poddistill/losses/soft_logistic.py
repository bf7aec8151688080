"""Logistic regression on cases of which only the probability of label 1 is known."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor


def fit_soft_logistic(x: Tensor, targets: Tensor, penalty: float) -> tuple[Tensor, float]:
    """Minimises sum_i BCE(a + b . x_i, p_i) + penalty / 2 |b|^2.

    Args:
        x: float32 (N, C).
        targets: p, float32 (N,), in [0, 1], neither all 0 nor all 1.
        penalty: Above 0.

    Returns:
        b, float32 (C,), on the CPU, and a.
    """
    features, p = x.cpu().double().numpy(), targets.cpu().double().numpy()
    # A soft target p is a case with weight p in class 1, and again with weight 1 - p in class 0.
    model = LogisticRegression(C=1 / penalty, tol=1e-6, max_iter=1000)
    model.fit(np.concatenate([features, features]), np.repeat([1, 0], len(p)), sample_weight=np.concatenate([p, 1 - p]))
    return torch.from_numpy(model.coef_[0]).float(), float(model.intercept_[0])
