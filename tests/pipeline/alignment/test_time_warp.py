"""Where beats go: to the cuts, the strongest first, and never faster or slower than allowed."""

from __future__ import annotations

import numpy as np
import pytest

from v2m.analysis.beats import BeatTrack
from v2m.analysis.cut_alignment import distance_to_nearest
from v2m.core.timing import TimeMap
from v2m.core.types import Cut
from v2m.pipeline.alignment.time_warp import MAX_START_S, MAX_STRETCH, MAX_STRETCH_CHANGE, MAX_TRIM_S, plan_time_warp

SECONDS = 40.0


def steady(tempo: float = 100.0, meter: int = 4, first: float = 0.3) -> BeatTrack:
    beats = np.arange(first, SECONDS, 60 / tempo)
    opens = np.arange(len(beats)) % meter == 0
    return BeatTrack(beats, opens, np.full(len(beats), 0.5), meter, tempo)


def random_cuts(seed: int, count: int = 14) -> list[Cut]:
    rng = np.random.default_rng(seed)
    return [Cut(float(t), float(s)) for t, s in zip(rng.uniform(1, 39, count), rng.uniform(0, 1, count), strict=True)]


def met(pulse: BeatTrack, course: TimeMap | None, cuts: list[Cut]) -> float:
    beats = pulse.beats if course is None else course.forward(pulse.beats)
    return float(np.mean(distance_to_nearest([cut.time for cut in cuts], beats) <= 0.07))


@pytest.mark.parametrize("tempo", [60.0, 100.0, 175.0])
def test_more_cuts_are_met_within_the_bounds_of_stretch_change_and_ends(tempo: float) -> None:
    gains = []
    for seed in range(6):
        pulse, cuts = steady(tempo), random_cuts(seed)
        course = plan_time_warp(pulse, cuts, SECONDS)
        assert course is not None
        rates = course.stretch_factors
        assert np.abs(rates - 1).max() <= MAX_STRETCH + 1e-9
        assert np.abs(np.diff(rates)).max() <= MAX_STRETCH_CHANGE + 1e-9
        assert -MAX_TRIM_S - 1e-6 <= course.forward(0.0) <= MAX_START_S + 1e-6
        assert 0 <= course.forward(SECONDS) - SECONDS + 1e-6 <= MAX_TRIM_S + 2e-6
        gains.append(met(pulse, course, cuts) - met(pulse, None, cuts))
    assert np.mean(gains) > 0.15
    assert min(gains) >= 0


def test_a_downbeat_meets_the_strongest_cut_before_beats_meet_any_number_of_others() -> None:
    pulse = steady()  # a downbeat every 2.4 s from 0.3 s on
    beats = pulse.beats[~pulse.is_downbeat]
    cuts = [Cut(float(time), 0.3) for time in beats[:40:3]] + [Cut(15.6, 1.0)]  # 0.9 s after one
    course = plan_time_warp(pulse, cuts, SECONDS)
    assert course is not None
    assert distance_to_nearest([15.6], course.forward(pulse.beats[pulse.is_downbeat]))[0] <= 0.07
    weak = [Cut(cut.time, min(cut.strength, 0.3)) for cut in cuts]
    assert met(pulse, plan_time_warp(pulse, [*weak[:-1], Cut(8.0, 0.31)], SECONDS), weak[:-1]) > 0.4


def test_the_stronger_of_two_downbeats_that_can_reach_the_strongest_cut_meets_it() -> None:
    pulse = steady(150.0)
    opens = np.flatnonzero(pulse.is_downbeat)
    between = float(pulse.beats[opens[6:8]].mean())
    for strong in (6, 7):
        accents = np.full(len(pulse.beats), 0.1)
        accents[opens[strong]] = 1.0
        course = plan_time_warp(
            BeatTrack(pulse.beats, pulse.is_downbeat, accents, 4, 150.0), [Cut(between, 1.0)], SECONDS
        )
        assert course is not None
        assert course.forward(pulse.beats[opens[strong]]) == pytest.approx(between, abs=0.07)


def test_music_that_meets_its_cuts_stays_as_it_is() -> None:
    pulse = steady()
    cuts = [Cut(float(time) - 0.01, 0.5) for time in pulse.downbeats[2:12:2]]
    assert plan_time_warp(pulse, cuts, SECONDS) is None
    assert plan_time_warp(pulse, [], SECONDS) is None
    assert plan_time_warp(pulse, [Cut(SECONDS + 5, 1.0)], SECONDS) is None


def test_a_section_that_begins_on_a_cut_keeps_it() -> None:
    pulse, others = steady(), [Cut(2.69, 1.0), Cut(19.8, 0.9), Cut(20.4, 0.9)]  # the first on a downbeat
    free, held = (
        plan_time_warp(pulse, [*others, Cut(20.1, 0.2)], SECONDS, sections) for sections in ((), (20.1, 31.0))
    )
    assert free is not None
    assert distance_to_nearest([20.1], free.forward(pulse.beats))[0] > 0.1
    assert held is None or abs(held.forward(20.1) - 20.1) <= 0.07
