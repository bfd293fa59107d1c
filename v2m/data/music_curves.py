"""Curves and accents of music, from which a pseudo-video is made: of scores, and of sound.

R steps at `CURVE_RATE`, N notes, A attacks, B bands, W windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from v2m.analysis.key_tempo import KEY_PROFILES
from v2m.analysis.rhythm import HOPS_PER_SECOND, spectral_flux
from v2m.core import timing
from v2m.core.types import Audio, Floats
from v2m.sketch.notation.score import Score, ScoreNote
from v2m.sketch.notation.vocabulary import DRUM_VOICES

CURVE_RATE = 24  # Hz
ATTACK_WINDOW_S = 0.03  # in which notes are of one attack
LOCAL_S = 2.0  # before and after an attack, with whose median it is compared
REST_S = 0.5  # without an attack, after which the next is one after a rest
SMOOTHING_S, HARMONY_S = 0.4, 2.0  # standard deviations, of density and of harmony
NOVELTY_S, SECTION_S = 1.0, 4.0  # before and after a time, that are compared
SECTION_DEVIATIONS = 1.5  # of the novelty, above which it is the start of a section
MIN_STRENGTH, MIN_SHARE = 0.3, 0.4  # of an accent, and of the strongest one of the piece
CRASHES = frozenset({49, 52, 55, 57})
HIGH_ACCENT = 72  # pitch from which an accent may be a flash
FLASH_GAP_S = 0.75  # between a flash and other accents
LOW_HZ, HIGH_HZ = 200.0, 4000.0  # below, an onset has the weight of a drum; above, the light of a cymbal


@dataclass(frozen=True)
class Accent:
    """A time in seconds where the music stands out, and how much, from about 0.3 to 2."""

    time: float
    strength: float


@dataclass(frozen=True)
class MusicCurves:
    """Curves of a piece, of any scale, and its accents, for a pseudo-video."""

    duration: float
    motion: Floats  # (R,) rises with density and loudness
    brightness: Floats  # (R,) rises from minor to major, and with the register
    energy: float  # of the whole piece, 0–1
    valence: float  # 0 minor to 1 major
    accents: tuple[Accent, ...]  # in order of time
    flashes: tuple[float, ...]  # seconds of isolated high accents


def score_curves(score: Score) -> MusicCurves:
    """Return the curves of a score."""
    count = timing.segment_count(score.duration, CURVE_RATE)
    notes = sorted(note for _, note in score.notes if note.onset < score.duration)
    pitched = sorted(n for voice, n in score.notes if voice not in DRUM_VOICES and n.onset < score.duration)
    loudness = np.array([(note.velocity / 127) ** 2 for note in notes])
    steps = _steps([note.onset for note in notes], count)
    density = _smooth(np.bincount(steps, loudness, count), SMOOTHING_S)
    classes, height = np.zeros((count, 12)), np.zeros(count)
    for note in pitched:
        first, end = _steps([note.onset, note.end], count)
        classes[first : max(end, first + 1), note.pitch % 12] += 1
    np.maximum.at(height, _steps([note.onset for note in pitched], count), [note.pitch for note in pitched])
    height = np.interp(np.arange(count), np.flatnonzero(height), height[height > 0]) if pitched else height
    major = _majorness(classes)
    tempo = 120.0 if len(score.beats) < 2 else timing.beat_seconds(float(np.median(np.diff(score.beats))))
    rate = timing.mean_rate(len(_attacks(notes)), score.duration)
    return MusicCurves(
        duration=score.duration,
        motion=np.sqrt(density),
        brightness=_standardize(major) + 0.5 * _standardize(_smooth(height, HARMONY_S)),
        energy=_energy(rate, tempo, float(np.sqrt(loudness.mean()))),
        valence=_valence(classes),
        accents=_score_accents(score, notes, np.column_stack([classes, _standardize(density)])),
        flashes=_score_flashes(score),
    )


def _score_accents(score: Score, notes: Sequence[ScoreNote], features: Floats) -> tuple[Accent, ...]:
    """Return loud chords, accents, crashes, downbeats after a rest, and the starts of sections."""
    attacks = _attacks(notes)
    times = np.array([attack[0].onset for attack in attacks])
    weights = np.array([sum((note.velocity / 127) ** 2 for note in attack) for attack in attacks])
    accents = [note.onset for note in score.voices.get("accent", ())]
    crashes = [note.onset for note in score.voices.get("cymbals", ()) if note.pitch in CRASHES]
    sections = _section_starts(features)
    if len(score.downbeats):
        sections = score.downbeats[np.unique(np.abs(score.downbeats - sections[:, None]).argmin(axis=1))]
    on_downbeat = _is_near(times, score.downbeats, 0.04)
    strength = 0.35 * np.log2(weights / _local_medians(times, weights)) + 0.15 * on_downbeat
    strength += 0.3 * (on_downbeat & _is_after_rest(times))
    for special in (accents, crashes):
        strength += 0.4 * _is_near(times, np.array(special), ATTACK_WINDOW_S)
    strength += 0.3 * _is_near(times, sections, 0.1)
    return _keep_strong(times, strength)


def _score_flashes(score: Score) -> tuple[float, ...]:
    """Return the times of crashes and high accents that stand alone."""
    high = {note.onset for note in score.voices.get("cymbals", ()) if note.pitch in CRASHES}
    high |= {note.onset for note in score.voices.get("accent", ()) if note.pitch >= HIGH_ACCENT}
    return _isolated(np.array(sorted(time for time in high if time < score.duration)))


def sound_curves(audio: Audio, tempo: float | None, duration: float) -> MusicCurves:
    """Return the curves of `duration` seconds of sound; `tempo` in beats per minute, where it is known."""
    count = timing.segment_count(duration, CURVE_RATE)
    bands, classes, level = _sound_features(audio, count, duration)
    flux, edges = spectral_flux(audio)
    onsets = flux.sum(axis=1)
    hops = timing.time_grid(HOPS_PER_SECOND, timing.samples_to_seconds(len(onsets), HOPS_PER_SECOND))
    peaks = _peaks(onsets, round(timing.seconds_to_frames(0.05, HOPS_PER_SECOND)))
    peaks = peaks[(onsets[peaks] > 0.1 * np.quantile(onsets, 0.99)) & (hops[peaks] < duration)]
    activity = np.bincount(_steps(hops[peaks], count), onsets[peaks], count)
    low, high = flux[:, edges < LOW_HZ].sum(axis=1), flux[:, edges >= HIGH_HZ].sum(axis=1)
    centroid = (bands @ np.arange(bands.shape[1])) / np.maximum(bands.sum(axis=1), 1e-9)
    medians = max(float(np.median(onsets[peaks])) if len(peaks) else 0.0, 1e-9)
    rate = timing.mean_rate(int((onsets[peaks] > 0.5 * medians).sum()), duration)
    bright = peaks[(high[peaks] > 2 * low[peaks]) & (onsets[peaks] > 1.5 * medians)]
    return MusicCurves(
        duration=duration,
        motion=_standardize(_smooth(level, SMOOTHING_S)) + _standardize(_smooth(activity, SMOOTHING_S)),
        brightness=_standardize(_majorness(classes)) + 0.5 * _standardize(_smooth(centroid, HARMONY_S)),
        energy=_energy(rate, tempo or 100.0, 0.55),
        valence=_valence(classes),
        accents=_sound_accents(hops[peaks], onsets[peaks], np.column_stack([classes, bands]), duration),
        flashes=_isolated(hops[bright]),
    )


def _sound_accents(times: Floats, onsets: Floats, features: Floats, duration: float) -> tuple[Accent, ...]:
    """Return strong onsets, the stronger the more the sound after them differs from that before."""
    if not len(times):
        return ()
    width = round(timing.seconds_to_frames(NOVELTY_S, CURVE_RATE))
    novelty = np.clip(_standardize(_novelty(features, width)), 0, 2)
    strength = 0.35 * np.log2(onsets / _local_medians(times, onsets)) + 0.15 * novelty[_steps(times, len(novelty))]
    strength += 0.2 * onsets / onsets.max() + 0.3 * _is_after_rest(times)
    sections = _section_starts(features)
    nearest = times[np.unique(np.abs(times - sections[:, None]).argmin(axis=1))] if len(sections) else sections
    strength += 0.3 * (_is_near(times, nearest, 0.01) & _is_near(times, sections, 0.25))
    return _keep_strong(times, np.where(times < duration, strength, 0))


def _sound_features(audio: Audio, count: int, duration: float) -> tuple[Floats, Floats, Floats]:
    """Return log energies of bands (R, B), pitch classes (R, 12) and level in dB (R,)."""
    rate = audio.sample_rate
    size = 1 << int(np.log2(timing.seconds_to_samples(0.19, rate)))
    mono = np.pad(audio.samples.mean(axis=0), (size // 2, size))
    starts = np.rint(timing.seconds_to_frames(timing.segment_times(duration, count), rate)).astype(int)
    frequencies = np.maximum(np.arange(size // 2 + 1) * timing.bin_frequency(1, size, rate), 1.0)
    edges = np.unique(np.searchsorted(frequencies, np.geomspace(50, min(8000, 0.45 * rate), 25)))
    inside = (frequencies > 80) & (frequencies < 2000)
    pitch_class = np.eye(12)[np.rint(69 + 12 * np.log2(frequencies / 440)).astype(int) % 12] * inside[:, None]
    window = np.hanning(size).astype(np.float32)
    bands, classes, level = [], [], []
    for block in np.array_split(starts, -(-count // 200)):
        frames = mono[block[:, None] + np.arange(size)]
        spectra = np.abs(np.fft.rfft(frames * window))
        bands.append(np.log1p(np.add.reduceat(spectra, edges[:-1], axis=1)))
        classes.append(spectra @ pitch_class)
        level.append(10 * np.log10(np.square(frames).mean(axis=1) + 1e-8))
    chroma = np.concatenate(classes)
    norms = np.maximum(np.linalg.norm(chroma, axis=1, keepdims=True), 1e-6)
    return np.concatenate(bands).astype(float), chroma / norms, np.concatenate(level).astype(float)


def _steps(times: Sequence[float] | Floats, count: int) -> np.ndarray:
    steps = np.floor(timing.seconds_to_frames(np.asarray(times, float), CURVE_RATE)).astype(int)
    return np.clip(steps, 0, count - 1)


def _attacks(notes: Sequence[ScoreNote]) -> list[list[ScoreNote]]:
    groups: list[list[ScoreNote]] = []
    for note in notes:
        if groups and note.onset - groups[-1][0].onset <= ATTACK_WINDOW_S:
            groups[-1].append(note)
        else:
            groups.append([note])
    return groups


def _keep_strong(times: Floats, strength: Floats) -> tuple[Accent, ...]:
    strong = np.flatnonzero(strength >= max(MIN_STRENGTH, MIN_SHARE * float(strength.max(initial=0.0))))
    return tuple(Accent(float(times[index]), float(strength[index])) for index in strong)


def _local_medians(times: Floats, weights: Floats) -> Floats:
    low, high = np.searchsorted(times, times - LOCAL_S), np.searchsorted(times, times + LOCAL_S)
    return np.array([max(float(np.median(weights[a:b])), 1e-9) for a, b in zip(low, high, strict=True)])


def _is_near(times: Floats, others: Floats, tolerance: float) -> np.ndarray:
    """Return for each of `times` whether one of `others` lies within `tolerance` seconds."""
    if not len(others):
        return np.zeros(len(times), bool)
    edges = np.sort(others)
    return np.searchsorted(edges, times - tolerance) < np.searchsorted(edges, times + tolerance, side="right")


def _is_after_rest(times: Floats) -> np.ndarray:
    return np.diff(times, prepend=0.0) >= REST_S


def _isolated(times: Floats) -> tuple[float, ...]:
    gaps = np.diff(np.concatenate([[-np.inf], times, [np.inf]]))
    return tuple(map(float, times[(gaps[:-1] > FLASH_GAP_S) & (gaps[1:] > FLASH_GAP_S)]))


def _peaks(curve: Floats, distance: int) -> np.ndarray:
    """Return the indices of values that are the largest within `distance` steps."""
    padded = np.pad(curve, distance, constant_values=-np.inf)
    largest = np.lib.stride_tricks.sliding_window_view(padded, 2 * distance + 1).max(axis=1)
    indices = np.flatnonzero((curve == largest) & (curve > 0))
    return indices[np.diff(indices, prepend=-distance - 1) > distance]


def _novelty(features: Floats, width: int) -> Floats:
    """Return (R,) 1 − the cosine of the sums of (R, D) features over `width` steps before and after."""
    total = np.pad(np.cumsum(np.pad(features, ((width, width), (0, 0)), mode="edge"), axis=0), ((1, 0), (0, 0)))
    steps = np.arange(len(features))
    before, after = total[steps + width] - total[steps], total[steps + 2 * width] - total[steps + width]
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    return np.where(norms > 0, 1 - (before * after).sum(axis=1) / np.maximum(norms, 1e-9), 0.0)


def _section_starts(features: Floats) -> Floats:
    """Return the seconds of peaks of the novelty of features (R, D) over `SECTION_S`."""
    width = round(timing.seconds_to_frames(SECTION_S, CURVE_RATE))
    novelty = _novelty(features, width)
    peaks = _peaks(novelty, width)
    peaks = peaks[(peaks >= width) & (peaks < len(novelty) - width)]  # with music before and after
    strong = peaks[_standardize(novelty)[peaks] > SECTION_DEVIATIONS]
    return timing.segment_times(timing.samples_to_seconds(len(features), CURVE_RATE), len(features))[strong]


def _majorness(classes: Floats) -> Floats:
    """Return (R,) by which the best major key fits smoothed classes (R, 12) better than the best minor."""
    smooth = np.column_stack([_smooth(column, HARMONY_S) for column in classes.T])
    centered = smooth - smooth.mean(axis=1, keepdims=True)
    centered /= np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-9)
    fits = {}
    for mode, values in KEY_PROFILES.items():
        profile = np.array(values) - np.mean(values)
        rolled = np.stack([np.roll(profile, tonic) for tonic in range(12)], axis=1) / np.linalg.norm(profile)
        fits[mode] = (centered @ rolled).max(axis=1)
    return fits["major"] - fits["minor"]


def _valence(classes: Floats) -> float:
    return float(1 / (1 + np.exp(-8 * _majorness(classes.mean(axis=0, keepdims=True))[0])))


def _energy(attacks_per_second: float, tempo: float, loudness: float) -> float:
    """Return the mean of the three, each within 0–1 of what is usual."""
    parts = attacks_per_second / 8, (tempo - 50) / 110, (loudness - 0.35) / 0.5
    return float(np.clip(parts, 0, 1).mean())


def _smooth(curve: Any, deviation_s: float) -> Floats:
    """Convolve (R,) with a Gaussian; the ends go on beyond."""
    reach = round(timing.seconds_to_frames(3 * deviation_s, CURVE_RATE))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / (reach / 3)) ** 2)
    padded: Floats = np.pad(np.asarray(curve, float), reach, mode="edge")
    return np.convolve(padded, kernel / kernel.sum(), mode="valid").astype(float)


def _standardize(curve: Floats) -> Floats:
    return (curve - curve.mean()) / max(float(curve.std()), 1e-9)
