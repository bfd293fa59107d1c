"""Tempo smoothing: beats moved by milliseconds towards the cuts that they meet, on a smoother tempo.

`beat_search` chooses which beat meets which cut, on a grid of tempi. What remains is a small quadratic program:
least squares of the distances to the cuts and of the tempo changes, within the same bounds. It is solved in windows
whose edges stay where they are.

The solver is the alternating direction method of multipliers (Boyd et al. 2011), as in OSQP. OSQP itself is not used:
it would be one more compiled package in the base install, for 12 lines. Without smoothing the cuts are met about as
exactly, but the tempo changes by more: 0.75 instead of 0.54 % from beat to beat (root mean square, seeds 0, 3, 4 and 5
of `bench/cut_alignment.py`).

B beats of a window, K cuts met, L linear bounds.
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
    attack_times,
    count_beats,
    hit_weight,
    nearest_attacks,
    strongest_weight,
)

WINDOW_BEATS, HOP_BEATS = 160, 96
CUT_SIGMA_S, TEMPO_CHANGE_SIGMA = 0.012, 0.015  # distance to a cut and relative tempo change that cost the same
ADMM_PENALTY, ADMM_ITERATIONS = 5.0, 1500
BOUND_MARGIN_BEATS = 1e-4  # kept from every bound: ADMM ends near its bounds, not within them
BOUND_TOLERANCE_S = 1e-5  # allowed beyond them in the end


class _CutTargets(NamedTuple):
    """Cuts that beats or accents meet."""

    beats: Floats  # (K,) where they are met
    times: Floats  # (K,) of the cuts
    weights: Floats  # (K,)


class _LinearBounds(NamedTuple):
    """`lower` ≤ `matrix` · times ≤ `upper`."""

    matrix: Floats  # (L, B)
    lower: Floats  # (L,)
    upper: Floats  # (L,)


def smooth_tempo(constraints: PlanConstraints, grid: BarGrid) -> BarGrid:
    """Return `grid` with the same bars and the same cuts met, but more exactly and on a smoother tempo."""
    times = grid.tempo_map.times.copy()
    bar_lines = np.cumsum(grid.bar_lengths)[:-1]
    targets = _cut_targets(constraints, times)
    last = len(times) - 1
    for low in range(0, max(last - (WINDOW_BEATS - HOP_BEATS), 1), HOP_BEATS):
        window = slice(low, min(low + WINDOW_BEATS, last) + 1)
        inside = (targets.beats >= low) & (targets.beats <= window.stop - 1)
        if inside.any() and window.stop - low > 4:
            local = _CutTargets(targets.beats[inside] - low, targets.times[inside], targets.weights[inside])
            bounds = _concatenate(
                _tempo_bounds(constraints, times[window], bar_lines - low, local),
                _edge_bounds(constraints, times[window], is_first=low == 0, is_last=window.stop > last),
            )
            times[window] = _smooth_window(constraints, times[window], local, bounds)
    final_beats = count_beats(constraints.duration - times[-1], times[-1] - times[-2])
    return BarGrid((*grid.bar_lengths[:-1], final_beats), TempoMap(grid.tempo_map.beats, times))


def _cut_targets(constraints: PlanConstraints, times: Floats) -> _CutTargets:
    cuts = np.array([cut.time for cut in constraints.cuts])
    weights = np.array([hit_weight(cut) + strongest_weight(cut) for cut in constraints.cuts])
    beats, seconds, attack_weights = attack_times(times, constraints.accents)
    met = nearest_attacks(constraints.cuts, seconds, attack_weights)
    is_met = np.abs(seconds[met] - cuts) <= HIT_TOLERANCE_S - 1e-9
    return _CutTargets(beats[met][is_met], cuts[is_met], weights[is_met])


def _pick_matrix(beats: Floats, count: int) -> Floats:
    """Return (K, `count`) the weights by which the times of `beats` follow from those of whole beats."""
    rows, whole = np.arange(len(beats)), np.minimum(beats.astype(int), count - 2)
    matrix = np.zeros((len(beats), count))
    matrix[rows, whole] = 1 - (beats - whole)
    matrix[rows, whole + 1] = beats - whole
    return matrix


def _tempo_bounds(
    constraints: PlanConstraints, times: Floats, bar_lines: np.ndarray, targets: _CutTargets
) -> _LinearBounds:
    """Bounds of the beats' lengths, of the changes between them, and of the distances to the cuts met."""
    count = len(times)
    beat_length = np.diff(np.eye(count), axis=0)
    is_line = np.isin(np.arange(1, count - 1), bar_lines)
    max_change = np.where(is_line, constraints.max_tempo_change, constraints.max_tempo_change_in_bar)
    max_change_s = np.round(max_change * STEPS_PER_BEAT) / STEPS_PER_BEAT * constraints.beat_s
    shortest, longest = constraints.beat_range_s
    return _concatenate(
        _LinearBounds(beat_length, np.full(count - 1, shortest), np.full(count - 1, longest)),
        _LinearBounds(np.diff(beat_length, axis=0), -max_change_s, max_change_s),
        _LinearBounds(
            _pick_matrix(targets.beats, count), targets.times - HIT_TOLERANCE_S, targets.times + HIT_TOLERANCE_S
        ),
    )


def _edge_bounds(constraints: PlanConstraints, times: Floats, *, is_first: bool, is_last: bool) -> _LinearBounds:
    """Fix the first two and the last two beats of a window, except at the ends of the piece."""
    lower, upper = times[[0, 1, -2, -1]].copy(), times[[0, 1, -2, -1]].copy()
    if is_first:
        lower[:2] = 0.0
        upper[:2] = max(times[0], min(MAX_START_S, constraints.beat_range_s[0]) - 1e-3), np.inf
    if is_last:
        upper[2:] = np.inf, max(times[-1], constraints.duration - constraints.min_final_chord_s)
        lower[2:] = 0.0, min(times[-1], upper[3] - HIT_TOLERANCE_S)
    return _LinearBounds(np.eye(len(times))[[0, 1, -2, -1]], lower, upper)


def _concatenate(*parts: _LinearBounds) -> _LinearBounds:
    return _LinearBounds(*(np.concatenate(rows) for rows in zip(*parts, strict=True)))


def _smooth_window(constraints: PlanConstraints, times: Floats, targets: _CutTargets, bounds: _LinearBounds) -> Floats:
    """Return (B,) the times within `bounds` with the least squared distances to cuts and tempo changes."""
    pick = _pick_matrix(targets.beats, len(times))  # (K, B)
    changes = np.diff(np.eye(len(times)), 2, axis=0) / (TEMPO_CHANGE_SIGMA * constraints.beat_s)
    hessian = pick.T @ (pick * (targets.weights / CUT_SIGMA_S**2)[:, None]) + changes.T @ changes
    linear = pick.T @ (targets.weights * (targets.times + SOUND_LAG_S)) / CUT_SIGMA_S**2
    margin = np.minimum(BOUND_MARGIN_BEATS * constraints.beat_s, (bounds.upper - bounds.lower) / 2)
    tightened = bounds._replace(lower=bounds.lower + margin, upper=bounds.upper - margin)
    return _step_within_bounds(bounds, times, _solve_qp(hessian, linear, tightened, times))


def _solve_qp(hessian: Floats, linear: Floats, bounds: _LinearBounds, start: Floats) -> Floats:
    """Minimize ½·xᵀ·`hessian`·x − `linear`·x within `bounds`, nearly, by ADMM from `start` on."""
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
    """Return the point nearest to `target` on the line from `feasible` that is within `bounds`, nearly."""
    value, slope = bounds.matrix @ feasible, bounds.matrix @ (target - feasible)
    with np.errstate(divide="ignore", invalid="ignore"):
        to_upper = (bounds.upper + BOUND_TOLERANCE_S - value) / slope
        to_lower = (bounds.lower - BOUND_TOLERANCE_S - value) / slope
    step = np.where(slope > 1e-12, to_upper, np.where(slope < -1e-12, to_lower, np.inf))
    return feasible + float(np.clip(step.min(), 0.0, 1.0)) * (target - feasible)
