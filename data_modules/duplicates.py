"""Near duplicates: images of two patients that are the same but for gain, noise, coding or a small shift."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from data_modules.errors import InputError
from data_modules.files import replacing
from data_modules.tables import read_table, to_numbers

LOWEST = (5, 12, 12)  # frequencies along (D, H, W) or (T, H, W)
WEIGHTS = np.linalg.norm(np.indices(LOWEST), axis=0).ravel()[1:] ** 1.5
FEW = 8  # cases; of fewer, the mean is not what all cases have in common
THRESHOLD = 0.78
THRESHOLD_OF_FEW = 0.9
BLOCK = 1024  # rows of similarities in memory at a time
COLUMNS = ("modality", "case_a", "patient_a", "case_b", "patient_b", "similarity")


@dataclass(frozen=True)
class Pair:
    """Two cases of different patients that show the same image.

    Attributes:
        first: Position of one case.
        second: Position of the other, greater.
        similarity: Above the threshold, at most 1.
    """

    first: int
    second: int
    similarity: float


def describe_content(array: np.ndarray) -> str:
    """Describes what an image shows by its lowest spatial (and temporal) frequencies, to find it again.

    The array is made zero-mean. Of its discrete cosine transform (DCT-II) the lowest 5 x 12 x 12 coefficients but the
    constant are kept, each times the length of its frequency index to the power 1.5: the power of an image in 3D falls
    about as the third power of frequency, and so a bias field, which is in the lowest, weighs little. Whatever exceeds
    twice their root mean square is clipped there, so that the edge of a field of view does not outweigh what is in it.
    Perceptual hashes of photographs work likewise (Zauner, "Implementation and benchmarking of perceptual image hash
    functions", 2010).

    Args:
        array: A volume (D, H, W) or a clip (T, H, W), of any dtype and size.

    Returns:
        719 int8, where 127 is twice the root mean square, as 960 characters of base64; of a constant array, zeros.
    """
    values = array.astype(np.float32)
    values -= values.mean()
    lowest = dctn(values, norm="ortho")[: LOWEST[0], : LOWEST[1], : LOWEST[2]]
    coefficients = np.pad(lowest, [(0, full - present) for full, present in zip(LOWEST, lowest.shape, strict=True)])
    weighted = coefficients.ravel()[1:] * WEIGHTS
    highest = 2 * np.sqrt(np.square(weighted).mean())
    if not highest > 1e-6 * np.abs(array).max():  # what rounding leaves of a constant
        weighted, highest = np.zeros_like(weighted), 1.0
    scaled = np.round(np.clip(weighted / highest, -1, 1) * 127)
    return base64.b64encode(scaled.astype(np.int8).tobytes()).decode()


def find_duplicates(descriptors: Sequence[str], patients: Sequence[str], threshold: float | None = None) -> list[Pair]:
    """Finds the cases of different patients whose descriptors correlate more than those of different images do.

    The threshold is measured (``benchmarks/near_duplicates.py``) on simulated patients, who share one parametric
    anatomy (16 x 48 x 48 voxels of 4 x 2 x 2 mm, 16 x 64 x 64 frames). The most similar two of 2,000 volumes reach
    0.59, of 1,000 clips 0.46; two of a site with a field of view, contrast or letterbox of its own 0.73. Among 400
    volumes and 200 clips, the least similar of 100 copies reaches

    - 0.99 with noise of 5 %, a gamma of 0.8 or a bias field of +-30 %, 0.95 through a spacing of 5 x 1 x 1 mm, 0.84
      shifted by a voxel, and 0.84 with shift, bias field and noise at once;
    - 0.99 of a clip as motion JPEG, 0.98 also 30 grey levels brighter, 0.91 saturated by a gain of 1.3, 0.86 shifted by
      a pixel, 0.82 without its first two frames.

    Shifts along two axes (0.72) and clips cropped by 2 pixels on each side (0.62) may be missed.

    Args:
        descriptors: A case each, from `describe_content`, all of one modality.
        patients: The patient of each.
        threshold: Of the similarity; None: 0.78, or 0.9 for less than 8 cases.

    Returns:
        The pairs, in the order of their positions.
    """
    vectors = remove_common(descriptors)
    if threshold is None:
        threshold = THRESHOLD if len(vectors) >= FEW else THRESHOLD_OF_FEW
    owners = np.unique(np.asarray(patients, dtype=str), return_inverse=True)[1]
    single = vectors.astype(np.float32)
    found = [np.empty((0, 2), int)]
    for start in range(0, len(single), BLOCK):
        similar = single[start : start + BLOCK] @ single[start:].T > threshold - 1e-3
        found.append(np.argwhere(similar) + start)
    pairs = np.concatenate(found)
    pairs = pairs[(pairs[:, 0] < pairs[:, 1]) & (owners[pairs[:, 0]] != owners[pairs[:, 1]])]
    # once more in double precision, for the last digits of a matrix product depend on the number of threads
    similarities = (vectors[pairs[:, 0]] * vectors[pairs[:, 1]]).sum(1)
    return [
        Pair(int(first), int(second), float(similarity))
        for (first, second), similarity in zip(pairs, similarities, strict=True)
        if similarity > threshold
    ]


def remove_common(descriptors: Sequence[str]) -> np.ndarray:
    """Returns the descriptors (N, 719) as float64 unit vectors with their mean taken off.

    All pelvises look alike, so the mean says nothing about a patient. Less than 8 cases keep it. The descriptor of a
    constant image stays 0.
    """
    vectors = decode_descriptors(descriptors)
    seen = vectors.any(1)
    if seen.sum() >= FEW:
        vectors[seen] = _unit(vectors[seen] - vectors[seen].mean(0))
    return vectors


def decode_descriptors(descriptors: Sequence[str]) -> np.ndarray:
    """Returns the descriptors (N, 719) as float64 unit vectors."""
    content = b"".join(base64.b64decode(text) for text in descriptors)
    return _unit(np.frombuffer(content, np.int8).reshape(-1, math.prod(LOWEST) - 1).astype(float))


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 1e-9, lengths, np.inf)


def group_patients(pairs: pd.DataFrame) -> dict[str, str]:
    """Returns the group of each patient who shares images with another, directly or through others.

    Args:
        pairs: With the columns ``patient_a`` and ``patient_b``.

    Returns:
        By patient_id the patient_id that is first of the group.
    """
    if pairs.empty:
        return {}
    patients, codes = np.unique(pairs[["patient_a", "patient_b"]].to_numpy(dtype=str), return_inverse=True)
    first, second = codes.reshape(-1, 2).T
    edges = coo_array((np.ones(len(first)), (first, second)), shape=(len(patients), len(patients)))
    _, labels = connected_components(edges, directed=False)
    leaders = {label: str(patient) for patient, label in reversed(list(zip(patients, labels, strict=True)))}
    return {str(patient): leaders[label] for patient, label in zip(patients, labels, strict=True)}


def check_together(
    pairs: pd.DataFrame, folds: Mapping[str, int], where: str, names: Mapping[str, str] | None = None
) -> None:
    """Checks that patients who share an image are in one fold.

    Args:
        pairs: As `read_duplicates` returns them.
        folds: By patient_id; a pair of which one is left out is not checked.
        where: What to name in the message.
        names: What to call a patient in the message, by patient_id.

    Raises:
        InputError: A pair is in two folds; it names both cases and the similarity.
    """
    for pair in pairs.to_dict("records"):
        patients = pair["patient_a"], pair["patient_b"]
        if not all(patient in folds for patient in patients):
            continue
        first, second = ("none" if pd.isna(folds[patient]) else str(folds[patient]) for patient in patients)
        if first != second:
            a, b = ((names or {}).get(patient, patient) for patient in patients)
            raise InputError(
                f"{where}: cases {pair['case_a']} and {pair['case_b']} show the same image (similarity "
                f"{pair['similarity']:.2f}) and are in folds {first} and {second}; give patients {a} and {b} the same "
                "fold"
            )


def read_duplicates(cohort: Path) -> pd.DataFrame:
    """Returns a cohort's ``duplicates.csv``: modality, case_a, patient_a, case_b, patient_b (str), similarity (float).

    Without the file there are none.

    Raises:
        InputError: It is no CSV, lacks a column, or a similarity is no number.
    """
    file = cohort / "duplicates.csv"
    if not file.is_file():
        return pd.DataFrame(columns=list(COLUMNS))
    pairs = read_table(file, COLUMNS)
    pairs["similarity"] = to_numbers(pairs["similarity"], file, "similarity", "a number")
    return pairs


def write_duplicates(cohort: Path, pairs: pd.DataFrame) -> None:
    """Writes ``duplicates.csv`` in one step, or removes it where there are no pairs."""
    file = cohort / "duplicates.csv"
    if pairs.empty:
        file.unlink(missing_ok=True)
        return
    with replacing(file) as temporary:
        pairs.to_csv(temporary, index=False)
