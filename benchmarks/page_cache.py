"""The page cache and a process's memory, as Linux tells of them."""

import ctypes
import mmap
import os
from pathlib import Path

import numpy as np

LIBC = ctypes.CDLL(None, use_errno=True)


def files_of(path: Path) -> list[Path]:
    """Returns a file itself, or all files of a folder."""
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


def drop(path: Path) -> float:
    """Puts a file, or all files of a folder, out of the page cache.

    Returns:
        The largest share of a file's pages that is cached afterwards; what a process has mapped stays.
    """
    files = files_of(path)
    for file in files:
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)  # what is not yet written cannot be dropped
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)
    return max(map(share_cached, files))


def share_cached(file: Path) -> float:
    """Returns the share of a file's pages that is in the page cache."""
    if not file.stat().st_size:
        return 0.0
    pages = np.memmap(file, np.uint8, "r")  # mapping reads nothing
    flags = np.zeros(-(-pages.size // mmap.PAGESIZE), np.uint8)
    address, size = ctypes.c_void_p(pages.ctypes.data), ctypes.c_size_t(pages.size)
    if LIBC.mincore(address, size, ctypes.c_void_p(flags.ctypes.data)):
        raise OSError(ctypes.get_errno(), f"mincore of {file}")
    return float((flags & 1).mean())


def own_memory() -> tuple[float, float]:
    """Returns this process's memory in MB: what it shares with nobody, and that plus its part of what it shares."""
    fields = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, value, _ = line.split()
        fields[name] = int(value) * 1024 / 1e6
    return fields["Private_Clean:"] + fields["Private_Dirty:"], fields["Pss:"]


def free_memory() -> None:
    """Gives back what the allocator keeps of freed memory, where it is glibc's."""
    if hasattr(LIBC, "malloc_trim"):
        LIBC.malloc_trim(0)
