"""The room: a synthetic hall and the tone controls, as one frequency response per stem.

The hall is noise that dies away, each octave band at its own rate, after a few early echoes (Moorer, "About this
reverberation business", Computer Music Journal 3(2), 1979: exponentially decaying noise is a good concert hall). Left
and right have independent noise, which is what makes it wide.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from v2m.core.timing import every, sample_count, seconds_of
from v2m.sketch.style import Reverb, Style

# stem: (low cut in Hz, share of the wet level): pads give way to the bass, the bass stays dry
_STEM_EQ = {
    "melody": (110.0, 1.0),
    "harmony": (90.0, 0.9),
    "pads": (140.0, 1.0),
    "bass": (38.0, 0.12),
    "drums": (30.0, 0.45),
    "effects": (28.0, 0.9),
}
_BAND_EDGES_HZ = (180.0, 500.0, 1400.0, 4000.0, 9000.0)  # Hz, where neighbouring decay bands meet
_CROSSFEED = 0.3  # share of each side that also excites the other side's reverberation


def impulse_response(room: Reverb, sample_rate: int) -> NDArray[np.float32]:
    """The hall's response (2, N), of unit energy on each side, without the direct sound."""
    rng = np.random.default_rng(1979)
    count = sample_count(room.rt60_s, sample_rate)
    time = every(sample_rate, room.rt60_s)[:count]
    spectrum = np.fft.rfft(rng.standard_normal((2, count)))
    frequency = np.fft.rfftfreq(count, seconds_of(1, sample_rate))
    place = np.interp(np.log2(np.maximum(frequency, 1.0)), np.log2(_BAND_EDGES_HZ), np.arange(len(_BAND_EDGES_HZ)))
    response = np.zeros((2, count))
    for band in range(len(_BAND_EDGES_HZ)):
        weight = np.maximum(0.0, 1.0 - np.abs(place - band))
        seconds = room.rt60_s * (1.0 - room.damping) ** (band / 2)
        response += np.fft.irfft(spectrum * weight, count) * np.exp(-6.91 * time / seconds)
    response *= 1.0 - np.exp(-time * 90.0)  # the tail builds up while the first echoes are heard
    for echo in range(8):
        for side in range(2):
            at = sample_count((echo + 1 + rng.random()) * 0.008, sample_rate)
            response[side, at] += rng.choice((-1.0, 1.0)) * 15.0 * 0.8**echo
    delay = sample_count(room.predelay_ms / 1000.0, sample_rate)
    response = np.pad(response, ((0, 0), (delay, 0)))
    return (response / np.sqrt((response**2).sum(1, keepdims=True))).astype(np.float32)


class MixBus:
    """Tone and reverberation of every stem, as spectra for blocks of `size` samples of which `hop` are new sound."""

    def __init__(self, style: Style, sample_rate: int, reverb: float) -> None:
        response = impulse_response(style.reverb, sample_rate)
        self.fft_size = 1 << int(np.ceil(np.log2(2 * response.shape[1])))
        self.hop = self.fft_size - response.shape[1] - sample_count(0.1, sample_rate)
        self._reverb_response = np.fft.rfft(response, self.fft_size)
        self._reverb_response *= _butterworth(self.fft_size, sample_rate, 160.0, high=True)
        self._wet_level = style.reverb.wet_level * reverb
        self._eq = {
            stem: (
                _butterworth(self.fft_size, sample_rate, cut, high=True)
                * _butterworth(self.fft_size, sample_rate, style.lowpass_hz, high=False)
            )
            for stem, (cut, _) in _STEM_EQ.items()
        }

    def process(self, stem: str, block: NDArray[np.float32]) -> NDArray[np.complex64]:
        """The spectrum (2, size/2+1) of `block` (2, ≤ hop) with the stem's tone and its share of the hall."""
        dry = np.fft.rfft(block, self.fft_size) * self._eq[stem]
        wet = ((1.0 - _CROSSFEED) * dry + _CROSSFEED * dry[::-1]) * self._reverb_response
        return (dry + self._wet_level * _STEM_EQ[stem][1] * wet).astype(np.complex64)

    def dry_spectrum(self, block: NDArray[np.float32]) -> NDArray[np.complex64]:
        """The spectrum of `block` as it is: of a noise that is the medium's, not the band's."""
        return np.fft.rfft(block, self.fft_size).astype(np.complex64)

    def to_samples(self, spectrum: NDArray[np.complex64]) -> NDArray[np.float32]:
        """Back to samples (2, size): the block and what rings after it."""
        return np.fft.irfft(spectrum, self.fft_size).astype(np.float32)


def _butterworth(size: int, sample_rate: int, corner: float, *, high: bool) -> NDArray[np.complex64]:
    """A Butterworth low cut (`high`) or high cut of second order at `corner` Hz, causal."""
    s = 1j * np.fft.rfftfreq(size, seconds_of(1, sample_rate)) / corner
    passed = s**2 if high else 1.0
    return (passed / (s**2 + np.sqrt(2.0) * s + 1.0)).astype(np.complex64)
