"""Probabilities from the ranks of a finished run and a known prevalence, without training anything."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri

from data_modules.errors import InputError
from poddistill.evaluation.runs import (
    EVERY_SPLIT,
    PREDICTIONS_ALL,
    read_predictions,
    refuse_own_folder,
    write_predictions,
)
from poddistill.evaluation.statistics import FloatArray, auroc

CLOSEST = 1e-9
"""To 0 or 1, for a rank."""

HALVINGS = 64
"""Of an interval of about 20 standard deviations: down to the precision of a float64."""


class PrevalenceMapping(NamedTuple):
    """What was written, and what the probabilities in it rest on.

    Attributes:
        predictions: The written ``predictions.csv``, of the labelled validation and test cases.
        validation_auroc: A, of the labelled validation cases; at 0.5 or less every case has the prevalence.
        validation_cases: How many these are.
    """

    predictions: Path
    validation_auroc: float
    validation_cases: int


def map_to_prevalence(run: Path, prevalence: float, out: Path) -> PrevalenceMapping:
    """Replaces the probabilities of a run by what rank, prevalence and AUROC say, and writes them as a run of its own.

        u_i = rank of case i among the unlabelled volumes, in (0, 1)
        x_i = Q(u_i),    Q the quantile function of (1 - pi) N(0, 1) + pi N(d, 1),    d = sqrt(2) Phi^-1(A)
        p_i = pi phi(x_i - d) / (pi phi(x_i - d) + (1 - pi) phi(x_i))

    phi and Phi are density and distribution function of N(0, 1), A is the AUROC of the validation cases, pi the
    prevalence. N unlabelled volumes have the ranks (r - 1/2) / N, r from 1 to N, equal scores sharing their mean rank;
    ranks of other scores are interpolated linearly between them, and between them and rank 0 at a score of 0 and rank
    1 at a score of 1. So the order of cases stays, and with it the AUROC; over volumes like the unlabelled ones the
    mean of p is pi. Labels of the validation cases enter through A alone, test cases not at all. Training volumes lend
    no ranks, for their scores are those of learned labels.

    Where A is 0.5 or less, d is 0 and every case has the probability pi: a score that does not tell the validation
    cases apart says no more, and a study of many runs goes on. A is kept half a pair of cases below 1, lest d is
    infinite. It is the less certain the fewer validation cases there are, and a little too high if they also chose
    the checkpoint.

    The equal-variance normal model of a score, of which A = Phi(d / sqrt(2)), is that of signal detection theory (Green
    and Swets, 1966); to take probabilities from ranks, prevalence and AUROC by it is ours.

    Args:
        run: A stage folder with ``predictions_all.csv``, as `poddistill predict` writes it.
        prevalence: pi, in (0, 1): the share of obliterated among patients like the unlabelled ones.
        out: The stage folder to write, such as ``runs/demo/seed0-fold0/student-prevalence``.

    Returns:
        Where they were written, and the AUROC that they rest on.

    Raises:
        InputError: The prevalence is out of range, `out` is `run`, the file is missing or faulty, no volume is
            unlabelled, or the labelled validation cases are not of both classes.
    """
    if not 0 < prevalence < 1:
        raise InputError(f"prevalence is {prevalence}: give a part between 0 and 1, such as 0.25")
    refuse_own_folder(out, [run])
    file = run / PREDICTIONS_ALL
    if not file.is_file():
        raise InputError(f"{file}: no such file; write it with poddistill predict on the finished run")
    table = read_predictions(file, EVERY_SPLIT)
    reference = table.loc[table["split"].eq("unlabelled"), "probability"].to_numpy()
    if not len(reference):
        raise InputError(f"{file}: no case is unlabelled, to rank the others by; ingest some or lower n_labelled")
    cases = table[table["split"].isin(["val", "test"]) & table["label"].notna()]
    validation = cases[cases["split"].eq("val")]
    positives = int(validation["label"].sum())
    pairs = positives * (len(validation) - positives)
    if not pairs:
        raise InputError(
            f"{file}: of {len(validation)} labelled validation cases {positives} are obliterated, which tells no "
            "AUROC; choose another fold or ingest with fewer folds"
        )
    area = auroc(validation["label"].to_numpy(dtype=np.int64), validation["probability"].to_numpy())
    distance = float(np.sqrt(2) * ndtri(np.clip(area, 0.5, 1 - 0.5 / pairs)))
    ranks = _ranks(cases["probability"].to_numpy(), reference)
    scores = _mixture_quantiles(ranks, prevalence, distance)
    posterior = expit(logit(prevalence) + distance * scores - distance**2 / 2)
    return PrevalenceMapping(write_predictions(cases.assign(probability=posterior), out), area, len(validation))


def _ranks(scores: FloatArray, reference: FloatArray) -> FloatArray:
    """Ranks (N,) of scores (N,) among those of the reference (M,); all scores in [0, 1]."""
    knots = np.unique([0.0, *reference, 1.0])
    ordered = np.sort(reference)
    below, up_to = np.searchsorted(ordered, knots, "left"), np.searchsorted(ordered, knots, "right")
    levels = (below + up_to) / (2 * len(ordered))
    return np.clip(np.interp(scores, knots, levels), CLOSEST, 1 - CLOSEST)


def _mixture_quantiles(levels: FloatArray, prevalence: float, distance: float) -> FloatArray:
    """Q (N,) at the levels (N,), by bisection of one interval for all, so that Q never falls where the level rises."""
    low = np.full(len(levels), ndtri(CLOSEST))
    high = np.full(len(levels), ndtri(1 - CLOSEST) + distance)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        reached = (1 - prevalence) * ndtr(middle) + prevalence * ndtr(middle - distance)
        low, high = np.where(reached < levels, middle, low), np.where(reached < levels, high, middle)
    return (low + high) / 2
