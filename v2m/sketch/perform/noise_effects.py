"""Sounds that no SoundFont has, made of noise: the crackle of a record, and the riser before a drop."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from v2m.core.timing import every, sample_count, seconds_of
from v2m.sketch.compose.lead_sheet import LeadSheet

CRACKLES_PER_S = 9.0  # a second
HISS_LEVEL, CRACKLE_LEVEL = 0.0016, 0.03  # amplitudes beside a band that plays at about 0.05
RISER_LEVEL = 0.03  # amplitude of the riser where it ends
RISER_BANDS = 8  # of an octave, from LOWEST Hz, through which the riser climbs
RISER_LOW_HZ = 150.0


class NoiseEffects:
    """The noises of one piece; the same in every run."""

    def __init__(self, sheet: LeadSheet, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self.vinyl_noise = sheet.style.vinyl_noise
        rises = sheet.crescendo_bars() if sheet.style.transition == "riser" else ()
        edges = sheet.plan.tempo_map.beat_to_time([(bar.start, bar.start + bar.beats) for bar in rises]).reshape(-1, 2)
        self.risers = [(sample_count(a, sample_rate), sample_count(b, sample_rate)) for a, b in edges.tolist()]

    def __bool__(self) -> bool:
        return bool(self.vinyl_noise or self.risers)

    def render(self, start: int, end: int) -> NDArray[np.float32]:
        """Samples `start` ≤ sample < `end`, (2, end − start). Where crackle falls depends on `start`."""
        sound = self._render_crackle(start, end - start) if self.vinyl_noise else np.zeros((2, end - start), np.float32)
        for first, last in self.risers:
            low, high = max(first, start), min(last, end)
            if low < high:
                sound[:, low - start : high - start] += render_riser(last - first, self.sample_rate)[
                    :, low - first : high - first
                ]
        return sound

    def _render_crackle(self, start: int, count: int) -> NDArray[np.float32]:
        rng = np.random.default_rng((1948, start))
        sound = HISS_LEVEL * rng.standard_normal((2, count), np.float32)
        ring = np.exp(-every(self.sample_rate, 0.002) / 0.0003)
        size = len(ring)
        for _ in range(rng.poisson(CRACKLES_PER_S * seconds_of(count, self.sample_rate))):
            at = int(rng.integers(max(1, count - size)))
            sides = CRACKLE_LEVEL * min(rng.exponential(), 3.0) * rng.uniform(0.4, 1.0, (2, 1))
            sound[:, at : at + size] += (sides * ring * rng.choice((-1.0, 1.0)))[:, : count - at]
        return self.vinyl_noise * sound


@lru_cache(maxsize=2)
def render_riser(count: int, sample_rate: int) -> NDArray[np.float32]:
    """Noise (2, `count`) that climbs from the lows to the highs and swells."""
    spectrum = np.fft.rfft(np.random.default_rng(count).standard_normal((2, count)))
    frequency = np.fft.rfftfreq(count, seconds_of(1, sample_rate))
    octave = np.log2(np.maximum(frequency, 1.0) / RISER_LOW_HZ)
    climbed = np.linspace(0.0, 1.0, count)
    sound = np.zeros((2, count), np.float32)
    for band in range(RISER_BANDS):
        passed = np.fft.irfft(spectrum * np.maximum(0.0, 1.0 - np.abs(octave - band)), count)
        heard = np.exp(-(((band - RISER_BANDS * climbed) / 1.2) ** 2))
        sound += (RISER_LEVEL * 2.0 ** ((RISER_BANDS - band) / 4) * passed * heard * climbed**2).astype(np.float32)
    return sound
