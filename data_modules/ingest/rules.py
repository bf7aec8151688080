"""Rules that say which series of a study becomes its volume."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from data_modules.errors import InputError

SHIPPED = Path(__file__).with_name("series_rules.yaml")
T1_TIMES = (30.0, 1200.0)  # ms, at most: echo and repetition time of a T1-weighted spin echo
T2_TIMES = (60.0, 1500.0)  # ms, at least
NEITHER = re.compile(r"t2[ _-]?(?:\*|star)|dwi(?!dth)|diff|(?<!he)adc|trace", re.IGNORECASE)
# Not after a letter, as in part1 or fast2, but for a plane's name (SAGT2) and where upper case begins a word (sT2W).
WEIGHTED = re.compile(
    r"(?:(?<![a-z])|(?<=sag)|(?<=cor)|(?<=tra)|(?<=ax)|(?-i:(?<=[a-z])(?=T)))t([12])(?!\d)", re.IGNORECASE
)
WEIGHTINGS, PLANES = ("T1", "T2"), ("sagittal", "coronal", "axial")


@dataclass(frozen=True)
class SeriesTraits:
    """What the rules can ask of a series.

    Attributes:
        description: Of the series; a NIfTI's file name.
        image_type: DICOM's, its parts joined by backslashes.
        manufacturer: Of the scanner.
        weighting: ``"T1"``, ``"T2"`` or empty.
        plane: ``"sagittal"``, ``"coronal"``, ``"axial"`` or, where unknown, empty.
        slices: Their number, 0 where unknown.
        gap: mm between the middles of neighbouring slices, 0 where unknown.
    """

    description: str
    image_type: str = ""
    manufacturer: str = ""
    weighting: str = ""
    plane: str = ""
    slices: int = 0
    gap: float = 0.0


@dataclass(frozen=True)
class Rule:
    """A name and the conditions under which it applies, see ``series_rules.yaml``; None asks nothing."""

    name: str
    description: str | None = None
    image_type: str | None = None
    manufacturer: str | None = None
    weighting: str | None = None
    plane: str | None = None
    min_slices: int | None = None
    max_gap: float | None = None

    def fits(self, traits: SeriesTraits) -> bool:
        """Tells whether a series meets all conditions."""
        texts = (
            (self.description, traits.description),
            (self.image_type, traits.image_type),
            (self.manufacturer, traits.manufacturer),
        )
        return (
            all(wanted is None or re.search(wanted, found, re.IGNORECASE) for wanted, found in texts)
            and self.weighting in (None, traits.weighting)
            and self.plane in (None, traits.plane)
            and (self.min_slices is None or traits.slices >= self.min_slices)
            and (self.max_gap is None or 0 < traits.gap <= self.max_gap)
        )


@dataclass(frozen=True)
class SeriesRules:
    """Which series are volumes, which are not used, and which of a study is preferred; see ``series_rules.yaml``."""

    min_slices: int
    spacing_tolerance: float
    exclude: tuple[Rule, ...]
    prefer: tuple[Rule, ...]

    def objection(self, traits: SeriesTraits) -> str:
        """Returns why a series is not used unless a label row names it; empty: nothing against it."""
        named = next((rule.name for rule in self.exclude if rule.fits(traits)), "")
        return named or ("" if self.preferred(traits)[1] else "it fits none of the series rules")

    def preferred(self, traits: SeriesTraits) -> tuple[int, str]:
        """Returns the first rule that a series fits: its place, counted so that more is better, and its name."""
        for place, rule in enumerate(self.prefer):
            if rule.fits(traits):
                return len(self.prefer) - place, rule.name
        return 0, ""


def read_rules(file: Path | None = None) -> SeriesRules:
    """Reads series rules.

    Args:
        file: YAML; None: the shipped ``series_rules.yaml``.

    Raises:
        InputError: The file is missing or no YAML, or a key or a value is wrong; it names file, key and remedy.
    """
    file = file or SHIPPED
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: no such readable file; correct --series_rules") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not a YAML file ({' '.join(str(error).split())}); correct it") from error
    known = [field.name for field in fields(SeriesRules)]
    if not isinstance(content, dict) or (unknown := [str(key) for key in content if key not in known]):
        found = unknown[0] if isinstance(content, dict) else type(content).__name__
        raise InputError(f"{file}: has {found}; its keys are {', '.join(known)}")
    shipped = {} if file == SHIPPED else yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    content = shipped | content
    return SeriesRules(
        min_slices=_number(file, content, "min_slices", 1, whole=True),
        spacing_tolerance=_number(file, content, "spacing_tolerance", 0),
        exclude=_rules(file, "exclude", content["exclude"]),
        prefer=_rules(file, "prefer", content["prefer"]),
    )


def weighting_of(description: str, echo_time: float = 0.0, repetition_time: float = 0.0) -> tuple[str, str]:
    """Returns the weighting, ``"T1"``, ``"T2"`` or empty, and by what it is known; times in ms, 0 where unknown.

    The first weighting that stands as a word of its own in the description counts, and the times where none does.
    """
    if NEITHER.search(description):
        return "", ""
    if named := WEIGHTED.search(description):
        return f"T{named[1]}", "description"
    if echo_time >= T2_TIMES[0] and repetition_time >= T2_TIMES[1]:
        return "T2", "echo and repetition time"
    if 0 < echo_time <= T1_TIMES[0] and 0 < repetition_time <= T1_TIMES[1]:
        return "T1", "echo and repetition time"
    return "", ""


def _rules(file: Path, key: str, entries: Any) -> tuple[Rule, ...]:
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and entry.get("name") for entry in entries):
        raise InputError(f"{file}: {key} must be a list of rules, each with a name and its conditions")
    return tuple(_rule(file, f"{key}: {entry['name']}", entry) for entry in entries)


def _rule(file: Path, where: str, entry: Mapping[str, Any]) -> Rule:
    known = [field.name for field in fields(Rule)]
    if unknown := [key for key in entry if key not in known]:
        raise InputError(f"{file}: {where}: unknown condition {unknown[0]}; use {', '.join(known[1:])}")
    for key, allowed in (("weighting", WEIGHTINGS), ("plane", PLANES)):
        if key in entry and entry[key] not in allowed:
            raise InputError(f"{file}: {where}: {key} is {entry[key]!r}; use {' or '.join(allowed)}")
    for key in ("description", "image_type", "manufacturer"):
        if key in entry:
            try:
                re.compile(entry[key])
            except (re.error, TypeError) as error:
                raise InputError(f"{file}: {where}: {key} is no regular expression ({error}); correct it") from error
    for key, whole in (("min_slices", True), ("max_gap", False)):
        if key in entry:
            _number(file, entry, key, 0, whole=whole)
    return Rule(**entry)


def _number(file: Path, content: Mapping[str, Any], key: str, least: float, whole: bool = False) -> Any:
    value = content[key]
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or value < least:
        raise InputError(f"{file}: {key} is {value!r}; use a {'whole ' if whole else ''}number from {least:g} up")
    return value
