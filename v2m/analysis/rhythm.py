"""Onset strength, and beat and downbeat tracking.

librosa's tracker finds the beats (Ellis, "Beat tracking by dynamic programming", 2007) in an onset curve that
weights the bass. Harmonic change and bass onsets then decide whether they or the instants halfway between them are the
beats, and which of them are downbeats. The weights were chosen on 20 pieces of the Sketch composer (`align_to_cuts.py`
in bench/README.md), so they may suit other music less. T hops of 10 ms, K frequency bands, B beats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from v2m.core import timing
from v2m.core.compat import import_librosa
from v2m.core.types import Audio, Floats

HOPS_PER_SECOND = 100
NUM_BANDS = 40
BASS_HZ, TREBLE_HZ = 160.0, 2500.0
DEEP_BASS_HZ = 200.0  # of the bass onsets that mark a bar
BAND_WEIGHTS = (2.0, 1.0, 0.5)  # of bass, middle and treble, each divided by its deviation
DEFAULT_TEMPO = 120.0
TIGHTNESS = 200  # of the tracker: twice librosa's default, for music that keeps its tempo
HARMONY_WINDOW_S = 0.8  # on either side of an instant, to compare harmonies
BEAT_TOLERANCE_HOPS = 3  # by which a change may miss its beat
BASS_ONSET_WEIGHT = 0.7  # of bass onsets against harmonic change, as evidence of a bar line
IRREGULAR_BAR_COST = 2.0  # of a bar of irregular length in the search for downbeats, in standard deviations
UNUSUAL_BARS_COST = 0.5  # of each irregular bar, and of a meter other than the first, in standard errors
TRACKED_BEATS_PRIOR = 1.0  # in favor of the tracked beats over the instants between them, in standard errors
METERS = (4, 3)
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

    @property
    def downbeats(self) -> Floats:
        return self.beats[self.is_downbeat]


def track_beats(audio: Audio, tempo: float | None = None) -> BeatTrack | None:
    """Track the beats of `audio`; `tempo` is the tracker's prior. None where fewer than 6 beats are found."""
    librosa = import_librosa()

    rises, edges = spectral_flux(audio)
    bands = ((0.0, BASS_HZ), (BASS_HZ, TREBLE_HZ), (TREBLE_HZ, audio.sample_rate / 2))
    parts = [rises[:, (edges >= low) & (edges < high)].sum(axis=1) for low, high in bands]
    onsets = np.zeros(len(rises))
    for weight, part in zip(BAND_WEIGHTS, parts, strict=True):
        onsets += weight * part / max(float(part.std()), 1e-9)
    if not onsets.any():
        return None
    tracked = librosa.beat.beat_track(
        onset_envelope=onsets, sr=HOPS_PER_SECOND, hop_length=1, units="time",
        start_bpm=tempo or DEFAULT_TEMPO, tightness=TIGHTNESS,
    )[1]  # fmt: skip
    beats = np.asarray(tracked, float)
    if len(beats) < MIN_BEATS:
        return None
    harmonic_change = _local_maximum(_harmonic_change(audio, len(rises)))
    bass_onsets = _local_maximum(rises[:, edges < DEEP_BASS_HZ].sum(axis=1))
    evidence = _standardize(harmonic_change) + BASS_ONSET_WEIGHT * _standardize(bass_onsets)
    beats, is_downbeat, meter = _choose_phase(evidence, beats)
    strength = _sample_at(_local_maximum(onsets), beats)
    weaker = np.searchsorted(np.sort(strength), strength)
    median_tempo = timing.beat_seconds(float(np.median(np.diff(beats))))
    return BeatTrack(beats, is_downbeat, weaker / len(beats), meter, median_tempo)


def _harmonic_change(audio: Audio, hops: int) -> Floats:
    """(T,) harmonic change: 1 − cosine of the pitch classes after and before each hop, 0–1."""
    librosa = import_librosa()

    mono, rate = audio.samples.mean(axis=0), audio.sample_rate
    hop = timing.seconds_to_samples(1 / HOPS_PER_SECOND, rate)
    size = min(2 ** int(np.ceil(np.log2(4 * hop))), 2 ** int(np.log2(max(len(mono), 2))))
    chroma = librosa.feature.chroma_stft(y=mono, sr=rate, n_fft=size, hop_length=hop, norm=None, tuning=0.0)[:, :hops]
    chroma = np.log1p(chroma / max(float(chroma.mean()), 1e-9))
    reach = timing.frame_number(HARMONY_WINDOW_S, HOPS_PER_SECOND)
    total = np.cumsum(np.pad(chroma, ((0, 0), (reach + 1, reach))), axis=1)
    length = chroma.shape[1]
    middle = total[:, reach : reach + length]
    before, after = middle - total[:, :length], total[:, 2 * reach : 2 * reach + length] - middle
    norms = np.linalg.norm(before, axis=0) * np.linalg.norm(after, axis=0)
    change = np.where(norms > 1e-9, 1 - (before * after).sum(axis=0) / np.maximum(norms, 1e-9), 0.0)
    return np.pad(change, (0, hops - length))


def _choose_phase(evidence: Floats, beats: Floats) -> tuple[Floats, np.ndarray, int]:
    """Return beats, downbeats and meter: of `beats` or the instants between, which have clearer bars."""
    between = (beats[1:] + beats[:-1]) / 2
    period = float(np.median(np.diff(beats)))
    last = timing.samples_to_seconds(len(evidence), HOPS_PER_SECOND)
    ends = [time for time in (beats[0] - period / 2, beats[-1] + period / 2) if 0 <= time < last]
    between = np.sort(np.append(between, ends))
    candidates = []
    for grid, other, prior in ((beats, between, TRACKED_BEATS_PRIOR), (between, beats, 0.0)):
        clarity, is_downbeat, meter = _find_bars(_sample_at(evidence, grid))
        contrast = _separation(_sample_at(evidence, grid), _sample_at(evidence, other))
        candidates.append((clarity + prior + contrast, grid, is_downbeat, meter))
    _, grid, is_downbeat, meter = max(candidates, key=lambda candidate: candidate[0])
    return grid, is_downbeat, meter


def _find_bars(evidence: Floats) -> tuple[float, np.ndarray, int]:
    """Return how clear the bars are in `evidence` (B,), the downbeats (B,) bool, and the meter."""
    best = (-np.inf, np.arange(len(evidence)) % METERS[0] == 0, METERS[0])
    for meter in METERS:
        is_downbeat = _find_downbeats(_standardize(evidence), meter)
        if is_downbeat.all() or not is_downbeat.any():
            continue
        irregular = int((np.diff(np.flatnonzero(is_downbeat)) != meter).sum())
        contrast = _separation(evidence[is_downbeat], evidence[~is_downbeat])
        clarity = contrast - UNUSUAL_BARS_COST * irregular - UNUSUAL_BARS_COST * (meter != METERS[0])
        if clarity > best[0]:
            best = (clarity, is_downbeat, meter)
    return best


def _find_downbeats(evidence: Floats, meter: int) -> np.ndarray:
    """(B,) bool: the likeliest downbeats, by Viterbi over the position of each beat in its bar.

    score[b, p] = max over q of score[b − 1, q] + step[q, p], plus evidence[b] where p = 0.
    """
    step = np.full((meter, meter), -IRREGULAR_BAR_COST)
    step[np.arange(meter), (np.arange(meter) + 1) % meter] = 0.0
    opens_bar = np.arange(meter) == 0
    score, previous = opens_bar * evidence[0], np.zeros((len(evidence), meter), int)
    for beat in range(1, len(evidence)):
        options = score[:, None] + step
        previous[beat] = options.argmax(axis=0)
        score = options.max(axis=0) + opens_bar * evidence[beat]
    positions = [int(score.argmax())]
    for beat in range(len(evidence) - 1, 0, -1):
        positions.append(int(previous[beat][positions[-1]]))
    return np.array(positions[::-1]) == 0


def _separation(first: Floats, second: Floats) -> float:
    """Return by how many standard errors the mean of `first` exceeds that of `second`."""
    spread = np.concatenate([first, second]).var() * (1 / len(first) + 1 / len(second))
    return float((first.mean() - second.mean()) / np.sqrt(spread + 1e-9))


def _standardize(curve: Floats) -> Floats:
    return (curve - curve.mean()) / max(float(curve.std()), 1e-9)


def _local_maximum(curve: Floats) -> Floats:
    padded = np.pad(curve, BEAT_TOLERANCE_HOPS)
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * BEAT_TOLERANCE_HOPS + 1).max(axis=1)


def _sample_at(curve: Floats, times: Floats) -> Floats:
    indices = np.rint(timing.seconds_to_frames(times, HOPS_PER_SECOND)).astype(int)
    return curve[np.clip(indices, 0, len(curve) - 1)]
