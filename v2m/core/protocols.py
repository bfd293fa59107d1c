"""The contracts of plug-ins, which need only the methods: they import and inherit nothing of v2m.

B batch, C channels, N samples, K codebooks, T codec frames, L text tokens, F video frames, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from v2m.core.types import CodecSpec, Controls, ConvertFn, ProgressFn, Soundtrack, Tags, Video


@runtime_checkable
class Tagger(Protocol):
    """Describes the music that fits a video, the same each time; see `v2m.taggers.base.TaggerBase`."""

    def tag(self, video: Video, hints: Tags, progress: ProgressFn | None = None) -> Tags:
        """Return tags for `video`; every field that `hints` sets is returned as given."""
        ...


@runtime_checkable
class MusicGenerator(Protocol):
    """Writes the music. `v2m.generators.base.GeneratorBase` documents the optional attributes and methods."""

    def generate(
        self,
        video: Video,
        tags: Tags,
        seed: int,
        *,
        stems: bool = False,
        controls: Controls | None = None,
        progress: ProgressFn | None = None,
    ) -> Soundtrack:
        """Return music of exactly `video.duration` (to the sample). The same arguments give the same bytes.

        With `stems` the soundtrack also has the parts that sum to it.
        """
        ...


@runtime_checkable
class Codec(Protocol):
    """Converts audio to codes and back, as torch tensors; a frame of codes has `hop_length` samples."""

    spec: CodecSpec
    hop_length: int

    def encode(self, wave: Any, /) -> Any:
        """Encode audio (B, C, N) at the codec's rate, ±1, as codes (B, K, T) int64.

        The score codec takes scores instead.
        """
        ...

    def decode(self, codes: Any) -> Any:
        """Decode codes (B, K, T) to audio (B, C, T · `hop_length`), float32, about ±1."""
        ...


@runtime_checkable
class TextEncoder(Protocol):
    """Encodes text as tokens of `dim` that a language model attends to."""

    dim: int

    def encode(self, texts: Sequence[str]) -> Any:
        """Return one `v2m.models.conditioning.Condition` (B, L, `dim`); an empty text is a row without tokens."""
        ...


@runtime_checkable
class VisionEncoder(Protocol):
    """Encodes frames as `num_tokens` tokens of `dim`; datasets and checkpoints store `name` and `aspect`."""

    name: str
    num_tokens: int
    dim: int
    aspect: str  # how frames are brought to the encoder's size

    @property
    def convert(self) -> ConvertFn | None:
        """Conversion of full-size frames for `Video.frames`, or None where `encode` does it."""
        ...

    def encode(self, frames: Any) -> Any:
        """Encode upright RGB frames (F, H, W, 3) uint8 as (F, `num_tokens`, `dim`) float32."""
        ...

    def decode_width(self, width: int, height: int) -> int:
        """Return the width at which frames of `width` × `height` should be decoded for this encoder."""
        ...
