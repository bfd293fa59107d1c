"""A cut and a flash can be heard where they are seen, and told apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from v2m.data.synthetic.percussion import STROKE_S, add_percussion
from v2m.data.synthetic.scenes import sample_scene

RATE = 8000
QUIET = replace(sample_scene(0, 4.0), cuts=(), flashes=())
MUSIC = 0.05 * np.random.default_rng(0).normal(size=4 * RATE)


def test_only_what_is_seen_is_struck() -> None:
    assert (add_percussion(MUSIC, QUIET, RATE) == MUSIC).all()
    found = add_percussion(MUSIC, replace(QUIET, cuts=(1.0,), flashes=(3.0,)), RATE) - MUSIC
    sounding = np.flatnonzero(found) / RATE
    assert sounding.min() >= 1.0
    assert sounding[sounding < 3].max() < 1.0 + STROKE_S
    assert np.abs(sounding - 3.0).min() <= 1 / RATE


def test_a_cut_is_low_and_a_flash_is_high_and_both_are_loud() -> None:
    found = [add_percussion(MUSIC, replace(QUIET, **{what: (1.0,)}), RATE) - MUSIC for what in ("cuts", "flashes")]
    centers = []
    for each in found:
        power = np.abs(np.fft.rfft(each)) ** 2
        centers.append(float((power * np.fft.rfftfreq(len(each), 1 / RATE)).sum() / power.sum()))
        assert np.abs(each).max() > 3 * MUSIC.std()
    assert centers[0] < 0.5 * centers[1]


def test_many_strokes_stay_within_bounds_and_one_at_the_end_is_cut_off() -> None:
    busy = replace(QUIET, cuts=tuple(np.arange(0, 3.9, 0.1)), flashes=(3.999,))
    found = add_percussion(8 * MUSIC, busy, RATE)
    assert len(found) == len(MUSIC)
    assert np.abs(found).max() <= 1.0
