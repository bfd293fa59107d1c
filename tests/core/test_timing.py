"""Conversions between units of time and their inverses."""

from __future__ import annotations

import numpy as np
import pytest

from v2m.core import timing
from v2m.core.timing import TempoMap


@pytest.mark.parametrize("rate", [44100, 48000, 32000])
@pytest.mark.parametrize("seconds", [0.0, 0.033, 1 / 3, 10.01, 3599.96])
def test_seconds_to_samples_round_trip(seconds: float, rate: int) -> None:
    assert timing.samples_to_seconds(timing.seconds_to_samples(seconds, rate), rate) == pytest.approx(
        seconds, abs=0.5 / rate
    )


def test_time_grid_does_not_drift_over_an_hour() -> None:
    instants = timing.time_grid(2.0, 3600.0)
    assert len(instants) == 7200
    assert instants[-1] == 3599.5


def test_time_grid_has_one_time_for_a_video_shorter_than_its_step() -> None:
    assert timing.time_grid(2.0, 0.03).tolist() == [0.0]


def test_frame_index_at_gives_the_last_frame_that_has_started() -> None:
    stamps = np.array([0.0, 0.04, 0.5, 0.54])
    assert timing.frame_index_at(stamps, [0.0, 0.039, 0.04, 0.3, 0.5, 9.0, -1.0]).tolist() == [0, 0, 1, 1, 2, 3, 0]


def test_tempo_map_inverse_inside_and_beyond_its_ends() -> None:
    tempo = TempoMap(np.array([0.0, 8.0, 20.0]), np.array([0.5, 4.5, 10.0]))
    beats = np.linspace(-2, 30, 65)
    assert tempo.time_to_beat(tempo.beat_to_time(beats)) == pytest.approx(beats)
    assert tempo.beat_to_time(8.0) == 4.5
    assert tempo.tempo(2.0) == pytest.approx(120.0)
    assert tempo.tempo(10.0) == pytest.approx(60 * 12 / 5.5)


def test_constant_tempo_map_keeps_its_tempo() -> None:
    assert TempoMap.constant(90.0, start=1.0).beat_to_time([0, 3]) == pytest.approx([1.0, 3.0])


@pytest.mark.parametrize(
    ("seconds", "fps", "frame"),
    [
        (89 / 30, 30.0, 89),
        (0.033, 30.0, 1),
        (0.031, 30.0, 0),
        (0.967, 30.0, 29),
        (100 * 1001 / 30000, 30000 / 1001, 100),
    ],
)
def test_frame_number_tolerates_rounded_timestamps(seconds: float, fps: float, frame: int) -> None:
    assert timing.frame_number(seconds, fps) == frame


def test_timecode_is_non_drop() -> None:
    assert timing.timecode(3600 * 30 + 61 * 30 + 7, 30) == "01:01:01:07"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("62.5", 62.5),
        ("0:03", 3),
        ("1:02.5", 62.5),
        ("00:00:03", 3),
        ("1:01:01.25", 3661.25),
        ("90:00", 5400),
    ],
)
def test_parse_seconds_reads_times_as_people_type_them(text: str, seconds: float) -> None:
    assert timing.parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "a", "1:60", "1:-3", "-1:30", "1:2:3:4", "1:75:00", ":30", "1:", "1:nan"])
def test_parse_seconds_refuses_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"no time|minutes|convert"):
        timing.parse_seconds(text)
