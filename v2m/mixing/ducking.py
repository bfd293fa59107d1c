"""Ducking: detection of foreground sound in the clip, and the gain of the music under it.

H hops of 10 ms.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from v2m.analysis.loudness import gated_loudness, k_weighted_power, power_to_lufs
from v2m.core.timing import every, sample_count, seconds_of
from v2m.core.types import Audio, Floats
from v2m.mixing.mastering import slew_limit

HOP_S = 0.01
MIN_PROMINENCE_DB = 9.0  # of a foreground sound over the background
MAX_BELOW_LOUDNESS_DB = 20.0  # of a foreground sound under the clip's integrated loudness
MIN_LEVEL_LUFS, SILENCE_LUFS = -50.0, -120.0  # LUFS
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

    def problems(self) -> list[str]:
        """Return what is out of range."""
        problems = []
        if not -60 <= self.depth <= 0:
            problems.append(f"duck.depth {self.depth:g} is outside -60 to 0 dB")
        times = {"pre_roll": self.pre_roll, "attack": self.attack, "release": self.release}
        problems += [f"duck.{name} {time:g} is outside 0 to 5 s" for name, time in times.items() if not 0 <= time <= 5]
        return problems


def detect_foreground(original: Audio) -> np.ndarray:
    """(H,) bool: the hops with a sound in the foreground of the clip.

    A hop counts when its K-weighted level (30 ms) is at least 9 dB above the background, not more than 20 dB below the
    clip's integrated loudness, and above −50 LUFS. The background is the level exceeded 90 % of the time within 5 s to
    either side. So steady sound never counts, however loud: the music plays on over traffic, wind or hiss, and is
    ducked under a voice above it. Sounds under 80 ms are left out; pauses up to 0.6 s between sounds are filled, so
    that the music does not pump between words.
    """
    power = k_weighted_power(original.samples, original.sample_rate, sample_count(HOP_S, original.sample_rate))
    integrated = gated_loudness(power[: len(power) // 10 * 10].reshape(-1, 10).mean(axis=1))
    level = np.maximum(power_to_lufs(np.convolve(power, np.full(3, 1 / 3), "same")), SILENCE_LUFS)
    threshold = np.maximum(
        _background_level(level) + MIN_PROMINENCE_DB, max(integrated - MAX_BELOW_LOUDNESS_DB, MIN_LEVEL_LUFS)
    )
    loud = _remove_short_runs(level > threshold, False, sample_count(MAX_PAUSE_S, 100))
    return _remove_short_runs(loud, True, sample_count(MIN_SOUND_S, 100))


def ducking_gain(active: np.ndarray, config: DuckingConfig) -> Floats:
    """(H,) gain in dB, 0 to `depth`, that falls before a sound begins and rises after it ends."""
    if not active.any():
        return np.zeros(len(active))
    lead = sample_count(max(config.pre_roll - config.attack, 0.0), 100)
    extended = active.copy()
    for shift in range(1, lead + 1):
        extended[:-shift] |= active[shift:]
    step = abs(config.depth) * HOP_S
    return slew_limit(
        np.where(extended, config.depth, 0.0), step / max(config.release, HOP_S), step / max(config.attack, HOP_S)
    )


def _background_level(level: Floats) -> Floats:
    seconds = every(1.0, seconds_of(len(level), 100))
    floor = [np.percentile(level[_hops_around(second, len(level))], 10) for second in seconds]
    return np.interp(np.arange(len(level)) * HOP_S, seconds, floor)


def _hops_around(second: float, count: int) -> slice:
    low, high = sample_count(second - BACKGROUND_REACH_S, 100), sample_count(second + BACKGROUND_REACH_S, 100)
    return slice(max(low, 0), min(high, count))


def _remove_short_runs(flags: np.ndarray, value: bool, min_length: int) -> np.ndarray:
    """Invert every run of `value` shorter than `min_length` that lies between two others."""
    edges = np.flatnonzero(np.diff(flags.astype(np.int8))) + 1
    out = flags.copy()
    for low, high in itertools.pairwise(edges):
        if flags[low] == value and high - low < min_length:
            out[low:high] = not value
    return out
