"""The music and the clip's own sound in one piece: what gives way to what, before loudness.

C channels, N samples.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from v2m.analysis.loudness import integrated_loudness
from v2m.core.audio_ops import HOP, apply_gain
from v2m.core.errors import UsageError
from v2m.core.timing import db_to_gain, sample_count, seconds_of
from v2m.core.types import Audio, Floats, Video
from v2m.media.audio import read_track, resample
from v2m.media.ffmpeg import DISCONTINUOUS_FORMATS
from v2m.mixing.ducking import HOP_S, DuckingConfig, detect_foreground, ducking_gain
from v2m.mixing.mastering import Levels

SAMPLE_RATE = 48_000
SPLICE_FADE_S = 0.05  # seconds over which the clip's own sound gives way at the ends of a span
MIN_REFERENCE_LUFS = -30.0  # LUFS: the music is never set lower than this under a quieter clip


@dataclass(frozen=True)
class MixConfig:
    """How the music meets the clip's own sound, and how loud the result is.

    Args:
        original: What becomes of the clip's own sound: "replace" leaves only the music, "keep" plays both,
            "duck" plays both and lowers the music while something stands out in the clip.
        music_gain: Decibels added to the music. With keep and duck, 0 is as loud as the clip's own sound. With
            replace it only tells where lufs is null.
        lufs: Integrated loudness of the result: -14 for social media, -16 podcast, -23 EBU R128; null leaves it alone.
            With replace and a start or end it is the loudness of the music, the sound around it stays as it was.
        true_peak: The highest peak allowed in the finished file, in dBTP.
        fade_in: Seconds over which the music begins.
        fade_out: Seconds over which the music ends.
        duck: How far and how fast the music gives way.
        start: Second of the video where the music begins.
        end: Second of the video where the music ends.
    """

    original: Literal["replace", "keep", "duck"] = "replace"
    music_gain: float = 0.0
    lufs: float | None = -14.0
    true_peak: float = -1.0
    fade_in: float = 0.01
    fade_out: float = 0.05
    duck: DuckingConfig = field(default_factory=DuckingConfig)
    start: float | None = None
    end: float | None = None

    def __post_init__(self) -> None:
        ranges = {
            "music_gain": (self.music_gain, -60, 30, "dB"),
            "lufs": (self.lufs, -40, -5, "LUFS"),
            "true_peak": (self.true_peak, -20, 0, "dBTP"),
            "fade_in": (self.fade_in, 0, 60, "s"),
            "fade_out": (self.fade_out, 0, 60, "s"),
        }
        problems = [
            f"{name} {value:g} is outside {low} to {high} {unit}"
            for name, (value, low, high, unit) in ranges.items()
            if value is not None and not low <= value <= high
        ]
        if self.original not in {"replace", "keep", "duck"}:
            problems.append(f"original {self.original!r} is not replace, keep or duck")
        if self.start is not None and not self.start >= 0:
            problems.append(f"start {self.start:g} s lies before the video")
        if self.end is not None and not self.end > (self.start or 0.0):
            problems.append(f"end {self.end:g} s must lie after start {self.start or 0.0:g} s")
        if problems := problems + self.duck.problems():
            raise UsageError("mix: " + "; ".join(problems))


@dataclass(frozen=True)
class Mixdown:
    """`audio` as long as the video; `target` is the loudness it still has to be brought to, None for none."""

    audio: Audio
    target_loudness: float | None
    music_loudness: float
    original_loudness: float | None = None
    ducked_share: float | None = None  # share of the time with music in which it gives way
    warnings: tuple[str, ...] = ()


def mix_tracks(video: Video, music: Audio, config: MixConfig) -> Mixdown:
    """Puts `music` on the video's time line, with the clip's own sound as `settings` want it.

    Raises:
        UsageError: The span lies outside the video.
    """
    count = sample_count(video.duration, SAMPLE_RATE)
    low, high = _music_range(video, config, count)
    bed, warnings = _prepare_music(music, high - low, config)
    loud = integrated_loudness(bed)
    target = config.lufs
    if not np.isfinite(loud):
        warnings.append("silent_music: the music is silent or shorter than 0.4 s, so loudness was left alone")
        target = None
    partial = (low, high) != (0, count)
    original = None
    if video.audio_streams and (partial or config.original != "replace"):
        original, whole = _original_audio(video)
        if not whole:
            warnings.append("original_sound_damaged: parts of the clip's own sound could not be decoded")
    if original is None:
        return Mixdown(_place_at(bed, low, count), target, loud, warnings=tuple(warnings))
    if config.original == "replace":
        Levels.from_audio(bed).master(target, config.true_peak).apply(bed)
        _crossfade_out(original.samples, low, high)
        original.samples[:, low:high] += bed.samples
        return Mixdown(original, None, loud, integrated_loudness(original), warnings=tuple(warnings))
    own = integrated_loudness(original)
    if np.isfinite(loud):
        _apply_gain_db(bed, max(own, MIN_REFERENCE_LUFS) + config.music_gain - loud)
    ducked = None
    if config.original == "duck":
        active = detect_foreground(original)
        hop = sample_count(HOP_S, SAMPLE_RATE)
        ducked = float(active[low // hop : -(-high // hop)].mean())
        apply_gain(bed.samples, _to_limiter_hops(ducking_gain(active, config.duck), count), low)
    original.samples[:, low:high] += bed.samples
    return Mixdown(original, target, loud, own, ducked, tuple(warnings))


def _original_audio(video: Video) -> tuple[Audio, bool]:
    """The clip's first audio track along its pictures, and whether all of it could be decoded."""
    index, restarting = video.audio_streams[0].index, not DISCONTINUOUS_FORMATS.isdisjoint(video.container.split(","))
    return read_track(video.path, index, video.offset, video.duration, SAMPLE_RATE, discontinuous=restarting)


def _music_range(video: Video, config: MixConfig, count: int) -> tuple[int, int]:
    low = sample_count(config.start or 0.0, SAMPLE_RATE)
    high = count if config.end is None else min(sample_count(config.end, SAMPLE_RATE), count)
    if low >= high:
        raise UsageError(f"mix: start {config.start:g} s lies outside the video (0 to {video.duration:.2f} s)")
    return low, high


def _prepare_music(music: Audio, count: int, config: MixConfig) -> tuple[Audio, list[str]]:
    """A copy of the music in stereo of exactly `count` samples, faded and with its gain."""
    warnings: list[str] = []
    ready = resample(music, SAMPLE_RATE).samples[:, :count]
    if ready.shape[1] < count - HOP:
        missing = seconds_of(count - ready.shape[1], SAMPLE_RATE)
        warnings.append(f"short_music: the music ends {missing:.2f} s before its part of the video does")
    bed = np.zeros((2, count), np.float32)
    bed[:, : ready.shape[1]] = ready
    _apply_fades(bed[:, : ready.shape[1]], config.fade_in, config.fade_out)
    audio = Audio(bed, SAMPLE_RATE)
    _apply_gain_db(audio, config.music_gain)
    return audio, warnings


def _apply_fades(samples: NDArray[np.float32], seconds_in: float, seconds_out: float) -> None:
    """A raised cosine at either end, in place."""
    for view, seconds in ((samples, seconds_in), (samples[:, ::-1], seconds_out)):
        length = min(sample_count(seconds, SAMPLE_RATE), view.shape[1])
        view[:, :length] *= _raised_cosine(length)


def _raised_cosine(length: int) -> NDArray[np.float32]:
    return np.square(np.sin(np.linspace(0, np.pi / 2, length, endpoint=False))).astype(np.float32)


def _crossfade_out(samples: NDArray[np.float32], low: int, high: int) -> None:
    """Silences [low, high) in place, over a moment at the ends where sound goes on outside."""
    join = min(sample_count(SPLICE_FADE_S, SAMPLE_RATE), (high - low) // 2)
    before = join if low > 0 else 0
    after = join if high < samples.shape[1] else 0
    samples[:, low : low + before] *= 1 - _raised_cosine(before)
    samples[:, low + before : high - after] = 0
    samples[:, high - after : high] *= _raised_cosine(after)


def _apply_gain_db(audio: Audio, gain_db: float) -> None:
    if gain_db:
        np.multiply(audio.samples, np.float32(db_to_gain(gain_db)), out=audio.samples)


def _place_at(bed: Audio, low: int, count: int) -> Audio:
    if len(bed) == count:
        return bed
    out = np.zeros((2, count), np.float32)
    out[:, low : low + len(bed)] = bed.samples
    return Audio(out, SAMPLE_RATE)


def _to_limiter_hops(decibels: Floats, count: int) -> Floats:
    """A curve of one value per 10 ms as gains, one per hop of the limiter."""
    middles = (np.arange(-(-count // HOP)) + 0.5) * HOP / sample_count(HOP_S, SAMPLE_RATE) - 0.5
    return 10.0 ** (np.interp(middles, np.arange(len(decibels)), decibels) / 20.0)
