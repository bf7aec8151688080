"""The linear probe of `mae_probe.py`, and the paired difference of two sides' AUROCs."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from data_modules.cohort_dataset import in_unit_range
from data_modules.mri import MRIDataModule
from poddistill.evaluation.bootstrap import percentile_interval, resample_patients, resampled_auroc
from poddistill.evaluation.statistics import FloatArray, IntArray, auroc

OUTER_FOLDS, INNER_FOLDS = 10, 5
PENALTIES = np.logspace(-4, 2, 7)  # C of the logistic regression
RESAMPLES = 2000


class Cases(NamedTuple):
    """The labelled volumes.

    Attributes:
        volumes: float32 (N, 1, D, H, W) in [0, 1].
        labels: int (N,), 0 or 1.
        patients: (N,), the patient of each.
    """

    volumes: Tensor
    labels: IntArray
    patients: np.ndarray


class Difference(NamedTuple):
    """A difference of AUROCs with its 95% interval."""

    mean: float
    low: float
    high: float


def labelled_cases(cohort: Path) -> Cases:
    """Reads every labelled volume of a cohort, whatever its fold."""
    data = MRIDataModule(str(cohort))
    rows = np.flatnonzero(data.manifest["label"].notna())
    items = data.sequential_dataloader(rows).dataset.__getitems__(range(len(rows)))
    return Cases(
        in_unit_range(items["image"]), items["label"].long().numpy(), data.manifest["patient_id"].to_numpy()[rows]
    )


def probe(cases: Cases, features: FloatArray) -> FloatArray:
    """Returns each case's probability (N,) from a logistic regression that has not seen its patient.

    Features are standardised; C is chosen within the training patients of a fold, by the AUROC.

    Args:
        cases: Labels and patients.
        features: float (N, width).
    """
    scores = np.empty(len(features))
    for train, test in folds(OUTER_FOLDS, cases.labels, cases.patients):
        inner = folds(INNER_FOLDS, cases.labels[train], cases.patients[train])
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        search = GridSearchCV(model, {"logisticregression__C": PENALTIES}, scoring="roc_auc", cv=inner)
        search.fit(features[train], cases.labels[train])
        scores[test] = search.predict_proba(features[test])[:, 1]
    return scores


def folds(n: int, labels: IntArray, patients: np.ndarray) -> list[tuple[IntArray, IntArray]]:
    """Returns n pairs of rows to train on and rows to test on, by patient and with the classes spread evenly."""
    return list(StratifiedGroupKFold(n, shuffle=True, random_state=0).split(labels, labels, patients))


def auroc_difference(cases: Cases, scores: Sequence[FloatArray], others: Sequence[FloatArray]) -> Difference:
    """Returns the difference of two sides' AUROCs, each the mean over seeds, with a paired interval.

    Patients are drawn with replacement, the same for both sides and all seeds.

    Args:
        cases: Labels and patients.
        scores: A seed's scores (N,) after another.
        others: The same of the side that is subtracted.
    """
    weights = resample_patients(cases.patients, cases.labels, RESAMPLES, np.random.default_rng(0))
    sides = [
        np.mean([resampled_auroc(cases.labels, one, weights) for one in side], axis=0) for side in (scores, others)
    ]
    means = [np.mean([auroc(cases.labels, one) for one in side]) for side in (scores, others)]
    return Difference(float(means[0] - means[1]), *percentile_interval(sides[0] - sides[1]))
