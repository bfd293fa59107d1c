"""Reverb and equalization, as one frequency response per stem.

The impulse response is noise that decays exponentially, each octave band at its own rate, after a few early echoes
(Moorer, "About this reverberation business", Computer Music Journal 3(2), 1979). Independent noise left and right
makes it wide.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from v2m.core.timing import every, sample_count, seconds_of
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
_CROSSFEED = 0.3  # share of each channel in the other one's reverb


def impulse_response(reverb: Reverb, sample_rate: int) -> NDArray[np.float32]:
    """Return the reverb's impulse response (2, N), of unit energy per channel, without the direct sound."""
    rng = np.random.default_rng(1979)
    count = sample_count(reverb.rt60_s, sample_rate)
    time = every(sample_rate, reverb.rt60_s)[:count]
    spectrum = np.fft.rfft(rng.standard_normal((2, count)))
    frequency = np.fft.rfftfreq(count, seconds_of(1, sample_rate))
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
            onset = sample_count((echo + 1 + rng.random()) * 0.008, sample_rate)
            response[side, onset] += rng.choice((-1.0, 1.0)) * 15.0 * 0.8**echo
    delay = sample_count(reverb.predelay_ms / 1000.0, sample_rate)
    response = np.pad(response, ((0, 0), (delay, 0)))
    return (response / np.sqrt((response**2).sum(1, keepdims=True))).astype(np.float32)


class MixBus:
    """EQ and reverb of every stem by overlap-add, in blocks of `hop` samples zero-padded to `fft_size`."""

    def __init__(self, style: Style, sample_rate: int, reverb: float) -> None:
        response = impulse_response(style.reverb, sample_rate)
        self.fft_size = 1 << int(np.ceil(np.log2(2 * response.shape[1])))
        self.hop = self.fft_size - response.shape[1] - sample_count(0.1, sample_rate)
        self._reverb_response = np.fft.rfft(response, self.fft_size)
        self._reverb_response *= _butterworth(self.fft_size, sample_rate, 160.0, highpass=True)
        self._wet_level = style.reverb.wet_level * reverb
        self._eq = {
            stem: (
                _butterworth(self.fft_size, sample_rate, highpass_hz, highpass=True)
                * _butterworth(self.fft_size, sample_rate, style.lowpass_hz, highpass=False)
            )
            for stem, (highpass_hz, _) in _STEM_EQ.items()
        }

    def process(self, stem: str, block: NDArray[np.float32]) -> NDArray[np.complex64]:
        """Return the spectrum (2, fft_size/2+1) of `block` (2, ≤ hop) with the stem's EQ and reverb."""
        dry = np.fft.rfft(block, self.fft_size) * self._eq[stem]
        wet = ((1.0 - _CROSSFEED) * dry + _CROSSFEED * dry[::-1]) * self._reverb_response
        return (dry + self._wet_level * _STEM_EQ[stem][1] * wet).astype(np.complex64)

    def dry_spectrum(self, block: NDArray[np.float32]) -> NDArray[np.complex64]:
        """Return the spectrum of `block` unprocessed, as for vinyl noise, which is not in the reverb."""
        return np.fft.rfft(block, self.fft_size).astype(np.complex64)

    def to_samples(self, spectrum: NDArray[np.complex64]) -> NDArray[np.float32]:
        """Return samples (2, fft_size): a block and its reverb tail."""
        return np.fft.irfft(spectrum, self.fft_size).astype(np.float32)


def _butterworth(size: int, sample_rate: int, corner_hz: float, *, highpass: bool) -> NDArray[np.complex64]:
    """Return the response of a causal second-order Butterworth high-pass or low-pass."""
    s = 1j * np.fft.rfftfreq(size, seconds_of(1, sample_rate)) / corner_hz
    numerator = s**2 if highpass else 1.0
    return (numerator / (s**2 + np.sqrt(2.0) * s + 1.0)).astype(np.complex64)
