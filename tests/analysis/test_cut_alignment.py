"""Cut alignment against cases that can be worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from v2m.analysis.synchrony import covered_share, cut_alignment, distance_to_nearest


def test_hits_are_counted_within_the_tolerance_only() -> None:
    alignment = cut_alignment([1.0, 1.56, 2.09, 2.75], [1.0, 1.5, 2.0, 2.5, 3.0], [1.0, 3.0], duration=4.0)
    assert alignment.n == 4
    assert alignment.hits == 0.5  # 0 and 60 ms; not 90 and 250 ms
    assert alignment.hits_100ms == 0.75
    assert alignment.downbeat_hits == 0.25
    assert alignment.median_ms == pytest.approx(75.0)


def test_accents_count_for_hits_and_for_chance_alike() -> None:
    beats, accents = [1.0, 2.0, 3.0], [1.5, 2.0, 2.75]
    alignment = cut_alignment([1.53, 2.76], beats, duration=4.0, accents=accents)
    assert (alignment.hits_20ms, alignment.hits_40ms, alignment.hits) == (0.5, 1.0, 1.0)
    assert cut_alignment([1.53, 2.76], beats, duration=4.0).hits == 0.0
    assert alignment.chance_40ms == pytest.approx(5 * 0.08 / 4)
    assert alignment.chance_20ms == pytest.approx(5 * 0.04 / 4)
    assert alignment.median_ms == pytest.approx(20.0)
    random = np.random.default_rng(2).uniform(0, 4, 4000)
    control = cut_alignment(random, beats, duration=4.0, accents=accents)
    assert control.hits_40ms == pytest.approx(alignment.chance_40ms, abs=0.02)
    assert control.shuffled_40ms == pytest.approx(alignment.chance_40ms, abs=0.02)


@pytest.mark.parametrize("tempo", [60, 100, 120, 200])
def test_chance_of_a_steady_beat_matches_the_formula(tempo: int) -> None:
    """min(1, 2 · tolerance · BPM / 60), but for the two ends, where half a window may hang over."""
    beats = np.arange(0.5, 1000, 60 / tempo)
    alignment = cut_alignment([5.0], beats, beats[::4], duration=1000.0)
    assert alignment.chance == pytest.approx(min(1, 2 * 0.07 * tempo / 60), abs=2e-3)
    assert alignment.chance_100ms == pytest.approx(min(1, 2 * 0.1 * tempo / 60), abs=2e-3)
    assert alignment.chance_downbeats == pytest.approx(2 * 0.07 * tempo / 240, abs=2e-3)


def test_overlapping_windows_and_ends_count_once() -> None:
    assert covered_share(np.array([0.0, 1.0, 1.05, 3.98]), 0.1, 4.0) == pytest.approx((0.1 + 0.25 + 0.12) / 4)
    assert covered_share(np.array([1.0, 1.01, 1.02]), 5.0, 4.0) == 1.0


def test_random_cuts_hit_at_chance_level_as_does_the_control() -> None:
    rng = np.random.default_rng(3)
    alignment = cut_alignment(rng.uniform(0, 600, 4000), np.arange(0, 600, 0.55), duration=600.0)
    assert alignment.hits is not None
    assert alignment.chance is not None
    assert alignment.hits == pytest.approx(alignment.chance, abs=0.03)
    assert alignment.shuffled == pytest.approx(alignment.chance, abs=0.02)


def test_control_removes_the_phase_of_perfect_hits() -> None:
    beats = np.arange(0, 60, 0.6)
    alignment = cut_alignment(beats[3:90:4], beats, duration=60.0)
    assert alignment.hits == 1.0
    assert alignment.shuffled == pytest.approx(0.14 / 0.6, abs=0.06)
    assert alignment == cut_alignment(beats[3:90:4], beats, duration=60.0)


def test_without_cuts_or_beats_metrics_are_none() -> None:
    assert cut_alignment([], [1.0, 2.0], duration=3.0).to_dict() == {
        "n": 0, "hits": None, "hits_20ms": None, "hits_40ms": None, "hits_100ms": None, "downbeat_hits": None,
        "chance": None, "chance_20ms": None, "chance_40ms": None, "chance_100ms": None, "chance_downbeats": None,
        "shuffled": None, "shuffled_40ms": None, "median_ms": None,
    }  # fmt: skip
    assert cut_alignment([1.0], [], duration=3.0).hits is None
    json.dumps(cut_alignment([1.0], [1.02], duration=3.0).to_dict(), allow_nan=False)


def test_distance_to_nearest_in_both_directions_and_beyond_the_ends() -> None:
    assert distance_to_nearest([-1.0, 0.4, 0.6, 9.0], np.array([0.0, 1.0])).tolist() == pytest.approx(
        [1.0, 0.4, 0.4, 8.0]
    )
