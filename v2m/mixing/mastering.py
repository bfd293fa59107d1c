"""To a loudness under a ceiling: one static gain and the limiter, chosen from two curves instead of trial renderings.

N samples, H hops of `audio_ops.HOP`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from v2m.analysis.loudness import decibels, gated_loudness, peak_envelope, weighted_power
from v2m.core.audio_ops import HOP, apply_gain
from v2m.core.timing import db_to_gain, sample_count
from v2m.core.types import Audio, Floats
from v2m.mixing.limiter import limiting

CLOSE = 0.1  # LU from the target that are near enough
NEARBY = 32  # hops on either side: a frame of 2048 samples in all
MOST_DRIVE = 24.0  # dB that the limiter may be driven harder than the loudness alone asks for


@dataclass(frozen=True)
class Mastering:
    """What `apply` does: `gain` dB throughout, and `curve` (H,) which the limiter adds; `loudness` comes out, LUFS."""

    gain: float
    curve: Floats
    loudness: float

    @property
    def reduction(self) -> float:
        """The most that the limiter takes away, dB ≥ 0."""
        return max(0.0, -float(decibels(self.curve.min(initial=1.0))))

    def apply(self, audio: Audio) -> None:
        """Changes the samples in place."""
        apply_gain(audio.samples, self.curve * db_to_gain(self.gain))


@dataclass(frozen=True)
class Levels:
    """What a piece of sound measures in each hop: K-weighted mean square and true peak, both (H,)."""

    power: Floats
    peaks: Floats
    per_block: int  # hops in 100 ms

    @classmethod
    def of(cls, audio: Audio) -> Levels:
        tenth = sample_count(0.1, audio.sample_rate)
        assert tenth % HOP == 0, f"{audio.sample_rate} Hz does not divide into hops of {HOP}"
        power = weighted_power(audio.samples, audio.sample_rate, HOP)
        return cls(power, peak_envelope(audio.samples, HOP), tenth // HOP)

    def loudness(self, gain: Floats | float = 1.0) -> float:
        """LUFS, when every hop is multiplied by `gain`; −inf for silence or less than 0.4 s."""
        power = self.power * np.square(gain)
        return gated_loudness(
            power[: len(power) // self.per_block * self.per_block].reshape(-1, self.per_block).mean(1)
        )

    def master(self, target: float | None, ceiling: float) -> Mastering:
        """To `target` LUFS, or with no gain for None and for silence, with peaks at or below `ceiling` dBTP.

        Limiting makes things quieter, so the gain is raised until the limited loudness fits, by 24 dB at most.
        """
        before = self.loudness()
        if target is None or not np.isfinite(before):
            return self._driven(0.0, ceiling)
        least, most = target - before, target - before + MOST_DRIVE
        found = self._driven(least, ceiling)
        while target - found.loudness > CLOSE and most - least > CLOSE / 2:
            middle = self._driven((least + most) / 2, ceiling)
            least, most = (least, middle.gain) if middle.loudness > target else (middle.gain, most)
            found = middle if middle.loudness <= target + CLOSE else found
        return found

    def _driven(self, gain: float, ceiling: float) -> Mastering:
        curve = limiting(self.peaks * db_to_gain(gain), ceiling)
        return Mastering(gain, curve, self.loudness(curve * db_to_gain(gain)))

    def raised(self, factors: Floats) -> Levels:
        """The same with peaks multiplied by `factors` (H,) where those exceed 1, and a codec frame around."""
        padded = np.pad(np.maximum(factors, 1.0), NEARBY, mode="edge")
        around = np.lib.stride_tricks.sliding_window_view(padded, 2 * NEARBY + 1).max(axis=1)
        return replace(self, peaks=self.peaks * around)
