"""Takes what identifies patients out of file names and messages, in whatever form it stands there."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import permutations

from data_modules.ingest.dates import find_dates, known_days
from data_modules.ingest.labels import LabelRow

LONG = 5  # letters or digits by which an identifier is known within a word as well
SHORT = (2, 1)
UID = re.compile(r"(?<!\d)\d+(?:\.\d+){4,}(?!\d)")
REMOVED = "[removed]"
LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "æ": "ae", "œ": "oe", "ı": "i", "þ": "th", "ð": "d"})
UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"})
UNSPACED = "\u1100"  # from here on, scripts write a name without blanks around it: Chinese, Japanese, Korean
ASCII = str.maketrans({chr(code): " " for code in range(128) if not chr(code).isalnum()})
Span = tuple[int, int, str]


class Concealer:
    """Replaces identifiers in a text, and takes out the known dates, in any order, and what looks like a date or a UID.

    Case, accents, Unicode's forms and what stands between the words do not matter. An identifier of five letters or
    digits is found within a word, too, and a number with zeros before it; a shorter one as a word of its own.

    Args:
        replacements: By identifier: an id, a name or a part of it, a date.
    """

    def __init__(self, replacements: Mapping[str, str]) -> None:
        self._words: dict[str, str] = {}
        self._numbers: dict[str, str] = {}  # without leading zeros
        self._days: set[tuple[int, int, int]] = set()
        for written, replacement in replacements.items():
            identifier = _readable(written)
            days = known_days(_fold(identifier)[0].strip())
            self._days |= days
            shown = REMOVED if days else replacement
            for word in _spellings(identifier):
                if word.isdecimal() and len(word) >= LONG:
                    self._numbers[word.lstrip("0")] = shown
                else:
                    self._words[word] = shown
        lengths: dict[str, set[int]] = defaultdict(set)
        for word in self._words:
            lengths[word[:3]].add(len(word))
        # of the words that begin so, the longest first
        self._lengths = {start: sorted({*found, *SHORT}, reverse=True) for start, found in lengths.items()}

    def __call__(self, text: str) -> str:
        """Returns the text without identifiers."""
        readable = _readable(text)
        folded, starts = _fold(readable)
        found = [*self._find_words(readable, folded, starts), *self._find_numbers(folded)]
        found += [
            (date.start, date.end, REMOVED) for date in find_dates(folded) if date.plain or date.day in self._days
        ]
        spans = [(starts[start], max(starts[end], starts[end - 1] + 1), shown) for start, end, shown in found]
        return _replace(text, [*spans, *((*match.span(), REMOVED) for match in UID.finditer(text))])

    def _find_words(self, text: str, folded: str, starts: Sequence[int]) -> Iterator[Span]:
        for start in range(len(folded)):
            for length in self._lengths.get(folded[start : start + 3], SHORT):
                end = min(start + length, len(folded))
                word = folded[start:end]
                if word in self._words and _stands_out(start, end, text, folded, starts):
                    yield start, end, self._words[word]
                    break

    def _find_numbers(self, folded: str) -> Iterator[Span]:
        for match in re.finditer(r"\d+", folded):
            number = match[0].lstrip("0")
            if len(match[0]) >= LONG and number in self._numbers:
                yield *match.span(), self._numbers[number]


def identifiers_in(text: str) -> list[str]:
    """Returns the parts of a name, number or date by which it is known, and the pairs of a name's parts in one word."""
    parts, names = [], []
    for part in re.split(r"[\^=,;\\\s]+", text):
        if any(letter.isdecimal() for letter in part):
            parts += [part] if len(part) > 2 else []
        else:
            names += [name for name in re.split(r"[-_.'/()]+", part) if len(name) > 1 or name >= UNSPACED]
    return [*parts, *dict.fromkeys(names), *map("".join, permutations(dict.fromkeys(names[:6]), 2))]


def identities_of_rows(rows: Iterable[LabelRow]) -> dict[str, str]:
    """Returns the patient's id by what the label CSV tells of her."""
    rows = list(rows)
    personal = {part: row.patient for row in rows for text in row.personal for part in [text, *identifiers_in(text)]}
    return personal | {row.patient: row.patient for row in rows}


def _spellings(identifier: str) -> set[str]:
    """An identifier as it may stand in a folded text."""
    plain = " ".join(_fold(identifier)[0].split())
    written = {plain, " ".join(_fold(unicodedata.normalize("NFC", identifier).lower().translate(UMLAUTS))[0].split())}
    if any(letter.isdecimal() for letter in plain):
        written.add(plain.replace(" ", ""))
    elif len(plain) >= LONG:
        written.add(re.sub(r"([aou])e", r"\1", plain))
    return written - {""}


def _readable(text: str) -> str:
    """The text with bytes that are no UTF-8, which names of files keep as surrogates, read as Latin-1."""
    return "".join(chr(ord(letter) - 0xDC00) if "\udc80" <= letter <= "\udcff" else letter for letter in text)


def _fold(text: str) -> tuple[str, Sequence[int]]:
    """A text in lower case, without accents, and with blanks for all that is no letter or digit.

    Returns:
        It, and where in the text each of its characters stands, and its end.
    """
    if text.isascii():
        return text.lower().translate(ASCII), range(len(text) + 1)
    folded, starts = [], []
    for place, letter in enumerate(text):
        plain = _plain(letter)
        folded.append(plain)
        starts += [place] * len(plain)
    return "".join(folded), [*starts, len(text)]


@cache
def _plain(letter: str) -> str:
    parts = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", letter).casefold().translate(LETTERS))
    # accents and marks without width leave nothing
    return "".join(part if part.isalnum() else " " for part in parts if unicodedata.category(part) not in ("Mn", "Cf"))


def _stands_out(start: int, end: int, text: str, folded: str, starts: Sequence[int]) -> bool:
    """Whether a word is told from what stands before and behind it."""
    word, before, after = folded[start:end], folded[start - 1 : start], folded[end : end + 1]
    if len(word) < LONG and (len(word) == 1 or not word.isalpha()):
        return not (before.isalnum() or after.isalnum())
    if word.isalpha() and word >= UNSPACED:
        return True
    return all(
        _parted(left, right, len(word) >= LONG) or _new_word(text, starts[place])
        for left, right, place in ((before, word[0], start), (word[-1], after, end))
    )


def _parted(left: str, right: str, is_long: bool) -> bool:
    if left.isdecimal() and right.isdecimal():
        return False
    return is_long or not (left.isalpha() and right.isalpha())


def _new_word(text: str, place: int) -> bool:
    """Whether a capital behind a small letter begins a word, as in RoeJane."""
    return 0 < place < len(text) and text[place - 1].islower() and text[place].isupper()


def _replace(text: str, spans: Iterable[Span]) -> str:
    """The text with spans replaced; those that overlap by what the first of them is replaced by."""
    shown, done = [], 0
    for start, end, replacement in sorted(spans, key=lambda span: (span[0], -span[1])):
        if start >= done:
            shown += [text[done:start], replacement]
        done = max(done, end)
    return "".join([*shown, text[done:]])
