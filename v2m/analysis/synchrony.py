"""Synchrony of music and video: a score for ranking, beats against cuts, onsets against motion.

T hops of 10 ms, n cuts, B beats, R steps of 100 ms, L lags. Times in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

from v2m.analysis.loudness import k_weighted_power, power_to_lufs
from v2m.analysis.rhythm import HOPS_PER_SECOND, onset_strength
from v2m.core import timing
from v2m.core.types import Audio, Cut, Floats, VisualFeatures

TOLERANCE_S = 0.07  # within which a cut and an onset or beat are perceived as simultaneous
EXACT_TOLERANCE_S, FRAME_TOLERANCE_S, WIDE_TOLERANCE_S = 0.02, 0.04, 0.1
NUM_SHIFTS = 400
STEPS_PER_SECOND = 10
MAX_LAG_S = 1.0
MIN_STEPS = 4 * STEPS_PER_SECOND
NUM_MOTION_SHIFTS = 100


@dataclass(frozen=True)
class SyncScore:
    """Synchrony of music and video."""

    accents: float | None  # weighted mean percentile of onset strengths near the cuts; 0.5 is chance, None without cuts
    dynamics: float | None  # rank correlation, −1 to 1, of loudness and motion over seconds; None where either is flat
    total: float  # 0–1, for the ranking of candidates

    def to_dict(self) -> dict[str, float | None]:
        return {name: None if value is None else round(value, 4) for name, value in asdict(self).items()}


def sync_score(audio: Audio, features: VisualFeatures) -> SyncScore:
    """Compute `total` = 0.7 · accents + 0.3 · (1 + dynamics) / 2; a missing part counts as chance, 0.5."""
    accents = _accent_percentile(onset_strength(audio), features.cuts)
    dynamics = _dynamics_correlation(audio, features)
    total = 0.7 * (0.5 if accents is None else accents) + 0.3 * (0.5 if dynamics is None else (1 + dynamics) / 2)
    return SyncScore(accents, dynamics, total)


def _accent_percentile(onsets: Floats, cuts: Sequence[Cut]) -> float | None:
    if not cuts or len(onsets) < 2:
        return None
    reach = timing.frame_number(TOLERANCE_S, HOPS_PER_SECOND)
    peaks = np.lib.stride_tricks.sliding_window_view(np.pad(onsets, reach), 2 * reach + 1).max(axis=1)  # (T,)
    order = np.sort(peaks)
    hops = [min(timing.frame_number(cut.time, HOPS_PER_SECOND), len(peaks) - 1) for cut in cuts]
    below = np.searchsorted(order, peaks[hops], side="left") + np.searchsorted(order, peaks[hops], side="right")
    return float(np.average(below / (2 * len(order)), weights=[cut.strength + 1e-3 for cut in cuts]))


def _dynamics_correlation(audio: Audio, features: VisualFeatures) -> float | None:
    power = k_weighted_power(audio.samples, audio.sample_rate, timing.seconds_to_samples(0.1, audio.sample_rate))
    seconds = min(len(power) // 10, int(features.times[-1]))
    if seconds < 4:
        return None
    levels = np.maximum(power_to_lufs(power[: 10 * seconds].reshape(seconds, 10).mean(axis=1)), -70.0)
    motion = _motion_by_second(features, seconds)
    return None if np.ptp(levels) < 0.1 or np.ptp(motion) < 1e-4 else _rank_correlation(levels, motion)


def density_correlation(attacks: ArrayLike, features: VisualFeatures) -> float | None:
    """Return the rank correlation, −1 to 1, of attacks a second and motion over seconds.

    attacks: seconds, in any order. None where either is flat, and for less than 4 s.
    """
    seconds = int(features.times[-1])
    if seconds < 4:
        return None
    density = np.histogram(np.asarray(attacks, float), np.arange(seconds + 1))[0]
    motion = _motion_by_second(features, seconds)
    return None if np.ptp(density) == 0 or np.ptp(motion) < 1e-4 else _rank_correlation(density, motion)


def _motion_by_second(features: VisualFeatures, seconds: int) -> Floats:
    edges = np.searchsorted(features.times, np.arange(seconds + 1))
    total = np.append(0.0, np.cumsum(features.motion))
    return np.diff(total[edges]) / np.maximum(np.diff(edges), 1)


def _rank_correlation(one: Floats, other: Floats) -> float:
    """Return Spearman's correlation; equal values share their mean rank."""
    ranks = np.array(
        [
            np.searchsorted(np.sort(curve), curve, "left") + np.searchsorted(np.sort(curve), curve, "right")
            for curve in (one, other)
        ],
        float,
    )
    first, second = ranks - ranks.mean(axis=1, keepdims=True)
    return float(first @ second / np.sqrt((first @ first) * (second @ second)))


@dataclass(frozen=True)
class CutAlignment:
    """Shares of the n cuts, 0–1; all but n are None where there are no cuts or no beats.

    A cut is met by a beat, or by one of the accents where these were given; both count for chance and control alike.

    `chance` is the share of all instants within the tolerance of a beat, so the hits of cuts at random times:
    min(1, 2 · tolerance · BPM / 60) for a steady beat.
    """

    n: int
    hits: float | None = None  # of cuts met within ± the tolerance, 70 ms by default
    hits_20ms: float | None = None
    hits_40ms: float | None = None  # one frame at 25 frames per second
    hits_100ms: float | None = None
    downbeat_hits: float | None = None  # None where no downbeats were given
    chance: float | None = None
    chance_20ms: float | None = None
    chance_40ms: float | None = None
    chance_100ms: float | None = None
    chance_downbeats: float | None = None
    shuffled: float | None = None  # hits with the beats shifted in a circle, the mean of many random shifts
    shuffled_40ms: float | None = None
    median_ms: float | None = None  # median distance of a cut from its nearest beat or accent

    def to_dict(self) -> dict[str, int | float | None]:
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(self).items()}


def cut_alignment(
    cuts: Sequence[float] | Floats,
    beats: Sequence[float] | Floats,
    downbeats: Sequence[float] | Floats | None = None,
    tolerance: float = TOLERANCE_S,
    *,
    duration: float,
    accents: Sequence[float] | Floats | None = None,
) -> CutAlignment:
    """Compute hits, chance and control of `cuts` against `beats` and `accents` of a piece."""
    times = np.sort(np.asarray(cuts, float))
    grid = np.union1d(np.asarray(beats, float), np.asarray([] if accents is None else accents, float))
    if not len(times) or not len(grid):
        return CutAlignment(len(times))
    bars = None if downbeats is None or not len(downbeats) else np.sort(np.asarray(downbeats, float))
    distance = distance_to_nearest(times, grid)
    shifts = np.random.default_rng(0).uniform(0, duration, NUM_SHIFTS)
    # shifting cuts one way is shifting beats the other
    shifted = distance_to_nearest((times[None, :] - shifts[:, None]) % duration, grid)
    return CutAlignment(
        n=len(times),
        hits=float(np.mean(distance <= tolerance)),
        hits_20ms=float(np.mean(distance <= EXACT_TOLERANCE_S)),
        hits_40ms=float(np.mean(distance <= FRAME_TOLERANCE_S)),
        hits_100ms=float(np.mean(distance <= WIDE_TOLERANCE_S)),
        downbeat_hits=None if bars is None else float(np.mean(distance_to_nearest(times, bars) <= tolerance)),
        chance=covered_share(grid, tolerance, duration),
        chance_20ms=covered_share(grid, EXACT_TOLERANCE_S, duration),
        chance_40ms=covered_share(grid, FRAME_TOLERANCE_S, duration),
        chance_100ms=covered_share(grid, WIDE_TOLERANCE_S, duration),
        chance_downbeats=None if bars is None else covered_share(bars, tolerance, duration),
        shuffled=float(np.mean(shifted <= tolerance)),
        shuffled_40ms=float(np.mean(shifted <= FRAME_TOLERANCE_S)),
        median_ms=1000 * float(np.median(distance)),
    )


def distance_to_nearest(times: ArrayLike, beats: Floats) -> Floats:
    """Return the distance of each of `times` (any shape) to the nearest of the sorted `beats` (B,)."""
    points = np.asarray(times, float)
    right = np.clip(np.searchsorted(beats, points), 0, len(beats) - 1)
    left = np.maximum(right - 1, 0)
    return np.minimum(np.abs(beats[right] - points), np.abs(beats[left] - points))


def covered_share(beats: Floats, tolerance: float, duration: float) -> float:
    """Return the share of [0, duration] that lies within `tolerance` of one of the sorted `beats`."""
    low, high = (np.clip(beats + reach, 0, duration) for reach in (-tolerance, tolerance))
    low[1:] = np.maximum(low[1:], high[:-1])
    return float(np.sum(np.maximum(high - low, 0)) / duration)


@dataclass(frozen=True)
class MotionCorrelation:
    """The highest correlation of onset strength and motion at lags within ±1 s, in steps of 100 ms."""

    correlation: float  # Pearson's, −1 to 1
    lag: float  # seconds, above 0 where the music comes after the picture
    chance: float  # with the motion shifted in a circle, the mean of many shifts: the maximum exceeds 0 by itself


def motion_correlation(audio: Audio, features: VisualFeatures) -> MotionCorrelation | None:
    """Correlate; None where the music is shorter than 4 s, or onsets or motion are flat."""
    strength = onset_strength(audio)
    hops = HOPS_PER_SECOND // STEPS_PER_SECOND
    count = min(len(strength) // hops, int(features.times[-1] * STEPS_PER_SECOND))
    if count < MIN_STEPS:
        return None
    onsets = strength[: count * hops].reshape(count, hops).mean(axis=1)
    motion = np.interp((np.arange(count) + 0.5) / STEPS_PER_SECOND, features.times, features.motion)
    if onsets.std() < 1e-6 or motion.std() < 1e-6:
        return None
    max_lag = round(MAX_LAG_S * STEPS_PER_SECOND)
    correlations = _lagged_correlations(onsets, motion, max_lag)
    best = int(correlations.argmax())
    shifts = np.random.default_rng(0).integers(max_lag + 1, count - max_lag, NUM_MOTION_SHIFTS)
    chance = float(np.mean([_lagged_correlations(onsets, np.roll(motion, shift), max_lag).max() for shift in shifts]))
    return MotionCorrelation(
        float(correlations[best]), timing.samples_to_seconds(best - max_lag, STEPS_PER_SECOND), chance
    )


def _lagged_correlations(onsets: Floats, motion: Floats, max_lag: int) -> Floats:
    """(L,) correlations at lags of ±`max_lag` steps of the music, over the steps that both have."""
    correlations = []
    for lag in range(-max_lag, max_lag + 1):
        late, early = (onsets[lag:], motion[: len(motion) - lag]) if lag >= 0 else (onsets[:lag], motion[-lag:])
        spread = late.std() * early.std()
        covariance = ((late - late.mean()) * (early - early.mean())).mean()
        correlations.append(0.0 if spread < 1e-12 else float(covariance / spread))
    return np.array(correlations)
