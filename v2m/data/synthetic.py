"""Synthetic training clips whose music follows the picture: `v2m synthesize OUT`.

The pictures are animated; the music is what Sketch makes of them, with a drum on each cut and a cymbal on each flash,
so that tempo, key, instruments and timing are learnable. Its tempo stays nearer to the tags' than Sketch's own does.
Half of the clips have cuts that ignore the beat, as in most videos; genre and tonic are drawn, the rest of the tags is
HeuristicTagger's. Beside the sound is the score as MIDI, from which `v2m prepare --codec v2m-score-1` makes codes; in
it, Sketch's levels along the video are part of the velocities. H height, W width of a frame; N samples.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from v2m.core.atomic import atomic_write
from v2m.core.errors import UsageError
from v2m.core.processes import exit_with_parent
from v2m.core.progress import ignore_progress
from v2m.core.timing import seconds_to_samples, time_grid
from v2m.core.types import Audio, Floats, Pixels, Tags, Video
from v2m.media import ffmpeg
from v2m.sketch.compose.arrange import Piece, compose
from v2m.sketch.compose.harmony import NOTE_NAMES
from v2m.sketch.perform.midi import encode_midi
from v2m.sketch.perform.synthesizer import DEFAULT_SOUNDFONT, render_mix
from v2m.sketch.plan import planner
from v2m.sketch.plan.dynamics import LEVEL_RATE
from v2m.sketch.styles import STYLES, choose_style

FPS = 24
WIDTH, HEIGHT = 160, 96
LUMA = np.array([0.2126, 0.7152, 0.0722])
MIN_TEMPO, MAX_TEMPO = 60, 160
CUT_SHARE, GENRE_SHARE = 0.85, 0.6  # of the scenes that have cuts; whose genre is drawn
MIN_SHOT_S = 0.5  # where cuts ignore the beat
MAX_TEMPO_DEVIATION = 0.03  # of the music from the tags' tempo, by which it meets cuts
VELOCITY_DB = 40.0  # by which tenfold velocity is louder (General MIDI level 2)

SAMPLE_RATE = 32000
PEAK_TO_RMS = 6.0  # peak of a stroke, over the root mean square of the music
STROKE_S, DRUM_HZ = 0.4, 70.0
DRUM_DECAY_S, SKIN_DECAY_S, CYMBAL_DECAY_S = 0.09, 0.012, 0.07  # time constants

SETTINGS_FILE = "synthetic.json"
ENCODE_TIMEOUT_S = 600.0  # for one clip


@dataclass(frozen=True)
class Scene:
    """Parameters that determine the picture and the music of one clip."""

    tempo: float  # beats per minute
    speed: float  # of what moves, in frame widths per second
    light: float  # 0–1
    hue: float  # degrees
    color: float  # saturation, 0–1
    cuts: tuple[float, ...]  # seconds
    flashes: tuple[float, ...]
    seed: int
    genre: str | None = None  # None is the one that the picture suggests
    tonic: int = 0  # pitch class


def sample_scene(seed: int, seconds: float) -> Scene:
    """Draw a scene whose parameters go together: fast ones move quickly and are cut often.

    Flashes lie on beats; so do all cuts of half of the scenes.
    """
    random = np.random.default_rng(seed)
    arousal, valence = random.random(2)
    tempo = round(MIN_TEMPO + (MAX_TEMPO - MIN_TEMPO) * arousal)
    beats = time_grid(tempo / 60, seconds)[1:]
    shot = int(random.choice([2, 4, 8] if arousal > 0.5 else [4, 8, 16]))
    offset = int(random.integers(0, shot))
    cuts = beats[offset::shot] if random.random() < CUT_SHARE else beats[:0]
    flashes = [beat for beat in beats if random.random() < 0.15 * arousal]
    if len(cuts) and random.random() < 0.5:
        gaps = MIN_SHOT_S + random.gamma(2.0, max(shot * 60 / tempo - MIN_SHOT_S, MIN_SHOT_S) / 2, len(beats))
        cuts = np.cumsum(gaps)
    genre = str(random.choice(list(STYLES))) if random.random() < GENRE_SHARE else None
    return Scene(
        tempo=tempo,
        speed=float(0.02 + 0.5 * arousal**2),
        light=float(0.12 + 0.6 * valence),
        hue=float((30 if valence > 0.5 else 210) + random.uniform(-40, 40)),
        color=float(random.uniform(0.1, 0.9)),
        cuts=_snap_to_frames(cuts, seconds),
        flashes=_snap_to_frames(np.array(flashes), seconds),
        seed=seed,
        genre=genre,
        tonic=int(random.integers(12)),
    )


def scene_tags(scene: Scene, clip: Video) -> Tags:
    """Return the tags of the scene's clip: its tempo, genre and tonic, and what the picture suggests."""
    from v2m.taggers.heuristic import HeuristicTagger

    tags = HeuristicTagger().tag(clip, Tags(tempo=scene.tempo, genres=(scene.genre,) if scene.genre else ()))
    mode = tags.tonic_and_mode[1] if tags.tonic_and_mode else "major"
    return replace(tags, key=f"{NOTE_NAMES[scene.tonic]} {mode}")


def _snap_to_frames(times: Floats, seconds: float) -> tuple[float, ...]:
    """Return the times of the first frames that are not before `times`, without the very first frame."""
    frame_times = time_grid(FPS, seconds)
    indices = np.unique(np.searchsorted(frame_times, np.asarray(times, float) - 1e-6))
    return tuple(float(frame_times[index]) for index in indices if 0 < index < len(frame_times))


def render_frames(scene: Scene, seconds: float) -> Iterator[Pixels]:
    """Yield RGB frames (H, W, 3) at `FPS`: blobs that drift over a gradient, other ones in each shot."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    columns, rows = columns / WIDTH, rows / HEIGHT
    for time in time_grid(FPS, seconds):
        shot = int(np.searchsorted(scene.cuts, time + 1e-6))
        random = np.random.default_rng([scene.seed, shot])
        start, size = random.random((6, 2)), random.uniform(0.08, 0.22, 6)
        heading, tones = random.uniform(0, 2 * np.pi, 6), random.uniform(-0.5, 0.5, 7)
        level = 0.25 * tones[6] * (rows + columns)
        for blob in range(6):
            x = (start[blob, 0] + scene.speed * time * np.cos(heading[blob])) % 1.0
            y = (start[blob, 1] + scene.speed * time * np.sin(heading[blob])) % 1.0
            squared_distance = np.minimum(np.abs(columns - x), 1 - np.abs(columns - x)) ** 2 + (rows - y) ** 2
            level = level + tones[blob] * np.exp(-squared_distance / size[blob] ** 2)
        flash = max((1 - (time - at) * 6 for at in scene.flashes if at - 1e-6 <= time < at + 1 / 6), default=0.0)
        hue = scene.hue + 40 * tones[shot % 7]
        yield _tint(np.clip(scene.light + 0.35 * level + 0.4 * flash, 0, 1), hue, scene.color)


def _tint(luma: NDArray, hue: float, saturation: float) -> Pixels:
    angles = np.deg2rad([hue, hue - 120, hue - 240])
    tint = 1 + saturation * np.cos(angles)
    return (255 * np.clip(luma[..., None] * tint / (tint @ LUMA), 0, 1)).astype(np.uint8)


def add_percussion(music: Floats, scene: Scene, sample_rate: int) -> Floats:
    """Return music (N,) with a drum on each cut and a cymbal on each flash, within ±1."""
    random = np.random.default_rng(scene.seed)
    time = time_grid(sample_rate, STROKE_S)
    drum = np.sin(2 * np.pi * DRUM_HZ * time) * np.exp(-time / DRUM_DECAY_S)
    drum += 0.5 * random.uniform(-1, 1, len(time)) * np.exp(-time / SKIN_DECAY_S)
    cymbal = np.diff(random.uniform(-1, 1, len(time) + 1)) / 2 * np.exp(-time / CYMBAL_DECAY_S)
    level = PEAK_TO_RMS * np.sqrt(np.mean(np.square(music)))
    out = music.copy()
    for stroke, times in ((drum, scene.cuts), (cymbal, scene.flashes)):
        for seconds in times:
            start = seconds_to_samples(seconds, sample_rate)
            end = min(len(out), start + len(stroke))
            out[start:end] += level * stroke[: end - start]
    return out / max(1.0, float(np.abs(out).max()))


def make_clip(out: Path, number: int, seconds: float, seed: int, *, with_audio: bool = True) -> bool:
    """Write a clip, its sound if asked for, its score and, last, its tags; return False where they exist."""
    from v2m.media import video

    suffixes = (".mp4", ".wav", ".mid", ".tags.json")
    video_path, audio_path, score_path, tags_path = (out / f"{number:05d}{suffix}" for suffix in suffixes)
    if tags_path.is_file():
        return False
    scene = sample_scene(seed * 1_000_003 + number, seconds)
    _encode_video(render_frames(scene, seconds), video_path)
    clip = video.open(video_path)
    tags = scene_tags(scene, clip)
    piece = compose_music(clip, tags, scene.seed)
    if with_audio:
        _write_audio(piece, scene, audio_path)
    with atomic_write(score_path) as file:
        file.write(encode_score(piece))
    with atomic_write(tags_path) as file:
        file.write(json.dumps(tags.to_dict(), ensure_ascii=False).encode() + b"\n")
    return True


def compose_music(clip: Video, tags: Tags, seed: int) -> Piece:
    """Return what Sketch composes for a clip, at a tempo near that of the tags."""
    style = choose_style(tags)
    plan = planner.plan_for_style(
        style, clip.visual_features(), clip.duration, tags, seed, max_tempo_deviation=MAX_TEMPO_DEVIATION
    )
    return compose(plan, style, tags, seed)


def encode_score(piece: Piece) -> bytes:
    """Return the MIDI of a piece whose velocities carry the levels of its plan."""
    plan, parts = piece.sheet.plan, []
    knots = np.arange(len(plan.levels)) / LEVEL_RATE
    for part in piece.parts:
        onsets = plan.tempo_map.beat_to_time(np.array([note.beat for note in part.notes]))
        gains = 10 ** (np.interp(onsets, knots, plan.levels) / VELOCITY_DB)
        notes = [
            note._replace(velocity=int(np.clip(round(note.velocity * gain), 1, 127)))
            for note, gain in zip(part.notes, gains.tolist(), strict=True)
        ]
        parts.append(replace(part, notes=notes))
    return encode_midi(piece.sheet, tuple(parts), f"{piece.sheet.style.name} in {piece.sheet.key.name}")


def _write_audio(piece: Piece, scene: Scene, path: Path) -> None:
    from v2m.media import audio

    count = seconds_to_samples(piece.sheet.plan.duration, SAMPLE_RATE)
    music, _ = render_mix(
        piece.sheet, piece.parts, count, soundfont=DEFAULT_SOUNDFONT, sample_rate=SAMPLE_RATE, reverb=1.0, stems=False,
        progress=ignore_progress,
    )  # fmt: skip
    mono = add_percussion(np.asarray(music).mean(axis=0), scene, SAMPLE_RATE)
    audio.save(Audio(mono[None].astype(np.float32), SAMPLE_RATE), path)


def _encode_video(images: Iterable[Pixels], path: Path) -> None:
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(FPS), "-i", "pipe:0"]
    encoder = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-pix_fmt", "yuv420p", "-threads", "1"]
    output = ffmpeg.file_url(path)
    ffmpeg.run_ffmpeg([*raw, *encoder, output], (image.tobytes() for image in images), ENCODE_TIMEOUT_S)


def make_clips(
    out: Path,
    count: int,
    seconds: float,
    seed: int,
    processes: int | None = None,
    *,
    with_audio: bool = True,
    quiet: bool = True,
) -> int:
    """Make those of `count` clips that do not exist yet; return their number.

    Without `with_audio` they have a score and no sound.

    Raises UsageError where a number is out of range, or the folder holds something else or other clips.
    """
    from tqdm import tqdm

    if not (count >= 1 and 1 <= seconds <= 600 and seed >= 0 and (processes is None or processes >= 1)):
        ranges = f"count {count} must be 1 or more, seconds {seconds:g} within 1 and 600, seed {seed} 0 or more"
        raise UsageError(f"{ranges}, processes {processes} 1 or more")
    _record_settings(out, {"seconds": seconds, "seed": seed} | ({} if with_audio else {"audio": False}))
    workers = min(count, processes or os.cpu_count() or 1)
    if workers == 1:
        return sum(make_clip(out, number, seconds, seed, with_audio=with_audio) for number in range(count))
    num_made = 0
    with (
        tqdm(total=count, desc="clips", unit="clip", disable=quiet or None) as bar,
        ProcessPoolExecutor(workers, get_context("spawn"), exit_with_parent) as pool,
    ):
        try:
            make = functools.partial(make_clip, out, seconds=seconds, seed=seed, with_audio=with_audio)
            for future in as_completed([pool.submit(make, number=number) for number in range(count)]):
                num_made += future.result()
                bar.update()
        except BaseException:  # Ctrl-C too: or else all that are queued would still be made
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return num_made


def _record_settings(out: Path, settings: dict[str, float | bool]) -> None:
    path = out / SETTINGS_FILE
    if path.is_file():
        recorded = json.loads(path.read_text())
        if recorded != settings:
            raise UsageError(f"{str(out)!r} holds clips of {recorded}, not of {settings}: give a new folder")
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{str(out)!r} holds something else: give a new folder")
    with atomic_write(path) as file:
        file.write(json.dumps(settings).encode() + b"\n")
