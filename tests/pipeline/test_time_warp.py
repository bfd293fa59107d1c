"""Planning of time warps: beats are moved to cuts, the strongest first, within the limits."""

from __future__ import annotations

import numpy as np
import pytest

from v2m.analysis.rhythm import BeatTrack
from v2m.analysis.synchrony import distance_to_nearest
from v2m.core.timing import TimeMap
from v2m.core.types import Cut
from v2m.pipeline.time_warp import MAX_START_S, MAX_STRETCH, MAX_STRETCH_CHANGE, MAX_TRIM_S, plan_time_warp

SECONDS = 40.0


def make_track(tempo: float = 100.0, meter: int = 4, first: float = 0.3) -> BeatTrack:
    beats = np.arange(first, SECONDS, 60 / tempo)
    opens = np.arange(len(beats)) % meter == 0
    return BeatTrack(beats, opens, np.full(len(beats), 0.5), meter, tempo)


def random_cuts(seed: int, count: int = 14) -> list[Cut]:
    rng = np.random.default_rng(seed)
    return [Cut(float(t), float(s)) for t, s in zip(rng.uniform(1, 39, count), rng.uniform(0, 1, count), strict=True)]


def hit_share(track: BeatTrack, time_map: TimeMap | None, cuts: list[Cut]) -> float:
    beats = track.beats if time_map is None else time_map.forward(track.beats)
    return float(np.mean(distance_to_nearest([cut.time for cut in cuts], beats) <= 0.07))


@pytest.mark.parametrize("tempo", [60.0, 100.0, 175.0])
def test_more_cuts_are_met_within_all_bounds(tempo: float) -> None:
    gains = []
    for seed in range(6):
        track, cuts = make_track(tempo), random_cuts(seed)
        time_map = plan_time_warp(track, cuts, SECONDS)
        assert time_map is not None
        rates = time_map.stretch_factors
        assert np.abs(rates - 1).max() <= MAX_STRETCH + 1e-9
        assert np.abs(np.diff(rates)).max() <= MAX_STRETCH_CHANGE + 1e-9
        assert -MAX_TRIM_S - 1e-6 <= time_map.forward(0.0) <= MAX_START_S + 1e-6
        assert 0 <= time_map.forward(SECONDS) - SECONDS + 1e-6 <= MAX_TRIM_S + 2e-6
        gains.append(hit_share(track, time_map, cuts) - hit_share(track, None, cuts))
    assert np.mean(gains) > 0.15
    assert min(gains) >= 0


def test_the_strongest_cut_on_a_downbeat_comes_first() -> None:
    track = make_track()  # a downbeat every 2.4 s from 0.3 s on
    beats = track.beats[~track.is_downbeat]
    cuts = [Cut(float(time), 0.3) for time in beats[:40:3]] + [Cut(15.6, 1.0)]  # 0.9 s after one
    time_map = plan_time_warp(track, cuts, SECONDS)
    assert time_map is not None
    assert distance_to_nearest([15.6], time_map.forward(track.beats[track.is_downbeat]))[0] <= 0.07
    weak = [Cut(cut.time, min(cut.strength, 0.3)) for cut in cuts]
    assert hit_share(track, plan_time_warp(track, [*weak[:-1], Cut(8.0, 0.31)], SECONDS), weak[:-1]) > 0.4


def test_the_more_accented_downbeat_meets_the_strongest_cut() -> None:
    track = make_track(150.0)
    opens = np.flatnonzero(track.is_downbeat)
    between = float(track.beats[opens[6:8]].mean())
    for strong in (6, 7):
        accents = np.full(len(track.beats), 0.1)
        accents[opens[strong]] = 1.0
        time_map = plan_time_warp(
            BeatTrack(track.beats, track.is_downbeat, accents, 4, 150.0), [Cut(between, 1.0)], SECONDS
        )
        assert time_map is not None
        assert time_map.forward(track.beats[opens[strong]]) == pytest.approx(between, abs=0.07)


def test_aligned_music_is_unchanged() -> None:
    track = make_track()
    cuts = [Cut(float(time) - 0.01, 0.5) for time in track.downbeats[2:12:2]]
    assert plan_time_warp(track, cuts, SECONDS) is None
    assert plan_time_warp(track, [], SECONDS) is None
    assert plan_time_warp(track, [Cut(SECONDS + 5, 1.0)], SECONDS) is None


def test_a_section_start_on_a_cut_stays_there() -> None:
    track, others = make_track(), [Cut(2.69, 1.0), Cut(19.8, 0.9), Cut(20.4, 0.9)]  # the first on a downbeat
    free, with_sections = (
        plan_time_warp(track, [*others, Cut(20.1, 0.2)], SECONDS, sections) for sections in ((), (20.1, 31.0))
    )
    assert free is not None
    assert distance_to_nearest([20.1], free.forward(track.beats))[0] > 0.1
    assert with_sections is None or abs(with_sections.forward(20.1) - 20.1) <= 0.07


def test_beats_are_moved_well_inside_the_tolerance() -> None:
    track = make_track()
    distances = []
    for seed in range(6):
        cuts = random_cuts(seed)
        time_map = plan_time_warp(track, cuts, SECONDS)
        assert time_map is not None
        distances += distance_to_nearest([cut.time for cut in cuts], time_map.forward(track.beats)).tolist()
    met = np.array([distance for distance in distances if distance <= 0.07])
    assert np.mean(met > 0.05) < 0.25  # measured beats are not exact: these may be missed
