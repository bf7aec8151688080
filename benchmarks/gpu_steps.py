"""Time, utilisation and memory of a step on a batch that lies on the device, and what its time is spent on."""

import gc
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle

import torch
from gpu_training import Batch, Bench, Training
from timing import in_turns, ratio, table
from torch.profiler import ProfilerActivity, profile

from poddistill.training.utilisation import ModelFLOPs, peak

WARM_UP = 3
SHOWN = 12  # kernels
# By which loss and norm of gradients may differ between two ways to compute the same, as a part of their size.
# In float32 other masks would be seen; in bfloat16 only gross faults are, and the tests of `Compilation` see the rest.
TOLERANCE = {"32-true": (1e-4, 1e-2), "bf16-mixed": (1e-2, 5e-2)}


def compare(bench: Bench, stage: str, batch_sizes: Sequence[int], steps: int, rounds: int) -> str:
    """Times a stage eager, compiled, and compiled with checkpointing at several batch sizes, and returns a table."""
    rows, rate = [], peak(bench.device, bench.precision)
    for size in batch_sizes:
        rows += _rows(bench, stage, size, steps, rounds, rate)
        torch.compiler.reset()  # else the next size would be compiled for sizes of any kind
    columns = ["batch", "ms a step", "samples/s", "TFLOP/s", "MFU", "times faster than eager (range)", "peak GiB"]
    return f"An MFU of 100% is {rate:.4g} TFLOP/s.\n\n{table(columns, rows)}"


def _rows(bench: Bench, stage: str, size: int, steps: int, rounds: int, rate: float) -> list[list[str]]:
    ways = ["eager", "compiled", *(["compiled, checkpointing"] if stage != "teacher" else [])]
    started = {}
    for way in ways:
        try:
            started[way] = _start(bench, stage, way, bench.batch(stage, size))
        except torch.OutOfMemoryError:  # which another way may not run into
            print(f"{stage}, {size}, {way}: out of memory", file=sys.stderr, flush=True)
    if not started:
        return [[f"{size}, {way}", "out of memory", *[""] * 5] for way in ways]
    first, *others = started
    for way in others:
        check(started[first][1], started[way][1], f"{first} and {way}", TOLERANCE[bench.precision])
    flops, batch = _flops(bench, stage, size), bench.batch(stage, size)
    sides: dict[str, Callable[[], float]] = {way: partial(one[0].seconds, batch, steps) for way, one in started.items()}
    times = in_turns(sides, rounds)
    rows = []
    for way in ways:
        if way not in started:
            rows.append([f"{size}, {way}", "out of memory", *[""] * 5])
            continue
        seconds = statistics.median(times[way])
        row = [f"{size}, {way}", f"{1e3 * seconds:.1f}", f"{size / seconds:.0f}", f"{flops / seconds / 1e12:.2f}"]
        faster = "1" if way == "eager" else ratio(times["eager"], times[way]) if "eager" in times else ""
        rows.append([*row, f"{flops / seconds / 1e12 / rate:.1%}", faster, started[way][2]])
    return rows


def _flops(bench: Bench, stage: str, size: int) -> float:
    """Returns the model's FLOPs of a step, which grow with the batch, and which a compiled network hides."""
    few = 2
    training = Training(bench, stage)
    with ModelFLOPs() as counter:
        training.step(bench.batch(stage, few))
    return counter.get_total_flops() * size / few


def _start(bench: Bench, stage: str, way: str, batch: Batch) -> tuple[Training, list[float], str]:
    """Returns a warm training; loss and norm of gradients of its first two steps; and its peak memory in GiB.

    The memory is that of this training alone: parameters, gradients, moments, activations and the batch.
    """
    gc.collect()
    cuda = bench.device.type == "cuda"
    others = torch.cuda.memory_allocated(bench.device) if cuda else 0
    training = Training(bench, stage, checkpointing="checkpointing" in way)
    if way != "eager":
        training.compile()
    answers: list[float] = []
    for seed in (1, 2):
        torch.manual_seed(seed)  # of the masks
        answers += training.step(batch).tolist()
    if not cuda:
        training.seconds(batch, WARM_UP)
        return training, answers, "-"
    torch.cuda.reset_peak_memory_stats(bench.device)
    training.seconds(batch, WARM_UP)
    own = torch.cuda.max_memory_allocated(bench.device) - others + sum(value.nbytes for value in batch.values())
    return training, answers, f"{own / 2**30:.1f}"


def check(eager: Sequence[float], other: Sequence[float], ways: str, tolerance: tuple[float, float]) -> None:
    """Compares loss, norm, loss, norm after equal steps from equal weights, under equal masks.

    Raises:
        SystemExit: They differ by more than the tolerance, or are no numbers.
    """
    pairs = zip(eager, other, cycle(tolerance), strict=False)
    if not all(abs(b - a) <= allowed * abs(a) for a, b, allowed in pairs):
        raise SystemExit(f"error: loss and norm of gradients are {eager} and {other}, {ways}: not the same work")


def costliest(bench: Bench, stage: str, size: int, steps: int) -> str:
    """Profiles a compiled stage and returns a table of the kernels (on a CPU: operators) that take most of its time."""
    training, batch = Training(bench, stage).compile(), bench.batch(stage, size)
    training.seconds(batch, WARM_UP)
    seconds = training.seconds(batch, steps)
    cuda = bench.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as profiler:
        training.seconds(batch, steps)
    # An operator's time on the device is that of its kernels, which are events of their own; so are named regions.
    events = [event for event in profiler.key_averages() if (event.device_type.name == "CUDA") == cuda]
    cost = {
        event.key: (event.self_device_time_total if cuda else event.self_cpu_time_total, event.count)
        for event in events
        if not (cuda and event.is_user_annotation)
    }
    total = sum(time for time, _ in cost.values())
    rows = [
        [f"`{key[:70]}`", f"{count / steps:.0f}", f"{time / steps / 1e3:.2f}", f"{time / total:.1%}"]
        for key, (time, count) in sorted(cost.items(), key=lambda item: -item[1][0])[:SHOWN]
    ]
    kind = "kernel" if cuda else "operator"
    rows.append([f"all {len(cost)}", "", f"{total / steps / 1e3:.2f}", "100.0%"])
    tab = table([kind, "calls a step", "ms a step", "part"], rows)
    return f"Costliest of a compiled step, which takes {1e3 * seconds:.1f} ms unprofiled:\n\n{tab}"
