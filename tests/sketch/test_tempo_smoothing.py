"""Easing moves beats nearer to the cuts they meet, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from v2m.core.types import Cut
from v2m.sketch.plan.beat_grid import HIT_TOLERANCE_S, SOUND_LAG_S, BarGrid, PlanConstraints
from v2m.sketch.plan.tempo_smoothing import smooth_tempo
from v2m.sketch.plan.variable_tempo import plan_variable_tempo


def brief(seed: int, steadiness: float = 0.3, duration: float = 40.0, per_second: float = 0.5) -> PlanConstraints:
    rng = np.random.default_rng(seed)
    times = np.cumsum(0.2 + rng.exponential(1 / per_second, int(2 * duration * per_second) + 4))
    cuts = tuple(Cut(float(time), float(rng.uniform(0.2, 1))) for time in times[times < duration])
    return PlanConstraints(cuts, duration, float(rng.choice([76, 98, 124])), 4, steadiness)


def offsets(brief: PlanConstraints, bars: BarGrid) -> np.ndarray:
    """Seconds from each cut to its nearest beat."""
    cuts = np.array([cut.time for cut in brief.cuts])
    away = bars.tempo_map.times[:, None] - cuts
    return away[np.abs(away).argmin(axis=0), np.arange(len(cuts))]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("steadiness", [0.0, 0.5, 0.9])
def test_the_same_bars_meet_the_same_cuts_within_the_same_bounds(seed: int, steadiness: float) -> None:
    task = brief(seed, steadiness)
    before = plan_variable_tempo(task)
    after = smooth_tempo(task, before)
    assert after.bar_lengths[:-1] == before.bar_lengths[:-1]
    met, still = (np.abs(offsets(task, bars)) <= HIT_TOLERANCE_S + 2e-5 for bars in (before, after))
    assert still[met].all()
    lengths = np.diff(after.tempo_map.times)
    assert lengths.min() >= task.beat_range_s[0]
    assert lengths.max() <= task.beat_range_s[1]
    lines = np.cumsum(after.bar_lengths)[:-2]
    allowed = np.full(len(lengths) - 1, task.max_tempo_change_in_bar)
    allowed[lines - 1] = task.max_tempo_change
    assert (np.abs(np.diff(lengths)) <= task.beat_s * (np.round(allowed, 2)) + 1e-4).all()
    assert after.tempo_map.times[0] >= 0
    assert task.duration - after.tempo_map.times[-1] >= min(
        task.min_final_chord_s, task.duration - before.tempo_map.times[-1]
    ) - 1e-4  # fmt: skip


def test_cuts_are_met_nearer_on_the_whole() -> None:
    tasks = [brief(seed) for seed in range(10)]
    pairs = [
        (offsets(task, laid := plan_variable_tempo(task)), offsets(task, smooth_tempo(task, laid))) for task in tasks
    ]
    before, after = (np.concatenate([each[side] for each in pairs]) for side in (0, 1))
    met = np.abs(before) <= HIT_TOLERANCE_S
    assert np.median(np.abs(after[met])) < 0.8 * np.median(np.abs(before[met]))


def test_a_long_piece_is_eased_across_the_edges_of_its_windows() -> None:
    task = brief(0, duration=300.0)
    before = plan_variable_tempo(task)
    after = smooth_tempo(task, before)
    met = np.abs(offsets(task, before)) <= HIT_TOLERANCE_S
    thirds = np.array_split(np.flatnonzero(met), 3)
    assert len(before.tempo_map.times) > 300
    for part in thirds:
        old, new = (np.abs(offsets(task, bars)[part]).mean() for bars in (before, after))
        assert new < old


def test_without_cuts_nothing_moves() -> None:
    task = PlanConstraints((), 30.0, 100.0, 4, 0.3)
    laid = plan_variable_tempo(task)
    assert np.array_equal(smooth_tempo(task, laid).tempo_map.times, laid.tempo_map.times)


def test_a_beat_comes_a_little_after_the_cut_it_meets() -> None:
    """Sound that leads the picture is noticed first."""
    tasks = [PlanConstraints((Cut(9.3 + 0.11 * n, 1.0),), 30.0, 100.0, 4, 0.3) for n in range(5)]
    off = np.array([offsets(task, smooth_tempo(task, plan_variable_tempo(task)))[0] for task in tasks])
    assert off == pytest.approx(SOUND_LAG_S, abs=0.004)
