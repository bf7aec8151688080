"""Ids that one hand or spreadsheet writes unlike another: they must not make two patients of one."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from data_modules.dealing import read_dealing
from data_modules.errors import InputError
from data_modules.ingest.pseudonyms import Pseudonyms, unify_spelling

DIFFERENCE = "only in case, blanks or leading zeros"


def check_spellings(cohort: Path, origin: Path, identifiers: Iterable[str], pseudonyms: Pseudonyms) -> None:
    """Checks that ids are told apart by more than case, blanks and leading zeros, here and from earlier ingests.

    Args:
        cohort: The cohort folder, where earlier ingests left a keyed hash of each id.
        origin: The label CSV or folder that the ids come from.
        identifiers: Patients' ids as the hospital writes them.
        pseudonyms: Theirs.

    Raises:
        InputError: Two ids differ in nothing else; it names one.
    """
    spellings: dict[str, set[str]] = defaultdict(set)
    for identifier in set(identifiers):
        spellings[unify_spelling(identifier)].add(identifier)
    several = sorted(sorted(same) for same in spellings.values() if len(same) > 1)
    if several:
        raise InputError(
            f"{origin}: {len(several)} patient ids are there in two spellings, such as {several[0][0]} and "
            f"{several[0][1]}, which differ {DIFFERENCE}; correct one of the two"
        )
    dealing = read_dealing(cohort)
    known = dealing.spellings if dealing else {}
    pairs = [(identifier, known.get(pseudonyms.spelling(identifier))) for (identifier,) in spellings.values()]
    others = sorted(
        identifier for identifier, patient in pairs if patient not in (None, pseudonyms.patient(identifier))
    )
    if others:
        raise InputError(
            f"{origin}: {len(others)} patient ids differ {DIFFERENCE} from those of the other modality or an earlier "
            f"ingest, such as {others[0]}; write them here as they were written there, or choose another --out"
        )
