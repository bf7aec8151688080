"""What happens to memory that a step on a CPU frees and the next step takes again."""

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGEST = 2**31 - 1


def keep_freed_memory() -> None:
    """Lets the C library keep blocks of up to 2 GiB that are freed, instead of giving them back to the system.

    glibc maps large blocks anew every time, and their first use is a page fault each 4 KiB, which activations of
    several MiB pay for in every step. In exchange the process holds its peak of memory until it ends, and some more:
    glibc cannot always fill the gap of an aligned block with its like. A C library without `mallopt`, such as musl or
    that of macOS, stays as it is.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # TypeError: Windows has no library without a name
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, LARGEST)
        library.mallopt(M_TRIM_THRESHOLD, LARGEST)
