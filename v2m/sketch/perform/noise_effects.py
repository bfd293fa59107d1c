"""Effects made of noise, which no SoundFont has: vinyl noise, and a riser before a louder section."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from v2m.core.timing import every, sample_count, seconds_of
from v2m.sketch.compose.lead_sheet import LeadSheet

CRACKLES_PER_S = 9.0
HISS_LEVEL, CRACKLE_LEVEL = 0.0016, 0.03  # amplitudes, against about 0.05 of the music
RISER_LEVEL = 0.03  # amplitude at the end of the riser
RISER_BANDS = 8  # octaves from RISER_LOW_HZ on that the riser sweeps
RISER_LOW_HZ = 150.0


class NoiseEffects:
    """The noise effects of one piece; the same in every run."""

    def __init__(self, sheet: LeadSheet, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self.vinyl_noise = sheet.style.vinyl_noise
        rises = sheet.crescendo_bars() if sheet.style.transition == "riser" else ()
        edges = sheet.plan.tempo_map.beat_to_time([(bar.start, bar.start + bar.beats) for bar in rises]).reshape(-1, 2)
        self.risers = [(sample_count(a, sample_rate), sample_count(b, sample_rate)) for a, b in edges.tolist()]

    def __bool__(self) -> bool:
        return bool(self.vinyl_noise or self.risers)

    def render(self, start: int, end: int) -> NDArray[np.float32]:
        """Render the samples `start` ≤ sample < `end`, (2, end − start). Crackles depend on `start`."""
        audio = self._render_crackle(start, end - start) if self.vinyl_noise else np.zeros((2, end - start), np.float32)
        for first, last in self.risers:
            low, high = max(first, start), min(last, end)
            if low < high:
                riser = render_riser(last - first, self.sample_rate)
                audio[:, low - start : high - start] += riser[:, low - first : high - first]
        return audio

    def _render_crackle(self, start: int, count: int) -> NDArray[np.float32]:
        rng = np.random.default_rng((1948, start))
        audio = HISS_LEVEL * rng.standard_normal((2, count), np.float32)
        decay = np.exp(-every(self.sample_rate, 0.002) / 0.0003)
        size = len(decay)
        for _ in range(rng.poisson(CRACKLES_PER_S * seconds_of(count, self.sample_rate))):
            onset = int(rng.integers(max(1, count - size)))
            level = CRACKLE_LEVEL * min(rng.exponential(), 3.0) * rng.uniform(0.4, 1.0, (2, 1))
            audio[:, onset : onset + size] += (level * decay * rng.choice((-1.0, 1.0)))[:, : count - onset]
        return self.vinyl_noise * audio


@lru_cache(maxsize=2)
def render_riser(count: int, sample_rate: int) -> NDArray[np.float32]:
    """Render noise (2, `count`) that sweeps upwards and grows louder."""
    spectrum = np.fft.rfft(np.random.default_rng(count).standard_normal((2, count)))
    frequency = np.fft.rfftfreq(count, seconds_of(1, sample_rate))
    octave = np.log2(np.maximum(frequency, 1.0) / RISER_LOW_HZ)
    sweep = np.linspace(0.0, 1.0, count)
    audio = np.zeros((2, count), np.float32)
    for band in range(RISER_BANDS):
        noise = np.fft.irfft(spectrum * np.maximum(0.0, 1.0 - np.abs(octave - band)), count)
        envelope = np.exp(-(((band - RISER_BANDS * sweep) / 1.2) ** 2))
        audio += (RISER_LEVEL * 2.0 ** ((RISER_BANDS - band) / 4) * noise * envelope * sweep**2).astype(np.float32)
    return audio
