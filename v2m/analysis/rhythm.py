"""Onset strength; beat and downbeat tracking by BeatNet's activations and a bar-pointer model.

T hops of 10 ms, K frequency bands, B beats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from v2m.analysis.bar_pointer import find_path
from v2m.analysis.beat_network import FRAMES_PER_SECOND, beat_activations
from v2m.analysis.harmonic_novelty import harmonic_novelty
from v2m.core import timing
from v2m.core.types import Audio, Floats

HOPS_PER_SECOND = 100
NUM_BANDS = 40
ACCENT_TOLERANCE_HOPS = 3  # by which an onset may miss its beat
MIN_BEATS = 6  # with fewer there is no BeatTrack


def spectral_flux(audio: Audio) -> tuple[Floats, Floats]:
    """(T, K) rise of log band energy per hop, 0 where it falls; (K,) lower edges of the bands in Hz.

    The spectral flux of Böck & Widmer, "Maximum filter vibrato suppression for onset detection" (2013), without the
    filter; up to 40 bands from 50 Hz to half the sample rate, each as many times as wide as the one below.
    """
    hop = timing.seconds_to_samples(1 / HOPS_PER_SECOND, audio.sample_rate)
    size = 4 * hop
    mono = np.pad(audio.samples.mean(axis=0), (size // 2, size))
    starts = np.arange(0, len(audio), hop)
    window = np.hanning(size).astype(np.float32)
    edges = np.unique(np.geomspace(2, size // 2, NUM_BANDS + 1).astype(int))
    parts = []
    for block in np.array_split(starts, max(1, len(starts) // 1000)):
        spectra = np.abs(np.fft.rfft(mono[block[:, None] + np.arange(size)] * window))
        parts.append(np.add.reduceat(spectra, edges[:-1], axis=1))
    bands = np.log1p(np.concatenate(parts))
    rises = np.diff(bands, axis=0, prepend=bands[:1])
    return np.maximum(rises, 0), np.array([timing.bin_frequency(edge, size, audio.sample_rate) for edge in edges[:-1]])


def onset_strength(audio: Audio) -> Floats:
    """(T,) the spectral flux summed over all bands."""
    return spectral_flux(audio)[0].sum(axis=1)


@dataclass(frozen=True)
class BeatTrack:
    """The tracked beats."""

    beats: Floats  # (B,) in seconds
    is_downbeat: np.ndarray  # (B,) bool, which beats open a bar
    accents: Floats  # (B,) share of the beats whose onset is weaker, 0–1
    meter: int  # beats of a regular bar
    tempo: float  # median, beats per minute
    confidence: float = 1.0  # mean probability of a beat at the beats, 0–1

    @property
    def downbeats(self) -> Floats:
        return self.beats[self.is_downbeat]


def track_beats(audio: Audio, tempo: float | None = None) -> BeatTrack | None:
    """Track the beats of `audio`; `tempo` is a hint. None where fewer than 6 beats are found."""
    activations = beat_activations(audio)
    times = timing.time_grid(FRAMES_PER_SECOND, timing.samples_to_seconds(len(activations), FRAMES_PER_SECOND))
    path = find_path(activations, FRAMES_PER_SECOND, tempo, harmonic_novelty(audio, times))
    if len(path.times) < MIN_BEATS:
        return None
    onsets = np.pad(onset_strength(audio), ACCENT_TOLERANCE_HOPS)
    peaks = np.lib.stride_tricks.sliding_window_view(onsets, 2 * ACCENT_TOLERANCE_HOPS + 1).max(axis=1)
    hops = np.rint(timing.seconds_to_frames(path.times, HOPS_PER_SECOND)).astype(int)
    strength = peaks[np.minimum(hops, len(peaks) - 1)]
    weaker = np.searchsorted(np.sort(strength), strength)
    median_tempo = timing.beat_seconds(float(np.median(np.diff(path.times))))
    confidence = float(path.strengths.mean())
    return BeatTrack(path.times, path.is_downbeat, weaker / len(weaker), path.meter, median_tempo, confidence)
