"""Time arithmetic of samples, frames and beats; the only file that multiplies or divides by a rate."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike

from v2m.core.types import Floats

if TYPE_CHECKING:
    Seconds = float
else:

    class Seconds(float):
        """The type of an option in seconds, which may be given as `parse_seconds` takes it."""


MIN_SLIDE_S = 2.0  # by which the frames of a slideshow lie apart


def parse_seconds(value: float | str) -> float:
    """Return the seconds of a number, or of text such as 90, 1:30.5 or 00:01:30. Raise ValueError."""
    if not isinstance(value, str):
        return float(value)
    *larger, seconds = value.split(":")
    units = [int(unit) for unit in larger if unit.isascii() and unit.isdigit()]
    if len(larger) > 2 or len(units) < len(larger) or (larger and not 0 <= float(seconds) < 60):
        raise ValueError(f"{value!r} is no time: give seconds, minutes:seconds or hours:minutes:seconds")
    if len(units) == 2 and units[1] >= 60:
        raise ValueError(f"{value!r} has {units[1]} minutes beside hours: give at most 59")
    return sum(unit * 60**power for power, unit in enumerate(reversed(units), 1)) + float(seconds)


def seconds_to_samples(seconds: float, sample_rate: int) -> int:
    """Return the number of samples in `seconds`, to the nearest one; a half rounds up."""
    return int(np.floor(seconds * sample_rate + 0.5))


def samples_to_seconds(samples: int, sample_rate: int) -> float:
    return samples / sample_rate


@overload
def ticks_to_seconds(ticks: int, time_base: Fraction | None) -> float: ...
@overload
def ticks_to_seconds(ticks: np.ndarray, time_base: Fraction | None) -> Floats: ...
def ticks_to_seconds(ticks: int | np.ndarray, time_base: Fraction | None) -> float | Floats:
    """Convert ticks of a container's clock to seconds; every stream that is read has a `time_base`."""
    assert time_base is not None
    return ticks * time_base.numerator / time_base.denominator


def is_slideshow(timestamps: Floats) -> bool:
    """Return whether all frames, at rising times (F,), lie `MIN_SLIDE_S` apart, or there is only one."""
    return len(timestamps) == 1 or bool(np.diff(timestamps).min() >= MIN_SLIDE_S)


def mean_rate(count: int, seconds: float) -> float:
    return count / seconds


def time_grid(rate: float, duration: float) -> Floats:
    """Return the times k / `rate` in [0, `duration`), at least one: no rounded step, so no drift."""
    return np.arange(max(1, int(np.ceil(duration * rate - 1e-9)))) / rate


def frame_index_at(timestamps: Floats, times: ArrayLike) -> np.ndarray:
    """Return the index of the frame shown at each of `times`: the last one not after it, or the first."""
    return np.clip(np.searchsorted(timestamps, np.asarray(times) + 1e-6, side="right") - 1, 0, len(timestamps) - 1)


def angular_frequency(frequency: float, sample_rate: int) -> float:
    """Return the angle of one sample at `frequency` (Hz), in radians."""
    return 2.0 * np.pi * frequency / sample_rate


def bin_frequency(index: int, size: int, sample_rate: int) -> float:
    """Return the frequency (Hz) of a bin of a Fourier transform over `size` samples."""
    return index * sample_rate / size


def db_to_gain(db: float) -> float:
    return float(10.0 ** (db / 20.0))


@dataclass(frozen=True)
class TempoMap:
    """Piecewise linear map of `beats` (B,) to `times` (B,), both strictly rising. Beat 0 opens bar 1."""

    beats: Floats
    times: Floats

    def __post_init__(self) -> None:
        _check_knots(self.beats, self.times)

    @classmethod
    def constant(cls, tempo: float, start: float = 0.0) -> TempoMap:
        """Return the map of one tempo (beats per minute), with beat 0 at `start` seconds."""
        return cls(np.array([0.0, 1.0]), np.array([start, start + 60.0 / tempo]))

    def beat_to_time(self, beat: ArrayLike) -> Floats:
        """Return the seconds of `beat`; beyond the ends the outermost tempo goes on."""
        return _piecewise_linear(np.asarray(beat, float), self.beats, self.times)

    def time_to_beat(self, time: ArrayLike) -> Floats:
        return _piecewise_linear(np.asarray(time, float), self.times, self.beats)

    def tempo(self, beat: float) -> float:
        """Return the beats per minute just after `beat`."""
        span = self.beat_to_time([beat, beat + 1e-6])
        return 60.0 * 1e-6 / float(span[1] - span[0])


@dataclass(frozen=True)
class TimeMap:
    """Piecewise linear map of seconds to those of a stretched copy; both (B,) and strictly rising."""

    source: Floats
    target: Floats

    def __post_init__(self) -> None:
        _check_knots(self.source, self.target)

    def forward(self, time: ArrayLike) -> Floats:
        """Return the position of `time` in the stretched copy; beyond the ends the outermost rate goes on."""
        return _piecewise_linear(np.asarray(time, float), self.source, self.target)

    def inverse(self, time: ArrayLike) -> Floats:
        return _piecewise_linear(np.asarray(time, float), self.target, self.source)

    @property
    def stretch_factors(self) -> Floats:
        """Return the (B − 1,) factors by which each segment is longer in the copy."""
        return np.diff(self.target) / np.diff(self.source)


def _check_knots(xs: Floats, ys: Floats) -> None:
    assert len(xs) == len(ys) >= 2, "a map needs at least two knots"
    assert (np.diff(xs) > 0).all(), "knots must rise"
    assert (np.diff(ys) > 0).all(), "values must rise"


def _piecewise_linear(x: Floats, xs: Floats, ys: Floats) -> Floats:
    slopes = np.diff(ys) / np.diff(xs)
    segment = np.clip(np.searchsorted(xs, x, side="right") - 1, 0, len(slopes) - 1)
    return ys[segment] + (x - xs[segment]) * slopes[segment]


def frame_number(seconds: float, fps: float) -> int:
    """Return the number of the frame shown at `seconds` of a video with a constant `fps`."""
    return int(np.floor(seconds * fps + 0.05))  # containers round their timestamps to a millisecond


def timecode(frame: int, rate: int) -> str:
    """Format `frame` as hours:minutes:seconds:frames at `rate` whole frames per second, non-drop."""
    seconds, frames = divmod(frame, rate)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}:{frames:02d}"


def beat_seconds(tempo: float) -> float:
    """Return the seconds of a beat at `tempo` beats per minute; also the tempo of a beat in seconds."""
    return 60.0 / tempo


def hop_length(sample_rate: int, frame_rate: int) -> int:
    """Return the samples from one codec frame to the next, a whole number."""
    assert sample_rate % frame_rate == 0, f"{sample_rate} Hz is no multiple of {frame_rate} frames a second"
    return sample_rate // frame_rate


def seconds_to_frames(seconds: Any, rate: float) -> Any:
    """Return the unrounded number of frames in `seconds`: a number, an array or a tensor."""
    return seconds * rate


def codec_frames(seconds: float, frame_rate: int) -> int:
    """Return the number of codec frames that cover `seconds`."""
    return int(np.ceil(seconds * frame_rate - 1e-9))


def segment_count(seconds: float, rate: float) -> int:
    """Return the number of equal segments of about 1 / `rate` in `seconds`, at least one."""
    return max(1, int(np.floor(seconds * rate + 0.5)))


def segment_times(seconds: float, count: int) -> Floats:
    """Return the middles of `count` equal segments of `seconds`."""
    return (np.arange(count, dtype=np.float64) + 0.5) * (seconds / count)


def segment_at(start: float, seconds: float, count: int) -> int:
    """Return the index of that of `count` equal segments of `seconds` which starts nearest to `start`."""
    return int(np.floor(start * count / seconds + 0.5))


def segment_start(index: int, seconds: float, count: int) -> float:
    return index * seconds / count


def sample_frames(timestamps: Floats, duration: float, rate: float, limit: int) -> tuple[Floats, Floats]:
    """Return the (F,) times of frames, and those told to the model, as VideoLLaMA3's loader samples.

    Of each whole block of 1 / `rate` the last frame, told as its start (FFmpeg's `fps=RATE:round=down`); of more than
    `limit` blocks those spread from first to last.
    """
    count = max(1, int(np.floor(duration * rate + 1e-6)))
    blocks = np.arange(count) if count <= limit else np.linspace(0, count - 1, limit, dtype=int)
    shown = np.searchsorted(timestamps, (blocks + 1) / rate - 1e-6) - 1
    return timestamps[np.maximum(shown, 0)], blocks / rate
