"""The cohort report: what to look at first, what is in a cohort, what it looks like, and what was left out."""

import csv
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader

from data_modules.cohort import MODALITIES, Modality
from data_modules.dealing import read_dealing
from data_modules.duplicates import read_duplicates
from data_modules.errors import InputError
from data_modules.files import replacing
from data_modules.inspection_part import NAMES, Part, Shown
from data_modules.inspection_tables import group_rejections, group_warnings

MAX_OUTLIERS = 12  # a modality
MAX_PAIRS = 24
MAX_GROUPS = 40  # of warnings, and of reasons to leave out


def write_report(cohort: str | Path) -> Path:
    """Writes ``report.html``, a page that needs no other file.

    First comes what a person should look at: the cases that differ most from the rest, near duplicates under two
    patients, and the warnings of the ingest. Then, by modality, counts by label, fold, site and scanner, the original
    geometry, stored intensities, example slices and filmstrips; last, what was left out and why. Of each array only
    some planes are read.

    Args:
        cohort: The cohort folder.

    Returns:
        The page.

    Raises:
        InputError: The folder holds no manifest, or a manifest or an array is wrong.
    """
    cohort = Path(cohort)
    parts = {name: Part(cohort, name) for name in MODALITIES if (cohort / f"{name}.csv").is_file()}
    if not parts:
        raise InputError(f"{cohort}: holds neither mri.csv nor tvus.csv; make a cohort with `poddistill ingest`")
    rejected = cohort / "rejected.csv"
    rows = list(csv.DictReader(rejected.open(newline="", encoding="utf-8"))) if rejected.is_file() else []
    pairs = read_duplicates(cohort)
    dealing = read_dealing(cohort)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("inspection.html").render(
        name=cohort.resolve().name,
        parts=list(parts.values()),
        patients=len(set().union(*(part.manifest["patient_id"] for part in parts.values()))),
        shared=_count_shared(parts),
        outliers=[_show_outliers(part) for part in parts.values()],
        n_pairs=len(pairs),
        compared=any(record.get("descriptor") for part in parts.values() for record in part.records),
        pairs=_show_pairs(parts, pairs),
        moved=dealing.moved if dealing else {},
        warnings=[
            group
            for part in parts.values()
            for group in group_warnings(part.name, part.manifest["case_id"].tolist(), part.records)
        ],
        n_rejected=len(rows),
        rejected=group_rejections(rows, NAMES),
        max_groups=MAX_GROUPS,
    )
    report = cohort / "report.html"
    with replacing(report) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return report


def _count_shared(parts: dict[Modality, Part]) -> int:
    patients = [set(part.manifest["patient_id"]) for part in parts.values()]
    return len(set.intersection(*patients)) if len(patients) > 1 else 0


def _show_outliers(part: Part) -> dict[str, Any]:
    shown = [part.show(outlier.position, outlier.reasons) for outlier in part.outliers[:MAX_OUTLIERS]]
    return {"name": part.name, "n": len(part.outliers), "shown": shown}


def _show_pairs(parts: dict[Modality, Part], pairs: pd.DataFrame) -> list[tuple[Shown, Shown, str]]:
    """The most similar pairs of which both cases are still listed, with their similarity."""
    rows = {name: {case: row for row, case in enumerate(part.manifest["case_id"])} for name, part in parts.items()}
    found: list[tuple[Shown, Shown, str]] = []
    for pair in pairs.sort_values("similarity", ascending=False, kind="stable").to_dict("records"):
        of_modality = rows.get(pair["modality"], {})
        if pair["case_a"] in of_modality and pair["case_b"] in of_modality and len(found) < MAX_PAIRS:
            part = parts[pair["modality"]]
            first, second = (part.show(of_modality[pair[key]]) for key in ("case_a", "case_b"))
            found.append((first, second, f"{pair['similarity']:.2f}"))
    return found
