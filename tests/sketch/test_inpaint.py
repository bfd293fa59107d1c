"""Inpainting of a Sketch piece: audio and notes outside the range stay, those inside change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mido
import numpy as np
import pytest

from tests.sketch.stub_videos import video
from v2m.core.errors import UsageError
from v2m.core.types import Audio, Controls, InpaintRequest, Soundtrack, Tags
from v2m.generators.inpaint import FADE_S
from v2m.generators.sketch import Sketch
from v2m.media import audio as sound_files
from v2m.sketch.compose.arrange import Piece, compose, recompose
from v2m.sketch.compose.inpaint import splice_parts
from v2m.sketch.compose.lead_sheet import Note
from v2m.sketch.plan.planner import plan_for_style
from v2m.sketch.styles import STYLES

RATE, SECONDS = 48_000, 22.0
TAGS = Tags(genres=["jazz"], tempo=112.0)
START, END = 8.0, 13.0


@lru_cache
def before() -> Soundtrack:
    return Sketch().generate(video(SECONDS), TAGS, 3, stems=True)


def record(score: Soundtrack, seed: int, tags: Tags = TAGS) -> dict[str, Any]:
    """Return the sidecar of `score`, as read from JSON."""
    beats = [round(float(beat), 3) for beat in score.beats if score.beats is not None]  # type: ignore[union-attr]
    sidecar = {"seed": seed, "tags": tags.to_dict(), "range": {"start": 0.0, "end": SECONDS}}
    return json.loads(json.dumps({**sidecar, "music": {**score.metadata, "beats": beats}}))


def inpaint(
    folder: Path,
    old: Soundtrack,
    sidecar: Mapping[str, Any] | None,
    seed: int,
    *,
    tags: Tags = TAGS,
    part: tuple[float, float] = (START, END),
) -> Soundtrack:
    sound_files.save(old.audio, folder / "old.wav")
    request = InpaintRequest(part[0], part[1], folder / "old.wav", 0.0, sidecar)
    controls = Controls(inpaint=request)
    sketch = Sketch()
    sketch.prepare(tags, controls)
    return sketch.generate(video(SECONDS), tags, seed, stems=True, controls=controls)


@lru_cache
def after() -> Soundtrack:
    with TemporaryDirectory() as folder:
        return inpaint(Path(folder), before(), record(before(), 3), 5)


def cut(audio: Audio, begin: float, end: float) -> np.ndarray:
    return audio.samples[:, round(begin * RATE) : round(end * RATE)]


def onsets(midi: bytes | None) -> dict[float, set[tuple[str, int]]]:
    """Return seconds → (part, pitch) of the notes that start there."""
    file, notes = mido.MidiFile(file=BytesIO(midi or b"")), {}
    tempi = [(0, 500_000)]
    clock = 0
    for message in file.tracks[0]:
        clock += message.time
        if message.type == "set_tempo":
            tempi.append((clock, message.tempo))
    for track in file.tracks[1:]:
        tick, name = 0, ""
        for message in track:
            tick += message.time
            name = message.name if message.type == "track_name" else name
            if message.type == "note_on":
                notes.setdefault(round(_seconds(tick, tempi), 3), set()).add((name, message.note))
    return notes


def _seconds(tick: int, tempi: list[tuple[int, int]]) -> float:
    total, (at, tempo) = 0.0, tempi[0]
    for start, following in tempi[1:]:
        if start >= tick:
            break
        total, at, tempo = total + mido.tick2second(start - at, 960, tempo), start, following
    return total + mido.tick2second(tick - at, 960, tempo)


def test_inpainting_replaces_the_range_and_keeps_the_rest_bit_identical(tmp_path: Path) -> None:
    old = before()
    one, other = after(), inpaint(tmp_path, old, record(old, 3), 6)
    for score in (one, other):
        np.testing.assert_array_equal(cut(score.audio, 0, START), cut(old.audio, 0, START))
        np.testing.assert_array_equal(cut(score.audio, END, SECONDS), cut(old.audio, END, SECONDS))
        inside, was = cut(score.audio, START + 0.6, END - 0.6), cut(old.audio, START + 0.6, END - 0.6)
        assert np.corrcoef(inside.mean(0), was.mean(0))[0, 1] < 0.8
        assert 0.5 < np.std(inside) / np.std(was) < 2.0, "neither louder nor softer than a musician would be"
        assert (score.metadata["key"], score.metadata["progressions"]) == (
            old.metadata["key"],
            old.metadata["progressions"],
        )
        np.testing.assert_array_equal(score.beats, old.beats)
        assert set(score.metadata["instruments"]) == set(old.metadata["instruments"]), "the same band"
    assert np.abs(cut(one.audio, START, END) - cut(other.audio, START, END)).max() > 0.02
    again = inpaint(tmp_path, old, record(old, 3), 5)
    np.testing.assert_array_equal(again.audio.samples, one.audio.samples)


def test_midi_of_an_inpainted_piece_keeps_beats_and_outer_notes() -> None:
    old, new = before(), after()
    was, now = onsets(old.midi), onsets(new.midi)
    outside = [time for time in was if time < START - 0.3 or time > END + 0.3]
    assert len(outside) > 30
    assert all(now[time] == was[time] for time in outside)
    inside = [time for time in now if START + 0.3 < time < END - 0.3]
    fresh = [time for time in inside if now[time] != was.get(time)]
    assert len(fresh) > 5
    assert old.beats is not None
    beats = old.beats[(old.beats > START + 0.3) & (old.beats < END - 0.3)]
    distances = [np.abs(np.array(inside) - beat).min() for beat in beats]
    assert max(distances) < 0.05, "something is struck on every beat of the grid that was there"
    grid = np.interp(np.arange(0, len(old.beats) - 1, 1 / 3), np.arange(len(old.beats)), old.beats)
    off = [np.abs(grid - time).min() for time in fresh]
    assert np.mean(off) < 0.03, "jazz swings in triplets of the beats"


def test_seams_have_no_discontinuity() -> None:
    """The steps between samples at the seams are no larger than those of the music that was there."""
    old, new = before(), after()
    largest = np.abs(np.diff(old.audio.samples, axis=1)).max()
    step = np.abs(np.diff(new.audio.samples, axis=1)).max(0)
    for second in (START, END - FADE_S, END):
        seam_steps = step[round((second - 0.005) * RATE) : round((second + FADE_S + 0.005) * RATE)]
        assert seam_steps.max() <= largest
    first = round(START * RATE)
    drift = np.abs(new.audio.samples - old.audio.samples)[:, first : first + round(0.01 * RATE)].max()
    assert drift < 0.3 * np.abs(cut(old.audio, START, END)).max()


def test_stems_of_an_inpainted_piece_sum_to_the_mix() -> None:
    new = after()
    off = sum(stem.samples for stem in new.stems.values()) - new.audio.samples
    assert np.sqrt((off**2).mean()) < 0.05 * np.sqrt((new.audio.samples**2).mean())


def test_tags_choose_the_instruments_of_the_range(tmp_path: Path) -> None:
    old = before()
    assert any(name == "drums" for name in old.stems)
    tags = replace(TAGS, negative=("drums",))
    new = inpaint(tmp_path, old, record(old, 3), 5, tags=tags)
    drums = new.stems["drums"]
    assert np.abs(cut(drums, START + 2.5, END - 0.7)).max() < 0.02 * np.abs(drums.samples).max()
    assert np.abs(cut(drums, END + 0.5, END + 4)).max() > 0.3 * np.abs(drums.samples).max()


def test_inpainting_an_inpainted_piece_keeps_the_first_range(tmp_path: Path) -> None:
    once = after()
    twice = inpaint(tmp_path, once, record(once, 5), 7, part=(15.0, 19.0))
    np.testing.assert_array_equal(cut(twice.audio, 0, 15), cut(once.audio, 0, 15))
    assert np.abs(cut(twice.audio, 15, 19) - cut(once.audio, 15, 19)).max() > 0.02
    assert [row["seed"] for row in twice.metadata["takes"]] == [3, 5, 7]
    first, second = onsets(once.midi), onsets(twice.midi)
    kept = [time for time in first if START + 0.3 < time < END - 0.3]
    assert kept
    assert all(second[time] == first[time] for time in kept)


def test_ranges_at_the_start_at_the_end_and_of_the_whole(tmp_path: Path) -> None:
    old = before()
    at_start = inpaint(tmp_path, old, record(old, 3), 5, part=(0.0, 4.0))
    at_end = inpaint(tmp_path, old, record(old, 3), 5, part=(18.0, SECONDS))
    whole = inpaint(tmp_path, old, record(old, 3), 5, part=(0.0, SECONDS))
    np.testing.assert_array_equal(cut(at_start.audio, 4, SECONDS), cut(old.audio, 4, SECONDS))
    np.testing.assert_array_equal(cut(at_end.audio, 0, 18), cut(old.audio, 0, 18))
    for score in (at_start, at_end, whole):
        assert len(score.audio) == len(old.audio)
        assert np.abs(score.audio.samples - old.audio.samples).max() > 0.02
        assert np.abs(score.audio.samples[:, -RATE // 100 :]).max() < 0.01, "it ends in silence"


@pytest.mark.parametrize("change", ["nothing", "another generator", "other beats", "no tags"])
def test_foreign_sources_are_refused(tmp_path: Path, change: str) -> None:
    old = before()
    sidecar = record(old, 3)
    wrong: dict[str, dict[str, Any] | None] = {
        "nothing": None,
        "another generator": {**sidecar, "music": {"beats": sidecar["music"]["beats"]}},
        "other beats": {
            **sidecar,
            "music": {**sidecar["music"], "beats": [beat + 0.1 for beat in sidecar["music"]["beats"]]},
        },
        "no tags": {**sidecar, "tags": None},
    }
    message = (
        "beats of the music to keep"
        if change == "other beats"
        else "the sidecar of 'old.wav' is missing or does not record"
    )
    with pytest.raises(UsageError, match=message):
        inpaint(tmp_path, old, wrong[change], 5)


@pytest.mark.parametrize("style", list(STYLES))
def test_recompose_gives_other_notes_on_the_same_chords(style: str) -> None:
    style_data = STYLES[style]
    plan = plan_for_style(style_data, video(30.0).visual_features(), 30.0, Tags(), 2)
    first = compose(plan, style_data, Tags(), 2)
    other, third = (recompose(first, plan, style_data, Tags(), seed=2, variation_seed=seed) for seed in (2, 4))
    assert other.sheet.spans == first.sheet.spans
    assert note_set(other) != note_set(first), "even where the new seed is the old one"
    assert note_set(third) != note_set(other)
    common = len(note_set(first) & note_set(third)) / len(note_set(first) | note_set(third))
    assert common < 0.7


@pytest.mark.parametrize("style", list(STYLES))
def test_splicing_leaves_no_overlapping_notes(style: str) -> None:
    style_data = STYLES[style]
    plan = plan_for_style(style_data, video(30.0).visual_features(), 30.0, Tags(), 2)
    first = compose(plan, style_data, Tags(), 2)
    result = splice_parts(first, recompose(first, plan, style_data, Tags(), seed=2, variation_seed=4), 12.0, 19.0)
    assert note_set(result, 0, 12) == note_set(first, 0, 12)
    for part in result.parts:
        sounding: dict[int, float] = {}
        for note in part.notes:
            assert note.length > 0
            assert note.beat >= sounding.get(note.pitch, 0.0) - 1e-6, (part.name, note)
            sounding[note.pitch] = note.beat + note.length
        if not part.is_drums:
            crossing = [n for n in part.notes if n.beat < 11.9 and n.beat + n.length > 12.3]
            old = {
                n.pitch for p in first.parts if p.name == part.name for n in p.notes if n.beat < 12 < n.beat + n.length
            }
            assert {note.pitch for note in crossing} <= old, "only what sounded there is tied over"


def note_set(piece: Piece, begin: float = 0.0, end: float = np.inf) -> set[tuple[str, float, int]]:
    def quantized_beat(note: Note) -> float:
        return round(note.beat * 4) / 4

    return {
        (part.name, quantized_beat(note), note.pitch)
        for part in piece.parts
        for note in part.notes
        if begin <= quantized_beat(note) < end
    }
