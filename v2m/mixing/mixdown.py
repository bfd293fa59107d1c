"""Mixdown of the music and the clip's own audio, before mastering, with ducking of the music.

C channels, N samples, H hops of 10 ms.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from v2m.analysis.loudness import gated_loudness, integrated_loudness, k_weighted_power, power_to_lufs
from v2m.core import mapped_array
from v2m.core.audio_ops import HOP, apply_gain, fade_edges, raised_cosine
from v2m.core.errors import UsageError
from v2m.core.timing import db_to_gain, samples_to_seconds, seconds_to_samples, time_grid
from v2m.core.types import Audio, Floats, Video
from v2m.media.audio import original_audio, resample
from v2m.mixing.mastering import Levels, slew_limit

SAMPLE_RATE = 48_000
SPLICE_FADE_S = 0.05  # fades of the clip's own audio at the ends of the music's range
MIN_REFERENCE_LUFS = -30.0  # a quieter clip does not lower the music further
HOP_S, HOPS_PER_SECOND = 0.01, 100  # of the ducking
MIN_PROMINENCE_DB = 9.0  # of a foreground sound over the background
MAX_BELOW_LOUDNESS_DB = 20.0  # of a foreground sound under the clip's integrated loudness
MIN_LEVEL_LUFS, SILENCE_LUFS = -50.0, -120.0
MIN_SOUND_S, MAX_PAUSE_S = 0.08, 0.6  # a click is shorter, a pause for breath is not longer
BACKGROUND_REACH_S = 5.0  # to either side, over which the background is estimated


@dataclass(frozen=True)
class DuckingConfig:
    """Depth and times of the ducking.

    Args:
        depth: Gain of the music under the clip's own sound, 0 to -60 dB.
        pre_roll: Seconds before the sound at which the music starts to fall.
        attack: Seconds the way down takes.
        release: Seconds the way back takes.
    """

    depth: float = -12.0
    pre_roll: float = 0.12
    attack: float = 0.08
    release: float = 0.45


@dataclass(frozen=True)
class MixConfig:
    """Options of the mix: the clip's own sound, gains, loudness, fades.

    Args:
        original: The clip's own sound: "replace" leaves only the music, "keep" plays both,
            "duck" plays both and lowers the music while something stands out in the clip.
        music_gain: Decibels added to the music. With keep and duck, 0 is as loud as the clip's own sound. With
            replace it only matters where lufs is null.
        lufs: Integrated loudness of the result: -14 for social media, -16 podcast, -23 EBU R128; null leaves it alone.
            With replace and a start or end it is the loudness of the music, the sound around it stays as it was.
        true_peak: The highest peak allowed in the finished file, in dBTP.
        fade_in: Seconds over which the music begins.
        fade_out: Seconds over which the music ends.
        duck: Depth and times of the ducking.
        start: Second of the video where the music begins.
        end: Second of the video where the music ends.
        track: The clip's own sound, counted from 1 among its audio tracks; its default track by default.
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
    track: int | None = None

    def __post_init__(self) -> None:
        ranges = {
            "music_gain": (self.music_gain, -60, 30, "dB"),
            "lufs": (self.lufs, -40, -5, "LUFS"),
            "true_peak": (self.true_peak, -20, 0, "dBTP"),
            "fade_in": (self.fade_in, 0, 60, "s"),
            "fade_out": (self.fade_out, 0, 60, "s"),
            "duck.depth": (self.duck.depth, -60, 0, "dB"),
            "duck.pre_roll": (self.duck.pre_roll, 0, 5, "s"),
            "duck.attack": (self.duck.attack, 0, 5, "s"),
            "duck.release": (self.duck.release, 0, 5, "s"),
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
        if problems:
            raise UsageError("mix: " + "; ".join(problems))


@dataclass(frozen=True)
class Mixdown:
    """A mix as long as the video, before mastering; loudness in LUFS."""

    audio: Audio  # stereo at `SAMPLE_RATE`
    music_range: slice  # the samples with music
    target_loudness: float | None  # that mastering has to reach; None leaves it alone
    music_loudness: float  # before the music's gain in the mix
    original_loudness: float | None = None  # None where none of the clip's own audio is in the mix
    ducked_share: float | None = None  # of the time with music
    warnings: tuple[str, ...] = ()  # as `name: message`


def mix_tracks(video: Video, music: Audio, config: MixConfig) -> Mixdown:
    """Mix `music` and the clip's own audio; raise UsageError where the range lies outside the video."""
    count = seconds_to_samples(video.duration, SAMPLE_RATE)
    low, high = _music_range(video, config, count)
    bed, warnings = _prepare_music(music, high - low, config)
    music_loudness, target = integrated_loudness(bed), config.lufs
    if not np.isfinite(music_loudness):
        warnings.append("silent_music: the music is silent or shorter than 0.4 s, so loudness was left alone")
        target = None
    original = None
    needs_original = bool(video.audio_streams) and (config.original != "replace" or (low, high) != (0, count))
    if needs_original and video.audio_track(config.track) is None:
        warnings.append("original_sound_left_out: no audio track of the clip can be decoded")
    elif needs_original:
        original, complete = original_audio(video, SAMPLE_RATE, track=config.track)
        if not complete:
            warnings.append("original_sound_damaged: parts of the clip's own sound could not be decoded")
    if original is None:
        if len(bed) < count:
            padded = mapped_array.zeros((2, count))
            _add(padded[:, low:high], bed.samples)
            bed = Audio(padded, SAMPLE_RATE)
        return Mixdown(bed, slice(low, high), target, music_loudness, warnings=tuple(warnings))
    original_loudness = integrated_loudness(original)
    if config.original == "replace":  # in a part of the video: the sound around it stays as it is
        Levels.from_audio(bed).master(target, config.true_peak).apply(bed)
        _crossfade_out(original.samples, low, high)
        _add(original.samples[:, low:high], bed.samples)
        return Mixdown(original, slice(low, high), None, music_loudness, original_loudness, warnings=tuple(warnings))
    if np.isfinite(music_loudness):
        _apply_gain_db(bed, max(original_loudness, MIN_REFERENCE_LUFS) + config.music_gain - music_loudness)
    ducked_share = None
    if config.original == "duck":
        active = detect_foreground(original)
        hop = seconds_to_samples(HOP_S, SAMPLE_RATE)
        ducked_share = float(active[low // hop : -(-high // hop)].mean())
        apply_gain(bed.samples, _to_limiter_hops(ducking_gain(active, config.duck), count), low)
    _add(original.samples[:, low:high], bed.samples)
    music_range = slice(low, high)
    return Mixdown(original, music_range, target, music_loudness, original_loudness, ducked_share, tuple(warnings))


def _music_range(video: Video, config: MixConfig, count: int) -> tuple[int, int]:
    low = seconds_to_samples(config.start or 0.0, SAMPLE_RATE)
    high = count if config.end is None else min(seconds_to_samples(config.end, SAMPLE_RATE), count)
    if low >= count:
        raise UsageError(f"mix: start {config.start:g} s lies outside the video (0 to {video.duration:.2f} s)")
    if low >= high:
        raise UsageError(f"mix: end {config.end:g} s must lie a sample or more after start {config.start or 0.0:g} s")
    return low, high


def _prepare_music(music: Audio, count: int, config: MixConfig) -> tuple[Audio, list[str]]:
    """Return the music as stereo of exactly `count` samples, faded and with its gain, and warnings."""
    warnings: list[str] = []
    stereo = resample(music, SAMPLE_RATE).samples[:, :count]
    if stereo.shape[1] < count - HOP:
        missing = samples_to_seconds(count - stereo.shape[1], SAMPLE_RATE)
        warnings.append(f"short_music: the music ends {missing:.2f} s before its part of the video does")
    bed = mapped_array.zeros((2, count))
    _add(bed[:, : stereo.shape[1]], stereo)
    fade_in, fade_out = (seconds_to_samples(seconds, SAMPLE_RATE) for seconds in (config.fade_in, config.fade_out))
    fade_edges(bed[:, : stereo.shape[1]], fade_in, fade_out)
    audio = Audio(bed, SAMPLE_RATE)
    _apply_gain_db(audio, config.music_gain)
    return audio, warnings


def _crossfade_out(samples: NDArray[np.float32], low: int, high: int) -> None:
    """Silence [low, high) in place, with short fades at the ends where there is audio outside."""
    fade = min(seconds_to_samples(SPLICE_FADE_S, SAMPLE_RATE), (high - low) // 2)
    fade_out = fade if low > 0 else 0
    fade_in = fade if high < samples.shape[1] else 0
    samples[:, low : low + fade_out] *= 1 - raised_cosine(fade_out)
    samples[:, low + fade_out : high - fade_in] = 0
    samples[:, high - fade_in : high] *= raised_cosine(fade_in)


def _apply_gain_db(audio: Audio, gain_db: float) -> None:
    if gain_db:
        for part in mapped_array.chunks(len(audio)):
            audio.samples[:, part] *= np.float32(db_to_gain(gain_db))


def _add(total: NDArray[np.float32], samples: NDArray[np.float32]) -> None:
    for part in mapped_array.chunks(total.shape[1]):
        total[:, part] += samples[:, part]


def _to_limiter_hops(gain_db: Floats, count: int) -> Floats:
    """Resample a gain in dB, one value per 10 ms, to linear gains, one per hop of the limiter."""
    middles = (np.arange(-(-count // HOP)) + 0.5) * HOP / seconds_to_samples(HOP_S, SAMPLE_RATE) - 0.5
    return 10.0 ** (np.interp(middles, np.arange(len(gain_db)), gain_db) / 20.0)


def detect_foreground(original: Audio) -> np.ndarray:
    """(H,) bool: the hops with a sound in the foreground of the clip.

    A hop counts when its K-weighted level (30 ms) is at least 9 dB above the background, not more than 20 dB below the
    clip's integrated loudness, and above −50 LUFS. The background is the level exceeded 90 % of the time within 5 s to
    either side, so steady sound never counts, however loud. Sounds under 80 ms are left out; pauses up to 0.6 s between
    sounds are filled, so that the music does not pump between words.
    """
    power = k_weighted_power(original.samples, original.sample_rate, seconds_to_samples(HOP_S, original.sample_rate))
    integrated = gated_loudness(power[: len(power) // 10 * 10].reshape(-1, 10).mean(axis=1))
    level = np.maximum(power_to_lufs(np.convolve(power, np.full(3, 1 / 3), "same")), SILENCE_LUFS)
    lowest = max(integrated - MAX_BELOW_LOUDNESS_DB, MIN_LEVEL_LUFS)
    threshold = np.maximum(_background_level(level) + MIN_PROMINENCE_DB, lowest)
    loud = _remove_short_runs(level > threshold, False, seconds_to_samples(MAX_PAUSE_S, HOPS_PER_SECOND))
    return _remove_short_runs(loud, True, seconds_to_samples(MIN_SOUND_S, HOPS_PER_SECOND))


def ducking_gain(active: np.ndarray, config: DuckingConfig) -> Floats:
    """(H,) gain in dB, 0 to `depth`, that falls before a sound begins and rises after it ends."""
    lead = seconds_to_samples(max(config.pre_roll - config.attack, 0.0), HOPS_PER_SECOND)
    extended = active.copy()
    for shift in range(1, lead + 1):
        extended[:-shift] |= active[shift:]
    step = abs(config.depth) * HOP_S
    rise, fall = step / max(config.release, HOP_S), step / max(config.attack, HOP_S)
    return slew_limit(np.where(extended, config.depth, 0.0), rise, fall)


def _background_level(level: Floats) -> Floats:
    seconds = time_grid(1.0, samples_to_seconds(len(level), HOPS_PER_SECOND))
    edges = [(second - BACKGROUND_REACH_S, second + BACKGROUND_REACH_S) for second in seconds]
    hops = [
        (max(seconds_to_samples(low, HOPS_PER_SECOND), 0), seconds_to_samples(high, HOPS_PER_SECOND))
        for low, high in edges
    ]
    floor = [np.percentile(level[low:high], 10) for low, high in hops]
    return np.interp(np.arange(len(level)) * HOP_S, seconds, floor)


def _remove_short_runs(flags: np.ndarray, value: bool, min_length: int) -> np.ndarray:
    """Invert every run of `value` shorter than `min_length` that lies between two others."""
    edges = np.flatnonzero(np.diff(flags.astype(np.int8))) + 1
    out = flags.copy()
    for low, high in itertools.pairwise(edges):
        if flags[low] == value and high - low < min_length:
            out[low:high] = not value
    return out
