"""Public image sets by name: a module a set, whose ``find`` knows the set's folders and quirks.

A new set is a new module in this folder, found by its name: ``my_set.py`` is ``--layout my-set``.
"""

import importlib
import pkgutil
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from data_modules.errors import InputError
from data_modules.ingest.images import Rejection, SourceImage, UnusableError
from data_modules.ingest.nifti import SUFFIXES
from data_modules.ingest.workers import Lost, Map

Find = Callable[[Path, Sequence[str], Map], tuple[list[SourceImage], list[Rejection]]]
"""Takes the source folder, its files, relative and sorted, and a map over processes."""

PASSED_OVER = (
    *(".csv", ".tsv", ".txt", ".json", ".xml", ".html", ".md", ".pdf", ".doc", ".docx", ".xls", ".xlsx"),
    *(".zip", ".7z", ".rar", ".tar", ".tgz", ".tar.gz", ".db", ".ini"),
)
FILES_A_TASK = 16


def layout_names() -> list[str]:
    """Returns the names of the known layouts."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def open_layout(name: str) -> Find:
    """Returns the find function of a layout.

    Raises:
        InputError: There is no such layout.
    """
    names = layout_names()
    if name not in names:
        raise InputError(f"--layout {name}: no such layout; choose one of {', '.join(names)}")
    find: Find = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").find
    return find


def group_by_case(files: Sequence[str], case: re.Pattern[str]) -> tuple[dict[str, list[str]], list[Rejection]]:
    """Groups files by case folder, at any depth.

    Hidden files, macOS' doubles, meta data and archives (`PASSED_OVER`) are passed over.

    Args:
        files: Paths relative to the source folder.
        case: What the whole name of a case folder matches; of several within each other the innermost counts.

    Returns:
        Files by the path of their case folder, in their order; and what lies in no case folder.
    """
    cases: dict[str, list[str]] = {}
    rejections = []
    for file in files:
        parts = PurePosixPath(file).parts
        if any(part.startswith(".") or part == "__MACOSX" for part in parts):
            continue
        depth = max((n for n, part in enumerate(parts[:-1], 1) if case.fullmatch(part)), default=0)
        members = cases.setdefault("/".join(parts[:depth]), []) if depth else None
        volume = is_nifti(file)
        if not volume and file.lower().endswith(PASSED_OVER):
            continue
        if members is not None:
            members.append(file)
        else:
            rejections.append(Rejection(file, "lies in no case folder of the set", defect=volume))
    return cases, rejections


def is_nifti(file: str) -> bool:
    """Tells whether a file's name is a NIfTI volume's."""
    return file.lower().endswith(SUFFIXES)


def stem_of(file: str) -> str:
    """Returns a NIfTI file's name without folders and suffix, in lower case and without white space."""
    return re.sub(r"\s|\.nii(\.gz)?$", "", PurePosixPath(file).name.lower())


def try_files(function: Callable[[Path], Any], source: Path, files: Sequence[str], over: Map) -> list[Any]:
    """Applies a function to files, in batches over processes.

    Returns:
        What it gives for each file; None where it fails or takes too much.
    """
    attempt = partial(_try_batch, function, source)
    tasks = [files[start : start + FILES_A_TASK] for start in range(0, len(files), FILES_A_TASK)]
    results: list[Any] = []
    for task, part in zip(tasks, over(attempt, tasks), strict=True):
        if isinstance(part, Lost):  # by one of its files
            part = [None if isinstance(alone, Lost) else alone[0] for alone in over(attempt, [[file] for file in task])]
        results += part
    return results


def _try_batch(function: Callable[[Path], Any], source: Path, files: Sequence[str]) -> list[Any]:
    results = []
    for file in files:
        try:
            results.append(function(source / file))
        except (UnusableError, OSError):
            results.append(None)
    return results
