"""The cohort report: what is in a cohort, what it looks like, and what was left out."""

import base64
import io
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data_modules.cohort import MODALITIES, Modality, read_manifest
from data_modules.errors import InputError
from data_modules.store import read_array, read_record

NAMES = {"mri": "MRI", "tvus": "TVUS"}
CLASSES = {1.0: "obliterated", 0.0: "free"}
COLOURS = {"obliterated": "#c2410c", "free": "#0f766e", "unlabelled": "#6b7280"}
MAX_ROWS = 12  # of a table of distinct values
MAX_REJECTED = 200
HISTOGRAM_CASES = 64  # a class
EXAMPLES = {"mri": 4, "tvus": 1}  # a class


def write_report(cohort: str | Path) -> Path:
    """Writes ``report.html``, a page that needs no other file.

    It has counts by modality, label, fold and scanner, the original geometry, histograms of the stored intensities,
    example slices and filmstrips, and what was left out.

    Args:
        cohort: The cohort folder.

    Returns:
        The page.

    Raises:
        InputError: The folder holds no manifest, or a manifest is wrong.
    """
    cohort = Path(cohort)
    manifests = {name: read_manifest(cohort, name) for name in MODALITIES if (cohort / f"{name}.csv").is_file()}
    if not manifests:
        raise InputError(f"{cohort}: holds neither mri.csv nor tvus.csv; make a cohort with `poddistill ingest`")
    rejected = cohort / "rejected.csv"
    reasons = pd.read_csv(rejected, dtype=str, keep_default_na=False) if rejected.is_file() else pd.DataFrame()
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
    page = environment.get_template("inspection.html").render(
        name=cohort.resolve().name,
        modalities=[_modality(cohort, name, manifest) for name, manifest in manifests.items()],
        shared=_shared_patients(manifests),
        rejected=reasons.to_dict("records")[:MAX_REJECTED],
        n_rejected=len(reasons),
        reasons=Counter(reasons["reason"]).most_common(MAX_ROWS) if len(reasons) else [],
    )
    report = cohort / "report.html"
    temporary = report.with_name(f".{report.name}.{os.getpid()}")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(report)
    return report


def _modality(cohort: Path, name: Modality, manifest: pd.DataFrame) -> dict[str, Any]:
    classes = manifest["label"].map(CLASSES).fillna("unlabelled")
    records = [read_record(cohort / path) or {} for path in manifest["path"]]
    scanners = [_join(record.get("source", {}), "manufacturer", "model") for record in records]
    return {
        "name": NAMES[name],
        "cases": len(manifest),
        "patients": manifest["patient_id"].nunique(),
        "classes": [(label, int((classes == label).sum())) for label in COLOURS],
        "folds": _folds(manifest["fold"], classes),
        "tables": [
            ("Scanner", _most_common(scanners)),
            ("File format", _most_common(_join(record.get("source", {}), "format") for record in records)),
            ("Original size", _most_common(map(_size, records))),
            ("Original spacing (mm)", _most_common(_values(record, "spacing") for record in records)),
            (
                "Original orientation",
                _most_common(_join(record.get("original", {}), "orientation") for record in records),
            ),
            ("Stored shape", _most_common(_times(record.get("stored", {}).get("shape")) for record in records)),
        ],
        "histogram": _figure(6.5, 2.6, lambda figure: _draw_histogram(figure, cohort, manifest, classes)),
        "examples": _figure(
            9, 5.4 if name == "mri" else 3.2, lambda figure: _draw_examples(figure, cohort, name, manifest, classes)
        ),
        "covariates": [
            column for column in manifest.columns if column not in ("case_id", "patient_id", "path", "label", "fold")
        ],
    }


def _folds(folds: pd.Series, classes: pd.Series) -> list[tuple[str, list[int]]]:
    """A row a fold, ``none`` last: its name, and how many cases of each class."""
    names = folds.astype("string").fillna("none")
    table = pd.crosstab(names, classes).reindex(columns=list(COLOURS), fill_value=0)
    order = sorted(table.index, key=lambda fold: (fold == "none", fold.zfill(3)))
    return [(fold, [int(n) for n in table.loc[fold]]) for fold in order]


def _shared_patients(manifests: dict[Modality, pd.DataFrame]) -> int:
    patients = [set(manifest["patient_id"]) for manifest in manifests.values()]
    return len(set.intersection(*patients)) if len(patients) > 1 else 0


def _most_common(values: Any) -> list[tuple[str, int]]:
    """Distinct values with their counts; the rarest are summed up, and a table that would say nothing is empty."""
    counts = Counter(value or "not recorded" for value in values)
    if set(counts) == {"not recorded"}:
        return []
    rows = counts.most_common(MAX_ROWS)
    rest = sum(counts.values()) - sum(n for _, n in rows)
    return [*rows, (f"{len(counts) - MAX_ROWS} others", rest)] if rest else rows


def _join(record: dict[str, Any], *keys: str) -> str:
    return " ".join(str(record[key]) for key in keys if record.get(key))


def _times(values: list[Any] | None) -> str:
    return " × ".join(map(str, values or []))


def _size(record: dict[str, Any]) -> str:
    original = record.get("original", {})
    frames = f"{original['frames']} frames of " if "frames" in original else ""
    return frames + _times(original.get("shape") or original.get("size"))


def _values(record: dict[str, Any], key: str) -> str:
    return _times([f"{value:.2f}" for value in record.get("original", {}).get(key, [])])


def _draw_histogram(figure: Figure, cohort: Path, manifest: pd.DataFrame, classes: pd.Series) -> None:
    axes: Axes = figure.subplots()
    for label, colour in COLOURS.items():
        paths = manifest["path"][classes == label][:HISTOGRAM_CASES]
        if len(paths):
            values = np.concatenate([_unit(read_array(cohort / path)).ravel() for path in paths])
            axes.hist(values, bins=64, range=(0, 1), density=True, histtype="step", color=colour, label=label)
    axes.set(xlabel="stored intensity", ylabel="density", xlim=(0, 1), yscale="log")
    axes.legend(frameon=False, fontsize=8)


def _draw_examples(figure: Figure, cohort: Path, name: Modality, manifest: pd.DataFrame, classes: pd.Series) -> None:
    """Mid-sagittal slices, a column a case; or a filmstrip of six frames a clip."""
    labels = [label for label in COLOURS if (classes == label).any()]
    columns = 6 if name == "tvus" else EXAMPLES["mri"]
    grid = figure.subplots(len(labels), columns, squeeze=False)
    for row, label in zip(grid, labels, strict=True):
        paths = manifest["path"][classes == label][: EXAMPLES[name]]
        arrays = [_unit(read_array(cohort / path)) for path in paths]
        if name == "mri":
            planes = [array[len(array) // 2] for array in arrays]
        else:
            planes = [array[index] for array in arrays for index in np.linspace(0, len(array) - 1, columns).astype(int)]
        for axes, plane in zip(row, planes, strict=False):
            axes.imshow(plane, cmap="gray", vmin=0, vmax=1)
        for axes in row:
            axes.axis("off")
        row[0].set_title(label, loc="left", fontsize=9, color=COLOURS[label])


def _unit(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) / (255 if array.dtype == np.uint8 else 1)


def _figure(width: float, height: float, draw: Callable[[Figure], None]) -> str:
    """A figure as the data of a PNG, in base64."""
    figure = Figure(figsize=(width, height), layout="constrained")
    draw(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return base64.b64encode(buffer.getvalue()).decode()
