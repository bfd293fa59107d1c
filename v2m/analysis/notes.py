"""Notes in audio: activations by non-negative least squares over harmonic spectra.

After Mauch & Dixon, "Approximate note transcription for the improved identification of difficult chords" (2010): a
log-frequency spectrum, tuned and whitened, is explained by notes with geometric overtones, so that the overtones of one
note do not count as others. T frames, L bins a third of a semitone apart, P notes.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from v2m.core import timing
from v2m.core.types import Audio, Floats

LOWEST, HIGHEST = 33, 96  # MIDI notes: 55 Hz to 2.1 kHz
BINS_PER_SEMITONE = 3
NUM_BINS = (HIGHEST - LOWEST + 1) * BINS_PER_SEMITONE
POINTS_PER_BIN = 5  # at which the spectrum is sampled; a bin is their maximum
WINDOW_S = 0.37
BLOCK = 200  # frames at a time
WHITENING_BINS = 18  # on either side, over which mean and deviation are taken: half an octave
NUM_HARMONICS = 20
HARMONIC_DECAY = 0.7  # from each harmonic to the next
NUM_UPDATES = 60
MIN_LEVEL = 0.02  # of the loudest frame; quieter ones have no notes


def note_activations(audio: Audio) -> NDArray[np.float32]:
    """(T, P) strength of each note from LOWEST to HIGHEST, at most 1 in a frame of 0.185 s."""
    spectra, spacing = _spectra(audio)
    tuning = _estimate_tuning(_log_frequency(spectra, spacing, 0.0))
    bins = _log_frequency(spectra, spacing, tuning)
    notes = _nonnegative_least_squares(_whiten(bins), _harmonic_spectra())
    level = np.linalg.norm(bins, axis=1)
    notes[level <= MIN_LEVEL * level.max(initial=0.0)] = 0.0
    return notes / np.maximum(notes.max(axis=1, keepdims=True), 1e-6)


def _spectra(audio: Audio) -> tuple[NDArray[np.float32], float]:
    """(T, half the window up to the highest harmonic) magnitudes, and the spacing of the bins in Hz."""
    hop = timing.seconds_to_samples(WINDOW_S / 2, audio.sample_rate)
    size = 2 * hop
    spacing = timing.bin_frequency(1, size, audio.sample_rate)
    count = int(_hertz(HIGHEST + 2) / spacing) + 2
    mono = np.pad(audio.samples.mean(axis=0), (hop, size))
    frames = np.lib.stride_tricks.sliding_window_view(mono, size)[: len(audio) + 1 : hop]
    window = np.hanning(size).astype(np.float32)
    parts = [
        np.abs(np.fft.rfft(frames[first : first + BLOCK] * window)[:, :count]) for first in range(0, len(frames), BLOCK)
    ]
    return np.pad(np.concatenate(parts), ((0, 0), (0, max(0, count - parts[0].shape[1])))).astype(np.float32), spacing


def _hertz(midi: float | Floats) -> Floats:
    return np.asarray(440.0 * 2 ** ((np.asarray(midi) - 69) / 12))


def _log_frequency(spectra: NDArray[np.float32], spacing: float, tuning: float) -> NDArray[np.float32]:
    """(T, L) the spectrum by pitch; the middle bin of a note is `tuning` semitones above its usual pitch."""
    points = (np.arange(NUM_BINS * POINTS_PER_BIN) + 0.5) / (POINTS_PER_BIN * BINS_PER_SEMITONE) - 0.5
    positions = _hertz(LOWEST + points + tuning) / spacing
    index = positions.astype(int)
    share = (positions - index).astype(np.float32)
    values = spectra[:, index] * (1 - share) + spectra[:, index + 1] * share
    return values.reshape(len(values), NUM_BINS, POINTS_PER_BIN).max(axis=-1)


def _estimate_tuning(bins: NDArray[np.float32]) -> float:
    """Return by how much of a semitone, −0.5 to 0.5, the piece is sharp."""
    offset = (np.arange(NUM_BINS) - 1) / BINS_PER_SEMITONE
    return float(np.angle((bins.mean(axis=0) * np.exp(2j * np.pi * offset)).sum()) / (2 * np.pi))


def _whiten(bins: NDArray[np.float32]) -> NDArray[np.float32]:
    """(T, L) by how many deviations each bin exceeds the mean of the bins around it; at least 0."""
    kernel = np.hanning(2 * WHITENING_BINS + 3)[1:-1]
    distance = np.arange(NUM_BINS)[:, None] - np.arange(NUM_BINS) + WHITENING_BINS
    near = (distance >= 0) & (distance < len(kernel))
    smoothing = np.where(near, kernel[np.clip(distance, 0, len(kernel) - 1)], 0)
    smoothing = (smoothing / smoothing.sum(axis=0)).astype(np.float32)
    excess = bins - bins @ smoothing
    deviation = np.sqrt(np.square(excess) @ smoothing)
    return np.maximum(excess, 0) / np.maximum(deviation, 1e-6)


@cache
def _harmonic_spectra() -> NDArray[np.float32]:
    """(P, L) spectra of the notes."""
    notes, harmonics = np.arange(HIGHEST - LOWEST + 1), np.arange(1, NUM_HARMONICS + 1)
    centers = 1 + BINS_PER_SEMITONE * (notes[:, None] + 12 * np.log2(harmonics))  # (P, harmonics)
    distance = np.abs(np.arange(NUM_BINS) - centers[..., None])
    peaks = np.cos(np.minimum(distance / 2, 1) * np.pi / 2) ** 2  # (P, harmonics, L)
    return np.einsum("h,phl->pl", HARMONIC_DECAY ** (harmonics - 1), peaks).astype(np.float32)


def _nonnegative_least_squares(bins: NDArray[np.float32], spectra: NDArray[np.float32]) -> NDArray[np.float32]:
    """(T, P) by multiplicative updates (Lee & Seung, 2001)."""
    correlation, gram = bins @ spectra.T, spectra @ spectra.T
    notes = np.maximum(correlation, 1e-6)
    for _ in range(NUM_UPDATES):
        notes *= correlation / np.maximum(notes @ gram, 1e-9)
    return notes
