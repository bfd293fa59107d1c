"""To a loudness under a ceiling: one static gain and the limiter, chosen from two curves instead of trial renderings.

N samples, H hops of `audio_ops.HOP`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from v2m.analysis.loudness import amplitude_to_db, gated_loudness, k_weighted_power, peak_envelope
from v2m.core.audio_ops import HOP, apply_gain
from v2m.core.timing import db_to_gain, sample_count
from v2m.core.types import Audio, Floats
from v2m.mixing.limiter import limiter_gain

LOUDNESS_TOLERANCE_LU = 0.1  # LU from the target that are near enough
PEAK_REACH_HOPS = 32  # hops on either side: a frame of 2048 samples in all
MAX_DRIVE_DB = 24.0  # dB that the limiter may be driven harder than the loudness alone asks for


@dataclass(frozen=True)
class Mastering:
    """What `apply` does: `gain` dB throughout, and `curve` (H,) which the limiter adds; `loudness` comes out, LUFS."""

    gain: float
    limiter_curve: Floats
    loudness: float

    @property
    def max_reduction(self) -> float:
        """The most that the limiter takes away, dB ≥ 0."""
        return max(0.0, -float(amplitude_to_db(self.limiter_curve.min(initial=1.0))))

    def apply(self, audio: Audio) -> None:
        """Changes the samples in place."""
        apply_gain(audio.samples, self.limiter_curve * db_to_gain(self.gain))


@dataclass(frozen=True)
class Levels:
    """What a piece of sound measures in each hop: K-weighted mean square and true peak, both (H,)."""

    power: Floats
    peaks: Floats
    hops_per_block: int  # hops in 100 ms

    @classmethod
    def from_audio(cls, audio: Audio) -> Levels:
        tenth = sample_count(0.1, audio.sample_rate)
        assert tenth % HOP == 0, f"{audio.sample_rate} Hz does not divide into hops of {HOP}"
        power = k_weighted_power(audio.samples, audio.sample_rate, HOP)
        return cls(power, peak_envelope(audio.samples, HOP), tenth // HOP)

    def loudness(self, gain: Floats | float = 1.0) -> float:
        """LUFS, when every hop is multiplied by `gain`; −inf for silence or less than 0.4 s."""
        power = self.power * np.square(gain)
        return gated_loudness(
            power[: len(power) // self.hops_per_block * self.hops_per_block].reshape(-1, self.hops_per_block).mean(1)
        )

    def master(self, target: float | None, ceiling: float) -> Mastering:
        """To `target` LUFS, or with no gain for None and for silence, with peaks at or below `ceiling` dBTP.

        Limiting makes things quieter, so the gain is raised until the limited loudness fits, by 24 dB at most.
        """
        before = self.loudness()
        if target is None or not np.isfinite(before):
            return self._limit_at_gain(0.0, ceiling)
        least, most = target - before, target - before + MAX_DRIVE_DB
        found = self._limit_at_gain(least, ceiling)
        while target - found.loudness > LOUDNESS_TOLERANCE_LU and most - least > LOUDNESS_TOLERANCE_LU / 2:
            middle = self._limit_at_gain((least + most) / 2, ceiling)
            least, most = (least, middle.gain) if middle.loudness > target else (middle.gain, most)
            found = middle if middle.loudness <= target + LOUDNESS_TOLERANCE_LU else found
        return found

    def _limit_at_gain(self, gain: float, ceiling: float) -> Mastering:
        curve = limiter_gain(self.peaks * db_to_gain(gain), ceiling)
        return Mastering(gain, curve, self.loudness(curve * db_to_gain(gain)))

    def with_peak_margin(self, overshoot: Floats) -> Levels:
        """The same with peaks multiplied by `factors` (H,) where those exceed 1, and a codec frame around."""
        padded = np.pad(np.maximum(overshoot, 1.0), PEAK_REACH_HOPS, mode="edge")
        around = np.lib.stride_tricks.sliding_window_view(padded, 2 * PEAK_REACH_HOPS + 1).max(axis=1)
        return replace(self, peaks=self.peaks * around)
