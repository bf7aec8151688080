"""Tables of the cohort report: counts by label, warnings, and what was left out."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

LABELS = {1.0: "1 = POD obliterated", 0.0: "0 = POD free"}
CLASSES = (*LABELS.values(), "unlabelled")
MAX_ROWS = 12
EXAMPLES = 3


@dataclass(frozen=True)
class Table:
    """A table of the report.

    Attributes:
        title: Its caption.
        head: Names of the columns; the first is that of the rows' names.
        rows: A name and then numbers each.
    """

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]


@dataclass(frozen=True)
class Group:
    """Lines that say the same.

    Attributes:
        modality: As the page names it.
        text: What they say.
        n: How many.
        examples: Some cases or files that they are about.
    """

    modality: str
    text: str
    n: int
    examples: tuple[str, ...]


def name_classes(labels: pd.Series) -> pd.Series:
    """Returns the names of labels 1, 0 and nan, as everywhere on the page."""
    return labels.map(LABELS).fillna("unlabelled")


def count_cases(title: str, name: str, values: Sequence[str], classes: pd.Series, by_name: bool = False) -> Table:
    """Counts cases by a value and by class, with the share of label 1 among the labelled.

    Args:
        title: Of the table.
        name: Of the values' column.
        values: A case each.
        classes: A case each, as `name_classes` returns them.
        by_name: Sort by value; otherwise the most frequent come first and only those are listed, up to twelve.
    """
    counts = pd.crosstab(pd.Series(values, dtype=str), classes.reset_index(drop=True))
    counts = counts.reindex(columns=list(CLASSES), fill_value=0)
    if by_name:
        counts = counts.loc[sorted(counts.index, key=lambda value: (value == "none", len(value), value))]
    else:
        counts = counts.loc[counts.sum(axis=1).sort_values(ascending=False, kind="stable").index]
        rest = counts.iloc[MAX_ROWS:].sum()
        if len(counts) > MAX_ROWS + 1:
            counts = pd.concat([counts.iloc[:MAX_ROWS], rest.to_frame(f"{len(counts) - MAX_ROWS} others").T])
    rows = [_row(str(value), list(row)) for value, row in zip(counts.index, counts.to_numpy(), strict=True)]
    if len(rows) > 1:
        rows.append(_row("all", counts.sum().tolist()))
    return Table(title, (name, *CLASSES, "all", "share of 1"), rows)


def _row(name: str, counts: list[int]) -> tuple[str, ...]:
    obliterated, free, _ = counts
    share = f"{obliterated / (obliterated + free):.0%}" if obliterated + free else "–"
    return (name, *map(str, counts), str(sum(counts)), share)


def group_warnings(modality: str, cases: Sequence[str], records: Sequence[Mapping[str, Any]]) -> list[Group]:
    """Groups the warnings in the records by their text, the most frequent first."""
    about: dict[str, list[str]] = defaultdict(list)
    for case, record in zip(cases, records, strict=True):
        for line in dict.fromkeys(record.get("warnings") or ()):
            about[str(line)].append(case)
    groups = [Group(modality, text, len(found), tuple(found)) for text, found in about.items()]
    return sorted(groups, key=lambda group: -group.n)


def group_rejections(rows: Iterable[Mapping[str, str]], names: Mapping[Any, str]) -> list[Group]:
    """Groups what was left out by modality and reason, whatever is in brackets and whatever the numbers are.

    Args:
        rows: Of ``rejected.csv``: modality, source, reason.
        names: Of the modalities on the page.
    """
    about: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for row in rows:
        alike = re.sub(r"\d+", "N", row["reason"].split(" (")[0])
        about[row["modality"], alike].append((row["source"], row["reason"]))
    groups = []
    for (modality, alike), found in about.items():
        same = len({reason for _, reason in found}) == 1
        examples = [source if same else f"{source}: {reason}" for source, reason in found[:EXAMPLES]]
        text = found[0][1] if same else alike
        groups.append(Group(names.get(modality, modality), text, len(found), tuple(examples)))
    return sorted(groups, key=lambda group: -group.n)


def most_common(title: str, name: str, values: Iterable[str]) -> Table:
    """Counts distinct values; a table that would say nothing has no rows."""
    counts = Counter(value or "not recorded" for value in values)
    rows: list[tuple[str, ...]] = [(value, str(n)) for value, n in counts.most_common(MAX_ROWS)]
    if set(counts) == {"not recorded"}:
        rows = []
    elif len(counts) > MAX_ROWS:
        rows.append((f"{len(counts) - MAX_ROWS} others", str(counts.total() - sum(int(n) for _, n in rows))))
    return Table(title, (name, "cases"), rows)
