"""Levels of the mix, accents on moments, and figures that follow the picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.sketch.test_plan import ACCENTS, make_features
from v2m.core.types import Floats, Transition
from v2m.sketch.plan.dynamics import BREATH_DB, LEVEL_RATE, MOTION_RANGE_DB, SWELL_DB, plan_levels
from v2m.sketch.plan.planner import plan_piece


def moving(duration: float = 40.0) -> Floats:
    """Return motion at 10 Hz that is lively in the second quarter only."""
    times = np.arange(round(10 * duration)) / 10
    return np.where((times >= duration / 4) & (times < duration / 2), 2.0, 0.1)


def level_at(levels: Floats, time: float) -> float:
    return float(levels[round(time * LEVEL_RATE)])


def test_lively_seconds_are_louder_and_a_still_video_is_even() -> None:
    levels = plan_levels(make_features([], 40.0, moving()), 40.0)
    assert level_at(levels, 15.0) - level_at(levels, 30.0) > 0.4 * MOTION_RANGE_DB
    assert np.ptp(levels) <= MOTION_RANGE_DB
    assert np.ptp(plan_levels(make_features([], 40.0), 40.0)) == 0.0
    slightly = make_features([], 40.0, 0.5 + 0.01 * moving())
    assert np.ptp(plan_levels(slightly, 40.0)) < 0.1 * MOTION_RANGE_DB


def test_a_dissolve_swells_and_a_fade_out_breathes() -> None:
    parts = (Transition("dissolve", 5.0, 7.0, 1.0), Transition("fade out", 20.0, 21.0, 1.0))
    levels = plan_levels(replace(make_features([], 40.0), transitions=parts), 40.0)
    assert level_at(levels, 6.0) == SWELL_DB
    assert level_at(levels, 21.0) == BREATH_DB
    assert [level_at(levels, time) for time in (4.0, 8.0, 19.0, 23.0)] == [0.0] * 4


def test_accents_meet_flashes_and_sudden_motion_but_leave_the_cuts_alone() -> None:
    parts = tuple(Transition("flash", time, time + 0.05, 1.0) for time in (3.0, 4.5, 6.3, 12.15, 20.1))
    features = make_features([], 30.0)
    plan = plan_piece(replace(features, transitions=parts), 30.0, 100.0, 0, steadiness=1.0, accents=ACCENTS)
    assert len(plan.moments) == 5
    assert not plan.hits
    assert all(np.abs(plan.accents - part.start).min() <= 0.06 for part in parts)
    without = plan_piece(features, 30.0, 100.0, 0, steadiness=1.0, accents=ACCENTS)
    assert np.array_equal(plan.beats, without.beats)
