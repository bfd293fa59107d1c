"""Loudness (ITU-R BS.1770-4) and true peak, with FFTs in blocks.

Not pyloudnorm: limiter, mastering and ducking need the K-weighted power and true peak of each hop, and a whole film
must not be filtered at once. Tested against ffmpeg's ebur128. C channels (1 or 2), N samples, H hops.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from v2m.core import mapped_array
from v2m.core.threads import map_in_threads
from v2m.core.timing import angular_frequency, seconds_to_samples
from v2m.core.types import Audio, Floats

BLOCK = 1 << 16
SETTLING_SAMPLES = 1 << 13  # samples after which the K-weighting's response has decayed (below −80 dB at 192 kHz)
PEAK_BLOCK, PEAK_MARGIN = 1 << 13, 1 << 10
OVERSAMPLING = 4
ABSOLUTE_GATE, RELATIVE_GATE = -70.0, -10.0
GROUP_SAMPLES = 1 << 17  # of the blocks that one thread takes at a time
Block = TypeVar("Block", bound=np.ndarray)


def integrated_loudness(audio: Audio) -> float:
    """Return the loudness in LUFS, gated as in BS.1770-4; −inf for silence and for less than 0.4 s."""
    hop = seconds_to_samples(0.1, audio.sample_rate)
    return gated_loudness(k_weighted_power(audio.samples, audio.sample_rate, hop)[: len(audio) // hop])


def true_peak(audio: Audio) -> float:
    """Return the true peak in dBTP (4 × oversampled, as in BS.1770-4); −inf for silence."""
    return float(amplitude_to_db(peak_envelope(audio.samples, 1024).max(initial=0.0)))


def amplitude_to_db(amplitude: float | Floats) -> Floats:
    """Return 20·log10, with −inf for 0."""
    with np.errstate(divide="ignore"):
        return 20.0 * np.log10(np.asarray(amplitude, float))


def power_to_lufs(power: float | Floats) -> Floats:
    """Return LUFS of a K-weighted mean square, summed over the channels."""
    with np.errstate(divide="ignore"):
        return -0.691 + 10.0 * np.log10(np.asarray(power, float))


def gated_loudness(power: Floats) -> float:
    """Return LUFS of K-weighted mean squares (H,) of 100 ms each, gated twice in blocks of 400 ms."""
    if len(power) < 4:
        return float("-inf")
    blocks = np.convolve(power, np.full(4, 0.25), "valid")
    gated = blocks[power_to_lufs(blocks) > ABSOLUTE_GATE]
    if not len(gated):
        return float("-inf")
    return float(power_to_lufs(gated[power_to_lufs(gated) > power_to_lufs(gated.mean()) + RELATIVE_GATE].mean()))


def k_weighted_power(samples: NDArray[np.float32], sample_rate: int, hop: int) -> Floats:
    """(C, N) → (H,): K-weighted mean square of every `hop` samples, summed over channels; H = ⌈N / hop⌉."""
    assert samples.shape[0] <= 2, "surround channels have weights of their own in BS.1770"
    response = _k_weighting_response(sample_rate)
    step = (BLOCK - SETTLING_SAMPLES) // hop * hop
    assert step > 0, f"hop {hop} exceeds a block"
    settled = slice(SETTLING_SAMPLES, SETTLING_SAMPLES + step)

    def block_power(block: NDArray[np.float32]) -> Floats:
        spectrum = np.fft.rfft(block)
        spectrum *= response
        filtered = np.fft.irfft(spectrum, BLOCK)[:, settled]
        total = np.square(filtered, dtype=np.float32).sum(axis=0, dtype=np.float32)
        return total.reshape(-1, hop).mean(axis=1, dtype=np.float64)

    power = [*_map_blocks(block_power, samples, step, SETTLING_SAMPLES, BLOCK)]
    return np.concatenate(power)[: -(-samples.shape[1] // hop)] if power else np.zeros(0)


def peak_envelope(samples: NDArray[np.float32], hop: int) -> Floats:
    """(C, N) → (H,): the true peak of every `hop` samples over all channels, as an amplitude."""
    step = (PEAK_BLOCK - 2 * PEAK_MARGIN) // hop * hop
    size, inner = OVERSAMPLING * PEAK_BLOCK, slice(OVERSAMPLING * PEAK_MARGIN, OVERSAMPLING * (PEAK_MARGIN + step))

    def block_peaks(block: NDArray[np.float32]) -> NDArray[np.float32]:
        upsampled = OVERSAMPLING * np.fft.irfft(np.fft.rfft(block), size)[:, inner]
        return np.abs(upsampled).max(axis=0).reshape(step // hop, -1).max(axis=1)

    peaks = [*_map_blocks(block_peaks, samples, step, PEAK_MARGIN, PEAK_BLOCK)]
    return np.concatenate(peaks)[: -(-samples.shape[1] // hop)].astype(float) if peaks else np.zeros(0)


def _map_blocks(
    function: Callable[[NDArray[np.float32]], Block], samples: NDArray[np.float32], step: int, lead: int, size: int
) -> Iterator[Block]:
    """Yield `function` of blocks (C, `size`), `step` apart, the first `lead` samples early.

    Beyond the ends are zeros.
    """

    def map_group(starts: range) -> list[Block]:
        return [function(_padded(samples, start - lead, size)) for start in starts]

    starts = range(0, samples.shape[1], step)
    length = max(1, GROUP_SAMPLES // step)
    groups = (starts[first : first + length] for first in range(0, len(starts), length))
    for results in map_in_threads(map_group, groups):
        yield from results
        mapped_array.release_pages()


def _padded(samples: NDArray[np.float32], low: int, size: int) -> NDArray[np.float32]:
    block = samples[:, max(low, 0) : low + size]
    if block.shape[1] == size:
        return block
    return np.pad(block, ((0, 0), (max(-low, 0), size - max(-low, 0) - block.shape[1])))


def _k_weighting_response(sample_rate: int) -> NDArray[np.complex64]:
    """Return the K-weighting filter's response at the bins of a real FFT of `BLOCK`.

    BS.1770-4 gives coefficients for 48 kHz only; these are its two analog prototypes (head shelf and RLB high-pass)
    through the bilinear transform, as in De Man, "Evaluation of implementations of the EBU R128 loudness measurement".
    """
    delay = np.exp(-2j * np.pi * np.arange(BLOCK // 2 + 1) / BLOCK)
    k, q = np.tan(angular_frequency(1681.974450955533, sample_rate) / 2), 0.7071752369554196
    high = 10 ** (3.999843853973347 / 20)
    band = high**0.4996667741545416
    shelf = np.polyval([high - band * k / q + k * k, 2 * (k * k - high), high + band * k / q + k * k], delay)
    shelf /= np.polyval([1 - k / q + k * k, 2 * (k * k - 1), 1 + k / q + k * k], delay)
    k, q = np.tan(angular_frequency(38.13547087602444, sample_rate) / 2), 0.5003270373238773
    scale = 1 + k / q + k * k
    pass_high = (1 - delay) ** 2 / np.polyval([(1 - k / q + k * k) / scale, 2 * (k * k - 1) / scale, 1], delay)
    return (shelf * pass_high).astype(np.complex64)
