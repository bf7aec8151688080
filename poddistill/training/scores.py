"""Scores of a whole data set, the same for any number of processes."""

import pandas as pd
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.utilities import dim_zero_cat

from data_modules.errors import InputError


class CaseScores(Metric):
    """Collects one logit a case and gives every case back exactly once.

    Distributed samplers pad their last batch with repeated cases, so that a plain average or AUROC would depend on the
    number of processes. Here the cases of all processes are gathered, sorted by index and stripped of repeats.

    ``update`` takes ``index`` (B,) int64, ``logit`` (B,) and ``label`` (B,), 1, 0 or NaN where unknown; ``compute``
    returns the three for all N cases, sorted by index.
    """

    full_state_update = False
    index: list[Tensor]
    logit: list[Tensor]
    label: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("index", "logit", "label"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, index: Tensor, logit: Tensor, label: Tensor) -> None:
        """Adds a batch of cases."""
        self.index.append(index)
        self.logit.append(logit.detach().float())
        self.label.append(label.float())

    def compute(self) -> tuple[Tensor, Tensor, Tensor]:
        """Returns index, logit and label (N,) of every case once."""
        index, logit, label = (dim_zero_cat(state) for state in (self.index, self.logit, self.label))
        once = _each_once(index)
        return index[once], logit[once], label[once]


class CaseMean(Metric):
    """The mean of one value a case, each case counted once, as `CaseScores` does.

    ``update`` takes ``index`` (B,) int64 and ``value`` (B,); ``compute`` returns a scalar.
    """

    full_state_update = False
    index: list[Tensor]
    value: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("index", "value"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, index: Tensor, value: Tensor) -> None:
        """Adds a batch of cases."""
        self.index.append(index)
        self.value.append(value.detach().float())

    def compute(self) -> Tensor:
        """Returns the mean over all cases."""
        return dim_zero_cat(self.value)[_each_once(dim_zero_cat(self.index))].mean()


def _each_once(index: Tensor) -> Tensor:
    """Places (N,) of the first of each index, sorted by index."""
    order = torch.argsort(index, stable=True)
    first = torch.ones_like(index, dtype=torch.bool)
    first[1:] = index[order][1:] != index[order][:-1]
    return order[first]


def auroc(logit: Tensor, label: Tensor) -> Tensor:
    """Area under the ROC curve of logits (N,) for labels (N,), unlabelled cases left out.

    NaN where a class is missing, or a logit is NaN, which has no rank.
    """
    known = ~label.isnan()
    label = label[known].long()
    if label.numel() == 0 or label.min() == label.max() or logit[known].isnan().any():
        return torch.tensor(float("nan"), device=logit.device)
    # By rank: the metric wants probabilities, and sigmoids of large logits would be equal
    rank = torch.unique(logit[known], return_inverse=True)[1]
    return binary_auroc(rank.float() / max(int(rank.max()), 1), label)


def require_finite(index: Tensor, logit: Tensor, manifest: pd.DataFrame) -> None:
    """Makes sure that every case has a logit that can be ranked and written down.

    Args:
        index: int (N,), rows of the manifest.
        logit: (N,).
        manifest: With a column path.

    Raises:
        InputError: One is nan or infinite; it names the case's file.
    """
    bad = index[~logit.isfinite()].cpu().numpy()
    if len(bad):
        raise InputError(
            f"{manifest['path'].iloc[bad[0]]}: no finite output for this case"
            + (f" and {len(bad) - 1} others" if len(bad) > 1 else "")
            + "; ingest the cohort again, or, if its images are finite, set precision to 32-true"
        )
