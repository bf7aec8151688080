"""Time and peak memory of one training step, each in a process of its own."""

import ctypes
import gc
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch._dynamo  # which the first optimiser would import, a second in every process
from growth_stages import SMALLEST, Point, make_network

MIB = 2**20
TIMED_SECONDS, MOST_STEPS = 0.2, 5
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)


class Cost(NamedTuple):
    """What a step costs.

    Attributes:
        seconds: Median time of a step.
        memory: Peak memory in bytes above what stays between steps.
        parameters: Number of trainable parameters.
    """

    seconds: float
    memory: int
    parameters: int


def in_child(point: Point, what: Literal["time", "memory"], device: str, bf16: bool) -> Cost:
    """Measures a point in a fresh process, a fork of this one, which has imported torch but used nothing of it.

    Raises:
        SystemExit: The process was killed, most likely for want of memory.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        try:
            return pool.submit(_measure, point, what, device, bf16).result()
        except BrokenProcessPool as error:
            raise SystemExit(f"error: the process of {point} was killed: is there memory enough?") from error


def _measure(point: Point, what: Literal["time", "memory"], device: str, bf16: bool) -> Cost:
    torch.manual_seed(0)
    if what == "memory":
        # Every block goes back to the system when it is freed, so that resident memory is what tensors take and not
        # what the allocator keeps. This costs time.
        libc = ctypes.CDLL("libc.so.6")
        if not (libc.mallopt(M_MMAP_THRESHOLD, 2**16) and libc.mallopt(M_TRIM_THRESHOLD, 2**16)):
            raise OSError("mallopt was refused")
    # Libraries load their kernels and start their threads in a step of the smallest size.
    _prepare(replace(point, grid=SMALLEST[point.stage], batch=2), device, bf16)[0]()
    step, parameters = _prepare(point, device, bf16)
    gc.collect()
    base = _forget_peak(device)
    step()
    times: list[float] = []
    while what == "time" and len(times) < MOST_STEPS and sum(times) < TIMED_SECONDS:
        times.append(_seconds(step, device))
    return Cost(statistics.median(times or [0.0]), _peak(device) - base, parameters)


def _prepare(point: Point, device: str, bf16: bool) -> tuple[Callable[[], None], int]:
    """Returns a training step and the number of parameters; gradients and the optimiser's moments are in place."""
    network, loss = make_network(point)
    network.to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()

    def step() -> None:
        images = torch.rand(point.batch, 1, *point.shape, device=device)
        optimizer.zero_grad(set_to_none=False)
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            value = loss(images)
        value.backward()
        optimizer.step()

    return step, sum(parameter.numel() for parameter in network.parameters())


def _seconds(step: Callable[[], None], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _forget_peak(device: str) -> int:
    """Sets the peak back to what is in use, and returns that, in bytes."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak of resident memory, proc(5)
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _peak(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
