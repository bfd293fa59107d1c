"""When the music gives way to the clip's own sound, and how.

H hops of 10 ms.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from v2m.analysis.loudness import gated_loudness, k_weighted_power, power_to_lufs
from v2m.core.timing import every, sample_count, seconds_of
from v2m.core.types import Audio, Floats
from v2m.mixing.limiter import slew_limit

HOP_S = 0.01  # seconds a hop
MIN_PROMINENCE_DB = 9.0  # dB over the background that make a sound stand out
MAX_BELOW_LOUDNESS_DB = 20.0  # dB under the clip's own loudness at which a sound is a detail
MIN_LEVEL_LUFS, SILENCE_LUFS = -50.0, -120.0  # LUFS
MIN_SOUND_S, MAX_PAUSE_S = 0.08, 0.6  # seconds: a click is shorter, a pause for breath is not longer
BACKGROUND_REACH_S = 5.0  # seconds to either side in which the background is looked for


@dataclass(frozen=True)
class DuckingConfig:
    """How far and how fast the music gives way to the clip's own sound.

    Args:
        depth: Decibels, 0 to -60.
        pre_roll: Seconds before the sound at which the music starts to give way.
        attack: Seconds the way down takes.
        release: Seconds the way back takes.
    """

    depth: float = -12.0
    pre_roll: float = 0.12
    attack: float = 0.08
    release: float = 0.45

    def problems(self) -> list[str]:
        found = [] if -60 <= self.depth <= 0 else [f"duck.depth {self.depth:g} is outside -60 to 0 dB"]
        times = {"pre_roll": self.pre_roll, "attack": self.attack, "release": self.release}
        return found + [
            f"duck.{name} {time:g} is outside 0 to 5 s" for name, time in times.items() if not 0 <= time <= 5
        ]


def detect_foreground(original: Audio) -> np.ndarray:
    """(H,) bool: where something stands out from the clip's background.

    A hop counts when its K-weighted level (30 ms) is at least 9 dB above the background, not more than 20 dB below the
    clip's integrated loudness, and above −50 LUFS. The background is the level exceeded 90 % of the time within 5 s to
    either side. So steady sound never counts, however loud: over traffic, wind or hiss the music plays on, and gives
    way to a voice above it. Sounds under 80 ms are left out; pauses up to 0.6 s between sounds are filled, so that the
    music does not pump between words.
    """
    power = k_weighted_power(original.samples, original.sample_rate, sample_count(HOP_S, original.sample_rate))
    whole = gated_loudness(power[: len(power) // 10 * 10].reshape(-1, 10).mean(axis=1))
    level = np.maximum(power_to_lufs(np.convolve(power, np.full(3, 1 / 3), "same")), SILENCE_LUFS)
    quiet = np.maximum(_background_level(level) + MIN_PROMINENCE_DB, max(whole - MAX_BELOW_LOUDNESS_DB, MIN_LEVEL_LUFS))
    loud = _remove_short_runs(level > quiet, False, sample_count(MAX_PAUSE_S, 100))
    return _remove_short_runs(loud, True, sample_count(MIN_SOUND_S, 100))


def ducking_gain(active: np.ndarray, config: DuckingConfig) -> Floats:
    """(H,) gain in dB, 0 to `depth`: down before the sound begins (`pre_roll`, over `attack`), up after it ends."""
    if not active.any():
        return np.zeros(len(active))
    early = sample_count(max(config.pre_roll - config.attack, 0.0), 100)
    held = active.copy()
    for shift in range(1, early + 1):
        held[:-shift] |= active[shift:]
    steep = abs(config.depth) * HOP_S
    return slew_limit(
        np.where(held, config.depth, 0.0), steep / max(config.release, HOP_S), steep / max(config.attack, HOP_S)
    )


def _background_level(level: Floats) -> Floats:
    seconds = every(1.0, seconds_of(len(level), 100))
    floor = [np.percentile(level[_hops_around(second, len(level))], 10) for second in seconds]
    return np.interp(np.arange(len(level)) * HOP_S, seconds, floor)


def _hops_around(second: float, count: int) -> slice:
    low, high = sample_count(second - BACKGROUND_REACH_S, 100), sample_count(second + BACKGROUND_REACH_S, 100)
    return slice(max(low, 0), min(high, count))


def _remove_short_runs(flags: np.ndarray, value: bool, min_length: int) -> np.ndarray:
    """`flags` with every run of `value` of fewer than `shorter` turned over, where it lies between two others."""
    edges = np.flatnonzero(np.diff(flags.astype(np.int8))) + 1
    out = flags.copy()
    for low, high in itertools.pairwise(edges):
        if flags[low] == value and high - low < min_length:
            out[low:high] = not value
    return out
