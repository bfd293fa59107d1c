"""The contracts that plug-ins keep. A class needs only the methods: it imports and inherits nothing of v2m."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from v2m.core.types import CodecSpec, Controls, ProgressFn, Soundtrack, Tags, Video


@runtime_checkable
class Tagger(Protocol):
    """Looks at a video and says what music would fit. Frozen: the same video gives the same tags.

    It may also have `prepare()`, which makes sure before any work that its weights are on this machine; `release()`,
    which frees its model before the music is written; `weights`, a sequence of `v2m.core.types.WeightsInfo` for the
    sidecar;
    `measured(video)`, plain values for the sidecar; and `device`, where it works: for "auto" each rank of many sets its
    own. `keeps_hints`, if True, says that it has put its own words behind those that `hints` gives; of others, what
    `hints` sets takes the place of what they found.
    """

    def tag(self, video: Video, hints: Tags, progress: ProgressFn | None = None) -> Tags:
        """Tags for `video`; every field that `hints` sets is returned as given."""
        ...


@runtime_checkable
class MusicGenerator(Protocol):
    """Writes the music.

    It may also have `release()` and `weights`, as a tagger; `prepare(tags, controls)`, which makes sure before any work
    that its weights are here and that it can do what the user asks for; `check(video, controls)`, which then refuses
    what cannot be done for a video of that length; and `steers`, a set of what it can do out of "stems", "midi",
    "vocals" and the fields of `Controls`: what is asked of it beyond that is refused before any work. Where several
    takes cost less together than one by one, `takes(video, tags, seeds, ...)`, with seeds in place of the seed, gives a
    list of scores.
    """

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
        """Music of exactly `video.duration` (to the sample). The same arguments give the same bytes.

        With `stems` the score also carries the parts that sum to it.
        """
        ...


@runtime_checkable
class Codec(Protocol):
    """Sound ↔ codes. `spec` says what the codes mean, `hop` how many samples a frame has; tensors are PyTorch's."""

    spec: CodecSpec
    hop_length: int

    def encode(self, wave: Any) -> Any:
        """Sound (B, C, N) at the codec's rate, ±1 → codes (B, K, T) int64."""
        ...

    def decode(self, codes: Any) -> Any:
        """Codes (B, K, T) → sound (B, C, T · `hop`), float32, about ±1."""
        ...


@runtime_checkable
class TextEncoder(Protocol):
    """Words → what a language model attends to. `width` is that of its tokens."""

    dim: int

    def encode(self, texts: Sequence[str]) -> Any:
        """One `v2m.models.conditioning.Condition` (B, L, `width`) for all; an empty text is a row without tokens."""
        ...


@runtime_checkable
class VisionEncoder(Protocol):
    """Frames → tokens. `name` says which ones, as datasets and checkpoints keep it; `aspect` how frames were fitted in.

    `tokens` is how many a frame has, `width` that of each.
    """

    name: str
    num_tokens: int
    dim: int
    aspect: str

    def encode(self, frames: Any) -> Any:
        """(F, H, W, 3) uint8, upright RGB → (F, `tokens`, `width`) float32."""
        ...

    def decode_width(self, width: int, height: int) -> int:
        """Width at which frames of `width` × `height` should be decoded for this encoder."""
        ...
