"""Markers are on their frame in EDL and OTIO."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import opentimelineio as otio
import pytest

from v2m.core.types import Audio, Section, Soundtrack, Video
from v2m.pipeline import markers

CLIP = Video(Path("/videos/two words.mp4"), "mp4", "h264", 64, 36, 0, 25.0, 8.0, np.arange(200) / 25, 0.0, ())
SCORE = Soundtrack(
    Audio(np.zeros((2, 10), np.float32), 48000),
    sections=(Section("intro", 0.0, 2.0), Section("A", 2.0, 8.0)),
    metadata={"hits": [{"time": 2.0, "strength": 0.75}, {"time": 3.28, "strength": 0.5}]},
)


def test_edl_has_named_one_frame_events_from_one_hour() -> None:
    lines = markers.format_edl("t", markers.collect_markers(CLIP, SCORE), CLIP.fps).splitlines()
    assert lines[:2] == ["TITLE: t", "FCM: NON-DROP FRAME"]
    assert lines[-2:] == [
        "004  001      V     C        01:00:03:07 01:00:03:08 01:00:03:07 01:00:03:08",
        " |C:ResolveColorRed |M:hit 0.50 |D:1",
    ]
    assert " |C:ResolveColorBlue |M:section A |D:1" in lines


def test_markers_of_a_span_are_in_time_of_the_file() -> None:
    assert markers.collect_markers(replace(CLIP, start=10.0), SCORE)[0].time == 10.0


def test_otio_round_trip_keeps_each_marker_on_its_frame(tmp_path: Path) -> None:
    markers.write(tmp_path / "m.otio", CLIP, SCORE)
    timeline = otio.adapters.read_from_file(str(tmp_path / "m.otio"))
    clip = timeline.find_clips()[0]
    assert clip.source_range.duration.to_seconds() == pytest.approx(8.0)
    assert clip.media_reference.target_url == "file:///videos/two%20words.mp4"
    frames = {item.name: item.marked_range.start_time.to_frames() for item in clip.markers}
    assert frames == {"section intro": 0, "section A": 50, "hit 0.75": 50, "hit 0.50": 82}
