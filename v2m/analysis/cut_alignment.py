"""Alignment of beats with cuts: hit rates, their chance levels and a circular-shift control.

n cuts, B beats. All times in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

from v2m.core.types import Floats

WIDE_TOLERANCE_S = 0.1
NUM_SHIFTS = 400


@dataclass(frozen=True)
class CutAlignment:
    """Shares of the n cuts, 0–1; all but n are None where there are no cuts or no beats.

    Args:
        n: Number of cuts.
        hits: Cuts with a beat within ± the tolerance, 70 ms by default.
        hits_100ms: Cuts with a beat within ±100 ms.
        downbeat_hits: As `hits` with downbeats; None where no downbeats were given.
        chance: Share of all instants within the tolerance of a beat, so the hits of cuts at random times;
            min(1, 2 · tolerance · BPM / 60) for a steady beat.
        chance_100ms: The same within ±100 ms.
        chance_downbeats: The same with downbeats.
        shuffled: Hits with the beats shifted in a circle, the mean of many random shifts.
        median_ms: Median distance of a cut from its nearest beat.
    """

    n: int
    hits: float | None = None
    hits_100ms: float | None = None
    downbeat_hits: float | None = None
    chance: float | None = None
    chance_100ms: float | None = None
    chance_downbeats: float | None = None
    shuffled: float | None = None
    median_ms: float | None = None

    def to_dict(self) -> dict[str, int | float | None]:
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(self).items()}


def cut_alignment(
    cuts: Sequence[float] | Floats,
    beats: Sequence[float] | Floats,
    downbeats: Sequence[float] | Floats | None = None,
    tolerance: float = 0.07,
    *,
    duration: float,
) -> CutAlignment:
    """Compute hits, chance and control of `cuts` against `beats`, over a piece of `duration`."""
    times, grid = np.sort(np.asarray(cuts, float)), np.sort(np.asarray(beats, float))
    if not len(times) or not len(grid):
        return CutAlignment(len(times))
    bars = None if downbeats is None or not len(downbeats) else np.sort(np.asarray(downbeats, float))
    distance = distance_to_nearest(times, grid)
    shifts = np.random.default_rng(0).uniform(0, duration, NUM_SHIFTS)
    shifted = distance_to_nearest(
        (times[None, :] - shifts[:, None]) % duration, grid
    )  # shifting cuts one way is shifting beats the other
    return CutAlignment(
        n=len(times),
        hits=float(np.mean(distance <= tolerance)),
        hits_100ms=float(np.mean(distance <= WIDE_TOLERANCE_S)),
        downbeat_hits=None if bars is None else float(np.mean(distance_to_nearest(times, bars) <= tolerance)),
        chance=covered_share(grid, tolerance, duration),
        chance_100ms=covered_share(grid, WIDE_TOLERANCE_S, duration),
        chance_downbeats=None if bars is None else covered_share(bars, tolerance, duration),
        shuffled=float(np.mean(shifted <= tolerance)),
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
    low = np.clip(beats - tolerance, 0, duration)
    high = np.clip(beats + tolerance, 0, duration)
    low[1:] = np.maximum(low[1:], high[:-1])
    return float(np.sum(np.maximum(high - low, 0)) / duration)
