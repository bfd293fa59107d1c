"""Harmonic novelty: how much the notes after a time differ from those before it.

Chords and bass notes change on beats more often than between them, also where the loudest onsets are off the beat.
T frames, K semitones.
"""

from __future__ import annotations

import numpy as np

from v2m.core import timing
from v2m.core.types import Audio, Floats

FRAMES_PER_SECOND = 20  # of the spectrum
WINDOW_S = 0.186  # about
SIZE_STEP = 256  # samples: sizes of large prime factors are slow
LOWEST, HIGHEST = 36, 95  # MIDI notes: 65 Hz to 2 kHz
QUIETEST = 0.02  # of the usual strongest note; the logarithm compresses what is louder
BLOCK = 200  # frames at a time
CONTEXT_S = 0.3  # before and after a time: about half a beat
NORMALIZATION_S = 2.0  # on either side, over which mean and deviation are taken
MAX_DEVIATIONS = 3.0


def harmonic_novelty(audio: Audio, times: Floats) -> Floats:
    """Novelty at `times` (seconds): −3 to 3 deviations from the mean over 4 s, 0 in silence."""
    frame_times = timing.time_grid(FRAMES_PER_SECOND, timing.samples_to_seconds(len(audio), audio.sample_rate))
    levels = _note_levels(audio, frame_times)
    context = round(timing.seconds_to_frames(CONTEXT_S, FRAMES_PER_SECOND))
    total = np.pad(np.cumsum(np.pad(levels, ((context, context), (0, 0))), axis=0), ((1, 0), (0, 0)))
    before = total[context : context + len(levels)] - total[: len(levels)]
    after = total[2 * context + 1 :] - total[context + 1 : -context]
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    novelty = np.where(norms > 0, 1 - (before * after).sum(axis=1) / np.maximum(norms, 1e-9), 0.0)
    return np.interp(times, frame_times, _normalize(novelty))


def _note_levels(audio: Audio, times: Floats) -> Floats:
    """(T, K) compressed magnitude of each semitone."""
    rate = audio.sample_rate
    size = max(1, round(timing.seconds_to_samples(WINDOW_S, rate) / SIZE_STEP)) * SIZE_STEP
    mono = np.pad(audio.samples.mean(axis=0), (size // 2, size))
    starts = np.rint(timing.seconds_to_frames(times, rate)).astype(int)
    spacing = timing.bin_frequency(1, size, rate)
    edges = 440 * 2 ** ((np.arange(LOWEST, HIGHEST + 2) - 69.5) / 12) / spacing  # in bins
    edges = edges[edges < size // 2]
    bands = np.stack([np.floor(edges[:-1]), np.ceil(edges[1:]) + 1], axis=1).astype(int)
    window = np.hanning(size).astype(np.float32)
    parts = [
        np.maximum.reduceat(
            np.abs(np.fft.rfft(mono[block[:, None] + np.arange(size)] * window))[:, : bands[-1, 1] + 1],
            bands.ravel(),
            axis=1,
        )[:, ::2]
        for block in np.array_split(starts, -(-len(starts) // BLOCK))
    ]
    levels = np.concatenate(parts).astype(float)
    return np.log1p(levels / max(QUIETEST * float(np.median(levels.max(axis=1))), 1e-6))


def _normalize(novelty: Floats) -> Floats:
    """(T,) deviations from the mean around each frame."""
    width = 2 * round(timing.seconds_to_frames(NORMALIZATION_S, FRAMES_PER_SECOND)) + 1
    count, mean, square = (
        np.convolve(curve, np.ones(width))[width // 2 : width // 2 + len(novelty)]
        for curve in (np.ones_like(novelty), novelty, novelty**2)
    )
    mean = mean / count
    deviation = np.sqrt(np.maximum(square / count - mean**2, 1e-6))
    return np.clip((novelty - mean) / deviation, -MAX_DEVIATIONS, MAX_DEVIATIONS)
