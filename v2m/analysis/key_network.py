"""S-KEY's network: probabilities of the 24 keys of a piece of music, in numpy.

Kong et al., "S-KEY: Self-supervised learning of major and minor keys from audio" (2025), with the layers of STONE (Kong
et al., 2024): ConvNeXt blocks over a constant-Q transform. `skey.npz` has the authors' weights (MIT, © 2019-present
Deezer SA, see `docs/evaluation.md`), rounded to half precision. T frames, F semitones, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from v2m.core import timing
from v2m.core.types import Audio, Floats

FRAME_RATE = 22050 / 512  # of the network's training
LOWEST_HZ, NUM_SEMITONES = 27.5, 84
Q = 1 / (2 ** (1 / 12) - 1)  # of the filters: frequency over bandwidth
WINDOW_S = Q / LOWEST_HZ  # of the lowest filter, the longest
HIGHEST_HZ = 4000.0  # of the spectrum, above the highest filter
BLOCK = 100  # frames at a time
RANGE_DB = 80.0  # below the loudest bin; in the authors' 160, with which digital silence outweighs music
SEGMENT_S = 60.0  # of music that the network takes at once
LAYERS = range(7)
MIN_FRAMES = 2 ** len(LAYERS)  # each layer halves their number
C_ABOVE_A = 3
BATCH_NORM_EPSILON = LAYER_NORM_EPSILON = np.float32(1e-5)  # PyTorch's
FIRST_MINOR = 2  # where the network's minor keys start, in semitones above A, at which its major ones do
Weights = Mapping[str, NDArray[np.float32]]


def key_probabilities(audio: Audio) -> Floats:
    """(2, 12) probabilities of the major and minor keys, from C on.

    Logits are averaged over parts of about SEGMENT_S.
    """
    spectrum = _constant_q(audio)
    count = timing.segment_count(len(spectrum), 1 / timing.seconds_to_frames(SEGMENT_S, FRAME_RATE))
    logits = np.mean([_forward(part, load_weights()) for part in np.array_split(spectrum, count)], axis=0)
    odds = np.exp(logits - logits.max())
    return odds / odds.sum()


@cache
def load_weights() -> Weights:
    """Return the weights by their names in the authors' file."""
    with resources.files("v2m.analysis").joinpath("skey.npz").open("rb") as file, np.load(file) as arrays:
        return {name: arrays[name].astype(np.float32) for name in arrays.files}


def _constant_q(audio: Audio) -> NDArray[np.float32]:
    """(T, F) magnitudes in dB on frames centered at k / FRAME_RATE, from RANGE_DB below the loudest on."""
    rate = audio.sample_rate
    size = 1 << (timing.seconds_to_samples(WINDOW_S, rate) - 1).bit_length()
    kernels = _kernels(size, rate)
    times = timing.time_grid(FRAME_RATE, timing.samples_to_seconds(len(audio), rate))
    starts = np.rint(timing.seconds_to_frames(times, rate)).astype(int)  # in the padded samples
    mono = np.pad(audio.samples.mean(axis=0), (size // 2, size))
    windows = np.lib.stride_tricks.sliding_window_view(mono, size)
    levels = [
        np.abs(np.fft.rfft(windows[starts[first : first + BLOCK]])[:, : len(kernels)] @ kernels)
        for first in range(0, len(starts), BLOCK)
    ]
    decibels = 20 * np.log10(np.maximum(np.concatenate(levels), 1e-10)).astype(np.float32)
    return np.maximum(decibels, decibels.max() - RANGE_DB)


@cache
def _kernels(size: int, rate: int) -> NDArray[np.complex64]:
    """(bins, F) filters of unit gain times the root of their length, over the spectrum of a window."""
    frequencies = LOWEST_HZ * 2 ** (np.arange(NUM_SEMITONES) / 12)
    seconds = (np.arange(size) - size // 2) / rate
    phase = np.clip(seconds * frequencies[:, None] / Q, -0.5, 0.5)  # (F, N) of a filter's length
    windows = 1 + np.cos(2 * np.pi * phase)
    windows *= np.sqrt(Q / frequencies[:, None]) / windows.sum(axis=1, keepdims=True)
    spectra = np.fft.fft(windows * np.exp(2j * np.pi * frequencies[:, None] * seconds), axis=1)
    count = int(HIGHEST_HZ / timing.bin_frequency(1, size, rate))
    return spectra[:, :count].conj().T.astype(np.complex64) / size


def _forward(spectrum: NDArray[np.float32], weights: Weights) -> Floats:
    """(2, 12) logits of the keys from C on, for (T, F) decibels."""
    if len(spectrum) < MIN_FRAMES:
        spectrum = np.pad(spectrum, ((0, MIN_FRAMES - len(spectrum)), (0, 0)), mode="wrap")
    x = spectrum[None]  # (C, T, F)
    for layer in LAYERS:
        x = _downsample(x, weights, f"time_downsampling_blocks.{layer}.conv")
        x = _convnext(x, weights, f"convnext_blocks.{layer}")
    chroma = x.mean(axis=1).reshape(len(x), -1, 12).mean(axis=1)  # (C, 12) from A on
    logits = weights["classifier.weight"][:, :, 0, 0] @ chroma + weights["classifier.bias"][:, None]
    mean, variance = (weights[f"batch_norm.running_{name}"][:, None] for name in ("mean", "var"))
    major, minor = (logits - mean) / np.sqrt(variance + BATCH_NORM_EPSILON)
    return np.stack([np.roll(major, -C_ABOVE_A), np.roll(minor, FIRST_MINOR - C_ABOVE_A)])


def _downsample(x: NDArray[np.float32], weights: Weights, name: str) -> NDArray[np.float32]:
    """Halve the frames: (C, T, F) to (other C, T // 2, F)."""
    x = _normalize(x)[:, : x.shape[1] // 2 * 2]
    pairs = np.concatenate([x[:, ::2], x[:, 1::2]])
    kernel = weights[f"{name}.weight"][:, :, 0]  # (other C, C, 2)
    return _gelu(_dense(pairs, np.concatenate([kernel[..., 0], kernel[..., 1]], axis=1), weights[f"{name}.bias"]))


def _convnext(x: NDArray[np.float32], weights: Weights, name: str) -> NDArray[np.float32]:
    """Return (C, T, F) plus what a convolution of each channel and two dense layers make of it."""
    kernel = weights[f"{name}.dwconv.weight"][:, 0]  # (C, semitones, frames)
    edge = kernel.shape[-1] // 2
    padded = np.pad(x, ((0, 0), (edge, edge), (edge, edge)), mode="edge")
    y = np.zeros_like(x) + weights[f"{name}.dwconv.bias"][:, None, None]
    for row, column in np.ndindex(kernel.shape[1:]):
        part = padded[:, column : column + x.shape[1], row : row + x.shape[2]]
        y += part * kernel[:, row, column][:, None, None]
    y = _gelu(_dense(_normalize(y), weights[f"{name}.pwconv1.weight"], weights[f"{name}.pwconv1.bias"]))
    y = _dense(y, weights[f"{name}.pwconv2.weight"], weights[f"{name}.pwconv2.bias"])
    return np.asarray(x + weights[f"{name}.gamma"][:, None, None] * y, np.float32)


def _dense(x: NDArray[np.float32], weight: NDArray[np.float32], bias: NDArray[np.float32]) -> NDArray[np.float32]:
    return (weight @ x.reshape(len(x), -1) + bias[:, None]).reshape(-1, *x.shape[1:])


def _normalize(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((x - x.mean()) / np.sqrt(x.var() + LAYER_NORM_EPSILON), np.float32)


def _gelu(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Hendrycks & Gimpel's approximation, within 0.0005 of the exact function."""
    return np.float32(0.5) * x * (1 + np.tanh(np.float32(np.sqrt(2 / np.pi)) * x * (1 + np.float32(0.044715) * x * x)))
