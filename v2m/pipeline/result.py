"""Records of a scored video: what to write, each candidate, and the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from v2m.core.types import Soundtrack, Tags


@dataclass(frozen=True)
class Extras:
    """Files to write beside the video and its sidecar.

    Args:
        stems: The parts of the music as WAV files.
        midi: The notes as a Standard MIDI File.
        markers: Sections and hits for an editor: "edl" for DaVinci Resolve, "otio" for OpenTimelineIO.
        report: A picture with thumbnails, waveform, cuts, beats, sections and loudness; one of each candidate.
        wav: The music alone, as the generator wrote it, before mixing and mastering.
    """

    stems: bool = False
    midi: bool = False
    markers: Literal["edl", "otio"] | None = None
    report: bool = False
    wav: bool = False


@dataclass(frozen=True)
class Candidate:
    """One soundtrack for the video, its sync scores (`v2m.analysis.synchrony`) and tag recall, 0–1."""

    seed: int
    soundtrack: Soundtrack
    sync: Mapping[str, float | None] = field(default_factory=dict)
    tag_recall: float | None = None


@dataclass(frozen=True)
class ResultMetadata:
    """Facts of one run: wall time of each stage, `settings` with every value the output depends on."""

    recipe: str | None
    seed: int
    settings: Mapping[str, Any]
    stage_seconds: Mapping[str, float]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class ScoreResult:
    """A scored video: its file, the tags and soundtrack in it, and the other candidates, best first."""

    path: Path
    tags: Tags
    soundtrack: Soundtrack
    metadata: ResultMetadata
    candidates: tuple[Candidate, ...]
    record: Mapping[str, Any] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Contents of the sidecar: plain values only."""
        return dict(self.record)
