"""The work shared over a Dask cluster."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from data_modules.errors import InputError
from data_modules.ingest.workers import Limits, Lost, Map, crashed, too_large, too_slow

CONNECT_SECONDS = 15
POLL_SECONDS = 1.0


@contextmanager
def open_cluster(address: str, folders: Iterable[Path], limits: Limits) -> Iterator[Map]:
    """Yields a map over the workers of a Dask scheduler, which must see the given folders under the same paths.

    Workers may join while it runs. A task whose worker dies (the worker's own memory limit, a decoder's crash) or that
    takes longer than the limit is lost, and the others go on.

    Args:
        address: Of the scheduler, e.g. ``tcp://10.0.0.1:8786``, or its scheduler file (.json).
        folders: What the workers must see.
        limits: The time; memory is limited by ``dask worker --memory-limit``.

    Raises:
        InputError: dask.distributed is not installed, nothing answers at the address, there are no workers, or one
            does not see a folder or lacks the package.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError(
            "--scheduler needs dask.distributed; install it with: pip install --editable '.[dask]'"
        ) from error
    try:
        file = {"address": address}
        if address.endswith(".json"):
            file = {"scheduler_file": str(Path(address).resolve(strict=True))}  # a missing one would be waited for
        client = Client(**file, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"--scheduler {address}: no Dask scheduler answers there; start one with `dask scheduler`"
        ) from error
    with client:
        _check_workers(client, address, [str(folder) for folder in folders])
        yield lambda function, items: _results(client, function, items, limits)


def _check_workers(client: Any, address: str, folders: list[str]) -> None:
    try:
        client.wait_for_workers(1, timeout=CONNECT_SECONDS)
    except TimeoutError as error:
        raise InputError(
            f"--scheduler {address}: it has no workers; start some with `dask worker {address}`"
        ) from error
    try:
        seen = client.run(_missing, folders)
    except ImportError as error:
        raise InputError(f"--scheduler {address}: its workers lack poddistill; install it there too") from error
    for worker, missing in seen.items():
        if missing:
            raise InputError(f"--scheduler {address}: its worker {worker} does not see {missing[0]}; mount it there")


def _missing(folders: list[str]) -> list[str]:
    return [folder for folder in folders if not os.path.isdir(folder)]  # noqa: PTH112 - runs on any Python there


def _results(client: Any, function: Callable[[Any], Any], items: Iterable[Any], limits: Limits) -> Iterator[Any]:
    """The results in the items' order; no thread has a second task waiting, so that its time is its own."""
    waiting = deque(enumerate(items))
    running: dict[Any, tuple[int, float]] = {}
    done: dict[int, Any] = {}
    following = 0
    try:
        while waiting or running:
            room = max(1, sum(client.nthreads().values())) - len(running)
            for _ in range(min(room, len(waiting))):
                index, item = waiting.popleft()
                future = client.submit(function, item, pure=False)
                running[future] = index, time.monotonic() + limits.seconds
            _wait(list(running))
            for future in [future for future in running if future.done()]:
                index, _ = running.pop(future)
                done[index] = _outcome(future, limits)
            _give_up(client, running, done, limits)
            while following in done:
                yield done.pop(following)
                following += 1
    finally:
        client.cancel(list(running))


def _wait(futures: list[Any]) -> None:
    from distributed import wait

    with suppress(TimeoutError):  # then it is time to look at the deadlines
        wait(futures, timeout=POLL_SECONDS, return_when="FIRST_COMPLETED")


def _outcome(future: Any, limits: Limits) -> Any:
    from distributed import KilledWorker

    try:
        return future.result()
    except MemoryError:
        return too_large(limits)
    except KilledWorker:
        return crashed()


def _give_up(client: Any, running: dict[Any, tuple[int, float]], done: dict[int, Lost], limits: Limits) -> None:
    """Loses what is late; the worker at it is restarted, since a thread cannot be stopped."""
    late = [future for future, (_, deadline) in running.items() if time.monotonic() > deadline]
    if not late:
        return
    at_work = client.processing()
    stuck = [worker for worker, keys in at_work.items() if any(future.key in keys for future in late)]
    client.cancel(late, force=True)
    for future in late:
        index, _ = running.pop(future)
        done[index] = too_slow(limits)
    try:
        client.restart_workers(stuck, raise_for_error=False)
    except ValueError as error:
        raise InputError(
            f"--scheduler: worker {stuck[0]} is stuck in a file and has no nanny to restart it; start it with --nanny"
        ) from error
