"""What is refused of a stage's options before Lightning reads them."""

import difflib
import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from data_modules.errors import InputError, UsageError


def check_record(options: Any) -> None:
    """Refuses to score another cohort or fold into a run's own folder.

    Args:
        options: What the command asks for, with the attributes ``run``, ``cohort`` and ``fold``.

    Raises:
        InputError: The folder holds the record of a run on another.
    """
    file = Path(options.run) / "config.yaml"
    record = yaml.safe_load(file.read_text()) if file.is_file() else None
    if not isinstance(record, dict) or not {"cohort", "fold"} <= record.keys():
        return
    cohorts = [Path(str(cohort)).resolve() for cohort in (record["cohort"], options.cohort)]
    if record["fold"] != options.fold or (cohorts[0] != cohorts[1] and cohorts[0].exists()):
        raise InputError(
            f"--run {options.run}: holds a run on {record['cohort']}, fold {record['fold']}, whose predictions would "
            f"be lost; give another --run for those on {options.cohort}, fold {options.fold}"
        )


def check_run_folder(words: Sequence[str]) -> None:
    """Refuses a ``--run`` that cannot be, which a logger would tell of in many lines.

    Args:
        words: Of the command, options and their values apart.

    Raises:
        InputError: A file is in the way, or the folder above it belongs to somebody else.
    """
    for option, value in itertools.pairwise(words):
        if option == "--run":
            run = Path(value).absolute()
            there = next(folder for folder in (run, *run.parents) if folder.exists())
            if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
                reason = "it cannot be written to" if there.is_dir() else "it is a file"
                raise InputError(f"--run {value}: {there}: {reason}; give another --run")


def check_profile(words: Sequence[str]) -> None:
    """Refuses a ``--profile.<key>`` that nothing would come of.

    Args:
        words: Likewise.

    Raises:
        UsageError: No configuration has such a key, or one is a run's own, where its value stands already.
    """
    named = [match[1] for word in words if (match := re.match(r"--profile\.(\w+)", word))]
    files = [Path(value) for word, value in itertools.pairwise(words) if word in ("-c", "--config")]
    known: set[str] = set()
    for file in files if named else ():
        try:
            content = yaml.safe_load(file.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            return  # the parser says what is wrong with it
        if isinstance(content, dict):
            if "run" in content:
                raise UsageError(
                    f"--profile.{named[0]}: {file} is a run's record, in which the profile's values stand where "
                    "they are used; set those, such as trainer.max_epochs, or give the files of profile and stage"
                )
            known |= set(content.get("profile") or {})
    for key in named:
        if known and key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            remedy = f"did you mean {close[0]}?" if close else f"it has {', '.join(sorted(known))}"
            raise UsageError(f"--profile.{key}: the profile has no such key; {remedy}")
