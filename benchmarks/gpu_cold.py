"""How long the first step of a training takes, eager and compiled, each in a process of its own."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from gpu_training import Bench, Training
from timing import in_turns, ratio, table

WARM_UP = 5


def compare(bench: Bench, folder: Path, sizes: dict[str, int], steps: int, rounds: int) -> str:
    """Times the first step and later ones of stages at their batch sizes and returns a table."""
    rows = []
    for stage, size in sizes.items():
        run = partial(_alone, bench, stage, size, steps, folder)
        sides: dict[str, Callable[[], tuple[float, float]]] = {
            "eager": partial(run, False, False),
            "compiled, no kernels kept": partial(run, True, False),
            "compiled, kernels kept": partial(run, True, True),
        }
        results = in_turns(sides, rounds)  # the warm-up leaves the kernels
        for name, side in results.items():
            first = [result[0] for result in side]
            told = f"{statistics.median(first):.2f} ({min(first):.2f} to {max(first):.2f})"
            later = [result[1] for result in side]
            faster = ratio([result[1] for result in results["eager"]], later)
            rows.append([f"{stage}, {name}", told, f"{1e3 * statistics.median(later):.1f}", faster])
    return table(["training", "first step, s (range)", "ms a later step", "times faster than eager (range)"], rows)


def _alone(
    bench: Bench, stage: str, size: int, steps: int, folder: Path, compiled: bool, keep: bool
) -> tuple[float, float]:
    """Returns the seconds of the first step and of a later one, of a training in a new process."""
    with (
        tempfile.TemporaryDirectory(dir=folder) as empty,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process,
    ):
        kernels = folder / "kept" if keep else Path(empty)
        return process.submit(_train, bench, stage, size, steps, compiled, kernels).result()


def _train(bench: Bench, stage: str, size: int, steps: int, compiled: bool, kernels: Path) -> tuple[float, float]:
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(kernels)
    os.environ["TRITON_CACHE_DIR"] = str(kernels / "triton")  # inherited, it would be that of the parts before
    training, batch = Training(bench, stage), bench.batch(stage, size)
    bench.synchronise()
    start = time.perf_counter()
    if compiled:
        training.compile()  # imports the compiler, too
    training.step(batch)
    bench.synchronise()
    first = time.perf_counter() - start
    training.seconds(batch, WARM_UP)
    return first, training.seconds(batch, steps)
