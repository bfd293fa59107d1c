"""Rubato between the steps: the beats of a variable click, moved by milliseconds towards the cuts that they meet.

`rubato` chooses which beat meets which cut, on a grid of tempi. What is left is a small convex problem: least squares
of the distances to the cuts and of the tempo's changes, within the same bounds as before. It is solved by the
alternating direction method of multipliers (Boyd et al. 2011, as in OSQP), in windows whose edges stay where they are.

B beats of a window, K of them met, L linear bounds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from v2m.core.timing import TempoMap
from v2m.core.types import Floats
from v2m.sketch.plan.beat_grid import LAG, LATEST, RESOLUTION, TOLERANCE, Bars, Brief, beats_to, weight

WINDOW, HOP = 160, 96  # beats
OFF, BENT = 0.02, 0.015  # seconds from a cut, and share of a change of tempo, that weigh the same
PENALTY, ROUNDS = 5.0, 1500
SLACK = 1e-4  # of a beat, kept from every bound, as the method ends near its bounds and not within them
GIVE = 1e-5  # seconds allowed beyond them after all


class _Met(NamedTuple):
    beats: np.ndarray  # (K,) int
    times: Floats  # (K,) of the cuts
    weights: Floats  # (K,)


class _Bounds(NamedTuple):
    """`lower` ≤ `matrix` · times ≤ `upper`."""

    matrix: Floats  # (L, B)
    lower: Floats  # (L,)
    upper: Floats  # (L,)


def ease(brief: Brief, bars: Bars) -> Bars:
    """`bars` with the same beats to each bar and the same cuts met, but nearer and on a smoother tempo."""
    times = bars.tempo_map.times.copy()
    lines = np.cumsum(bars.beats)[:-1]
    met = _met(brief, times)
    last = len(times) - 1
    for low in range(0, max(last - (WINDOW - HOP), 1), HOP):
        window = slice(low, min(low + WINDOW, last) + 1)
        inside = (met.beats >= low) & (met.beats < window.stop)
        if inside.any() and window.stop - low > 4:
            aims = _Met(met.beats[inside] - low, met.times[inside], met.weights[inside])
            bounds = _bounds(brief, times[window], lines - low, aims)
            bounds = _joined(bounds, _edges(brief, times[window], low == 0, window.stop > last))
            times[window] = _eased(brief, times[window], aims, bounds)
    ring = beats_to(brief.duration - times[-1], times[-1] - times[-2])
    return Bars((*bars.beats[:-1], ring), TempoMap(bars.tempo_map.beats, times))


def _met(brief: Brief, times: Floats) -> _Met:
    cuts = np.array([cut.time for cut in brief.cuts])
    nearest = np.abs(cuts[:, None] - times).argmin(axis=1) if len(cuts) else np.zeros(0, int)
    near = np.abs(times[nearest] - cuts) <= TOLERANCE - 1e-9
    weights = np.array([weight(cut) for cut in brief.cuts])
    return _Met(nearest[near], cuts[near], weights[near])


def _bounds(brief: Brief, times: Floats, lines: np.ndarray, met: _Met) -> _Bounds:
    """Of the beats' lengths, of the changes between them, and of the distances to the cuts met."""
    count = len(times)
    steps = np.diff(np.eye(count), axis=0)
    most = np.where(np.isin(np.arange(1, count - 1), lines), brief.most_change, brief.most_change_inside)
    most = np.round(most * RESOLUTION) / RESOLUTION * brief.period
    shortest, longest = (np.full(count - 1, period) for period in brief.periods)
    return _joined(
        _Bounds(steps, shortest, longest),
        _Bounds(np.diff(steps, axis=0), -most, most),
        _Bounds(np.eye(count)[met.beats], met.times - TOLERANCE, met.times + TOLERANCE),
    )


def _edges(brief: Brief, times: Floats, begins: bool, ends: bool) -> _Bounds:
    """The first two and last two beats stay where they are, but move at the ends of the piece."""
    lower, upper = times[[0, 1, -2, -1]].copy(), times[[0, 1, -2, -1]].copy()
    if begins:
        lower[:2] = 0.0
        upper[:2] = max(times[0], min(LATEST, brief.periods[0]) - 1e-3), np.inf
    if ends:
        upper[2:] = np.inf, max(times[-1], brief.duration - brief.shortest_ring)
        lower[2:] = 0.0, min(times[-1], upper[3] - TOLERANCE)
    return _Bounds(np.eye(len(times))[[0, 1, -2, -1]], lower, upper)


def _joined(*parts: _Bounds) -> _Bounds:
    return _Bounds(*(np.concatenate(rows) for rows in zip(*parts, strict=True)))


def _eased(brief: Brief, times: Floats, met: _Met, bounds: _Bounds) -> Floats:
    """(B,) the times within bounds with the least sum of squares of distances to the cuts and changes of tempo."""
    pick = np.eye(len(times))[met.beats]  # (K, B)
    changes = np.diff(np.eye(len(times)), 2, axis=0) / (BENT * brief.period)
    square = pick.T @ (pick * (met.weights / OFF**2)[:, None]) + changes.T @ changes
    linear = pick.T @ (met.weights * (met.times + LAG)) / OFF**2
    room = np.minimum(SLACK * brief.period, (bounds.upper - bounds.lower) / 2)
    found = _solve(square, linear, bounds._replace(lower=bounds.lower + room, upper=bounds.upper - room), times)
    return _within(bounds, times, found)


def _solve(square: Floats, linear: Floats, bounds: _Bounds, start: Floats) -> Floats:
    """Minimises ½·xᵀ·`square`·x − `linear`·x within `bounds`, nearly, from `start` on."""
    matrix, lower, upper = bounds
    scale = PENALTY * np.trace(square) / np.trace(matrix.T @ matrix)
    inverse = np.linalg.inv(square + scale * matrix.T @ matrix)
    x, z, y = start, np.clip(matrix @ start, lower, upper), np.zeros(len(matrix))
    for _ in range(ROUNDS):
        x = inverse @ (linear + matrix.T @ (scale * z - y))
        z = np.clip(matrix @ x + y / scale, lower, upper)
        y += scale * (matrix @ x - z)
    return x


def _within(bounds: _Bounds, known: Floats, found: Floats) -> Floats:
    """The farthest point from `known`, which is within bounds, towards `found` that is so too, give or take `GIVE`."""
    here, way = bounds.matrix @ known, bounds.matrix @ (found - known)
    with np.errstate(divide="ignore", invalid="ignore"):
        up, down = (bounds.upper + GIVE - here) / way, (bounds.lower - GIVE - here) / way
    room = np.where(way > 1e-12, up, np.where(way < -1e-12, down, np.inf))
    return known + float(np.clip(room.min(), 0.0, 1.0)) * (found - known)
