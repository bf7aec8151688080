"""Processes that share the work, each file within a limit of time and memory."""

import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import wait
from typing import Any

import cv2
import SimpleITK as sitk  # noqa: N813
from pebble import ProcessExpired, ProcessPool

PRELOADED = ["data_modules.ingest.cases", "data_modules.ingest.volume"]

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""Applies a function to each item and gives the results in the items' order, `Lost` for an item that broke a limit."""


@dataclass(frozen=True)
class Limits:
    """What a file may take.

    Attributes:
        seconds: Of wall-clock time.
        gib: Of memory, in GiB, of the whole process that reads it.
    """

    seconds: float = 300.0
    gib: float = 8.0


@dataclass(frozen=True)
class Lost:
    """Stands where a result would: the item took too much, or crashed the process.

    Attributes:
        reason: Why, in our words.
    """

    reason: str


@contextmanager
def open_workers(n: int, limits: Limits) -> Iterator[Map]:
    """Yields a map over n processes of this machine.

    The processes are forked from a server that has imported what they need, and that runs no thread. One that breaks a
    limit, or that a decoder crashes, is replaced, and only the item it was at is lost.
    """
    pool = ProcessPool(n, initializer=_prepare, initargs=(limits,), context=_fork_server())
    try:
        yield lambda function, items: _results(pool, function, items, limits)
        pool.close()
    finally:
        pool.stop()  # at once where it was left early
        pool.join()


def count_workers(wanted: int, n_items: int, items_a_worker: int) -> int:
    """Returns how many processes to use: those wanted, or one a core for 0, but no more than there is work for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(wanted or cores, n_items // items_a_worker))


def too_slow(limits: Limits) -> Lost:
    """What stands for an item that took too long."""
    return Lost(f"reading it takes longer than {limits.seconds:g} s, see --time_limit")


def too_large(limits: Limits) -> Lost:
    """What stands for an item that took too much memory."""
    return Lost(f"reading it takes more than {limits.gib:g} GiB of memory, see --memory_limit")


def crashed() -> Lost:
    """What stands for an item that ended the process."""
    return Lost("reading it crashes the decoder")


def _results(pool: ProcessPool, function: Callable[[Any], Any], items: Iterable[Any], limits: Limits) -> Iterator[Any]:
    futures = [pool.schedule(function, args=(item,), timeout=limits.seconds) for item in items]
    for future in futures:
        try:
            yield future.result()
        except TimeoutError:
            yield too_slow(limits)
        except MemoryError:
            yield too_large(limits)
        except ProcessExpired:
            yield crashed()


@cache
def _fork_server() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, which the server does once for all
    try:
        multiprocessing.forkserver.ensure_running()  # type: ignore[attr-defined]
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
    return context


def _prepare(limits: Limits) -> None:
    """Limits a process' memory and threads, leaves Ctrl-C to its parent, and ends it when the parent is gone."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = int(limits.gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    cv2.setNumThreads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
