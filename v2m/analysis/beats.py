"""Beats and bar lines of music, measured from its sound.

librosa's tracker finds the beats (Ellis, "Beat tracking by dynamic programming", 2007) in onsets of which bass is a
good part. Where the harmony changes and the bass comes in then decides whether they or the instants halfway between
them are the beats, and which of them open a bar.

T hops of 10 ms, B beats, P = 12 pitch classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from v2m.analysis.onsets import HOPS_PER_SECOND, spectral_flux
from v2m.core import timing
from v2m.core.types import Audio, Floats

BASS_HZ, TREBLE_HZ = 160.0, 2500.0  # Hz
DEEP_BASS_HZ = 200.0  # Hz: what comes in with a bar lies below
BAND_WEIGHTS = (2.0, 1.0, 0.5)  # of bass, middle and treble, each at its own scale
DEFAULT_TEMPO = 120.0
TIGHTNESS = 200  # of the tracker: twice librosa's own, for music that keeps its tempo
HARMONY_WINDOW_S = 0.8  # seconds on either side over which harmony is compared
BEAT_TOLERANCE_HOPS = 3  # hops by which a change may miss its beat
IRREGULAR_BAR_COST = 2.0  # standard deviations that a bar of irregular length costs
METERS = (4, 3)
MIN_BEATS = 6  # beats from which bar lines are told


@dataclass(frozen=True)
class BeatTrack:
    """What is heard: `beats` (B,) in seconds, which of them open a bar (`opens`, (B,) bool), `accents` (B,) 0–1: the
    share of beats whose onset is weaker. `meter`: beats of a regular bar. `tempo` in beats per minute, the median.
    """

    beats: Floats
    is_downbeat: np.ndarray
    accents: Floats
    meter: int
    tempo: float

    @property
    def downbeats(self) -> Floats:
        return self.beats[self.is_downbeat]


def track_beats(audio: Audio, tempo: float | None = None) -> BeatTrack | None:
    """The beats of `audio`; `tempo` says where to look first. None where fewer than 6 beats are found."""
    import librosa

    rises, edges = spectral_flux(audio)
    parts = [rises[:, (edges >= low) & (edges < high)].sum(axis=1) for low, high in _band_ranges(audio.sample_rate)]
    onsets = sum(
        (weight * part / max(float(part.std()), 1e-9) for weight, part in zip(BAND_WEIGHTS, parts, strict=True)),
        np.zeros(len(rises)),
    )
    if not onsets.any():
        return None
    tracked = librosa.beat.beat_track(
        onset_envelope=onsets, sr=HOPS_PER_SECOND, hop_length=1, units="time",
        start_bpm=tempo or DEFAULT_TEMPO, tightness=TIGHTNESS,
    )[1]  # fmt: skip
    beats = np.asarray(tracked, float)
    if len(beats) < MIN_BEATS:
        return None
    evidence = _standardize(_local_maximum(_harmonic_change(audio, len(rises)))) + 0.7 * _standardize(
        _local_maximum(rises[:, edges < DEEP_BASS_HZ].sum(axis=1))
    )
    beats, opens, meter = _choose_phase(evidence, beats)
    strength = _sample_at(_local_maximum(onsets), beats)
    weaker = np.searchsorted(np.sort(strength), strength)
    typical = timing.beat_seconds(float(np.median(np.diff(beats))))
    return BeatTrack(beats, opens, weaker / len(beats), meter, typical)


def _band_ranges(sample_rate: int) -> tuple[tuple[float, float], ...]:
    return ((0.0, BASS_HZ), (BASS_HZ, TREBLE_HZ), (TREBLE_HZ, sample_rate / 2))


def _harmonic_change(audio: Audio, hops: int) -> Floats:
    """(T,) how different the pitch classes of the moments after and before are: 1 − their cosine, 0–1."""
    import librosa

    mono, rate = audio.samples.mean(axis=0), audio.sample_rate
    hop = timing.sample_count(1 / HOPS_PER_SECOND, rate)
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
    """The beats or the instants halfway between them, whichever has the clearer bars, and what opens those."""
    between = (beats[1:] + beats[:-1]) / 2
    period = float(np.median(np.diff(beats)))
    last = timing.seconds_of(len(evidence), HOPS_PER_SECOND)
    ends = [time for time in (beats[0] - period / 2, beats[-1] + period / 2) if 0 <= time < last]
    between = np.sort(np.append(between, ends))
    rated = []
    for grid, other, ahead in ((beats, between, 1.0), (between, beats, 0.0)):
        clear, opens, meter = _find_bars(_sample_at(evidence, grid))
        rated.append(
            (clear + ahead + _separation(_sample_at(evidence, grid), _sample_at(evidence, other)), grid, opens, meter)
        )
    _, grid, opens, meter = max(rated, key=lambda each: each[0])
    return grid, opens, meter


def _find_bars(evidence: Floats) -> tuple[float, np.ndarray, int]:
    """How clear the bars are in (B,) evidence, which beats open one, and the meter; an opening is nowhere certain."""
    best = (-np.inf, np.arange(len(evidence)) % METERS[0] == 0, METERS[0])
    for meter in METERS:
        opens = _find_downbeats(_standardize(evidence), meter)
        if opens.all() or not opens.any():
            continue
        irregular = int((np.diff(np.flatnonzero(opens)) != meter).sum())
        clear = _separation(evidence[opens], evidence[~opens]) - 0.5 * irregular - 0.5 * (meter != METERS[0])
        if clear > best[0]:
            best = (clear, opens, meter)
    return best


def _find_downbeats(evidence: Floats, meter: int) -> np.ndarray:
    """(B,) bool: the likeliest places of bar lines (Viterbi over the place of each beat in its bar)."""
    step = np.full((meter, meter), -IRREGULAR_BAR_COST)
    step[np.arange(meter), (np.arange(meter) + 1) % meter] = 0.0
    opening = np.arange(meter) == 0
    value, came = opening * evidence[0], np.zeros((len(evidence), meter), int)
    for beat in range(1, len(evidence)):
        options = value[:, None] + step
        came[beat] = options.argmax(axis=0)
        value = options.max(axis=0) + opening * evidence[beat]
    places = [int(value.argmax())]
    for beat in range(len(evidence) - 1, 0, -1):
        places.append(int(came[beat][places[-1]]))
    return np.array(places[::-1]) == 0


def _separation(first: Floats, second: Floats) -> float:
    """By how many standard errors the mean of `first` lies above that of `second`."""
    spread = np.concatenate([first, second]).var() * (1 / len(first) + 1 / len(second))
    return float((first.mean() - second.mean()) / np.sqrt(spread + 1e-9))


def _standardize(curve: Floats) -> Floats:
    return (curve - curve.mean()) / max(float(curve.std()), 1e-9)


def _local_maximum(curve: Floats) -> Floats:
    return np.lib.stride_tricks.sliding_window_view(
        np.pad(curve, BEAT_TOLERANCE_HOPS), 2 * BEAT_TOLERANCE_HOPS + 1
    ).max(axis=1)


def _sample_at(curve: Floats, times: Floats) -> Floats:
    places = np.rint(timing.place_at(times, HOPS_PER_SECOND)).astype(int)
    return curve[np.clip(places, 0, len(curve) - 1)]
