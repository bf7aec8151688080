"""Pairs by covariates, such as age or pain, which both cohorts record."""

from typing import Literal

import torch
from torch import Generator, Tensor

from data_modules.errors import InputError
from poddistill.losses.covariates import fit_logistic, require_covariates
from poddistill.losses.pairing import Pairing
from poddistill.losses.unpaired import StudentBatch, TeacherBank


class CovariatePairing(Pairing):
    """Gives every MRI one of the clips that are nearest to it in covariates, drawn at random, anew at every call.

    `distance` is Euclidean, between covariates as they are. `propensity` is that between scores b . x of covariates x,
    with b from a logistic regression of the labels of clips with any covariate (`fit_logistic`). Matching by one score
    instead of all covariates is from Rosenbaum and Rubin (Biometrika, 1983); a score of the outcome, as here, is the
    prognostic score of Hansen (Biometrika, 2008). To pair patients of two modalities by either is ours. Equal distances
    are ranked at random.

    Clips without any covariate are near to no MRI that has one; an MRI without any is given one of all clips. It is
    known by its covariates, which are all 0. So is one whose covariates are all exactly in the middle of those of all
    patients, which hardly happens with more than one covariate, and is treated alike.

    Args:
        neighbours: Clips to draw from, at least 1; copies of a clip (`data.clip_copies`) count as clips.
        match_labels: Only clips of the MRI's own label; without it MRI need no label.
        by: What is near, `distance` or `propensity`.

    Raises:
        InputError: An option is out of range.
    """

    def __init__(
        self, neighbours: int = 5, match_labels: bool = True, by: Literal["distance", "propensity"] = "distance"
    ) -> None:
        if neighbours < 1:
            raise InputError(f"neighbours is {neighbours}: give at least 1")
        if by not in ("distance", "propensity"):
            raise InputError(f"by is {by!r}: choose distance or propensity")
        self.neighbours = neighbours
        self.match_labels = match_labels
        self.by = by
        self._fitted: tuple[TeacherBank, Tensor] | None = None

    def __call__(self, student: StudentBatch, bank: TeacherBank, generator: Generator | None = None) -> Tensor:
        """Draws a near clip for every MRI.

        Args:
            student: The MRI, with covariates; all with a label if labels are matched.
            bank: The clips to draw from.
            generator: A CPU generator; None draws from torch's global one.

        Returns:
            int64 (B,), rows of the bank, on the student's device.

        Raises:
            InputError: There are no covariates, an MRI is unlabelled or its label has no clip where labels are matched,
                no clip that an MRI could be near to has any covariate, or a score is to be fitted on clips of one
                label.
        """
        require_covariates(bank.covariates)
        mri, clip = self._positions(student.covariates, bank), self._positions(bank.covariates, bank)
        if self.match_labels and student.labels.isnan().any():
            raise InputError(
                "CovariatePairing met an MRI without label: give it labelled MRI or set match_labels to false"
            )
        recorded = (student.covariates != 0).any(1)
        index = torch.empty_like(student.index)
        for label in (0, 1) if self.match_labels else (None,):
            rows = torch.ones_like(recorded) if label is None else student.labels == label
            clips = torch.ones_like(bank.recorded) if label is None else bank.labels == label
            if rows.any() and not clips.any():
                raise InputError(
                    f"no TVUS training clip has label {label}, which an MRI needs for its pair: add such clips or set "
                    "match_labels to false"
                )
            placed, near = (rows & recorded).nonzero().flatten(), (clips & bank.recorded).nonzero().flatten()
            if len(placed) and not len(near):
                which = "" if label is None else f" with label {label}"
                raise InputError(
                    f"no TVUS training clip{which} has any covariate, which an MRI needs for its pair: fill in the "
                    "covariates' columns of the TVUS manifest, or pair by label alone with LabelMatchedPairing"
                )
            if len(placed):
                index[placed] = near[_draw_near(mri[placed], clip[near], self.neighbours, generator)]
            others, every = (rows & ~recorded).nonzero().flatten(), clips.nonzero().flatten()
            if len(others):
                index[others] = every[torch.randint(len(every), (len(others),), generator=generator).to(every.device)]
        return index

    def _positions(self, covariates: Tensor, bank: TeacherBank) -> Tensor:
        if self.by == "distance":
            return covariates
        if self._fitted is None or self._fitted[0] is not bank:
            known = bank.recorded & ~bank.labels.isnan()
            weights, _ = fit_logistic(bank.covariates[known], bank.labels[known])
            self._fitted = bank, weights.to(bank.covariates)
        # Not a matrix product, which mixed precision would round to 8 bits.
        return (covariates * self._fitted[1]).sum(1, keepdim=True)


def _draw_near(mri: Tensor, clip: Tensor, neighbours: int, generator: Generator | None) -> Tensor:
    """Returns int64 (B,), for each of B positions (B, K) one of the nearest of N positions (N, K)."""
    # topk prefers some of the equally near: covariates of few values, such as symptoms, would leave clips out for good.
    order = torch.randperm(len(clip), generator=generator).to(clip.device)
    # Through a matrix product, which is torch's choice for many clips, equal covariates would differ by rounding.
    distances = torch.cdist(mri, clip[order], compute_mode="donot_use_mm_for_euclid_dist")
    near = distances.topk(min(neighbours, len(clip)), largest=False).indices
    chosen = torch.randint(near.shape[1], (len(mri), 1), generator=generator).to(near.device)
    return order[near.gather(1, chosen)[:, 0]]
