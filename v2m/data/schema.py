"""Schema of a dataset: the members of a sample with types and shapes, and the manifest of the shards.

A sample is a segment of a video with its music, encoded once. K codebooks, T codec frames, F frames of the segment, G
frames of the whole video, P tokens per frame, W their dimension, R event steps, C event channels, L text tokens, D
their dimension.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from v2m.core.atomic import atomic_write
from v2m.core.errors import DependencyError, UsageError
from v2m.core.timing import codec_frames, segment_count

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
    """Description of one sample; times in seconds."""

    key: str  # name, unique in its dataset; no dot
    source: str  # file name of the video, or of the music without one
    start: float  # of the segment in the video
    duration: float  # of the segment
    video_duration: float
    tags: Mapping[str, Any] = field(default_factory=dict)  # `v2m.core.types.Tags` as plain values
    prompt: str = ""  # text that the text encoder read


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
    """Properties that all samples of a folder share, and its shards."""

    vision_encoder: str  # name
    num_tokens: int  # P
    vision_dim: int  # W
    aspect: str  # how frames were brought to the encoder's size
    video_frame_rate: float  # frames per second of the segment
    num_long_term_frames: int  # G
    event_rate: float  # event steps per second
    event_channels: tuple[str, ...]  # names of the C event channels
    codec: str  # name
    sample_rate: int  # Hz
    codec_frame_rate: int  # codec frames per second
    num_codebooks: int  # K
    codebook_size: int
    text_encoder: str  # name
    text_dim: int  # D
    tagger: str  # class name; "" where tags are estimated from music
    channels: int = 1  # 2 where codebooks of left and right alternate
    separator: str = ""  # name of the model that removed voices; "" left them in
    unpaired: bool = False  # True where events and frames are derived from music without video
    shards: tuple[Shard, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)  # number of videos left out, by reason
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
            FRAMES: (segment_count(meta.duration, self.video_frame_rate), self.num_tokens, self.vision_dim),
            LONG_TERM: (self.num_long_term_frames, self.num_tokens, self.vision_dim),
            EVENTS: (segment_count(meta.duration, self.event_rate), len(self.event_channels)),
            TEXT: (None, self.text_dim),
        }

    def check_same(self, other: Manifest, name: str, other_name: str) -> None:
        """Raise DependencyError where the samples of `other` are of another kind than those of this dataset."""
        own = {field.name for field in fields(self)} - {"tagger", "shards", "dropped", "version"}
        differing = sorted(field for field in own if getattr(self, field) != getattr(other, field))
        if differing:
            problem = f"{other_name!r} was prepared with another {', '.join(differing)}"
            raise DependencyError(f"{problem} than {name!r}: prepare both alike")

    @classmethod
    def joined(cls, manifests: Mapping[str, Manifest]) -> Manifest:
        """Return the manifest of several datasets, given by name, as one: it has the shards of all.

        Raises DependencyError where one has no samples, or where they are of different kinds.
        """
        (first, manifest), *others = manifests.items()
        for name, each in manifests.items():
            if each.num_samples < 1:
                raise DependencyError(f"{name!r} holds no samples: prepare some videos with v2m prepare")
        for name, other in others:
            manifest.check_same(other, first, name)
        return replace(manifest, shards=tuple(shard for each in manifests.values() for shard in each.shards))

    def write(self, folder: Path) -> None:
        with atomic_write(folder / MANIFEST) as file:
            file.write(json.dumps(asdict(self), indent=1).encode() + b"\n")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read the manifest of a dataset.

        Raises UsageError where there is no folder, DependencyError where it holds no manifest or another version's.
        """
        path, cure = folder / MANIFEST, "make it with v2m prepare"
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            if not folder.exists():
                raise UsageError(f"there is no folder {str(folder)!r}: check the name, or {cure}") from None
            raise DependencyError(f"{str(folder)!r} holds no dataset (no {MANIFEST}): {cure}") from None
        return cls.parse(content, str(path))

    @classmethod
    def parse(cls, content: bytes, name: str) -> Manifest:
        """Return the manifest in the content of a file.

        Raises DependencyError, in which `name` stands for the file, where it is broken or of another version.
        """
        cure = "make it with v2m prepare again"
        try:
            values = json.loads(content)
        except ValueError as error:
            raise DependencyError(f"{name!r} is not JSON ({error}): {cure}") from None
        version = values.get("version") if isinstance(values, dict) else None
        if version != VERSION:
            raise DependencyError(f"{name!r} has version {version!r}, and this v2m reads {VERSION}: {cure}")
        try:
            shards = tuple(Shard(**shard) for shard in values.pop("shards"))
            return cls(**{**values, "event_channels": tuple(values["event_channels"]), "shards": shards})
        except (KeyError, TypeError) as error:
            raise DependencyError(f"{name!r} is no manifest ({error}): {cure}") from None
