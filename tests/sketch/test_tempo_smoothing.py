"""Easing moves beats nearer to the cuts they meet, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from v2m.core.types import Cut
from v2m.sketch.plan.beat_grid import LAG, TOLERANCE, Bars, Brief
from v2m.sketch.plan.tempo_smoothing import ease
from v2m.sketch.plan.variable_tempo import lay


def brief(seed: int, steadiness: float = 0.3, duration: float = 40.0, per_second: float = 0.5) -> Brief:
    rng = np.random.default_rng(seed)
    times = np.cumsum(0.2 + rng.exponential(1 / per_second, int(2 * duration * per_second) + 4))
    cuts = tuple(Cut(float(time), float(rng.uniform(0.2, 1))) for time in times[times < duration])
    return Brief(cuts, duration, float(rng.choice([76, 98, 124])), 4, steadiness)


def offsets(brief: Brief, bars: Bars) -> np.ndarray:
    """Seconds from each cut to its nearest beat."""
    cuts = np.array([cut.time for cut in brief.cuts])
    away = bars.tempo_map.times[:, None] - cuts
    return away[np.abs(away).argmin(axis=0), np.arange(len(cuts))]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("steadiness", [0.0, 0.5, 0.9])
def test_the_same_bars_meet_the_same_cuts_within_the_same_bounds(seed: int, steadiness: float) -> None:
    task = brief(seed, steadiness)
    before = lay(task)
    after = ease(task, before)
    assert after.beats[:-1] == before.beats[:-1]
    met, still = (np.abs(offsets(task, bars)) <= TOLERANCE + 2e-5 for bars in (before, after))
    assert still[met].all()
    lengths = np.diff(after.tempo_map.times)
    assert lengths.min() >= task.periods[0]
    assert lengths.max() <= task.periods[1]
    lines = np.cumsum(after.beats)[:-2]
    allowed = np.full(len(lengths) - 1, task.most_change_inside)
    allowed[lines - 1] = task.most_change
    assert (np.abs(np.diff(lengths)) <= task.period * (np.round(allowed, 2)) + 1e-4).all()
    assert after.tempo_map.times[0] >= 0
    assert task.duration - after.tempo_map.times[-1] >= min(
        task.shortest_ring, task.duration - before.tempo_map.times[-1]
    ) - 1e-4  # fmt: skip


def test_cuts_are_met_nearer_on_the_whole() -> None:
    tasks = [brief(seed) for seed in range(10)]
    pairs = [(offsets(task, laid := lay(task)), offsets(task, ease(task, laid))) for task in tasks]
    before, after = (np.concatenate([each[side] for each in pairs]) for side in (0, 1))
    met = np.abs(before) <= TOLERANCE
    assert np.median(np.abs(after[met])) < 0.8 * np.median(np.abs(before[met]))


def test_a_long_piece_is_eased_across_the_edges_of_its_windows() -> None:
    task = brief(0, duration=300.0)
    before = lay(task)
    after = ease(task, before)
    met = np.abs(offsets(task, before)) <= TOLERANCE
    thirds = np.array_split(np.flatnonzero(met), 3)
    assert len(before.tempo_map.times) > 300
    for part in thirds:
        old, new = (np.abs(offsets(task, bars)[part]).mean() for bars in (before, after))
        assert new < old


def test_without_cuts_nothing_moves() -> None:
    task = Brief((), 30.0, 100.0, 4, 0.3)
    laid = lay(task)
    assert np.array_equal(ease(task, laid).tempo_map.times, laid.tempo_map.times)


def test_a_beat_comes_a_little_after_the_cut_it_meets() -> None:
    """Sound that leads the picture is noticed first."""
    tasks = [Brief((Cut(9.3 + 0.11 * n, 1.0),), 30.0, 100.0, 4, 0.3) for n in range(5)]
    off = np.array([offsets(task, ease(task, lay(task)))[0] for task in tasks])
    assert off == pytest.approx(LAG, abs=0.004)
