"""Run folders: finding them, and reading the predictions and the training history in them."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from data_modules.errors import InputError
from data_modules.files import replacing

PREDICTIONS = "predictions.csv"
PREDICTIONS_ALL = "predictions_all.csv"
METRICS = "metrics.csv"
COLUMNS = ("case_id", "patient_id", "split", "label", "probability")
SPLITS = ("train", "val", "test")
EVERY_SPLIT = ("train", "unlabelled", "unused", "val", "test")
_COHORT = re.compile(r"cohort(\d+)")
METHOD_ORDER = ("teacher", "student", "student-mae", "student-paper", "student-kd", "student-scratch")


@dataclass(frozen=True)
class Run:
    """One trained stage: ``.../seed<k>-fold<j>/<method>/`` or ``.../cohort<c>/seed<k>-fold<j>/<method>/``.

    Attributes:
        folder: the stage folder.
        method: its name.
        seed: k, and 0 where the parent folder is named otherwise.
        fold: j, likewise.
        cohort: c, the replicate of the whole study that the run belongs to; 0 without such a folder.
    """

    folder: Path
    method: str
    seed: int
    fold: int
    cohort: int = 0

    @property
    def name(self) -> str:
        """Method, cohort (where the folder has one), seed and fold, for messages."""
        cohort = f"cohort {self.cohort}, " if _COHORT.fullmatch(self.folder.parent.parent.name) else ""
        return f"{self.method}, {cohort}seed {self.seed}, fold {self.fold}"

    @property
    def predictions(self) -> Path:
        """``predictions.csv``, which a stage such as ``mae`` lacks."""
        return self.folder / PREDICTIONS

    @property
    def metrics(self) -> Path:
        """``metrics.csv``, the training history, which may be missing."""
        return self.folder / METRICS

    @cached_property
    def labels_used(self) -> dict[str, str]:
        """``n_labelled`` and ``label_noise`` of the data that it was trained on; empty without a ``config.yaml``.

        Of a student's they are those of the MRI, which its record names before the clips.
        """
        file = self.folder / "config.yaml"
        data = file.read_text(errors="replace").partition("\ndata:\n")[2] if file.is_file() else ""
        found = ((key, re.search(rf"^ +{key}: (.+)$", data, re.MULTILINE)) for key in ("n_labelled", "label_noise"))
        return {key: match[1].strip("'\"") for key, match in found if match}

    @property
    def figures(self) -> list[Path]:
        """The PNG files in ``figures/``, by name."""
        return sorted(file for file in (self.folder / "figures").glob("*.png") if file.is_file())


def find_runs(paths: Iterable[Path | str]) -> list[Run]:
    """Return the runs at or below some folders, each once, in a fixed order: by method, cohort, seed and fold.

    A stage folder is one that holds ``predictions.csv`` or ``metrics.csv``; what lies inside it is not searched. Linked
    folders are not, either: the teacher that a study with fewer labels shares belongs to the study that trained it.
    Methods come in the order of `METHOD_ORDER`, further ones after them by name.

    Args:
        paths: stage folders, or any folders above them.

    Raises:
        InputError: a path is no folder or holds no run, two runs share method, cohort, seed and fold, or some lie below
            ``cohort<c>`` and some do not.
    """
    folders: set[Path] = set()
    for path in map(Path, paths):
        if not path.is_dir():
            raise InputError(f"{path}: no such folder; give a run folder, or a folder above run folders")
        found = {file.parent.resolve() for name in (PREDICTIONS, METRICS) for file in path.rglob(name)}
        if not found:
            raise InputError(f"{path}: no {PREDICTIONS} in it or below; train and predict first, then compare")
        folders |= found
    stages = [folder for folder in folders if not any(parent in folders for parent in folder.parents)]
    replicated = {bool(_cohort(folder)): folder for folder in sorted(stages)}
    if len(replicated) == 2:
        raise InputError(
            f"{replicated[True]} is a run of a replicate (cohort<c>/), {replicated[False]} is not; "
            "compare the one kind or the other"
        )
    runs: dict[tuple[str, int, int, int], Run] = {}
    for folder in sorted(stages):
        run = _run(folder)
        key = (run.method, run.cohort, run.seed, run.fold)
        if key in runs:
            raise InputError(f"{folder} and {runs[key].folder} are both {run.name}; compare one profile at a time")
        runs[key] = run
    return sorted(runs.values(), key=lambda run: (method_rank(run.method), run.cohort, run.seed, run.fold))


def method_rank(method: str) -> tuple[int, str]:
    """Return the sort key of a method's name: the known methods first, then the others by name."""
    known = METHOD_ORDER.index(method) if method in METHOD_ORDER else len(METHOD_ORDER)
    return known, method


def read_predictions(path: Path, splits: Sequence[str] = SPLITS) -> pd.DataFrame:
    """Read and check a ``predictions.csv``, or with `EVERY_SPLIT` a ``predictions_all.csv``.

    Args:
        path: the file.
        splits: what its column split may hold, at least two.

    Returns:
        The columns case_id (str), patient_id (str), split (str), label (float: 0, 1, or nan if none) and probability
        (float in [0, 1]), sorted by case_id.

    Raises:
        InputError: columns are missing, a value is not what its column holds, a case has two rows, or a patient is
            tested on and also in another split.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    except (OSError, UnicodeDecodeError, pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        raise InputError(f"{path}: not a readable CSV file ({str(error).strip()}); run the prediction again") from error
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise InputError(f"{path}: no column {', '.join(missing)}; it needs {', '.join(COLUMNS)}")
    table = table[list(COLUMNS)]
    _refuse(path, table, ~table["split"].isin(splits), "split", f"must be {', '.join(splits[:-1])} or {splits[-1]}")
    _refuse(path, table, table["case_id"] == "", "case_id", "must not be empty")
    _refuse(path, table, table["patient_id"] == "", "patient_id", "must not be empty")
    _refuse(path, table, table["case_id"].duplicated(), "case_id", "is in two rows; keep one row a case")
    label = pd.to_numeric(table["label"], errors="coerce")
    good_label = label.isin([0, 1]) | (table["label"] == "")
    _refuse(path, table, ~good_label, "label", "must be 1 (obliterated), 0 (free) or empty")
    probability = pd.to_numeric(table["probability"], errors="coerce")
    good_probability = probability.between(0, 1)
    _refuse(path, table, ~good_probability, "probability", "must be a number in [0, 1]")
    tested = table["split"] == "test"
    leaked = tested & table["patient_id"].isin(table.loc[~tested, "patient_id"])
    _refuse(path, table, leaked, "patient_id", "is in test and in another split; split by patient")
    table = table.assign(label=label.astype(float), probability=probability.astype(float))
    return table.sort_values("case_id", ignore_index=True)


def write_predictions(table: pd.DataFrame, folder: Path) -> Path:
    """Write a ``predictions.csv`` in one step: a reader sees the old file or the new one, never a part.

    Args:
        table: as `read_predictions` returns it.
        folder: the stage folder, made where it is missing.

    Returns:
        The written file.

    Raises:
        InputError: The folder is that of a training, whose own predictions these are not, or cannot be made or
            written to.
    """
    if (folder / "checkpoints").is_dir():
        raise InputError(f"{folder}: holds a trained run, whose predictions stay its own; give another --out folder")
    file = folder / PREDICTIONS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary:
            table.assign(label=table["label"].astype("Int64")).to_csv(temporary, index=False)
    except OSError as error:
        raise InputError(f"{folder}: cannot write there ({error.strerror}); give another --out folder") from error
    return file


def refuse_own_folder(out: Path, runs: Iterable[Path]) -> None:
    """Refuses to write a new run over one that it is made of.

    Raises:
        InputError: `out` is one of the runs.
    """
    if out.resolve() in {run.resolve() for run in runs}:
        raise InputError(f"--out {out} is a run that it is made of, and would be lost: give another folder")


def read_history(path: Path, metric: str) -> pd.Series:
    """Return one metric of a Lightning ``metrics.csv`` by epoch.

    Args:
        path: the file; its rows are sparse, a row a logging event.
        metric: its column, such as ``val/loss``. Several values of an epoch (logged by step) are averaged.

    Returns:
        Float, indexed by epoch (int); empty where the file, the column or its values are missing.
    """
    empty = pd.Series(dtype=np.float64)
    try:
        table = pd.read_csv(path)
    except (OSError, pd.errors.EmptyDataError):
        return empty
    except (UnicodeDecodeError, pd.errors.ParserError) as error:
        raise InputError(f"{path}: not a readable CSV file ({error}); move it away to go on") from error
    if metric not in table.columns or "epoch" not in table.columns:
        return empty
    rows = table[["epoch", metric]].apply(pd.to_numeric, errors="coerce").dropna()
    return rows.astype({"epoch": int}).groupby("epoch")[metric].mean()


def _run(folder: Path) -> Run:
    name = re.fullmatch(r"seed(\d+)-fold(\d+)", folder.parent.name)
    seed, fold = (int(name[1]), int(name[2])) if name else (0, 0)
    cohort = _cohort(folder)
    return Run(folder, folder.name, seed, fold, int(cohort[1]) if cohort else 0)


def _cohort(folder: Path) -> re.Match[str] | None:
    return _COHORT.fullmatch(folder.parent.parent.name)


def _refuse(path: Path, table: pd.DataFrame, bad: pd.Series, column: str, remedy: str) -> None:
    if bad.any():
        row = int(np.argmax(bad.to_numpy()))
        # + 2: spreadsheets and editors count the header as line 1.
        raise InputError(f"{path}, line {row + 2}: {column} {table[column].iloc[row]!r} {remedy}")
