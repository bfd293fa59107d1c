"""Schema of a dataset: the members of a sample with their types and shapes, and the manifest beside the shards.

A sample is a segment of a video with its music, encoded once. K codebooks, T codec frames, F frames of the segment, G
frames of the whole video, P tokens per frame, W their dimension, R event steps, C event channels, L text tokens, D
their dimension.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from v2m.core.errors import DependencyError
from v2m.core.timing import codec_frames, step_count

VERSION = 1
MANIFEST = "dataset.json"

META = "json"  # the fields of `Meta`
CODES = "codes.npy"  # (K, T) int16
FRAMES = "frames.npy"  # (F, P, W) float16: those shown in the middle of each of F equal steps
LONG_TERM = "long_term.npy"  # (G, P, W) float16: the same of the whole video, in G steps
EVENTS = "events.npy"  # (R, C) float16: visual events of R steps
TEXT = "text.npy"  # (L, D) float16: the encoded prompt; L is 0 where there is none
MEMBERS = (META, CODES, FRAMES, LONG_TERM, EVENTS, TEXT)
DTYPES = {CODES: "int16", FRAMES: "float16", LONG_TERM: "float16", EVENTS: "float16", TEXT: "float16"}


@dataclass(frozen=True)
class Meta:
    """Description of one sample.

    Args:
        key: Name, unique in its dataset; no dot.
        source: File name of the video.
        start: Start of the segment in the video, in seconds.
        duration: Duration of the segment, in seconds.
        video_duration: Duration of the whole video, in seconds.
        tags: `v2m.core.types.Tags` as plain values.
        prompt: Text that the text encoder read.
    """

    key: str
    source: str
    start: float
    duration: float
    video_duration: float
    tags: Mapping[str, Any] = field(default_factory=dict)
    prompt: str = ""


@dataclass(frozen=True)
class Shard:
    """One tar: its file name, size, SHA-256, number of samples, and their duration in seconds."""

    file: str
    num_bytes: int
    sha256: str
    num_samples: int
    duration: float


@dataclass(frozen=True)
class Manifest:
    """Properties that all samples of a folder share, and its shards.

    Args:
        vision_encoder: Name of the vision encoder.
        num_tokens, vision_dim: P and W.
        aspect: How frames were brought to the encoder's size.
        video_frame_rate: Frames per second of the segment.
        num_long_term_frames: G.
        event_rate: Event steps per second.
        event_channels: Names of the C event channels, in their order.
        codec: Name of the codec.
        sample_rate, codec_frame_rate: Hz, and codec frames per second.
        num_codebooks, codebook_size: K, and entries of a codebook.
        channels: 2 where codebooks of the left and the right alternate (`v2m.pretrained.codecs.base.Stereo`).
        separator: Name of the model that removed voices; "" left them in.
        text_encoder, text_dim: Name of the text encoder, and D.
        tagger: Class name of the tagger.
        shards: The tars.
        dropped: Number of videos left out, by reason.
        version: Version of the schema.
    """

    vision_encoder: str
    num_tokens: int
    vision_dim: int
    aspect: str
    video_frame_rate: float
    num_long_term_frames: int
    event_rate: float
    event_channels: tuple[str, ...]
    codec: str
    sample_rate: int
    codec_frame_rate: int
    num_codebooks: int
    codebook_size: int
    text_encoder: str
    text_dim: int
    tagger: str
    channels: int = 1
    separator: str = ""
    shards: tuple[Shard, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    version: int = VERSION

    @property
    def num_samples(self) -> int:
        return sum(shard.num_samples for shard in self.shards)

    @property
    def duration(self) -> float:
        return sum(shard.duration for shard in self.shards)

    def shapes(self, meta: Meta) -> dict[str, tuple[int | None, ...]]:
        """Return the shape of each member of a sample; None is any size."""
        return {
            CODES: (self.num_codebooks, codec_frames(meta.duration, self.codec_frame_rate)),
            FRAMES: (step_count(meta.duration, self.video_frame_rate), self.num_tokens, self.vision_dim),
            LONG_TERM: (self.num_long_term_frames, self.num_tokens, self.vision_dim),
            EVENTS: (step_count(meta.duration, self.event_rate), len(self.event_channels)),
            TEXT: (None, self.text_dim),
        }

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    def write(self, folder: Path) -> None:
        (folder / MANIFEST).write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Raise DependencyError where the folder has none, or one of another version (names it)."""
        path = folder / MANIFEST
        cure = "make it with v2m prepare"
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DependencyError(f"{str(folder)!r} holds no dataset (no {MANIFEST}): {cure}") from None
        except ValueError as error:
            raise DependencyError(f"{str(path)!r} is not JSON ({error}): {cure} again") from None
        version = held.get("version") if isinstance(held, dict) else None
        if version != VERSION:
            raise DependencyError(f"{str(path)!r} has version {version!r}, and this v2m reads {VERSION}: {cure} again")
        try:
            shards = tuple(Shard(**shard) for shard in held.pop("shards"))
            return cls(**{**held, "event_channels": tuple(held["event_channels"]), "shards": shards})
        except (KeyError, TypeError) as error:
            raise DependencyError(f"{str(path)!r} is no manifest ({error}): {cure} again") from None
