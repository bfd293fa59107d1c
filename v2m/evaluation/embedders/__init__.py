"""Embedders of music: contract, windows, names. W windows, D dimensions, K classes, T texts."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from v2m.core import errors
from v2m.core.errors import DependencyError, UsageError
from v2m.core.types import Audio, Floats, Video

OPTIONAL_METHODS = ("embed_text", "embed_video", "prepare", "release")


@dataclass(frozen=True)
class AudioEmbedding:
    """Embeddings of the windows of a piece (W, D) and a classifier's probabilities (W, K), which sum to 1.

    `tag_probs` are a tagger's probabilities for the whole piece, each for itself.
    """

    embeddings: Floats
    class_probs: Floats | None = None
    tag_probs: Mapping[str, float] | None = None


@runtime_checkable
class Embedder(Protocol):
    """A model that embeds audio; `name` is the name of its weights, which stands in the tables.

    A class may also have `embed_text(texts) -> (T, D)` and `embed_video(video) -> (W, D)`, in the same space as its
    audio; `prepare()`, which makes sure before any work that the weights are on this machine; and `release()`, which
    frees them. Built from a class path, it gets the source that stands behind a "=", if any, as its only argument.
    """

    name: str

    def embed_audio(self, audio: Audio) -> Any:
        """Return an `AudioEmbedding`, or anything with its fields."""
        ...


class BaseEmbedder:
    """An embedder with defaults for the optional methods."""

    name: str
    embeds_text: bool = False
    embeds_video: bool = False

    def embed_audio(self, audio: Audio) -> Any:
        raise NotImplementedError

    def embed_text(self, texts: Sequence[str]) -> Floats:
        """(T, D); called only where `embeds_text`."""
        raise NotImplementedError

    def embed_video(self, video: Video) -> Floats:
        """(W, D); called only where `embeds_video`."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Make sure that the weights are on this machine."""

    def release(self) -> None:
        """Free the model's memory."""


class _Plugin(BaseEmbedder):
    """An embedder that inherits nothing of v2m, with defaults for the optional methods that it lacks."""

    def __init__(self, plugin: Embedder) -> None:
        self.name = plugin.name
        self.embed_audio = plugin.embed_audio
        self.embeds_text, self.embeds_video = hasattr(plugin, "embed_text"), hasattr(plugin, "embed_video")
        for name in OPTIONAL_METHODS:
            if hasattr(plugin, name):
                setattr(self, name, getattr(plugin, name))


def adapt(embedder: Embedder) -> BaseEmbedder:
    """Return `embedder` with all the methods of `BaseEmbedder`."""
    return embedder if isinstance(embedder, BaseEmbedder) else _Plugin(embedder)


def to_mono(audio: Audio) -> NDArray[np.float32]:
    """(N,) the mean of the channels."""
    return audio.samples.mean(axis=0, dtype=np.float32)


def split_windows(samples: NDArray[np.float32], length: int) -> list[NDArray[np.float32]]:
    """Split `samples` (N,) into consecutive windows of `length`.

    A rest of half a window or more becomes a window that ends with the piece and overlaps the one before; a shorter
    rest is left out. A shorter piece is one window, never empty.
    """
    if len(samples) <= length:
        return [samples if len(samples) else np.zeros(1, np.float32)]
    windows = [samples[start : start + length] for start in range(0, len(samples) - length + 1, length)]
    if len(samples) % length >= length / 2:
        windows.append(samples[-length:])
    return windows


def window_times(duration: float, length: float) -> list[tuple[float, float]]:
    """Start and end of each window of `length` seconds in a video; as `split_windows` splits audio."""
    if duration <= length:
        return [(0.0, duration)]
    times = [(k * length, (k + 1) * length) for k in range(int(duration // length))]
    if duration % length >= length / 2:
        times.append((duration - length, duration))
    return times


EMBEDDERS = {
    "clap": "v2m.evaluation.embedders.clap.ClapEmbedder",
    "ast": "v2m.evaluation.embedders.ast.AstEmbedder",
    "pe-av": "v2m.evaluation.embedders.pe_av.PeAvEmbedder",
    "musicnn": "v2m.evaluation.embedders.musicnn.MusicnnEmbedder",
    "vggish": "v2m.evaluation.embedders.vggish.VggishEmbedder",
    "imagebind": "v2m.evaluation.embedders.imagebind.ImageBindEmbedder",
}


def build_embedders(specs: Sequence[str]) -> list[BaseEmbedder]:
    """Build embedders from `clap`, `clap=REPOSITORY_OR_FOLDER` or `my.module.MyEmbedder`.

    Weights load on first use. Raises UsageError for an unknown name, an unsuitable class or two of one name,
    DependencyError where the package or the weights cannot be had.
    """
    embedders = [_build_embedder(spec) for spec in dict.fromkeys(specs)]
    names = [embedder.name for embedder in embedders]
    if duplicates := ", ".join(sorted({name for name in names if names.count(name) > 1})):
        raise UsageError(f"two embeddings are named {duplicates}: give them other names, or one of them")
    for embedder in embedders:
        embedder.prepare()
    return embedders


def _build_embedder(spec: str) -> BaseEmbedder:
    name, _, source = spec.partition("=")
    kind: Any = _import_class(EMBEDDERS.get(name, name), spec)
    try:
        embedder = kind(source) if source else kind()
    except (TypeError, ValueError) as error:
        raise UsageError(f"`embedding` {spec}: it cannot be made so ({error})") from error
    if not isinstance(embedder, Embedder):
        raise UsageError(f"`embedding` {spec}: {kind.__name__} must have a name and a method embed_audio(audio)")
    return adapt(embedder)


def _import_class(path: str, spec: str) -> Any:
    module, _, name = path.rpartition(".")
    if not module:
        names = ", ".join(EMBEDDERS)
        raise UsageError(f"`embedding` {spec}: give {names}, each alone or with =WEIGHTS, or the path of a class")
    try:
        kind = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        if errors.install_hint(error):
            raise
        if error.name and not module.startswith(error.name):
            raise DependencyError(f"`embedding` {spec} needs the package {error.name}: install it") from error
        raise UsageError(f"`embedding` {spec}: there is no module {module!r}") from error
    if not isinstance(kind, type):
        raise UsageError(f"`embedding` {spec}: {module!r} has no class {name!r}")
    return kind
