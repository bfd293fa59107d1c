"""Effects of the mix: equalization, reverb, noise, a bus compressor, and leveling of sections.

The reverb's impulse response is noise that decays exponentially, each octave band at its own rate, after a few early
echoes (Moorer, "About this reverberation business", Computer Music Journal 3(2), 1979). Independent noise left and
right makes it wide.

The compressor looks ahead. Its threshold lies a fixed distance above the power of the surrounding seconds, so that
quiet and loud sections keep their relative levels; leveling changes these, over seconds. Attack and release are
straight lines in dB, computed as running maxima: no loop over samples. The compressor's values are hand-tuned so that
mastering to −14 LUFS leaves its limiter next to nothing (tests/sketch/test_mix.py).

N samples, G points of the compressor's gain curve.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from v2m.core import mapped_array
from v2m.core.threads import map_in_threads
from v2m.core.timing import db_to_gain, samples_to_seconds, seconds_to_samples, time_grid
from v2m.core.types import Floats
from v2m.sketch.compose.lead_sheet import LeadSheet
from v2m.sketch.style import Reverb, Style

# stem: (high-pass in Hz, share of the wet level): pads leave room for the bass, the bass stays dry
_STEM_EQ = {
    "melody": (110.0, 1.0),
    "harmony": (90.0, 0.9),
    "pads": (140.0, 1.0),
    "bass": (38.0, 0.12),
    "drums": (30.0, 0.45),
    "effects": (28.0, 0.9),
}
_BAND_CENTERS_HZ = (180.0, 500.0, 1400.0, 4000.0, 9000.0)
_SHELF_HZ = 1000.0  # corner of the style's gain of high frequencies
_CROSSFEED = 0.3  # share of each channel in the other one's reverb
# Noise, which no SoundFont has: vinyl noise, and a riser before a louder section
CRACKLES_PER_S = 9.0
HISS_LEVEL, CRACKLE_LEVEL = 0.0016, 0.03  # amplitudes, against about 0.05 of the music
RISER_LEVEL = 0.03  # amplitude at the end of the riser
RISER_BANDS = 8  # octaves from RISER_LOW_HZ on that the riser sweeps
RISER_LOW_HZ = 150.0
# Compressor
GAIN_STEP_S = 0.001  # between two points of the gain curve
WINDOW_S = 3.0  # over which the surrounding power is averaged
THRESHOLD_DB = 6.0  # of a peak above the surrounding power
RATIO = 5.0
ATTACK_DB_PER_S, RELEASE_DB_PER_S = 1500.0, 50.0
BLOCK_SAMPLES = 1 << 15  # processed at once, in whole steps: what is computed stays in the processor's cache
# Leveling of sections
LEVELING_STEP_S = 0.1
LEVELING_WINDOW_S = 4.0  # over which a section's power is averaged
MAX_LEVELING_DB = 8.0


def impulse_response(reverb: Reverb, sample_rate: int) -> NDArray[np.float32]:
    """Return the reverb's impulse response (2, N), of unit energy per channel, without the direct sound."""
    rng = np.random.default_rng(1979)
    count = seconds_to_samples(reverb.rt60_s, sample_rate)
    time = time_grid(sample_rate, reverb.rt60_s)[:count]
    spectrum = np.fft.rfft(rng.standard_normal((2, count)))
    frequency = np.fft.rfftfreq(count, samples_to_seconds(1, sample_rate))
    bands = np.arange(len(_BAND_CENTERS_HZ))
    band_position = np.interp(np.log2(np.maximum(frequency, 1.0)), np.log2(_BAND_CENTERS_HZ), bands)
    response = np.zeros((2, count))
    for band in bands.tolist():
        weight = np.maximum(0.0, 1.0 - np.abs(band_position - band))
        rt60_s = reverb.rt60_s * (1.0 - reverb.damping) ** (band / 2)
        response += np.fft.irfft(spectrum * weight, count) * np.exp(-6.91 * time / rt60_s)  # −60 dB
    response *= 1.0 - np.exp(-time * 90.0)  # the tail builds up during the first echoes
    for echo in range(8):
        for side in range(2):
            onset = seconds_to_samples((echo + 1 + rng.random()) * 0.008, sample_rate)
            response[side, onset] += rng.choice((-1.0, 1.0)) * 15.0 * 0.8**echo
    delay = seconds_to_samples(reverb.predelay_ms / 1000.0, sample_rate)
    response = np.pad(response, ((0, 0), (delay, 0)))
    return (response / np.sqrt((response**2).sum(1, keepdims=True))).astype(np.float32)


class MixBus:
    """EQ and reverb of every stem by overlap-add, in blocks of `hop` samples zero-padded to `fft_size`."""

    def __init__(self, style: Style, sample_rate: int, reverb: float) -> None:
        response = impulse_response(style.reverb, sample_rate)
        self.fft_size = 1 << int(np.ceil(np.log2(2 * response.shape[1])))
        self.hop = self.fft_size - response.shape[1] - seconds_to_samples(0.1, sample_rate)
        self._reverb_response = np.fft.rfft(response, self.fft_size)
        self._reverb_response *= _butterworth(self.fft_size, sample_rate, 160.0, highpass=True)
        self._wet_level = style.reverb.wet_level * reverb
        self._eq = {
            stem: (
                _butterworth(self.fft_size, sample_rate, highpass_hz, highpass=True)
                * _butterworth(self.fft_size, sample_rate, style.lowpass_hz, highpass=False)
                * _high_shelf(self.fft_size, sample_rate, style.treble_db)
            )
            for stem, (highpass_hz, _) in _STEM_EQ.items()
        }

    def process(self, stem: str, block: NDArray[np.float32]) -> NDArray[np.complex64]:
        """Return the spectrum (2, fft_size/2+1) of `block` (2, ≤ hop) with the stem's EQ and reverb."""
        dry = np.fft.rfft(block, self.fft_size)
        dry *= self._eq[stem]
        wet = (1.0 - _CROSSFEED) * dry
        wet += _CROSSFEED * dry[::-1]
        wet *= self._reverb_response
        wet *= self._wet_level * _STEM_EQ[stem][1]
        dry += wet
        return dry.astype(np.complex64, copy=False)

    def dry_spectrum(self, block: NDArray[np.float32]) -> NDArray[np.complex64]:
        """Return the spectrum of `block` unprocessed, as for vinyl noise, which is not in the reverb."""
        return np.fft.rfft(block, self.fft_size).astype(np.complex64, copy=False)

    def to_samples(self, spectrum: NDArray[np.complex64]) -> NDArray[np.float32]:
        """Return samples (2, fft_size): a block and its reverb tail."""
        return np.fft.irfft(spectrum, self.fft_size).astype(np.float32, copy=False)


def _butterworth(size: int, sample_rate: int, corner_hz: float, *, highpass: bool) -> NDArray[np.complex64]:
    """Return the response of a causal second-order Butterworth high-pass or low-pass."""
    s = 1j * np.fft.rfftfreq(size, samples_to_seconds(1, sample_rate)) / corner_hz
    numerator = s**2 if highpass else 1.0
    return (numerator / (s**2 + np.sqrt(2.0) * s + 1.0)).astype(np.complex64)


def _high_shelf(size: int, sample_rate: int, gain_db: float) -> NDArray[np.complex64]:
    """Return the response of a causal first-order shelf: 0 dB far below _SHELF_HZ, `gain_db` far above."""
    s = 1j * np.fft.rfftfreq(size, samples_to_seconds(1, sample_rate)) / _SHELF_HZ
    return ((1.0 + db_to_gain(gain_db) * s) / (1.0 + s)).astype(np.complex64)


def compress(mix: NDArray[np.float32], stems: Sequence[NDArray[np.float32]], sample_rate: int) -> None:
    """Compress `mix` (2, N) in place, and `stems` by the same gain, so that they still sum to it."""
    step = max(1, seconds_to_samples(GAIN_STEP_S, sample_rate))
    curve = gain_reduction(*_measure_levels(mix, step))
    _apply_gain_curve((mix, *stems), -curve, step)


def level_sections(
    mix: NDArray[np.float32], stems: Sequence[NDArray[np.float32]], sample_rate: int, share: float
) -> None:
    """Bring quiet and loud sections of `mix` (2, N) nearer to each other in place, and `stems` with it.

    `share` of the difference in dB to the mean power stays, but for what is more than MAX_LEVELING_DB.
    """
    step = max(1, seconds_to_samples(LEVELING_STEP_S, sample_rate))
    power = _measure_levels(mix, step)[1]
    total = float(power.mean())
    if total <= 0.0:
        return
    window = np.hanning(round(LEVELING_WINDOW_S / LEVELING_STEP_S) + 2)[1:-1]
    weight = np.convolve(np.ones(len(power)), window, "full")
    surrounding = np.convolve(power, window, "full") / weight
    first = (len(window) - 1) // 2
    excess = 10.0 * np.log10(surrounding[first : first + len(power)] / total + 1e-9)
    gains = np.clip((share - 1.0) * excess, -MAX_LEVELING_DB, MAX_LEVELING_DB)
    _apply_gain_curve((mix, *stems), gains, step)


def _blocks(count: int, step: int) -> Iterator[slice]:
    return mapped_array.chunks(count, max(1, BLOCK_SAMPLES // step) * step)


def _apply_gain_curve(audios: Sequence[NDArray[np.float32]], gains_db: Floats, step: int) -> None:
    """Scale `audios`, (2, N) each, in place by (G,) gains, linear in dB between the middles of the steps."""
    points = (np.arange(len(gains_db)) + 0.5) * step

    def scale(part: slice) -> None:
        gain = (10.0 ** (np.interp(np.arange(part.start, part.stop), points, gains_db) / 20.0)).astype(np.float32)
        for audio in audios:
            audio[:, part] *= gain

    deque(map_in_threads(scale, _blocks(audios[0].shape[1], step)), maxlen=0)


def _measure_levels(mix: NDArray[np.float32], step: int) -> tuple[Floats, Floats]:
    """Return peak (G,) and mean square (G,) of each `step` samples of both channels."""

    def measure(part: slice) -> tuple[Floats, Floats]:
        block = np.abs(mix[:, part]).astype(float)
        edges = np.arange(0, block.shape[1], step)
        power = np.add.reduceat((block**2).mean(0), edges) / np.diff(np.append(edges, block.shape[1]))
        return np.maximum.reduceat(block.max(0), edges), power

    peaks, powers = zip(*map_in_threads(measure, _blocks(mix.shape[1], step)), strict=True)
    return np.concatenate(peaks), np.concatenate(powers)


def gain_reduction(peak: Floats, power: Floats) -> Floats:
    """Return the gain reduction (G,) in dB of `peak` (G,) against the surrounding `power` (G,)."""
    half_window = round(WINDOW_S / GAIN_STEP_S / 2)
    total = np.concatenate([[0.0], np.cumsum(power)])
    first = np.maximum(np.arange(len(power)) - half_window, 0)
    last = np.minimum(np.arange(len(power)) + half_window, len(power))
    surrounding = (total[last] - total[first]) / (last - first)
    excess = 20.0 * np.log10(peak + 1e-9) - 10.0 * np.log10(np.maximum(surrounding, 1e-12)) - THRESHOLD_DB
    target = np.maximum(excess, 0.0) * (1.0 - 1.0 / RATIO)
    time = time_grid(1.0 / GAIN_STEP_S, len(power) * GAIN_STEP_S)[: len(power)]
    release = np.maximum.accumulate(target + RELEASE_DB_PER_S * time) - RELEASE_DB_PER_S * time
    attack = np.maximum.accumulate((target - ATTACK_DB_PER_S * time)[::-1])[::-1] + ATTACK_DB_PER_S * time
    return np.maximum(release, attack)


class NoiseEffects:
    """The noise effects of one piece; the same in every run."""

    def __init__(self, sheet: LeadSheet, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self.vinyl_noise = sheet.style.vinyl_noise
        rises = sheet.crescendo_bars() if sheet.style.transition == "riser" else ()
        edges = sheet.plan.tempo_map.beat_to_time([(bar.start, bar.start + bar.beats) for bar in rises]).reshape(-1, 2)
        self.risers = [
            (seconds_to_samples(a, sample_rate), seconds_to_samples(b, sample_rate)) for a, b in edges.tolist()
        ]

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
        decay = np.exp(-time_grid(self.sample_rate, 0.002) / 0.0003)
        size = len(decay)
        for _ in range(rng.poisson(CRACKLES_PER_S * samples_to_seconds(count, self.sample_rate))):
            onset = int(rng.integers(max(1, count - size)))
            level = CRACKLE_LEVEL * min(rng.exponential(), 3.0) * rng.uniform(0.4, 1.0, (2, 1))
            audio[:, onset : onset + size] += (level * decay * rng.choice((-1.0, 1.0)))[:, : count - onset]
        return self.vinyl_noise * audio


@lru_cache(maxsize=2)
def render_riser(count: int, sample_rate: int) -> NDArray[np.float32]:
    """Render noise (2, `count`) that sweeps upwards and grows louder."""
    spectrum = np.fft.rfft(np.random.default_rng(count).standard_normal((2, count)))
    frequency = np.fft.rfftfreq(count, samples_to_seconds(1, sample_rate))
    octave = np.log2(np.maximum(frequency, 1.0) / RISER_LOW_HZ)
    sweep = np.linspace(0.0, 1.0, count)
    audio = np.zeros((2, count), np.float32)
    for band in range(RISER_BANDS):
        noise = np.fft.irfft(spectrum * np.maximum(0.0, 1.0 - np.abs(octave - band)), count)
        envelope = np.exp(-(((band - RISER_BANDS * sweep) / 1.2) ** 2))
        audio += (RISER_LEVEL * 2.0 ** ((RISER_BANDS - band) / 4) * noise * envelope * sweep**2).astype(np.float32)
    return audio
