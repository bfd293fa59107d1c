"""Tempo smoothing moves beats closer to the cuts that they meet, and changes nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from v2m.core.types import Cut
from v2m.sketch.plan.beat_grid import HIT_TOLERANCE_S, SOUND_LAG_S, BarGrid, PlanConstraints
from v2m.sketch.plan.beat_search import plan_variable_tempo
from v2m.sketch.plan.tempo_smoothing import smooth_tempo


def make_constraints(
    seed: int, steadiness: float = 0.3, duration: float = 40.0, per_second: float = 0.5
) -> PlanConstraints:
    rng = np.random.default_rng(seed)
    times = np.cumsum(0.2 + rng.exponential(1 / per_second, int(2 * duration * per_second) + 4))
    cuts = tuple(Cut(float(time), float(rng.uniform(0.2, 1))) for time in times[times < duration])
    return PlanConstraints(cuts, duration, float(rng.choice([76, 98, 124])), 4, steadiness)


def offsets(constraints: PlanConstraints, bars: BarGrid) -> np.ndarray:
    """Return the seconds from each cut to its nearest beat."""
    cuts = np.array([cut.time for cut in constraints.cuts])
    distances = bars.tempo_map.times[:, None] - cuts
    return distances[np.abs(distances).argmin(axis=0), np.arange(len(cuts))]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("steadiness", [0.0, 0.5, 0.9])
def test_smoothing_keeps_bars_hits_and_tempo_bounds(seed: int, steadiness: float) -> None:
    problem = make_constraints(seed, steadiness)
    before = plan_variable_tempo(problem)
    after = smooth_tempo(problem, before)
    assert after.bar_lengths[:-1] == before.bar_lengths[:-1]
    met, met_after = (np.abs(offsets(problem, bars)) <= HIT_TOLERANCE_S + 2e-5 for bars in (before, after))
    assert met_after[met].all()
    lengths = np.diff(after.tempo_map.times)
    assert lengths.min() >= problem.beat_range_s[0]
    assert lengths.max() <= problem.beat_range_s[1]
    lines = np.cumsum(after.bar_lengths)[:-2]
    allowed = np.full(len(lengths) - 1, problem.max_tempo_change_in_bar)
    allowed[lines - 1] = problem.max_tempo_change
    assert (np.abs(np.diff(lengths)) <= problem.beat_s * (np.round(allowed, 2)) + 1e-4).all()
    assert after.tempo_map.times[0] >= 0
    assert problem.duration - after.tempo_map.times[-1] >= min(
        problem.min_final_chord_s, problem.duration - before.tempo_map.times[-1]
    ) - 1e-4  # fmt: skip


def test_smoothing_reduces_tempo_changes_and_keeps_offsets_to_cuts() -> None:
    problems = [make_constraints(seed) for seed in range(10)]
    grids = [plan_variable_tempo(problem) for problem in problems]
    smoothed = [smooth_tempo(problem, grid) for problem, grid in zip(problems, grids, strict=True)]
    before, after = (
        np.concatenate([offsets(problem, grid) for problem, grid in zip(problems, kind, strict=True)])
        for kind in (grids, smoothed)
    )
    met = np.abs(before) <= HIT_TOLERANCE_S
    assert np.abs(after[met] - SOUND_LAG_S).mean() < np.abs(before[met] - SOUND_LAG_S).mean() + 0.001
    changes = [
        np.concatenate([np.diff(np.log(np.diff(grid.tempo_map.times))) for grid in kind]) for kind in (grids, smoothed)
    ]
    assert changes[1].std() < 0.85 * changes[0].std()


def test_a_long_piece_is_smoothed_across_windows() -> None:
    problem = make_constraints(0, duration=300.0)
    before = plan_variable_tempo(problem)
    after = smooth_tempo(problem, before)
    met = np.abs(offsets(problem, before)) <= HIT_TOLERANCE_S
    thirds = np.array_split(np.flatnonzero(met), 3)
    assert len(before.tempo_map.times) > 300
    for part in thirds:
        old, new = (np.abs(offsets(problem, bars)[part] - SOUND_LAG_S) for bars in (before, after))
        assert new.mean() < old.mean() + 0.001
    for lengths in np.array_split(np.arange(len(before.tempo_map.times)), 3):
        old, new = (np.diff(bars.tempo_map.times[lengths], 2).std() for bars in (before, after))
        assert new < old


def test_smoothing_without_cuts_changes_nothing() -> None:
    problem = PlanConstraints((), 30.0, 100.0, 4, 0.3)
    grid = plan_variable_tempo(problem)
    assert np.array_equal(smooth_tempo(problem, grid).tempo_map.times, grid.tempo_map.times)


def test_beats_lag_cuts_by_the_preferred_offset() -> None:
    """Viewers notice sound ahead of the picture first."""
    problems = [PlanConstraints((Cut(9.3 + 0.11 * n, 1.0),), 30.0, 100.0, 4, 0.3) for n in range(5)]
    offset = np.array(
        [offsets(problem, smooth_tempo(problem, plan_variable_tempo(problem)))[0] for problem in problems]
    )
    assert offset == pytest.approx(SOUND_LAG_S, abs=0.004)
