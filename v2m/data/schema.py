"""What a folder of shards holds: the members of a sample with their types and shapes, and the manifest beside them.

A sample is a stretch of a video with its music, encoded once. K codebooks, T codec frames, F frames of the stretch, G
frames of the whole video, P tokens a frame, W their width, R instants of rhythm, C what is measured at each, L text
tokens, D their width.
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

META = "json"  # what `Meta` says
CODES = "codes.npy"  # (K, T) int16
FRAMES = "frames.npy"  # (F, P, W) float16: those shown in the middle of each of F equal steps from the begin
LONG_TERM = "whole.npy"  # (G, P, W) float16: likewise of the whole video, in G steps
EVENTS = "rhythm.npy"  # (R, C) float16: of R steps from the begin
TEXT = "text.npy"  # (L, D) float16: what the text encoder says of the tags; L is 0 where there are none
MEMBERS = (META, CODES, FRAMES, LONG_TERM, EVENTS, TEXT)
DTYPES = {CODES: "int16", FRAMES: "float16", LONG_TERM: "float16", EVENTS: "float16", TEXT: "float16"}


@dataclass(frozen=True)
class Meta:
    """What is said of one sample.

    Args:
        key: Its name, unique in its dataset; no dot.
        source: The video's file name.
        begin: Where the stretch begins in the video, in seconds.
        duration: How long it is.
        video_duration: How long the whole video is.
        tags: `v2m.core.types.Tags` as plain values.
        line: The words that the text encoder read.
    """

    key: str
    source: str
    begin: float
    duration: float
    video_duration: float
    tags: Mapping[str, Any] = field(default_factory=dict)
    line: str = ""


@dataclass(frozen=True)
class Shard:
    """One tar: its name, its size in bytes, its SHA-256, and what is in it."""

    file: str
    size: int
    sha256: str
    samples: int
    seconds: float


@dataclass(frozen=True)
class Manifest:
    """What all samples of a folder have in common, and its shards.

    Args:
        vision: Name of the vision encoder.
        tokens, width: P and W.
        aspect: How frames were brought to the encoder's size.
        frame_rate: Frames a second of the stretch.
        whole: G.
        rhythm_rate: Instants a second of the rhythm.
        rhythm: Names of the C things measured, in their order.
        codec: Name of the codec.
        sample_rate, code_rate, codebooks, entries: Hz, codec frames a second, K, and entries of a codebook.
        channels: 2 where codebooks are of the left and of the right in turn (`v2m.pretrained.codecs.base.Stereo`).
        separator: Name of the model that took voices out of the sound; "" left them in.
        text: Name of the text encoder; text_width is D.
        tagger: Who named the tags.
        shards: The tars.
        dropped: Reasons for which videos were left out, with how often.
        version: Of the schema.
    """

    vision: str
    tokens: int
    width: int
    aspect: str
    frame_rate: float
    whole: int
    rhythm_rate: float
    rhythm: tuple[str, ...]
    codec: str
    sample_rate: int
    code_rate: int
    codebooks: int
    entries: int
    text: str
    text_width: int
    tagger: str
    channels: int = 1
    separator: str = ""
    shards: tuple[Shard, ...] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    version: int = VERSION

    @property
    def samples(self) -> int:
        return sum(shard.samples for shard in self.shards)

    @property
    def seconds(self) -> float:
        return sum(shard.seconds for shard in self.shards)

    def shapes(self, meta: Meta) -> dict[str, tuple[int | None, ...]]:
        """What the members of a sample must measure; None is any."""
        return {
            CODES: (self.codebooks, codec_frames(meta.duration, self.code_rate)),
            FRAMES: (step_count(meta.duration, self.frame_rate), self.tokens, self.width),
            LONG_TERM: (self.whole, self.tokens, self.width),
            EVENTS: (step_count(meta.duration, self.rhythm_rate), len(self.rhythm)),
            TEXT: (None, self.text_width),
        }

    def as_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"

    def write(self, folder: Path) -> None:
        (folder / MANIFEST).write_text(self.as_json(), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Raises DependencyError where the folder has none, or one of another version; says which."""
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
            return cls(**{**held, "rhythm": tuple(held["rhythm"]), "shards": shards})
        except (KeyError, TypeError) as error:
            raise DependencyError(f"{str(path)!r} is no manifest ({error}): {cure} again") from None
