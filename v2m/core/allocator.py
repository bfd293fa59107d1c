"""The C library's allocator, set so that memory of large arrays is used again."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
MAX_REUSED_BYTES = 1 << 25  # of one array; the largest that glibc allows
MAX_FREE_BYTES = 1 << 26  # kept at the end of the heap


def reuse_freed_memory() -> None:
    """Keep the memory of freed arrays instead of returning it to the system, under glibc up to 64 MiB.

    An array of more than 128 KiB is otherwise mapped anew each time, and its pages are zeroed one by one.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MAX_REUSED_BYTES)
        mallopt(_M_TRIM_THRESHOLD, MAX_FREE_BYTES)
