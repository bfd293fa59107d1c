"""Onset strength: the spectral flux in bands, 100 times a second.

N audio samples, T hops of 10 ms, K bands.
"""

from __future__ import annotations

import numpy as np

from v2m.core import timing
from v2m.core.types import Audio, Floats

HOPS_PER_SECOND = 100
NUM_BANDS = 40


def spectral_flux(audio: Audio) -> tuple[Floats, Floats]:
    """(T, K) rise of log band energy per 10 ms hop, 0 where it falls, and (K,) the lower edges of the bands in Hz.

    The spectral flux of Böck & Widmer, "Maximum filter vibrato suppression for onset detection" (2013), without the
    filter; up to 40 bands from 50 Hz to half the sample rate, each as many times as wide as the one below.
    """
    hop = timing.sample_count(1 / HOPS_PER_SECOND, audio.sample_rate)
    size = 4 * hop
    mono = np.pad(audio.samples.mean(axis=0), (size // 2, size))
    starts = np.arange(0, len(audio), hop)
    window = np.hanning(size).astype(np.float32)
    edges = np.unique(np.geomspace(2, size // 2, NUM_BANDS + 1).astype(int))
    bands = np.concatenate(
        [
            np.add.reduceat(np.abs(np.fft.rfft(mono[block[:, None] + np.arange(size)] * window)), edges[:-1], axis=1)
            for block in np.array_split(starts, max(1, len(starts) // 1000))
        ]
    )
    rises = np.diff(np.log1p(bands), axis=0, prepend=np.log1p(bands[:1]))
    return np.maximum(rises, 0), np.array([timing.bin_frequency(edge, size, audio.sample_rate) for edge in edges[:-1]])


def onset_strength(audio: Audio) -> Floats:
    """(T,) the spectral flux summed over all bands."""
    return spectral_flux(audio)[0].sum(axis=1)
