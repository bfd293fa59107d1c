"""Seconds ↔ samples ↔ frames ↔ beats. The only file that multiplies or divides by a rate."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike

from v2m.core.types import Floats


def sample_count(seconds: float, sample_rate: int) -> int:
    """Number of samples in `seconds`, to the nearest one; a half rounds up."""
    return int(np.floor(seconds * sample_rate + 0.5))


def seconds_of(samples: int, sample_rate: int) -> float:
    return samples / sample_rate


@overload
def clock_seconds(ticks: int, time_base: Fraction | None) -> float: ...
@overload
def clock_seconds(ticks: np.ndarray, time_base: Fraction | None) -> Floats: ...
def clock_seconds(ticks: int | np.ndarray, time_base: Fraction | None) -> float | Floats:
    """Seconds on a container's clock, each tick of which lasts `time_base` (as every stream that is read has one)."""
    assert time_base is not None
    return ticks * time_base.numerator / time_base.denominator


def mean_rate(count: int, seconds: float) -> float:
    """Mean number of events per second."""
    return count / seconds


def every(rate: float, duration: float) -> Floats:
    """The instants k / `rate` in [0, `duration`), at least one: no rounded step, so no drift."""
    return np.arange(max(1, int(np.ceil(duration * rate - 1e-9)))) / rate


def shown_at(timestamps: Floats, times: ArrayLike) -> np.ndarray:
    """Index of the frame on screen at each of `times`: the last one whose timestamp is not after it (or the first)."""
    return np.clip(np.searchsorted(timestamps, np.asarray(times) + 1e-6, side="right") - 1, 0, len(timestamps) - 1)


def angular_frequency(frequency: float, sample_rate: int) -> float:
    """Angle that `frequency` (Hz) turns through in one sample."""
    return 2.0 * np.pi * frequency / sample_rate


def bin_frequency(index: int, size: int, sample_rate: int) -> float:
    """Hz of a bin of a Fourier transform over `size` samples."""
    return index * sample_rate / size


def db_to_gain(db: float) -> float:
    return float(10.0 ** (db / 20.0))


@dataclass(frozen=True)
class TempoMap:
    """Beats to seconds, straight between `beats` (B,) at `times` (B,): both strictly rising. Beat 0 opens bar 1."""

    beats: Floats
    times: Floats

    def __post_init__(self) -> None:
        assert len(self.beats) == len(self.times) >= 2, "a tempo map needs at least two points"
        assert (np.diff(self.beats) > 0).all(), "beats must rise"
        assert (np.diff(self.times) > 0).all(), "times must rise"

    @classmethod
    def constant(cls, tempo: float, start: float = 0.0) -> TempoMap:
        """One tempo (beats per minute) throughout; beat 0 at `start` seconds."""
        return cls(np.array([0.0, 1.0]), np.array([start, start + 60.0 / tempo]))

    def beat_to_time(self, beat: ArrayLike) -> Floats:
        """Seconds of `beat`; beyond the ends the outermost tempo goes on."""
        return _piecewise_linear(np.asarray(beat, float), self.beats, self.times)

    def time_to_beat(self, time: ArrayLike) -> Floats:
        """Beats at `time` seconds; the inverse of `time`."""
        return _piecewise_linear(np.asarray(time, float), self.times, self.beats)

    def tempo(self, beat: float) -> float:
        """Beats per minute just after `beat`."""
        span = self.beat_to_time([beat, beat + 1e-6])
        return 60.0 * 1e-6 / float(span[1] - span[0])


@dataclass(frozen=True)
class TimeMap:
    """Seconds of a recording to those of its stretched copy, straight between the knots; both (B,) strictly rising."""

    source: Floats
    target: Floats

    def __post_init__(self) -> None:
        assert len(self.source) == len(self.target) >= 2, "a map needs at least two knots"
        assert (np.diff(self.source) > 0).all(), "source times must rise"
        assert (np.diff(self.target) > 0).all(), "target times must rise"

    def forward(self, time: ArrayLike) -> Floats:
        """Position of `time` in the stretched copy; beyond the ends the outermost rate goes on."""
        return _piecewise_linear(np.asarray(time, float), self.source, self.target)

    def inverse(self, time: ArrayLike) -> Floats:
        """The inverse of `to`."""
        return _piecewise_linear(np.asarray(time, float), self.target, self.source)

    @property
    def stretch_factors(self) -> Floats:
        """(B − 1,) how many times as long each piece is in the copy."""
        return np.diff(self.target) / np.diff(self.source)


def _piecewise_linear(x: Floats, xs: Floats, ys: Floats) -> Floats:
    slopes = np.diff(ys) / np.diff(xs)
    piece = np.clip(np.searchsorted(xs, x, side="right") - 1, 0, len(slopes) - 1)
    return ys[piece] + (x - xs[piece]) * slopes[piece]


def frame_number(seconds: float, fps: float) -> int:
    """The frame shown at `seconds` when `fps` frames follow each other evenly from 0."""
    return int(np.floor(seconds * fps + 0.05))  # containers round their timestamps to a millisecond


def timecode(frame: int, rate: int) -> str:
    """`frame` as hours:minutes:seconds:frames at `rate` whole frames per second, non-drop."""
    seconds, frames = divmod(frame, rate)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}:{frames:02d}"


def beat_seconds(tempo: float) -> float:
    """Length of a beat at `tempo` beats per minute; also the tempo of a beat of so many seconds."""
    return 60.0 / tempo


def hop_length(sample_rate: int, frame_rate: int) -> int:
    """Samples from one codec frame to the next, a whole number."""
    assert sample_rate % frame_rate == 0, f"{sample_rate} Hz is no multiple of {frame_rate} frames a second"
    return sample_rate // frame_rate


def place_at(seconds: Any, rate: float) -> Any:
    """Unrounded number of frames at `rate` in `seconds`: a number, an array or a tensor."""
    return seconds * rate


def codec_frames(seconds: float, frame_rate: int) -> int:
    """Number of codec frames that cover `seconds`."""
    return int(np.ceil(seconds * frame_rate - 1e-9))


def step_count(seconds: float, rate: float) -> int:
    """Number of equal steps of about 1 / `rate` in `seconds`, at least one."""
    return max(1, int(np.floor(seconds * rate + 0.5)))


def step_times(seconds: float, count: int) -> Floats:
    """The middles of `count` equal steps of `seconds`."""
    return (np.arange(count, dtype=np.float64) + 0.5) * (seconds / count)


def step_at(begin: float, seconds: float, count: int) -> int:
    """Index of the step, of `count` equal steps of `seconds`, that starts nearest to `begin`."""
    return int(np.floor(begin * count / seconds + 0.5))


def step_begin(step: int, seconds: float, count: int) -> float:
    """Start of a step in seconds."""
    return step * seconds / count


def glances(duration: float, rate: float, limit: int) -> Floats:
    """(F,) instants at which to look at `duration` seconds, `rate` times a second and at most `limit` times.

    The middles of blocks of 1 / `rate` where they are few enough, else `limit` from the first frame to the last, as
    VideoLLaMA3's authors sample; a video shorter than a block, or a single glance, gives its middle.
    """
    block = min(1.0 / rate, duration)
    if limit == 1 or duration <= block:
        return np.array([duration / 2])
    if duration < limit * block:
        return np.arange(block / 2, duration, block)
    return np.linspace(0.0, duration, limit)
