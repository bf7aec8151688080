"""Scores of a whole data set, the same for any number of processes."""

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.utilities import dim_zero_cat


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
        order = torch.argsort(index, stable=True)
        index, logit, label = index[order], logit[order], label[order]
        first = torch.ones_like(index, dtype=torch.bool)
        first[1:] = index[1:] != index[:-1]
        return index[first], logit[first], label[first]


def auroc(logit: Tensor, label: Tensor) -> Tensor:
    """Area under the ROC curve of logits (N,) for labels (N,), unlabelled cases left out.

    NaN where a class is missing.
    """
    known = ~label.isnan()
    label = label[known].long()
    if label.numel() == 0 or label.min() == label.max():
        return torch.tensor(float("nan"), device=logit.device)
    # By rank: the metric wants probabilities, and sigmoids of large logits would be equal
    rank = torch.unique(logit[known], return_inverse=True)[1]
    return binary_auroc(rank.float() / max(int(rank.max()), 1), label)
