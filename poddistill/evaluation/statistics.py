"""Accuracy of a score against binary labels: ranking, threshold, sensitivity and specificity.

Everywhere: ``labels`` int (N,), 1 = POD obliterated, 0 = free; ``scores`` float (N,), higher = more likely
obliterated. A figure that its input does not define (one class is missing) is nan, never an error and never a guess.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def auroc(labels: IntArray, scores: FloatArray) -> float:
    """Return the area under the ROC curve: P(positive scores above negative) + P(tie) / 2.

    Returns:
        In [0, 1]; nan where a class is missing.
    """
    if not _both_classes(labels):
        return float("nan")
    return float(roc_auc_score(labels, scores))


def auprc(labels: IntArray, scores: FloatArray) -> float:
    """Return the area under the precision-recall curve as average precision (no interpolation).

    Chance level is the prevalence, so compare it only between methods tested on the same patients.

    Returns:
        In [0, 1]; nan where a class is missing.
    """
    if not _both_classes(labels):
        return float("nan")
    return float(average_precision_score(labels, scores))


def sensitivity(labels: IntArray, scores: FloatArray, threshold: float) -> float:
    """Return the share of positives with ``score >= threshold``; nan without positives."""
    positive = scores[labels == 1]
    return float(np.mean(positive >= threshold)) if len(positive) else float("nan")


def specificity(labels: IntArray, scores: FloatArray, threshold: float) -> float:
    """Return the share of negatives with ``score < threshold``; nan without negatives."""
    negative = scores[labels == 0]
    return float(np.mean(negative < threshold)) if len(negative) else float("nan")


def sensitivity_at_specificity(labels: IntArray, scores: FloatArray, least: float) -> float:
    """Return the highest sensitivity at a specificity of at least ``least``, a point of these cases' own ROC curve.

    The threshold lies just above the negative that would be one false alarm too many. It is chosen on the very cases
    that it is judged on, as is customary for this figure: it compares rankings where false alarms are dear, and is not
    what a threshold carried over from other patients would reach.

    Args:
        labels: int (N,), 0 or 1.
        scores: float (N,).
        least: in [0, 1), such as 0.95.

    Returns:
        In [0, 1]; nan where a class is missing.
    """
    if not _both_classes(labels):
        return float("nan")
    negative = np.sort(scores[labels == 0])[::-1]
    allowed = int((1 - least) * len(negative) + 1e-9)  # 1 - 0.95 times 20 must be 1
    highest = negative[allowed] if allowed < len(negative) else -np.inf
    return float(np.mean(scores[labels == 1] > highest))


def youden_threshold(labels: IntArray, scores: FloatArray) -> float:
    """Return the threshold that maximises Youden's J = sensitivity + specificity - 1 (Youden, Cancer 1950).

    Meant for *validation* cases; the test cases are then scored at it (positive if ``score >= threshold``).
    Candidates are the midpoints between neighbouring distinct scores, and the lowest score (everything positive). Of
    equally good candidates the lowest is taken, the one with the highest sensitivity: a missed obliteration costs
    more than a false alarm. J is compared in whole numbers, so that rounding breaks no tie.

    Returns:
        The threshold; nan where a class is missing.
    """
    if not _both_classes(labels):
        return float("nan")
    values = np.unique(scores)
    candidates = np.concatenate([values[:1], (values[1:] + values[:-1]) / 2])
    positive, negative = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    true_positive = len(positive) - np.searchsorted(positive, candidates, side="left")
    true_negative = np.searchsorted(negative, candidates, side="left")
    youden = true_positive * len(negative) + true_negative * len(positive)
    return float(candidates[np.argmax(youden)])


def _both_classes(labels: IntArray) -> bool:
    return bool(np.any(labels == 1) and np.any(labels == 0))
