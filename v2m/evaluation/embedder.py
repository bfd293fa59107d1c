"""What measures with weights need of a model that hears. A class needs only the methods: it imports nothing of v2m.

W windows of a piece, D numbers of an embedding, K classes, T texts, N samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from v2m.core.types import Audio, Floats, Video


@dataclass(frozen=True)
class Heard:
    """What a model heard in a piece: an embedding of each window (W, D), and, of one that tells classes apart, their
    probabilities (W, K)."""

    windows: Floats
    classes: Floats | None = None


@runtime_checkable
class Embedding(Protocol):
    """`name` is what stands in tables: the weights'.

    It may also have `read(texts) -> (T, D)` and `watch(video) -> (W, D)`, whose embeddings are to be near those of
    sound that fits; `prepare()`, which makes sure before any work that the weights are on this machine; and
    `release()`, which frees them. Made from a class path, it is given the source that stands behind a "=", if any.
    """

    name: str

    def hear(self, audio: Audio) -> Any:
        """`Heard`, or anything with its fields."""
        ...


@runtime_checkable
class Reads(Protocol):
    def read(self, texts: Sequence[str]) -> Floats: ...


@runtime_checkable
class Watches(Protocol):
    def watch(self, video: Video) -> Floats: ...


def mono(audio: Audio) -> NDArray[np.float32]:
    """(N,) the mean of the channels."""
    return audio.samples.mean(axis=0, dtype=np.float32)


def windows(samples: NDArray[np.float32], length: int) -> list[NDArray[np.float32]]:
    """`samples` (N,) in windows of `length`, one after the other.

    What is left at the end is heard in a window that ends with it, if it is half a window or more. What is shorter than
    a window is one by itself, and never empty.
    """
    if len(samples) <= length:
        return [samples if len(samples) else np.zeros(1, np.float32)]
    found = [samples[start : start + length] for start in range(0, len(samples) - length + 1, length)]
    left = len(samples) % length
    return found + [samples[-length:]] * (left >= length / 2)


def spans(seconds: float, length: float) -> list[tuple[float, float]]:
    """The begin and end of each window of `length` seconds of a video of `seconds`, as in `windows`."""
    if seconds <= length:
        return [(0.0, seconds)]
    found = [(k * length, (k + 1) * length) for k in range(int(seconds // length))]
    return found + [(seconds - length, seconds)] * (seconds % length >= length / 2)
