"""BeatNet's network: probabilities of beats and downbeats for every 20 ms of audio, in numpy.

Heydari, Cwitkowitz & Duan, "BeatNet: CRNN and particle filtering for online joint beat, downbeat and meter tracking"
(2021). `beatnet.npz` has the authors' weights (CC BY 4.0, see `docs/evaluation.md`), rounded to half precision. T
frames, F bands, D = 2 F features, M models, H = 150 hidden units.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from v2m.core import timing
from v2m.core.types import Audio, Floats

FRAMES_PER_SECOND = 50
RATE, WINDOW = 22050, 1411  # of the audio that the network was trained on; samples of a window, 64 ms
NUM_BINS = 705  # of the spectrum, the constant one included
BANDS_PER_OCTAVE = 24
LOW_HZ, HIGH_HZ, REFERENCE_HZ = 30.0, 17000.0, 440.0
POOL = 2
BLOCK = 1000  # frames at a time
Weights = Mapping[str, NDArray[np.float32]]


def beat_activations(audio: Audio) -> Floats:
    """(T, 2) probabilities of a beat inside a bar, and of a downbeat, on the frames centered at k / 50 s."""
    return np.concatenate(list(_forward(_features(audio), load_weights())))


@cache
def load_weights() -> Weights:
    """Return the weights, with the models along the first axis."""
    with resources.files("v2m.analysis").joinpath("beatnet.npz").open("rb") as file, np.load(file) as arrays:
        return {name: arrays[name].astype(np.float32) for name in arrays.files}


@cache
def filterbank() -> NDArray[np.float32]:
    """(NUM_BINS, F) triangular filters of unit sum, 24 an octave; those that fall on the same bin are one.

    Centers are the nearest bins to 440 Hz · 2^(k / 24) from 30 Hz to 17 kHz; a filter ends at its neighbors' centers.
    """
    lowest, highest = (BANDS_PER_OCTAVE * np.log2(hertz / REFERENCE_HZ) for hertz in (LOW_HZ, HIGH_HZ))
    centers = REFERENCE_HZ * 2 ** (np.arange(np.ceil(lowest), np.floor(highest) + 1) / BANDS_PER_OCTAVE)
    spacing = timing.bin_frequency(1, 2 * NUM_BINS, RATE)  # as in training: not over the window's 1411 samples
    bins = np.unique(np.clip(np.rint(centers / spacing), 0, NUM_BINS - 1).astype(int))
    filters = np.zeros((NUM_BINS, len(bins) - 2), np.float32)
    for band, (start, center, stop) in enumerate(zip(bins, bins[1:], bins[2:], strict=False)):
        if stop - start < 2:
            filters[start, band] = 1.0
            continue
        filters[start:center, band] = np.linspace(0, 1, center - start, endpoint=False)
        filters[center:stop, band] = np.linspace(1, 0, stop - center, endpoint=False)
    return filters / filters.sum(axis=0)


def _features(audio: Audio) -> Iterator[NDArray[np.float32]]:
    """Yield (up to BLOCK, D): log₁₀(1 + band magnitude), and by how much it rises from the frame before.

    Windows of 64 ms at the audio's own rate have the bins of those at 22.05 kHz: nothing is resampled.
    """
    rate = audio.sample_rate
    size = timing.seconds_to_samples(timing.samples_to_seconds(WINDOW, RATE), rate)
    window = (np.hanning(size) * WINDOW / size).astype(np.float32)
    num_bins = min(NUM_BINS, size // 2)
    times = timing.time_grid(FRAMES_PER_SECOND, timing.samples_to_seconds(len(audio), rate))
    starts = np.rint(timing.seconds_to_frames(times, rate)).astype(int) - size // 2
    previous = None
    for first in range(0, len(starts), BLOCK):
        block = starts[first : first + BLOCK]
        low, high = int(block[0]), int(block[-1]) + size
        mono = np.zeros(high - low, np.float32)
        inside = audio.samples[:, max(low, 0) : high]
        mono[max(-low, 0) :][: inside.shape[1]] = inside.mean(axis=0)
        frames = np.lib.stride_tricks.sliding_window_view(mono, size)[block - low]
        spectra = np.abs(np.fft.rfft(frames * window, axis=1)[:, :num_bins]).astype(np.float32)
        bands = np.log10(1 + spectra @ filterbank()[:num_bins])
        rises = np.maximum(np.diff(bands, axis=0, prepend=bands[:1] if previous is None else previous), 0)
        previous = bands[-1:]
        yield np.concatenate([bands, rises], axis=1)


def _forward(blocks: Iterator[NDArray[np.float32]], weights: Weights) -> Iterator[Floats]:
    """Yield (T, 2) for each block (T, D): convolution over features, dense layer, two LSTMs, softmax.

    The mean over the M models.
    """
    kernel, dense, out = weights["conv1.weight"][:, :, 0], weights["linear0.weight"], weights["linear.weight"]
    models, hidden = dense.shape[:2]
    states = np.zeros((2, 2, models, hidden, 1), np.float32)  # layer, hidden and cell
    for block in blocks:
        patches = np.lib.stride_tricks.sliding_window_view(block, kernel.shape[-1], axis=1)  # (T, D − 9, 10)
        x = np.einsum("tdk,mck->mtcd", patches, kernel, optimize=True) + weights["conv1.bias"][:, None, :, None]
        x = np.maximum(x, 0)[..., : x.shape[-1] // POOL * POOL]
        x = x.reshape(*x.shape[:-1], -1, POOL).max(axis=-1).reshape(models, len(block), -1)
        x = x @ dense.transpose(0, 2, 1) + weights["linear0.bias"][:, None]
        for layer in range(2):
            x = _lstm(x, states[layer], {name: weights[f"lstm.{name}_l{layer}"] for name in LSTM_NAMES})
        logits = x @ out.transpose(0, 2, 1) + weights["linear.bias"][:, None]
        odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
        yield (odds / odds.sum(axis=-1, keepdims=True)).mean(axis=0)[:, :2].astype(float)


LSTM_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _lstm(x: NDArray[np.float32], state: NDArray[np.float32], weights: Weights) -> NDArray[np.float32]:
    """(M, T, H) hidden states after inputs (M, T, H), gates as in PyTorch; updates `state` (2, M, H, 1)."""
    bias = weights["bias_ih"] + weights["bias_hh"]
    inputs = np.ascontiguousarray((x @ weights["weight_ih"].transpose(0, 2, 1) + bias[:, None]).transpose(1, 0, 2))
    recurrent, size = weights["weight_hh"], x.shape[-1]
    hidden, cell = state[0], state[1]
    outputs = np.empty((x.shape[1], *x.shape[::2]), np.float32)  # (T, M, H)
    for step, given in enumerate(inputs[..., None]):
        gates = recurrent @ hidden + given  # (M, 4 H, 1)
        gates[:, : 2 * size] = _sigmoid(gates[:, : 2 * size])
        gates[:, 3 * size :] = _sigmoid(gates[:, 3 * size :])
        cell = gates[:, size : 2 * size] * cell + gates[:, :size] * np.tanh(gates[:, 2 * size : 3 * size])
        hidden = gates[:, 3 * size :] * np.tanh(cell)
        outputs[step] = hidden[..., 0]
    state[0], state[1] = hidden, cell
    return outputs.transpose(1, 0, 2)


def _sigmoid(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.float32(0.5) * (1 + np.tanh(np.float32(0.5) * x))  # which does not overflow
