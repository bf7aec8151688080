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
from timing import in_turns, table

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
        first = {name: [result[0] for result in side] for name, side in results.items()}
        later = {name: statistics.median(result[1] for result in side) for name, side in results.items()}
        for name in sides:
            seconds = statistics.median(first[name])
            wait, gain = seconds - statistics.median(first["eager"]), later["eager"] - later[name]
            ahead = "" if name == "eager" else f"{wait / gain:,.0f}" if gain > 0 else "never"
            told = f"{seconds:.2f} ({min(first[name]):.2f} to {max(first[name]):.2f})"
            rows.append([f"{stage}, {name}", told, f"{1e3 * later[name]:.1f}", ahead])
    return table(["training", "first step, s (range)", "ms a later step", "steps until ahead of eager"], rows)


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
