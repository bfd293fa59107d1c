"""Sections and hits as markers for a video editor: OpenTimelineIO, or an EDL for DaVinci Resolve."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from v2m.core import timing
from v2m.core.types import Soundtrack, Video
from v2m.pipeline.outputs import printable

COLORS = {"section": "Blue", "hit": "Red"}


@dataclass(frozen=True)
class Marker:
    """`time` in seconds from the first frame of the file; `kind` is "section" or "hit"."""

    time: float
    name: str
    kind: str


def collect_markers(video: Video, soundtrack: Soundtrack) -> list[Marker]:
    """Return the starts of sections and the cuts that beats meet, in order of time."""
    start, hits = video.start, soundtrack.metadata.get("hits", ())
    markers = [Marker(start + part.start, f"section {part.name}", "section") for part in soundtrack.sections]
    markers += [Marker(start + hit["time"], f"hit {hit['strength']:.2f}", "hit") for hit in hits]
    return sorted(markers, key=lambda marker: (marker.time, marker.kind))


def format_edl(title: str, markers: list[Marker], fps: float) -> str:
    """Return a CMX 3600 list of one-frame events with Resolve's markers; timecode from 01:00:00:00."""
    rate = max(1, round(fps))
    lines = [f"TITLE: {title}", "FCM: NON-DROP FRAME", ""]
    for number, marker in enumerate(markers, start=1):
        frame = timing.frame_number(marker.time, fps) + 3600 * rate
        start, end = timing.timecode(frame, rate), timing.timecode(frame + 1, rate)
        lines.append(f"{number:03d}  001      V     C        {start} {end} {start} {end}")
        lines.append(f" |C:ResolveColor{COLORS[marker.kind]} |M:{marker.name} |D:1\n")
    return "\n".join(lines)


def write(path: Path, video: Video, soundtrack: Soundtrack) -> None:
    """Write `path` as EDL or OTIO, by its suffix."""
    markers = collect_markers(video, soundtrack)
    if path.suffix == ".edl":
        path.write_text(format_edl(printable(video.path.stem), markers, video.fps), encoding="utf-8")
        return
    import opentimelineio as otio

    def frame_time(seconds: float) -> otio.opentime.RationalTime:
        return otio.opentime.RationalTime(timing.frame_number(seconds, video.fps), video.fps)

    full_range = otio.opentime.TimeRange(frame_time(0.0), frame_time(video.start + video.duration))
    media = otio.schema.ExternalReference(target_url=video.path.resolve().as_uri(), available_range=full_range)
    clip = otio.schema.Clip(printable(video.path.name), media_reference=media, source_range=full_range)
    for marker in markers:
        frame = otio.opentime.TimeRange(frame_time(marker.time), otio.opentime.RationalTime(1, video.fps))
        clip.markers.append(otio.schema.Marker(marker.name, marked_range=frame, color=COLORS[marker.kind].upper()))
    timeline = otio.schema.Timeline(printable(video.path.stem))
    timeline.tracks.append(otio.schema.Track("V1", children=[clip], kind=otio.schema.TrackKind.Video))
    path.write_text(timeline.to_json_string(), encoding="utf-8")  # its own writer takes no undecodable path
