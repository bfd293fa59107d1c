"""Sparse reading with decord, for files in which its seeking is exact. Runs in the decoder process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from v2m.core.types import Pixels
from v2m.media.pyav_reader import CHUNK_BYTES, NUM_THREADS

SINGLE_THREADED_CODECS = {"vp9"}  # decord fails on them with more than one thread


class SeekError(Exception):
    """decord cannot read this file, or reads it wrongly."""


def seek_frames(path: str, codec: str, indices: Sequence[int], size: Sequence[int], count: int) -> Iterator[Pixels]:
    """Yield the frames of rising `indices` in display order, in chunks (F, H, W, 3); `size` is W, H.

    Raises SeekError where decord fails or does not find `count` frames. Some files also keep it busy for ever: the
    parent's time limit is the only cure.
    """
    width, height = size
    try:
        import decord

        decord.logging.set_level(decord.logging.QUIET)
        threads = 1 if codec in SINGLE_THREADED_CODECS else NUM_THREADS
        reader = decord.VideoReader(path, width=width, height=height, num_threads=threads)
        if len(reader) != count:
            raise SeekError(f"found {len(reader)} frames instead of {count}")
        step = max(1, CHUNK_BYTES // (3 * width * height))
        for first in range(0, len(indices), step):
            images = reader.get_batch(list(indices[first : first + step])).asnumpy()
            if images.shape[1:] != (height, width, 3):
                raise SeekError(f"gave frames of shape {images.shape[1:]} instead of {(height, width, 3)}")
            yield images
    except SeekError:
        raise
    except Exception as error:  # decord's errors have no class of their own, and their text is a C++ stack
        raise SeekError(f"failed on it ({type(error).__name__})") from error
