"""How well beats meet cuts, beside what chance would give.

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
    """Shares are of the n cuts, 0–1; all but n are None where there are no cuts or no beats.

    hits, hits_100ms: cuts with a beat within ± the tolerance (70 ms by default), and within ±100 ms. downbeat_hits: the
    same for downbeats at the tolerance, None where no downbeats were given. chance, chance_100ms, chance_downbeats:
    the share of all instants of the piece within that reach of a (down)beat, so what cuts that fall anywhere would
    score; min(1, 2 · tolerance · BPM / 60) for a steady beat. shuffled: hits with the beats moved round in a circle,
    the mean of many random moves; the same beats against the same cuts without their phase. median_ms: median
    distance of a cut from its nearest beat.
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
    """Hits, chance and control of `cuts` against `beats`, over a piece of `duration`."""
    times, grid = np.sort(np.asarray(cuts, float)), np.sort(np.asarray(beats, float))
    if not len(times) or not len(grid):
        return CutAlignment(len(times))
    bars = None if downbeats is None or not len(downbeats) else np.sort(np.asarray(downbeats, float))
    distance = distance_to_nearest(times, grid)
    moves = np.random.default_rng(0).uniform(0, duration, NUM_SHIFTS)
    moved = distance_to_nearest(
        (times[None, :] - moves[:, None]) % duration, grid
    )  # cuts moved one way are beats moved the other
    return CutAlignment(
        n=len(times),
        hits=float(np.mean(distance <= tolerance)),
        hits_100ms=float(np.mean(distance <= WIDE_TOLERANCE_S)),
        downbeat_hits=None if bars is None else float(np.mean(distance_to_nearest(times, bars) <= tolerance)),
        chance=covered_share(grid, tolerance, duration),
        chance_100ms=covered_share(grid, WIDE_TOLERANCE_S, duration),
        chance_downbeats=None if bars is None else covered_share(bars, tolerance, duration),
        shuffled=float(np.mean(moved <= tolerance)),
        median_ms=1000 * float(np.median(distance)),
    )


def distance_to_nearest(times: ArrayLike, beats: Floats) -> Floats:
    """Distance of each of `times` (any shape) to the nearest of the sorted `beats` (B,)."""
    moments = np.asarray(times, float)
    right = np.clip(np.searchsorted(beats, moments), 0, len(beats) - 1)
    left = np.maximum(right - 1, 0)
    return np.minimum(np.abs(beats[right] - moments), np.abs(beats[left] - moments))


def covered_share(beats: Floats, tolerance: float, duration: float) -> float:
    """Share of [0, duration] that lies within `tolerance` of one of the sorted `beats`."""
    low = np.clip(beats - tolerance, 0, duration)
    high = np.clip(beats + tolerance, 0, duration)
    low[1:] = np.maximum(low[1:], high[:-1])
    return float(np.sum(np.maximum(high - low, 0)) / duration)
