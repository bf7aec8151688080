"""What happens to memory that a step on a CPU frees and the next step takes again."""

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGEST_BLOCK, MOST_AT_THE_END = 2**28, 2**31 - 1


def keep_freed_memory() -> None:
    """Lets the C library keep blocks of up to 256 MiB that are freed, instead of giving them back to the system.

    By itself glibc keeps blocks of up to 32 MiB, and of those no more than 64 MiB at the end of its memory. The rest is
    mapped anew in every step, and its first use is a page fault each 4 KiB. In exchange a process holds the peak of its
    activations until it ends, and some more for gaps that nothing fits into. A C library without `mallopt`, such as
    musl or that of macOS, stays as it is.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # TypeError: Windows has no library without a name
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK)
        library.mallopt(M_TRIM_THRESHOLD, MOST_AT_THE_END)
