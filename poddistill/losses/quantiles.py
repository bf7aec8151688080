"""The quantile function of logits, of which a known part is of obliterated cases."""

import torch
from torch import Tensor

from data_modules.errors import InputError

# Wider than what rounding moves a level in float32, narrower than the step of a cohort of 100,000 cases.
TOLERANCE = 1e-6


def mixture_quantiles(free: Tensor, obliterated: Tensor, prevalence: float, at: Tensor) -> Tensor:
    """Returns Q(u) = min {x : F(x) >= u} of the mixture F = pi F_1 + (1 - pi) F_0 of two empirical distributions.

    F_0 and F_1 are the empirical distribution functions of `free` and `obliterated`, pi is `prevalence`; the numbers of
    the two do not count. Q(0) is the smallest logit. A level within 1e-6 above a step of F counts as on the step, so
    that rounding moves no quantile.

    Args:
        free: Logits (N_0,), finite; may be empty if pi is 1.
        obliterated: Logits (N_1,), finite, of the same dtype and device; may be empty if pi is 0.
        prevalence: pi, in [0, 1].
        at: Levels u of any shape, in [0, 1].

    Returns:
        One of the logits for each level, in the shape of `at`, with gradients to the logits.

    Raises:
        InputError: The prevalence is out of range, or a class that is needed has no logit.
    """
    if not 0 <= prevalence <= 1:
        raise InputError(f"prevalence is {prevalence}: give a part in [0, 1]")
    parts = ((1 - prevalence, free, "free"), (prevalence, obliterated, "obliterated"))
    for part, logits, meaning in parts:
        if part > 0 and not len(logits):
            raise InputError(
                f"prevalence is {prevalence}, but there is no logit of a case that is {meaning}: add labelled cases"
            )
    points, order = torch.cat([free, obliterated]).sort()
    # Counts are whole numbers, so that many small steps do not add up to a wrong level.
    is_free = order < len(free)
    reached = (1 - prevalence) * is_free.cumsum(0) / max(len(free), 1)
    reached = reached + prevalence * (~is_free).cumsum(0) / max(len(obliterated), 1)
    # Above 0, for before the first case that counts nothing is reached.
    level = (at.to(reached) - TOLERANCE).clamp(min=torch.finfo(reached.dtype).tiny)
    return points[torch.searchsorted(reached, level).clamp(max=len(points) - 1)]
