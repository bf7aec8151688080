"""Memory of a process and its workers that the kernel cannot drop, as Linux tells of it."""

import os
from pathlib import Path


def held() -> float:
    """Returns the memory of this process and its children in MB, without files that are mapped or cached.

    That is what they allocated, each page once however many share it, and the shared memory in which batches travel,
    also where a batch waits that nobody has mapped yet.
    """
    own = os.getpid()
    children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
    allocated, shared = 0, {}
    for process in (Path(f"/proc/{number}") for number in (own, *children)):
        for line in (process / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss_Anon:"):
                allocated += 1024 * int(line.split()[1])
        for opened in (process / "fd").iterdir():
            try:
                if str(opened.readlink()).startswith("/dev/shm/"):
                    status = opened.stat()
                    shared[status.st_ino] = 512 * status.st_blocks
            except FileNotFoundError:  # closed by now
                continue
        for line in (process / "maps").read_text().splitlines():
            fields = line.split(maxsplit=5)
            if fields[-1].startswith("/dev/shm/"):
                start, end = (int(address, 16) for address in fields[0].split("-"))
                shared.setdefault(int(fields[4]), end - start)
    return (allocated + sum(shared.values())) / 1e6
