"""One modality of a cohort, as the report shows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data_modules.cohort import COLUMNS, Modality, read_manifest
from data_modules.inspection_figures import Picture, draw_filmstrip, draw_histogram, draw_intensities, draw_middle
from data_modules.inspection_outliers import GEOMETRY, find_outliers, measure_cases
from data_modules.inspection_tables import CLASSES, Table, count_cases, most_common, name_classes
from data_modules.store import read_record

NAMES: dict[Modality, str] = {"mri": "MRI", "tvus": "TVUS"}
COLOURS = dict(zip(CLASSES, ("#c2410c", "#0f766e", "#6b7280"), strict=True))
HISTOGRAM_CASES = 64  # a class
EXAMPLES = {"mri": 4, "tvus": 2}  # a class


@dataclass(frozen=True)
class Shown:
    """A case with its picture.

    Attributes:
        case: Its case_id.
        facts: Label, fold and site.
        picture: Its middle plane.
        reasons: Why it is shown.
    """

    case: str
    facts: str
    picture: Picture
    reasons: tuple[str, ...] = ()


class Part:
    """One modality of a cohort as the report needs it.

    Args:
        cohort: The cohort folder.
        modality: ``"mri"`` or ``"tvus"``.

    Attributes:
        name: As the page names it.
        manifest: As `read_manifest` returns it.
        records: Beside the arrays, ``{}`` where missing.
        classes: A case each.
        measures: As `measure_cases` returns them.
        outliers: All that `find_outliers` found.
    """

    def __init__(self, cohort: Path, modality: Modality) -> None:
        self._cohort, self._modality = cohort, modality
        self.name = NAMES[modality]
        self.manifest = read_manifest(cohort, modality)
        self.records = [read_record(cohort / path) or {} for path in self.manifest["path"]]
        self.classes = name_classes(self.manifest["label"])
        self.measures = measure_cases(cohort, self.manifest["path"].tolist(), self.records)
        self.outliers = find_outliers(self.measures)

    @property
    def covariates(self) -> list[str]:
        """Names of the columns after the fold."""
        return [column for column in self.manifest.columns if column not in COLUMNS]

    def source(self, *keys: str) -> list[str]:
        """Each case's entries in ``source``, put together."""
        sources = [record.get("source") or {} for record in self.records]
        return [" ".join(str(source[key]) for key in keys if source.get(key)) for source in sources]

    def tables(self) -> list[Table]:
        """Counts by fold, site, scanner, file format and stored shape, where anything is known of them."""
        folds = self.manifest["fold"].astype("string").fillna("none").tolist()
        stored = ["×".join(map(str, (record.get("stored") or {}).get("shape") or ())) for record in self.records]
        counts = [
            count_cases("Cases by fold", "fold", folds, self.classes, by_name=True),
            most_common("File format", "format", self.source("format")),
            most_common("Stored shape", "shape", stored),
        ]
        for title, keys in (("Cases by site", ("site",)), ("Cases by scanner", ("manufacturer", "model"))):
            values = self.source(*keys)
            if any(values):
                named = [value or "not recorded" for value in values]
                counts.append(count_cases(title, title.split()[-1], named, self.classes))
        return [table for table in counts if table.rows]

    def histograms(self) -> list[tuple[str, str, Picture]]:
        """Of the original geometry: what, the same with its range in words, and the histogram."""
        found = []
        for name, measure in GEOMETRY.items():
            if name.startswith("field of view"):  # spacing times voxels
                continue
            values = self.measures[name].dropna()
            if len(values):
                span = ", ".join(
                    f"{word} {value:.3g}"
                    for word, value in (("least", values.min()), ("median", values.median()), ("most", values.max()))
                )
                picture = draw_histogram(values.to_numpy(), measure.unit)
                found.append(
                    (name, f"Histogram of {name} of {len(values)} cases: {span} {measure.unit}".strip(), picture)
                )
        return found

    def intensities(self) -> Picture:
        """The distribution of stored intensities by class."""
        paths = {
            name: [self._cohort / path for path in self.manifest["path"][self.classes == name][:HISTOGRAM_CASES]]
            for name in CLASSES
        }
        return draw_intensities(paths, COLOURS)

    def examples(self) -> list[tuple[str, list[tuple[str, Picture]]]]:
        """By class, some cases with their middle slice or their filmstrip."""
        found = []
        for name in CLASSES:
            rows = np.flatnonzero(self.classes == name)[: EXAMPLES[self._modality]]
            cases = [(self.manifest["case_id"][row], self._example(row)) for row in rows]
            if cases:
                found.append((name, cases))
        return found

    def show(self, row: int, reasons: Sequence[str] = ()) -> Shown:
        """A case as a card."""
        fold = self.manifest["fold"][row]
        site = (self.records[row].get("source") or {}).get("site")
        facts = [self.classes[row], "no fold" if pd.isna(fold) else f"fold {fold}", *([site] if site else [])]
        return Shown(self.manifest["case_id"][row], ", ".join(facts), self._middle(row), tuple(reasons))

    def _example(self, row: int) -> Picture:
        return draw_filmstrip(self._path(row)) if self._modality == "tvus" else self._middle(row, 160)

    def _middle(self, row: int, width: int = 128) -> Picture:
        return draw_middle(self._path(row), (self.records[row].get("stored") or {}).get("spacing"), width)

    def _path(self, row: int) -> Path:
        return self._cohort / self.manifest["path"][row]
