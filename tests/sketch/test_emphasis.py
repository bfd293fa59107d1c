"""Contrast that follows the picture: strikes on cuts after a breath, fewer subdivisions in still beats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.sketch.stub_videos import CUTS, compose_piece, video
from v2m.analysis.synchrony import density_correlation, sync_score
from v2m.core.types import Tags
from v2m.generators.sketch import Sketch
from v2m.sketch.compose.arrange import Piece, compose
from v2m.sketch.compose.emphasis import BREATH_BEATS
from v2m.sketch.plan.planner import plan_for_style
from v2m.sketch.styles import STYLES

ALL = list(STYLES)
QUICK_CUTS = tuple((round(1.3 + 0.9 * k + (k * k) % 5 / 9, 2), 0.3 + (k * 3 % 7) / 10) for k in range(20))
FAR_BEATS = 0.5  # from a cut, beyond which a note is long enough to be divided
TIMING_BEATS = 0.1  # of humanized notes, swing and accents moved to their cuts


@pytest.mark.parametrize("style", ALL)
def test_the_accompaniment_strikes_on_cuts_after_a_breath(style: str) -> None:
    music = compose_piece(style, 1, cuts=(*CUTS, (8.13, 0.2), (16.47, 0.3), (22.9, 0.2)))
    swing = music.sheet.style.swing_beat
    chords = [note for part in music.parts if part.stem in {"harmony", "pads"} for note in part.notes]
    for written in music.sheet.hits:
        cut = swing(written)
        across = [n for n in chords if n.beat < cut - FAR_BEATS and n.beat + n.length > cut + FAR_BEATS]
        assert not across, (style, written)
        breath = swing(written - BREATH_BEATS)
        late = [n for n in chords if n.beat < breath - TIMING_BEATS and cut - 0.01 < n.beat + n.length < cut + 0.1]
        assert not late, (style, written)


@pytest.mark.parametrize(("style", "least"), [("rock", 0.89), ("electronic", 0.88), ("jazz", 0.9)])
def test_cuts_stand_out_in_the_sound(style: str, least: float) -> None:
    clip = video(20.0, QUICK_CUTS)
    scores = [sync_score(Sketch(style).generate(clip, Tags(), seed).audio, clip.visual_features()) for seed in (1, 2)]
    assert np.mean([score.accents or 0.0 for score in scores]) >= least


def compose_waves(style: str, seed: int, seconds: float = 48.0) -> tuple[Piece, float]:
    """Compose for motion that is lively in every other 4 s, and return the correlation of density and motion."""
    features = video(seconds, ()).visual_features()
    motion = np.where(features.times % 8 < 4, 0.1, 2.0) * (1 + 0.1 * np.sin(features.times))
    features = replace(features, motion=motion)
    plan = plan_for_style(STYLES[style], features, seconds, Tags(), seed)
    music = compose(plan, STYLES[style], Tags(), seed)
    attacks = [plan.tempo_map.beat_to_time(sorted({round(n.beat, 1) for n in part.notes})) for part in music.parts]
    correlation = density_correlation(np.concatenate(attacks), features)
    assert correlation is not None
    return music, correlation


def test_density_follows_motion_within_sections() -> None:
    correlations = {style: np.mean([compose_waves(style, seed)[1] for seed in range(3)]) for style in ALL}
    assert np.mean(list(correlations.values())) > 0.4, correlations
    assert min(correlations.values()) > 0.0, correlations


def test_bar_lines_keep_their_notes_where_nothing_moves() -> None:
    music, _ = compose_waves("rock", 1)
    plan = music.sheet.plan
    still = [bar.start for bar in plan.bars if plan.activity[bar.start] < 0.4]
    assert len(still) > 5
    attacks = np.array([note.beat for part in music.parts for note in part.notes])
    assert all(np.abs(attacks - beat).min() < TIMING_BEATS for beat in still)
