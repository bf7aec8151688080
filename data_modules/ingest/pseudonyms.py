"""Pseudonyms instead of patients' names and numbers, made with a key that stays outside the cohort."""

import fcntl
import hmac
import os
import re
import secrets
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from data_modules.cohort import MODALITIES
from data_modules.dealing import read_dealing
from data_modules.errors import InputError
from data_modules.ingest.concealing import Concealer
from data_modules.ingest.confidentiality import Concealment

MOVE_KEY = "move the key that lay beside it here"


class Pseudonyms:
    """Keyed hashes (HMAC-SHA256, RFC 2104): one id, one pseudonym, and only the key's owner can tell which.

    Args:
        key: The secret.
        public_set: Name of a public set, whose numbers are not the hospital's; empty: the hospital's own.
    """

    def __init__(self, key: bytes, public_set: str = "") -> None:
        self._key = key
        self._set = (public_set,) if public_set else ()

    @property
    def key_check(self) -> str:
        """The keyed hash of a constant, the same for all sets: whoever has the key can tell that it is the one."""
        return Pseudonyms(self._key).digest("key")

    def patient(self, identifier: str) -> str:
        """Returns the pseudonym of a patient: p and 12 hexadecimal digits."""
        return f"p{self.digest('patient', identifier)[:12]}"

    def spelling(self, identifier: str) -> str:
        """Returns a keyed hash of an id, 16 hexadecimal digits, the same however it is written (`unify_spelling`)."""
        return self.digest("spelling", unify_spelling(identifier))[:16]

    def concealment(self, identifier: str) -> Concealment:
        """Returns what conceals the dates and the site of a patient: her dates go back by 1 to 3650 days."""
        days = int(self.digest("days", identifier)[:12], 16) % 3650 + 1
        return Concealment(days=-days, site_key=self.digest("site").encode())

    def digest(self, *parts: object) -> str:
        """Returns the keyed hash of any text, 64 hexadecimal digits."""
        return hmac.digest(
            self._key, "\x1f".join(map(str, (*self._set, *parts))).encode(errors="surrogateescape"), "sha256"
        ).hex()

    def concealer(self, identities: Mapping[str, str]) -> Concealer:
        """Returns a function that replaces identifiers in a text, and takes out what looks like a UID or a date.

        Args:
            identities: Patient's id by identifier: that id itself, or a part of the patient's name.
        """
        shown = {patient: self.patient(patient) for patient in set(identities.values())}
        return Concealer({identifier: shown[patient] for identifier, patient in identities.items()})


def unify_spelling(identifier: str) -> str:
    """Returns an id in Unicode's NFKC, without case, blanks, leading zeros and the ``.0`` of a spreadsheet's number."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", identifier).casefold())
    return re.sub(r"^(\d+)\.0$", r"\1", "".join(text.split())).lstrip("0") or "0"


@contextmanager
def open_key(cohort: Path, public_set: str = "") -> Iterator[Pseudonyms]:
    """Reads the key beside a cohort, readable by its owner alone, and holds it against a second ingest.

    It is made on first use, and never for a cohort that has patients already: each would get a second pseudonym.

    Raises:
        InputError: The file is not the key of the cohort, or another process is ingesting into the same cohort.
    """
    file = cohort.with_name(f"{cohort.name}.key")
    dealing = read_dealing(cohort)
    in_use = dealing is not None or any((cohort / f"{modality}.csv").is_file() for modality in MODALITIES)
    if in_use and not file.is_file():
        raise InputError(f"{file}: missing, and {cohort} has patients already; {MOVE_KEY}")
    file.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT, 0o600), "r+", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(
                f"{file}: in use by another ingest into this cohort; wait until it has finished"
            ) from error
        key = handle.read().strip()
        if not key and not in_use:
            key = secrets.token_hex(32)
            handle.write(f"{key}\n")
            handle.flush()
        if len(key) < 16:
            remedy = MOVE_KEY if in_use else "remove the file to have a new one made"
            raise InputError(f"{file}: the key is shorter than 16 characters; {remedy}")
        pseudonyms = Pseudonyms(key.encode(), public_set)
        if dealing and dealing.key_check not in ("", pseudonyms.key_check):
            raise InputError(f"{file}: not the key of {cohort}; {MOVE_KEY}")
        yield pseudonyms
