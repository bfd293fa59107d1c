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
from v2m.sketch.plan.beat_grid import (
    HIT_TOLERANCE_S,
    MAX_START_S,
    SOUND_LAG_S,
    STEPS_PER_BEAT,
    BarGrid,
    PlanConstraints,
    count_beats,
    hit_weight,
)

WINDOW_BEATS, HOP_BEATS = 160, 96  # beats
CUT_SIGMA_S, TEMPO_CHANGE_SIGMA = 0.02, 0.015  # seconds from a cut, and share of a change of tempo, that weigh the same
ADMM_PENALTY, ADMM_ITERATIONS = 5.0, 1500
BOUND_MARGIN_BEATS = 1e-4  # of a beat, kept from every bound, as the method ends near its bounds and not within them
BOUND_TOLERANCE_S = 1e-5  # seconds allowed beyond them after all


class _CutTargets(NamedTuple):
    beats: np.ndarray  # (K,) int
    times: Floats  # (K,) of the cuts
    weights: Floats  # (K,)


class _LinearBounds(NamedTuple):
    """`lower` ≤ `matrix` · times ≤ `upper`."""

    matrix: Floats  # (L, B)
    lower: Floats  # (L,)
    upper: Floats  # (L,)


def smooth_tempo(brief: PlanConstraints, bars: BarGrid) -> BarGrid:
    """`bars` with the same beats to each bar and the same cuts met, but nearer and on a smoother tempo."""
    times = bars.tempo_map.times.copy()
    lines = np.cumsum(bars.bar_lengths)[:-1]
    met = _cut_targets(brief, times)
    last = len(times) - 1
    for low in range(0, max(last - (WINDOW_BEATS - HOP_BEATS), 1), HOP_BEATS):
        window = slice(low, min(low + WINDOW_BEATS, last) + 1)
        inside = (met.beats >= low) & (met.beats < window.stop)
        if inside.any() and window.stop - low > 4:
            aims = _CutTargets(met.beats[inside] - low, met.times[inside], met.weights[inside])
            bounds = _tempo_bounds(brief, times[window], lines - low, aims)
            bounds = _concatenate(bounds, _edge_bounds(brief, times[window], low == 0, window.stop > last))
            times[window] = _smooth_window(brief, times[window], aims, bounds)
    ring = count_beats(brief.duration - times[-1], times[-1] - times[-2])
    return BarGrid((*bars.bar_lengths[:-1], ring), TempoMap(bars.tempo_map.beats, times))


def _cut_targets(brief: PlanConstraints, times: Floats) -> _CutTargets:
    cuts = np.array([cut.time for cut in brief.cuts])
    nearest = np.abs(cuts[:, None] - times).argmin(axis=1) if len(cuts) else np.zeros(0, int)
    near = np.abs(times[nearest] - cuts) <= HIT_TOLERANCE_S - 1e-9
    weights = np.array([hit_weight(cut) for cut in brief.cuts])
    return _CutTargets(nearest[near], cuts[near], weights[near])


def _tempo_bounds(brief: PlanConstraints, times: Floats, lines: np.ndarray, targets: _CutTargets) -> _LinearBounds:
    """Of the beats' lengths, of the changes between them, and of the distances to the cuts met."""
    count = len(times)
    steps = np.diff(np.eye(count), axis=0)
    most = np.where(np.isin(np.arange(1, count - 1), lines), brief.max_tempo_change, brief.max_tempo_change_in_bar)
    most = np.round(most * STEPS_PER_BEAT) / STEPS_PER_BEAT * brief.beat_s
    shortest, longest = (np.full(count - 1, period) for period in brief.beat_range_s)
    return _concatenate(
        _LinearBounds(steps, shortest, longest),
        _LinearBounds(np.diff(steps, axis=0), -most, most),
        _LinearBounds(np.eye(count)[targets.beats], targets.times - HIT_TOLERANCE_S, targets.times + HIT_TOLERANCE_S),
    )


def _edge_bounds(brief: PlanConstraints, times: Floats, is_first: bool, is_last: bool) -> _LinearBounds:
    """The first two and last two beats stay where they are, but move at the ends of the piece."""
    lower, upper = times[[0, 1, -2, -1]].copy(), times[[0, 1, -2, -1]].copy()
    if is_first:
        lower[:2] = 0.0
        upper[:2] = max(times[0], min(MAX_START_S, brief.beat_range_s[0]) - 1e-3), np.inf
    if is_last:
        upper[2:] = np.inf, max(times[-1], brief.duration - brief.min_final_chord_s)
        lower[2:] = 0.0, min(times[-1], upper[3] - HIT_TOLERANCE_S)
    return _LinearBounds(np.eye(len(times))[[0, 1, -2, -1]], lower, upper)


def _concatenate(*parts: _LinearBounds) -> _LinearBounds:
    return _LinearBounds(*(np.concatenate(rows) for rows in zip(*parts, strict=True)))


def _smooth_window(brief: PlanConstraints, times: Floats, targets: _CutTargets, bounds: _LinearBounds) -> Floats:
    """(B,) the times within bounds with the least sum of squares of distances to the cuts and changes of tempo."""
    pick = np.eye(len(times))[targets.beats]  # (K, B)
    changes = np.diff(np.eye(len(times)), 2, axis=0) / (TEMPO_CHANGE_SIGMA * brief.beat_s)
    square = pick.T @ (pick * (targets.weights / CUT_SIGMA_S**2)[:, None]) + changes.T @ changes
    linear = pick.T @ (targets.weights * (targets.times + SOUND_LAG_S)) / CUT_SIGMA_S**2
    room = np.minimum(BOUND_MARGIN_BEATS * brief.beat_s, (bounds.upper - bounds.lower) / 2)
    found = _solve_qp(square, linear, bounds._replace(lower=bounds.lower + room, upper=bounds.upper - room), times)
    return _step_within_bounds(bounds, times, found)


def _solve_qp(hessian: Floats, linear: Floats, bounds: _LinearBounds, start: Floats) -> Floats:
    """Minimises ½·xᵀ·`square`·x − `linear`·x within `bounds`, nearly, from `start` on."""
    matrix, lower, upper = bounds
    scale = ADMM_PENALTY * np.trace(hessian) / np.trace(matrix.T @ matrix)
    inverse = np.linalg.inv(hessian + scale * matrix.T @ matrix)
    x, z, y = start, np.clip(matrix @ start, lower, upper), np.zeros(len(matrix))
    for _ in range(ADMM_ITERATIONS):
        x = inverse @ (linear + matrix.T @ (scale * z - y))
        z = np.clip(matrix @ x + y / scale, lower, upper)
        y += scale * (matrix @ x - z)
    return x


def _step_within_bounds(bounds: _LinearBounds, feasible: Floats, target: Floats) -> Floats:
    """The farthest point from `known`, which is within bounds, towards `found` that is so too, give or take `GIVE`."""
    here, way = bounds.matrix @ feasible, bounds.matrix @ (target - feasible)
    with np.errstate(divide="ignore", invalid="ignore"):
        up, down = (bounds.upper + BOUND_TOLERANCE_S - here) / way, (bounds.lower - BOUND_TOLERANCE_S - here) / way
    room = np.where(way > 1e-12, up, np.where(way < -1e-12, down, np.inf))
    return feasible + float(np.clip(room.min(), 0.0, 1.0)) * (target - feasible)
