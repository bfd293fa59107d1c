"""Sections and hits as markers for a video editor: OpenTimelineIO, or an EDL for DaVinci Resolve."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from v2m.core import timing
from v2m.core.types import Soundtrack, Video

COLOURS = {"section": "Blue", "hit": "Red"}


@dataclass(frozen=True)
class Marker:
    """`time` in seconds from the first frame of the file; `kind` is "section" or "hit"."""

    time: float
    name: str
    kind: str


def markers(video: Video, score: Soundtrack) -> list[Marker]:
    """The section starts of `score` and the cuts its beats meet, in order of time."""
    found = [Marker(video.start + section.start, f"section {section.name}", "section") for section in score.sections]
    hits = score.metadata.get("hits", ())
    found += [Marker(video.start + hit["time"], f"hit {hit['strength']:.2f}", "hit") for hit in hits]
    return sorted(found, key=lambda marker: (marker.time, marker.kind))


def edl(title: str, found: list[Marker], fps: float) -> str:
    """CMX 3600 list of one-frame events with Resolve's marker comments; timecode from 01:00:00:00."""
    rate = max(1, round(fps))
    lines = [f"TITLE: {title}", "FCM: NON-DROP FRAME", ""]
    for number, marker in enumerate(found, start=1):
        frame = timing.frame_number(marker.time, fps) + 3600 * rate
        start, end = timing.timecode(frame, rate), timing.timecode(frame + 1, rate)
        lines.append(f"{number:03d}  001      V     C        {start} {end} {start} {end}")
        lines.append(f" |C:ResolveColor{COLOURS[marker.kind]} |M:{marker.name} |D:1\n")
    return "\n".join(lines)


def write(path: Path, video: Video, score: Soundtrack) -> None:
    """Writes `path` as EDL or OTIO, by its suffix."""
    found = markers(video, score)
    if path.suffix == ".edl":
        path.write_text(edl(video.path.stem, found, video.fps), encoding="utf-8")
        return
    import opentimelineio as otio

    def moment(seconds: float) -> otio.opentime.RationalTime:
        return otio.opentime.RationalTime(timing.frame_number(seconds, video.fps), video.fps)

    whole = otio.opentime.TimeRange(moment(0.0), moment(video.start + video.duration))
    media = otio.schema.ExternalReference(target_url=video.path.resolve().as_uri(), available_range=whole)
    clip = otio.schema.Clip(video.path.name, media_reference=media, source_range=whole)
    for marker in found:
        frame = otio.opentime.TimeRange(moment(marker.time), otio.opentime.RationalTime(1, video.fps))
        clip.markers.append(otio.schema.Marker(marker.name, marked_range=frame, color=COLOURS[marker.kind].upper()))
    timeline = otio.schema.Timeline(video.path.stem)
    timeline.tracks.append(otio.schema.Track("V1", children=[clip], kind=otio.schema.TrackKind.Video))
    otio.adapters.write_to_file(timeline, str(path))
