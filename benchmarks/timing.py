"""What the benchmarks share: rounds in shuffled order, ratios with their range, Markdown tables, the machine's name."""

import argparse
import importlib
import importlib.metadata
import os
import platform
import random
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TypeVar

Result = TypeVar("Result")


def options(description: str, rounds: int = 7) -> argparse.ArgumentParser:
    """Returns the parser of a benchmark's options, with ``--rounds``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"timed rounds after a warm-up (default: {rounds})")
    return parser


def on_cpu_only() -> None:
    """Hides GPUs from this process and those that it starts, for both sides of a benchmark whose figures are a CPU's.

    To be called before anything asks for a GPU, and so before a precision is chosen by the hardware at hand.
    """
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def require(module: str) -> ModuleType:
    """Imports a module that only benchmarks need.

    Raises:
        SystemExit: It is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise SystemExit(
            f"error: {sys.argv[0]} needs {module}: .venv/bin/python -m pip install --editable '.[bench]'"
        ) from error


def in_turns(
    sides: Mapping[str, Callable[[], Result]], rounds: int, warm_up: bool = True, seed: int = 0
) -> dict[str, list[Result]]:
    """Runs every side once a round, in an order that is shuffled anew each round, so that drift meets all alike.

    Args:
        sides: What to run, by name; each returns what it measured.
        rounds: Timed rounds.
        warm_up: Run all sides once before, and drop what they return.
        seed: Of the order.

    Returns:
        By name, in the order of ``sides``: a result a round.
    """
    results: dict[str, list[Result]] = {name: [] for name in sides}
    order, shuffle = list(sides), random.Random(seed).shuffle
    for number in range(0 if warm_up else 1, rounds + 1):
        print(f"round {number} of {rounds}" if number else "warm-up", file=sys.stderr, flush=True)
        shuffle(order)
        for name in order:
            result = sides[name]()
            if number:
                results[name].append(result)
    return results


def ratio(numerators: Sequence[float], denominators: Sequence[float], digits: int = 2) -> str:
    """Returns the median of the rounds' ratios, with the smallest and the greatest where there are several."""
    ratios = [above / below for above, below in zip(numerators, denominators, strict=True)]
    spread = f" ({min(ratios):.{digits}f} to {max(ratios):.{digits}f})" if len(ratios) > 1 else ""
    return f"{statistics.median(ratios):.{digits}f}{spread}"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Returns a Markdown table, its columns aligned; all but the first hold figures and are set to the right."""
    cells = [list(map(str, row)) for row in (columns, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    cells.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    lines = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine(*packages: str) -> str:
    """Returns one line: the processor, its cores, the memory, Python and the versions of packages."""
    information = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.partition(":")[2].strip() for line in information.splitlines() if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {cores} cores, {memory:.0f} GiB; Python {platform.python_version()}" + (
        versions and f", {versions}"
    )
