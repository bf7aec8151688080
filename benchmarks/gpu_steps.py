"""Time, utilisation and memory of a step on a batch that lies on the device, and what its time is spent on."""

import gc
import statistics
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
        try:
            rows += _rows(bench, stage, size, steps, rounds, rate)
        except torch.OutOfMemoryError:
            rows.append([f"{size}, out of memory", *[""] * 6])
        torch.compiler.reset()  # else the next size would be compiled for sizes of any kind
    columns = ["batch", "ms a step", "samples/s", "TFLOP/s", "MFU", "times faster than eager (range)", "peak GiB"]
    return f"An MFU of 100% is {rate:.4g} TFLOP/s.\n\n{table(columns, rows)}"


def _rows(bench: Bench, stage: str, size: int, steps: int, rounds: int, rate: float) -> list[list[str]]:
    batch = bench.batch(stage, size)
    ways = ["eager", "compiled", *(["compiled, checkpointing"] if stage != "teacher" else [])]
    started = {way: _start(bench, stage, way, batch) for way in ways}
    for way in ways[1:]:
        check(started["eager"][1], started[way][1], way, TOLERANCE[bench.precision])
    with ModelFLOPs() as counter:
        started["eager"][0].step(batch)
    flops = counter.get_total_flops()
    sides: dict[str, Callable[[], float]] = {way: partial(started[way][0].seconds, batch, steps) for way in ways}
    times = in_turns(sides, rounds)
    rows = []
    for way in ways:
        seconds = statistics.median(times[way])
        row = [f"{size}, {way}", f"{1e3 * seconds:.1f}", f"{size / seconds:.0f}", f"{flops / seconds / 1e12:.2f}"]
        row += [f"{flops / seconds / 1e12 / rate:.1%}", "1" if way == "eager" else ratio(times["eager"], times[way])]
        rows.append([*row, started[way][2]])
    return rows


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


def check(eager: Sequence[float], other: Sequence[float], way: str, tolerance: tuple[float, float]) -> None:
    """Compares loss, norm, loss, norm after equal steps from equal weights, under equal masks.

    Raises:
        SystemExit: They differ by more than the tolerance, or are no numbers.
    """
    pairs = zip(eager, other, cycle(tolerance), strict=False)
    if not all(abs(b - a) <= allowed * abs(a) for a, b, allowed in pairs):
        raise SystemExit(f"error: loss and norm of gradients are {eager} eager and {other} {way}: not the same work")


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
