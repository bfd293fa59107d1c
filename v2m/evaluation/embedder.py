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
class AudioEmbedding:
    """What a model heard in a piece: an embedding of each window (W, D), and, of one that tells classes apart, their
    probabilities (W, K)."""

    embeddings: Floats
    class_probs: Floats | None = None


@runtime_checkable
class Embedder(Protocol):
    """`name` is what stands in tables: the weights'.

    It may also have `embed_text(texts) -> (T, D)` and `embed_video(video) -> (W, D)`, whose embeddings are to be near
    those of
    sound that fits; `prepare()`, which makes sure before any work that the weights are on this machine; and
    `release()`, which frees them. Made from a class path, it is given the source that stands behind a "=", if any.
    """

    name: str

    def embed_audio(self, audio: Audio) -> Any:
        """`AudioEmbedding`, or anything with its fields."""
        ...


@runtime_checkable
class TextEmbedder(Protocol):
    def embed_text(self, texts: Sequence[str]) -> Floats: ...


@runtime_checkable
class VideoEmbedder(Protocol):
    def embed_video(self, video: Video) -> Floats: ...


def to_mono(audio: Audio) -> NDArray[np.float32]:
    """(N,) the mean of the channels."""
    return audio.samples.mean(axis=0, dtype=np.float32)


def split_windows(samples: NDArray[np.float32], length: int) -> list[NDArray[np.float32]]:
    """`samples` (N,) in windows of `length`, one after the other.

    What is left at the end is heard in a window that ends with it, if it is half a window or more. What is shorter than
    a window is one by itself, and never empty.
    """
    if len(samples) <= length:
        return [samples if len(samples) else np.zeros(1, np.float32)]
    found = [samples[start : start + length] for start in range(0, len(samples) - length + 1, length)]
    left = len(samples) % length
    return found + [samples[-length:]] * (left >= length / 2)


def window_times(duration: float, length: float) -> list[tuple[float, float]]:
    """The begin and end of each window of `length` seconds of a video of `seconds`, as in `windows`."""
    if duration <= length:
        return [(0.0, duration)]
    found = [(k * length, (k + 1) * length) for k in range(int(duration // length))]
    return found + [(duration - length, duration)] * (duration % length >= length / 2)
