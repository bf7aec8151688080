"""The server that an ingest's processes are forked from. This module is light, so that it can be started first."""

import multiprocessing
import os
from functools import cache
from multiprocessing.context import BaseContext


@cache
def start_fork_server(volumes: bool) -> BaseContext:
    """Starts the server, which imports by itself what its processes need, and returns at once.

    One that runs already is kept: what it lacks, each of its processes imports.

    Args:
        volumes: Whether they handle volumes, which takes MONAI, the slowest to import.

    Returns:
        The context whose processes are forked from it. It runs no thread, and ends with this process.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["data_modules.ingest.cases", *(["data_modules.ingest.volume"] if volumes else [])])
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
