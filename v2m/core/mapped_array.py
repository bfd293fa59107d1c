"""Long arrays in temporary files that are mapped: pages that have been worked on leave memory.

The music of an hour takes 1.4 GB, and a job holds up to ten such arrays: mix, stems, the clip's sound, decoded audio.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

MIN_BYTES = 1 << 26  # of a mapped array: three minutes of stereo at 48 kHz
CHUNK = 1 << 20  # samples worked on at a time

_mappings: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


def zeros(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return zeros, in a temporary file where they are many.

    In memory where the disk has no room for them, or the system cannot release pages.
    """
    size = 4 * math.prod(shape)
    if size < MIN_BYTES or not hasattr(mmap, "MADV_DONTNEED") or not hasattr(os, "posix_fallocate"):
        return np.zeros(shape, np.float32)
    try:
        with tempfile.TemporaryFile(prefix="v2m-") as file:  # its name is gone at once, its bytes with the array
            os.posix_fallocate(file.fileno(), 0, size)  # or a full disk would end the process with SIGBUS
            mapping = mmap.mmap(file.fileno(), size)
    except OSError:
        return np.zeros(shape, np.float32)
    _mappings.add(mapping)
    return np.frombuffer(mapping, np.float32).reshape(shape)


def release_pages() -> None:
    """Take all mapped arrays out of memory; their values stay, in the file or the system's cache of it."""
    for mapping in list(_mappings):
        mapping.madvise(mmap.MADV_DONTNEED)


def chunks(count: int, size: int | None = None) -> Iterator[slice]:
    """Yield consecutive slices of `size` that cover `count` samples, and release pages after each."""
    size = size or CHUNK
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))
        release_pages()
