"""Notes for dissolves, fades to black and strong cuts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tests.sketch.stub_videos import StubFrameSource, compose_piece, video
from tests.sketch.test_music import ALL, part_of
from v2m.core.types import Floats, Tags, Transition, Video
from v2m.generators.sketch import Sketch
from v2m.sketch.compose.arrange import Piece, compose
from v2m.sketch.plan.planner import plan_for_style
from v2m.sketch.styles import STYLES

SECONDS = 30.0
DISSOLVE = Transition("dissolve", 10.0, 12.0, 1.0)
FADE = Transition("fade out", 15.0, 16.5, 1.0)
RATE = 48000


def video_with(*transitions: Transition) -> Video:
    clip = video(SECONDS, ())
    return replace(clip, source=StubFrameSource(replace(clip.visual_features(), transitions=transitions)))


def compose_with(style: str, transitions: Sequence[Transition], seed: int = 1) -> Piece:
    features = video_with(*transitions).visual_features()
    plan = plan_for_style(STYLES[style], features, SECONDS, Tags(), seed)
    return compose(plan, STYLES[style], Tags(), seed)


def attacks(music: Piece, stems: set[str]) -> Floats:
    """Return seconds of the attacks of the parts of `stems`."""
    beats = [note.beat for part in music.parts if part.stem in stems for note in part.notes]
    return music.sheet.plan.tempo_map.beat_to_time(beats)


@pytest.mark.parametrize("style", ALL)
def test_a_dissolve_has_notes_that_swell_to_its_middle(style: str) -> None:
    plain, music = compose_with(style, ()), compose_with(style, [DISSOLVE])
    known = {(part.stem, part.program, part.is_drums, part.level_db) for part in plain.parts}
    new = [part for part in music.parts if (part.stem, part.program, part.is_drums, part.level_db) not in known]
    assert new, "no part plays the dissolve"
    tempo_map = music.sheet.plan.tempo_map
    for part in new:
        sounding = tempo_map.beat_to_time([(note.beat, note.beat + note.length) for note in part.notes])
        assert sounding.min() >= DISSOLVE.start - 0.1
        assert sounding.max() <= DISSOLVE.end + 0.3
        times = tempo_map.beat_to_time([beat for beat, _ in part.expression] or [note.beat for note in part.notes])
        levels = [level for _, level in part.expression] or [note.velocity for note in part.notes]
        start, middle, end = np.interp([10.1, 11.0, 11.9], times, levels)
        assert middle > 1.5 * start
        assert middle > 1.5 * end


@pytest.mark.parametrize("style", ["orchestral", "ambient", "jazz"])
def test_a_dissolve_is_louder_in_its_middle(style: str) -> None:
    """The share that the notes add to the swell of the mix's level."""
    sounds = [Sketch(style).generate(video_with(*parts), Tags(), 1, stems=True) for parts in ((), (DISSOLVE,))]
    plain, swelling = (sound.stems["effects"].samples if "effects" in sound.stems else np.zeros(1) for sound in sounds)
    power = [float((swelling[:, int(t * RATE) : int((t + 0.4) * RATE)] ** 2).mean()) for t in (9.4, 10.8, 12.8)]
    assert power[1] > 4 * max(power[0], 1e-12)
    assert power[1] > 4 * max(power[2], 1e-12)
    assert plain.shape[-1] in {1, swelling.shape[-1]}


@pytest.mark.parametrize("style", [name for name in ALL if STYLES[name].kit is not None])
def test_melody_and_drums_rest_while_the_picture_fades_to_black(style: str) -> None:
    plain, music = compose_with(style, ()), compose_with(style, [FADE])
    stems = {"melody", "drums"}

    def during(times: Floats) -> int:
        return int(((times > FADE.start + 0.05) & (times < FADE.end - 0.05)).sum())

    assert during(attacks(plain, stems)) > 0
    assert during(attacks(music, stems)) == 0
    assert during(attacks(music, {"pads", "harmony", "bass"})) == during(attacks(plain, {"pads", "harmony", "bass"}))
    ends = music.sheet.plan.tempo_map.beat_to_time(
        [(note.beat, note.beat + note.length) for part in part_of(music, "melody") for note in part.notes]
    )
    held = (ends[:, 0] < FADE.start) & (ends[:, 1] > FADE.start + 0.15)
    assert not held.any()


def test_a_fade_to_black_at_the_end_keeps_the_final_chord() -> None:
    for style in ALL:
        music = compose_with(style, [Transition("fade out", 26.0, 30.0, 1.0)])
        final = float(music.sheet.last_bar.start)
        assert any(abs(note.beat - final) < 0.05 for part in part_of(music, "melody") for note in part.notes), style


def test_the_lead_leads_to_strong_cuts() -> None:
    """In most pieces the melody moves by step in the last beat before a strong cut that it meets."""
    met, led = 0, 0
    for style in ALL:
        for seed in range(4):
            music = compose_piece(style, seed, duration=40.0, cuts=((9.9, 0.9), (19.7, 1.0), (30.2, 0.95)))
            swing = music.sheet.style.swing_beat
            lead, *_ = part_of(music, "melody")
            for beat, hit in music.sheet.hits.items():
                cut = next((note for note in lead.notes if abs(note.beat - swing(beat)) < 0.1), None)
                if hit.strength < 0.7 or cut is None or beat < 1:
                    continue
                before = [note for note in lead.notes if swing(beat - 1) - 0.1 < note.beat < swing(beat) - 0.1]
                met += 1
                led += bool(before)
    assert met > 30
    assert led / met > 0.8
