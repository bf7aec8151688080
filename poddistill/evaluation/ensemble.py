"""A deep ensemble: the mean of what several trainings say of a case."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.special import expit, logit

from data_modules.errors import InputError
from poddistill.evaluation.runs import COLUMNS, PREDICTIONS, read_predictions, refuse_own_folder, write_predictions

CLOSEST = 1e-7
"""To 0 or 1, for a mean of logits."""


def ensemble(runs: Sequence[Path], out: Path) -> Path:
    """Averages the predictions of runs of the same cases, and writes them as a run of its own.

        p = sigmoid(1/K sum_k logit(p_k))

    Lakshminarayanan, Pritzel and Blundell, NIPS 2017 (arXiv 1612.01474), average probabilities; to average logits, by
    which a member that is surer counts more, is ours.

    Args:
        runs: K >= 2 stage folders with ``predictions.csv``.
        out: The stage folder to write, such as ``runs/demo/seed0-fold0/student-ensemble``.

    Returns:
        The written ``predictions.csv``.

    Raises:
        InputError: There is one run only, one is named twice or is `out`, a file is missing or faulty, or the runs
            have other cases, labels or splits.
    """
    if len(runs) < 2:
        raise InputError(f"an ensemble needs at least 2 runs, not {len(runs)}: name more")
    folders = [run.resolve() for run in runs]
    for run in runs:
        if folders.count(run.resolve()) > 1:
            raise InputError(f"{run} is named twice: an ensemble needs different runs")
    refuse_own_folder(out, runs)
    tables = [read_predictions(run / PREDICTIONS) for run in runs]
    about = [name for name in COLUMNS if name != "probability"]
    for run, table in zip(runs[1:], tables[1:], strict=True):
        if not table[about].equals(tables[0][about]):
            raise InputError(
                f"{run / PREDICTIONS} and {runs[0] / PREDICTIONS} have other cases, labels or splits; average runs of "
                "one cohort and fold"
            )
    probabilities = np.clip([table["probability"] for table in tables], CLOSEST, 1 - CLOSEST)
    return write_predictions(tables[0][about].assign(probability=expit(logit(probabilities).mean(axis=0))), out)
