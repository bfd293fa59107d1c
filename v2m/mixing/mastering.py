"""Mastering to a loudness under a peak ceiling: one static gain and a limiter.

No library limits true peaks offline on numpy arrays: the usual ones work on sample peaks in real time, or under the
GPL. N samples, H hops of `audio_ops.HOP` samples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from v2m.analysis.loudness import amplitude_to_db, gated_loudness, k_weighted_power, peak_envelope
from v2m.core.audio_ops import HOP, apply_gain
from v2m.core.timing import db_to_gain, seconds_to_samples
from v2m.core.types import Audio, Floats

LOUDNESS_TOLERANCE_LU = 0.1  # from the target
PEAK_REACH_HOPS = 32  # on either side, 2048 samples in all: a codec frame, over which a codec spreads an overshoot
MAX_DRIVE_DB = 24.0  # gain into the limiter beyond the distance from the target loudness
LIMITER_REACH_HOPS = 3  # one for the interpolation between hops, two for the moving average of five


def slew_limit(level: Floats, rise: float, fall: float) -> Floats:
    """Return the highest curve below `level` that changes by at most +`rise` and −`fall` a step."""
    steps = np.arange(len(level), dtype=np.float64)
    rising = np.minimum.accumulate(level - rise * steps) + rise * steps
    return (np.minimum.accumulate(rising[::-1] - fall * steps) + fall * steps)[::-1]


def limiter_gain(peaks: Floats, ceiling: float, attack: float = 1.5, release: float = 0.04) -> Floats:
    """Return the gain (H,), at most 1, that keeps peaks (H,) at or below `ceiling` (dB).

    `attack` and `release` are dB a hop, linear in dB; the attack happens before the peak. At 48 kHz the defaults are
    2.25 dB/ms and 60 dB/s.
    """
    needed = np.minimum(ceiling - amplitude_to_db(peaks), 0.0)
    padded = np.pad(needed, LIMITER_REACH_HOPS, constant_values=0.0)
    lowest = np.lib.stride_tricks.sliding_window_view(padded, 2 * LIMITER_REACH_HOPS + 1).min(axis=1)
    gain = 10.0 ** (slew_limit(lowest, release, attack) / 20.0)
    return np.convolve(np.pad(gain, 2, mode="edge"), np.full(5, 0.2), "valid")


@dataclass(frozen=True)
class Mastering:
    """A static `gain` in dB, the limiter's gain (H,), and the resulting `loudness` in LUFS."""

    gain: float
    limiter_curve: Floats
    loudness: float

    @property
    def max_reduction(self) -> float:
        """The limiter's largest reduction, dB ≥ 0."""
        return max(0.0, -float(amplitude_to_db(self.limiter_curve.min(initial=1.0))))

    def apply(self, audio: Audio) -> None:
        """Apply to the samples in place."""
        apply_gain(audio.samples, self.limiter_curve * db_to_gain(self.gain))


@dataclass(frozen=True)
class Levels:
    """The K-weighted mean square and the true peak of audio in each hop, both (H,)."""

    power: Floats
    peaks: Floats
    hops_per_block: int  # hops in 100 ms

    @classmethod
    def from_audio(cls, audio: Audio) -> Levels:
        tenth = seconds_to_samples(0.1, audio.sample_rate)
        assert tenth % HOP == 0, f"{audio.sample_rate} Hz does not divide into hops of {HOP}"
        power = k_weighted_power(audio.samples, audio.sample_rate, HOP)
        return cls(power, peak_envelope(audio.samples, HOP), tenth // HOP)

    def loudness(self, gain: Floats | float = 1.0) -> float:
        """Return LUFS with every hop multiplied by `gain`; −inf for silence or less than 0.4 s."""
        blocks = len(self.power) // self.hops_per_block
        power = (self.power * np.square(gain))[: blocks * self.hops_per_block]
        return gated_loudness(power.reshape(blocks, self.hops_per_block).mean(1))

    def master(self, target: float | None, ceiling: float) -> Mastering:
        """Master to `target` LUFS (no gain for None and for silence) with peaks at or below `ceiling` dBTP.

        Limiting lowers the loudness, so the gain is raised by bisection until the result fits, by 24 dB at most.
        """
        before = self.loudness()
        if target is None or not np.isfinite(before):
            return self._limit_at_gain(0.0, ceiling)
        low, high = target - before, target - before + MAX_DRIVE_DB
        best = self._limit_at_gain(low, ceiling)
        while target - best.loudness > LOUDNESS_TOLERANCE_LU and high - low > LOUDNESS_TOLERANCE_LU / 2:
            middle = self._limit_at_gain((low + high) / 2, ceiling)
            low, high = (low, middle.gain) if middle.loudness > target else (middle.gain, high)
            best = middle if middle.loudness <= target + LOUDNESS_TOLERANCE_LU else best
        return best

    def _limit_at_gain(self, gain: float, ceiling: float) -> Mastering:
        curve = limiter_gain(self.peaks * db_to_gain(gain), ceiling)
        return Mastering(gain, curve, self.loudness(curve * db_to_gain(gain)))

    def with_peak_margin(self, overshoot: Floats) -> Levels:
        """Return levels with peaks times `overshoot` (H,) where it exceeds 1, and in a codec frame around."""
        padded = np.pad(np.maximum(overshoot, 1.0), PEAK_REACH_HOPS, mode="edge")
        around = np.lib.stride_tricks.sliding_window_view(padded, 2 * PEAK_REACH_HOPS + 1).max(axis=1)
        return replace(self, peaks=self.peaks * around)
