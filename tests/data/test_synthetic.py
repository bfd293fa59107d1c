"""Synthetic clips: pictures with known cuts, music that follows them, and percussion on cuts and flashes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from v2m.cli.synthesize import main
from v2m.core.timing import time_grid
from v2m.core.types import Tags
from v2m.data.sources import discover_videos
from v2m.data.synthetic import (
    FPS,
    MAX_TEMPO_DEVIATION,
    STROKE_S,
    add_percussion,
    compose_music,
    encode_score,
    make_clip,
    make_clips,
    render_frames,
    sample_scene,
)
from v2m.media import audio, video
from v2m.sketch.notation.midi_file import read_midi
from v2m.sketch.styles import STYLES

SECONDS, COUNT = 4.0, 3
RATE = 8000
QUIET = replace(sample_scene(0, 4.0), cuts=(), flashes=())
MUSIC = 0.05 * np.random.default_rng(0).normal(size=4 * RATE)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "clips"
    assert make_clips(out, COUNT, SECONDS, 0, 1) == COUNT
    return out


def test_clips_are_pairs_with_tags(clips: Path) -> None:
    result = discover_videos([clips])
    assert [item.name for item in result] == ["00000.mp4", "00001.mp4", "00002.mp4"]
    for item in result:
        assert item.audio is not None
        assert item.tags is not None
        clip, sound = video.open(item.video), audio.load(item.audio, 32000, 60.0)
        assert clip.duration == pytest.approx(SECONDS, abs=0.01)
        assert len(sound) / 32000 == pytest.approx(SECONDS, abs=0.01)
        tags = Tags(**json.loads(item.tags.read_text()))
        assert all((tags.caption, tags.genres, tags.moods, tags.tempo, tags.key))


def test_cuts_are_detected_where_they_were_drawn(clips: Path) -> None:
    result, num_drawn = 0, 0
    for number in range(COUNT):
        expected = sample_scene(number, SECONDS).cuts
        detected = [cut.time for cut in video.open(clips / f"{number:05d}.mp4").visual_features().cuts]
        num_drawn += len(expected)
        result += sum(min(abs(cut - item) for item in detected or [99]) < 1.5 / FPS for cut in expected)
    assert num_drawn >= 2
    assert result / num_drawn > 0.7


def test_scene_parameters_are_correlated_and_cover_their_ranges() -> None:
    """Tempo with speed, and all of the range is there."""
    scenes = [sample_scene(seed, 8.0) for seed in range(200)]
    tempo, speed, light, cuts = np.array([(s.tempo, s.speed, s.light, len(s.cuts)) for s in scenes]).T
    assert np.corrcoef(tempo, speed)[0, 1] > 0.9
    assert np.corrcoef(tempo, cuts)[0, 1] > 0.5
    assert abs(np.corrcoef(tempo, light)[0, 1]) < 0.2
    assert tempo.min() < 70
    assert tempo.max() > 150
    assert light.min() < 0.2
    assert light.max() > 0.6


def test_flashes_lie_on_beats_and_so_do_all_cuts_of_half_of_the_scenes() -> None:
    def on_beats(times: tuple[float, ...], tempo: float) -> bool:
        beats = time_grid(tempo / 60, 8.0)
        return all(-1e-6 <= min(time - beats[beats <= time + 1e-6]) < 1 / FPS + 1e-6 for time in times)

    scenes = [sample_scene(seed, 8.0) for seed in range(200)]
    assert all(on_beats(scene.flashes, scene.tempo) for scene in scenes)
    with_cuts = [scene for scene in scenes if len(scene.cuts) > 2]
    assert 0.3 < sum(on_beats(scene.cuts, scene.tempo) for scene in with_cuts) / len(with_cuts) < 0.7


def test_genres_and_tonics_are_drawn_and_reach_tags_and_score(tmp_path: Path) -> None:
    scenes = [sample_scene(seed, SECONDS) for seed in range(200)]
    assert {scene.genre for scene in scenes} == {None, *STYLES}
    assert {scene.tonic for scene in scenes} == set(range(12))
    seed = next(seed for seed, scene in enumerate(scenes) if scene.genre == "funk")
    assert make_clip(tmp_path, seed, SECONDS, 0, with_audio=False)
    tags = Tags(**json.loads((tmp_path / f"{seed:05d}.tags.json").read_text()))
    assert tags.genres == ("funk",)
    assert tags.tonic_and_mode is not None
    assert tags.tonic_and_mode[0] == scenes[seed].tonic
    assert not (tmp_path / f"{seed:05d}.wav").exists()
    score = read_midi(tmp_path / f"{seed:05d}.mid")
    assert 60 / np.diff(score.beats).mean() == pytest.approx(scenes[seed].tempo, rel=MAX_TEMPO_DEVIATION + 0.001)


def test_velocities_of_the_score_carry_the_levels_of_the_plan(clips: Path) -> None:
    clip, tags = video.open(clips / "00000.mp4"), Tags(**json.loads((clips / "00000.tags.json").read_text()))
    piece = compose_music(clip, tags, 0)
    plan = piece.sheet.plan
    step = replace(plan, levels=np.where(np.arange(len(plan.levels)) < len(plan.levels) / 2, 0.0, -6.0))
    flat = replace(plan, levels=np.zeros_like(plan.levels))
    notes = []
    for levels in (flat, step):
        score = read_midi(encode_score(replace(piece, sheet=replace(piece.sheet, plan=levels))), SECONDS)
        notes.append(sorted((note.onset, voice, note.pitch, note.velocity) for voice, note in score.notes))
    ratios = [(time, after / before) for (time, *_, before), (*_, after) in zip(*notes, strict=True) if before > 30]
    early, late = ([r for time, r in ratios if low < time < high] for low, high in ((0.0, 1.8), (2.2, SECONDS)))
    assert len(early) > 5
    assert len(late) > 5
    np.testing.assert_allclose(early, 1.0)
    np.testing.assert_allclose(late, 10 ** (-6 / 40), atol=0.02)


def test_rendered_frames_show_flashes_and_motion() -> None:
    scene = next(
        item for item in (sample_scene(seed, 4.0) for seed in range(50)) if item.flashes and item.flashes[0] > 0.5
    )
    images = np.stack(list(render_frames(scene, 4.0))).astype(float)
    light = images.mean((1, 2, 3))
    at = round(scene.flashes[0] * FPS)
    assert light[at] > light[at - 1] + 10
    still, quick = (
        np.stack(list(render_frames(sample_scene(seed, 1.0), 1.0))).astype(float) for seed in _slow_and_fast()
    )
    assert np.abs(np.diff(quick, axis=0)).mean() > 2 * np.abs(np.diff(still, axis=0)).mean()


def _slow_and_fast() -> tuple[int, int]:
    order = sorted(
        (item for item in range(60) if not sample_scene(item, 1.0).cuts), key=lambda seed: sample_scene(seed, 1.0).speed
    )
    return order[0], order[-1]


def test_same_seed_gives_the_same_clips_and_existing_ones_are_kept(clips: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in clips.iterdir()}
    assert make_clips(clips, COUNT, SECONDS, 0, 1) == 0
    assert {path: path.stat().st_mtime_ns for path in clips.iterdir()} == before
    make_clips(tmp_path / "again", 1, SECONDS, 0, 1)
    one, two = (audio.load(folder / "00000.wav", 32000, 60.0).samples for folder in (clips, tmp_path / "again"))
    np.testing.assert_array_equal(one, two)  # the file also says when it was written
    for name in ("00000.mp4", "00000.tags.json"):
        one, two = (hashlib.sha256((folder / name).read_bytes()).hexdigest() for folder in (clips, tmp_path / "again"))
        assert one == two, name


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--count=0"], "count 0"),
        (["--seconds=nan"], "seconds"),
        (["--seed=-1"], "seed -1"),
        (["--seconds=5"], "give a new folder"),
        (["--clips=5"], "unknown option --clips"),
    ],
)
def test_invalid_commands_are_reported_in_one_line(
    clips: Path, arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(clips), *arguments]) == 2
    stderr = capsys.readouterr().err
    assert word in stderr
    assert stderr.count("\n") == 1


def test_percussion_sounds_only_on_cuts_and_flashes() -> None:
    assert (add_percussion(MUSIC, QUIET, RATE) == MUSIC).all()
    result = add_percussion(MUSIC, replace(QUIET, cuts=(1.0,), flashes=(3.0,)), RATE) - MUSIC
    sounding = np.flatnonzero(result) / RATE
    assert sounding.min() >= 1.0
    assert sounding[sounding < 3].max() < 1.0 + STROKE_S
    assert np.abs(sounding - 3.0).min() <= 1 / RATE


def test_drum_is_low_cymbal_is_high_and_both_are_loud() -> None:
    result = [add_percussion(MUSIC, replace(QUIET, **{what: (1.0,)}), RATE) - MUSIC for what in ("cuts", "flashes")]
    centers = []
    for item in result:
        power = np.abs(np.fft.rfft(item)) ** 2
        centers.append(float((power * np.fft.rfftfreq(len(item), 1 / RATE)).sum() / power.sum()))
        assert np.abs(item).max() > 3 * MUSIC.std()
    assert centers[0] < 0.5 * centers[1]


def test_percussion_stays_within_full_scale_and_length() -> None:
    busy = replace(QUIET, cuts=tuple(np.arange(0, 3.9, 0.1)), flashes=(3.999,))
    result = add_percussion(8 * MUSIC, busy, RATE)
    assert len(result) == len(MUSIC)
    assert np.abs(result).max() <= 1.0
