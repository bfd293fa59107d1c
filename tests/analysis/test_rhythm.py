"""Beat tracking of music with planted beats and downbeats."""

from __future__ import annotations

import numpy as np
import pytest

from tests.analysis.bars import bars
from v2m.analysis.rhythm import track_beats
from v2m.analysis.synchrony import distance_to_nearest
from v2m.core.types import Audio

SECONDS = 24.0


@pytest.mark.parametrize(("meter", "tempo", "first"), [(4, 96.0, 2), (4, 132.0, 0), (3, 110.0, 1), (3, 150.0, 0)])
def test_planted_beats_downbeats_and_meter_are_found(meter: int, tempo: float, first: int) -> None:
    beats = np.arange(0.4, SECONDS - 0.5, 60 / tempo)
    opens = np.arange(len(beats)) % meter == first
    track = track_beats(bars(beats, opens, SECONDS))
    assert track is not None
    assert track.meter == meter
    assert track.tempo == pytest.approx(tempo, rel=0.02)
    assert np.mean(distance_to_nearest(beats, track.beats) <= 0.03) > 0.9
    assert np.mean(distance_to_nearest(track.beats, beats) <= 0.03) > 0.9
    assert np.mean(distance_to_nearest(beats[opens], track.downbeats) <= 0.03) > 0.8
    assert np.mean(distance_to_nearest(track.downbeats, beats[opens]) <= 0.03) > 0.8


def test_offbeat_accents_are_not_beats_where_the_harmony_changes_on_beats() -> None:
    beats = np.arange(0.5, SECONDS - 0.5, 0.5)
    opens = np.arange(len(beats)) % 4 == 0
    music = bars(beats, opens, SECONDS)
    rng = np.random.default_rng(1)
    for off in beats + 0.25:
        at = int(off * music.sample_rate)
        music.samples[:, at : at + 1600] += (0.15 * np.exp(-np.arange(1600) / 300) * rng.standard_normal(1600)).astype(
            "f"
        )
    track = track_beats(music, tempo=120)
    assert track is not None
    assert np.median(distance_to_nearest(track.beats, beats)) < 0.03


def test_tempo_prior_selects_between_two_grids() -> None:
    beats = np.arange(0.4, SECONDS - 0.5, 60 / 170)
    music = bars(beats, np.arange(len(beats)) % 4 == 0, SECONDS)
    slow, fast = track_beats(music, tempo=85), track_beats(music, tempo=170)
    assert slow is not None
    assert fast is not None
    assert (slow.tempo, fast.tempo) == (pytest.approx(85, rel=0.03), pytest.approx(170, rel=0.03))


def test_accents_are_percentiles_of_beat_strength() -> None:
    beats = np.arange(0.4, SECONDS - 0.5, 0.5)
    opens = np.arange(len(beats)) % 4 == 0
    track = track_beats(bars(beats, opens, SECONDS), 120)
    assert track is not None
    assert track.accents.max() < 1
    assert np.median(track.accents[distance_to_nearest(track.beats, beats[opens]) < 0.05]) > 0.7
    assert np.median(track.accents[distance_to_nearest(track.beats, beats[~opens]) < 0.05]) < 0.5


@pytest.mark.parametrize("seconds", [0.01, 0.4, 2.0, 10.0])
def test_silence_and_very_short_audio_have_no_beats(seconds: float) -> None:
    count = int(seconds * 32000)
    assert track_beats(Audio(np.zeros((2, count), np.float32), 32000)) is None
    if seconds < 1:
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, (1, count)).astype("f")
        assert track_beats(Audio(noise, 32000)) is None
