"""Processes that share the work."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

import cv2

from data_modules.errors import InputError

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""Applies a function to each item and gives the results in the items' order."""


@contextmanager
def open_workers(n: int, chunk: int = 4) -> Iterator[Map]:
    """Yields a map over n processes, or Python's own if n is 1; processes are spawned, so that no thread is forked.

    Raises:
        InputError: A process was killed, mostly for want of memory.
    """
    if n == 1:
        yield map
        return
    executor = ProcessPoolExecutor(n, multiprocessing.get_context("spawn"), initializer=_prepare)
    try:
        yield lambda function, items: executor.map(function, list(items), chunksize=chunk)
    except BrokenProcessPool as error:
        raise InputError(
            "a worker process was killed, probably out of memory; run it again with --workers 1"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def count_workers(wanted: int, n_items: int, items_a_worker: int) -> int:
    """Returns how many processes to use: those wanted, or one a core for 0, but no more than there is work for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(wanted or cores, n_items // items_a_worker))


def _prepare() -> None:
    """Gives a process one thread, leaves Ctrl-C to its parent, and ends it when the parent is gone."""
    os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, which is later
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
