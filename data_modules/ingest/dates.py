"""Dates in names of files: in which forms they stand there."""

import re
from collections.abc import Iterator
from typing import NamedTuple

YEARS = range(1900, 2100)
MONTHS = {
    **{"jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6},
    **{"jul": 7, "aug": 8, "sep": 9, "oct": 10, "nov": 11, "dec": 12},
    **{"mrz": 3, "mai": 5, "okt": 10, "dez": 12},
}
# Looked for from every number on, for what stands before a date may be one, too.
NUMBERS = re.compile(r"(?<!\d)(?=(\d{1,4}) {1,2}(\d{1,2}) {1,2}(\d{1,4})(?!\d))")
DAY_MONTH = re.compile(r"(?<!\d)(?=(\d{1,4}) {0,2}([a-z]{3,9}) {0,2}(\d{1,4})(?!\d))")
MONTH_DAY = re.compile(r"(?<![a-z])(?=([a-z]{3,9}) {0,2}(\d{1,2}) {1,2}(\d{2}|\d{4})(?!\d))")
RUN = re.compile(r"(?<!\d)\d{6,14}(?!\d)")


class FoundDate(NamedTuple):
    """What may be a date.

    Attributes:
        start: In the text.
        end: In the text.
        day: Year, of two digits or four, month and day.
        plain: Whether it is one for certain: it has a year of four digits, which no other reading can explain.
    """

    start: int
    end: int
    day: tuple[int, int, int]
    plain: bool


def find_dates(text: str) -> Iterator[FoundDate]:
    """Yields every reading of the dates in a text in lower case, with blanks for all that is no letter or digit."""
    for match in NUMBERS.finditer(text):
        first, second, third = match.groups()
        for parts in ((first, second, third), (third, second, first), (third, first, second)):
            yield from _read(match.start(1), match.end(3), parts, plain=len(parts[0]) == 4)
    for match in DAY_MONTH.finditer(text):
        first, month, third = match[1], _month(match[2]), match[3]
        for parts in ((first, month, third), (third, month, first)):
            yield from _read(match.start(1), match.end(3), parts, plain=len(parts[0]) == 4)
    for match in MONTH_DAY.finditer(text):
        yield from _read(match.start(1), match.end(3), (match[3], _month(match[1]), match[2]), plain=len(match[3]) == 4)
    for match in RUN.finditer(text):
        run, span = match[0], match.span()
        if len(run) in (8, 12, 14):  # the longer ones with a time behind it
            yield from _read(*span, (run[:4], run[4:6], run[6:8]), plain=True)
        if len(run) == 8:
            yield from _read(*span, (run[4:], run[2:4], run[:2]), plain=False)
            yield from _read(*span, (run[4:], run[:2], run[2:4]), plain=False)
        if len(run) == 6:
            for order in ((4, 2, 0), (0, 2, 4), (4, 0, 2)):
                year, month, day = (run[place : place + 2] for place in order)
                yield from _read(*span, (year, month, day), plain=False)


def known_days(text: str) -> set[tuple[int, int, int]]:
    """Returns the days that a text, as `find_dates` takes it, may mean, with years of two and of four digits.

    Empty: it is no date as a whole, or a number that is hardly one.
    """
    days = set()
    for found in find_dates(text):
        if (found.start, found.end) == (0, len(text)) and (found.plain or not text.isdecimal()):
            year, month, day = found.day
            years = {year, year % 100} if year >= 100 else {year, 1900 + year, 2000 + year}
            days |= {(one, month, day) for one in years}
    return days


def _read(start: int, end: int, parts: tuple[str, str, str], plain: bool) -> Iterator[FoundDate]:
    """The date of a year, a month and a day, if it is one."""
    if len(parts[0]) not in (2, 4) or not all(0 < len(part) <= 2 for part in parts[1:]):
        return
    year, month, day = map(int, parts)
    if (len(parts[0]) == 2 or year in YEARS) and 1 <= month <= 12 and 1 <= day <= 31:
        yield FoundDate(start, end, (year, month, day), plain)


def _month(name: str) -> str:
    return str(MONTHS.get(name[:3], ""))
