"""How the patients of a cohort were dealt into folds, remembered in ``folds.json`` so that they keep them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pandas as pd

from data_modules.cohort import MODALITIES, Modality, assign_folds, check_one_fold, read_folds
from data_modules.duplicates import check_together, group_patients
from data_modules.errors import InputError
from data_modules.files import replacing


@dataclass(frozen=True)
class Dealing:
    """A cohort's folds and where they come from.

    Attributes:
        seed: Of the folds.
        n_folds: K.
        given: By modality, or modality and public set, the fold by patient_id that the hospital's label CSV gives.
        folds: By patient_id, also of patients who have left the cohort, and so get their fold back when they return.
        moved: By patient_id, the last fold and the present one of those who had to change: the label CSV gave another,
            or they share an image with a patient of another fold. Runs trained before saw them elsewhere.
        key_check: Tells whether a key is that of the patients' pseudonyms, and reveals nothing of it; empty: not known.
        spellings: Of all patients there ever were, patient_id by a keyed hash of the hospital's id, which is the same
            however that is written.
    """

    seed: int
    n_folds: int
    given: dict[str, dict[str, int]] = field(default_factory=dict)
    folds: dict[str, int] = field(default_factory=dict)
    moved: dict[str, list[int]] = field(default_factory=dict)
    key_check: str = ""
    spellings: dict[str, str] = field(default_factory=dict)


def check_dealing(cohort: Path, n_folds: int, seed: int) -> None:
    """Checks that the number of folds and the seed are those with which the cohort has been dealt, if it has.

    Raises:
        InputError: They are others; it names the option and those of the cohort.
    """
    before = read_dealing(cohort)
    folds = before.folds if before else _in_manifests(cohort)
    if not folds:
        return
    dealt = (before.n_folds, before.seed) if before else (max(folds.values()) + 1, seed)
    for option, asked, used in zip(("--folds", "--seed"), (n_folds, seed), dealt, strict=True):
        if asked != used:
            raise InputError(
                f"{option} {asked}: {cohort} was dealt with {option} {used}, and folds never change under trained "
                f"runs; give {option} {used} or choose another --out"
            )


def deal(
    cohort: Path,
    tables: Mapping[Modality, pd.DataFrame],
    label_csv: str,
    given: Mapping[str, int],
    pairs: pd.DataFrame,
    n_folds: int,
    seed: int,
    order: Mapping[str, str],
) -> tuple[Dealing, pd.Series]:
    """Deals a cohort: given folds as they are, then those that patients have, then the new ones.

    Args:
        cohort: The cohort folder, with what an earlier ingest left there.
        tables: The manifests, of which the fold is not read.
        label_csv: Name of the label CSV with the given folds: the modality, or modality and public set.
        given: Fold by patient_id.
        pairs: Near duplicates, as `read_duplicates` returns them.
        n_folds: K.
        seed: Of the folds.
        order: As `assign_folds` takes it, and what to call the patients in a message.

    Returns:
        What to remember, and the fold by patient_id (Int64).

    Raises:
        InputError: The label CSVs give a patient two folds, or two patients who share an image.
    """
    before = read_dealing(cohort) or Dealing(seed, n_folds)
    all_given = {name: folds for name, folds in {**before.given, label_csv: dict(given)}.items() if folds}
    by_hand = _merge(all_given)
    groups = group_patients(pairs)
    leaders = {groups[patient]: fold for patient, fold in by_hand.items() if patient in groups}
    check_together(pairs, by_hand, "label CSVs", order)
    by_hand = {patient: leaders[group] for patient, group in groups.items() if group in leaders} | by_hand
    check_together(pairs, by_hand, "label CSVs", order)  # two may meet through a third
    existing = before.folds | _in_manifests(cohort)
    folds = assign_folds(tables, n_folds, seed, existing | by_hand, groups, order)
    for patient in folds.index.intersection(list(by_hand)):  # unlabelled ones, too
        folds[patient] = by_hand[patient]
    present = {str(patient): int(fold) for patient, fold in folds.dropna().items()}
    moved = {
        patient: [existing[patient], fold] for patient, fold in present.items() if existing.get(patient, fold) != fold
    }
    dealt = Dealing(seed, n_folds, all_given, existing | present, before.moved | moved)
    return replace(dealt, key_check=before.key_check, spellings=before.spellings), folds


def _in_manifests(cohort: Path) -> dict[str, int]:
    return {patient: fold for name in MODALITIES for patient, fold in read_folds(cohort, name).items()}


def _merge(given: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    pairs = [(patient, fold) for folds in given.values() for patient, fold in folds.items()]
    patients, folds = pd.Series([p for p, _ in pairs], dtype=str), pd.Series([f for _, f in pairs], dtype="Int64")
    check_one_fold(patients, folds, "label CSVs of both modalities")
    return dict(pairs)


def read_dealing(cohort: Path) -> Dealing | None:
    """Returns how a cohort was dealt, or None where nothing is remembered.

    Raises:
        InputError: ``folds.json`` is damaged.
    """
    file = cohort / "folds.json"
    if not file.is_file():
        return None
    try:
        return Dealing(**json.loads(file.read_bytes()))
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{file}: not readable; restore it, or remove it to go on from the folds in the manifests"
        ) from error


def write_dealing(cohort: Path, dealing: Dealing) -> None:
    """Writes ``folds.json`` in one step."""
    file = cohort / "folds.json"
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(asdict(dealing), indent=1, sort_keys=True))
