"""Pairs of picture and music made offline, of which one decides the other: `v2m synthesize OUT`.

The picture is drawn, measured, named by the tagger Palette and scored by the generator Sketch, as any video would be:
so motion and cutting decide tempo, light mode, and all of them the instruments. A drum is struck on each cut, a cymbal
on each flash. What a model learns here can be heard.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from v2m.core.errors import UsageError
from v2m.core.types import Audio, Pixels, Tags
from v2m.data.synthetic.percussion import add_percussion
from v2m.data.synthetic.scenes import FPS, HEIGHT, WIDTH, Scene, render_frames, sample_scene
from v2m.media import ffmpeg

SAMPLE_RATE = 32000
SETTINGS_FILE = "synthetic.json"
ENCODE_TIMEOUT_S = 600.0  # seconds that a clip may take


def make_clip(out: Path, number: int, seconds: float, seed: int) -> str:
    """Writes `NNNNN.mp4`, `NNNNN.wav` and `NNNNN.tags.json`; the name, or "" where they are there already.

    The tags come last. The same number, length and seed give the same clip.
    """
    from v2m.generators.sketch import Sketch
    from v2m.media import audio, video
    from v2m.taggers.heuristic import Palette

    name = f"{number:05d}"
    final = out / f"{name}.tags.json"
    if final.is_file():
        return ""
    scene = sample_scene(_clip_seed(seed, number), seconds)
    _encode_video(render_frames(scene, seconds), out / f"{name}.mp4")
    clip = video.open(out / f"{name}.mp4")
    tags = Palette().tag(clip, Tags(tempo=scene.tempo))
    score = Sketch(sample_rate=SAMPLE_RATE).generate(clip, tags, scene.seed)
    mono = add_percussion(score.audio.samples.mean(axis=0), scene, SAMPLE_RATE)
    audio.save(Audio(mono[None].astype(np.float32), SAMPLE_RATE), out / f"{name}.wav")
    temporary = final.with_name(f".{final.name}")
    temporary.write_text(json.dumps(tags.to_dict(), ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(final)
    return name


def scene_of(seed: int, number: int, seconds: float) -> Scene:
    """Scene of clip `number`."""
    return sample_scene(_clip_seed(seed, number), seconds)


def make_clips(
    out: Path, count: int, seconds: float, seed: int, processes: int | None = None, *, quiet: bool = True
) -> int:
    """Writes what is not there yet of `count` clips; how many that were.

    Raises:
        UsageError: A number makes no sense, or the folder holds something else, or clips of another kind.
    """
    from tqdm import tqdm

    if not (count >= 1 and 1 <= seconds <= 600 and seed >= 0 and (processes is None or processes >= 1)):
        raise UsageError(
            f"count {count} must be 1 or more, seconds {seconds:g} within 1 and 600, seed {seed} 0 or more, "
            f"processes {processes} 1 or more"
        )
    _record_settings(out, {"seconds": seconds, "seed": seed})
    workers = min(count, processes or os.cpu_count() or 1)
    made = 0
    if workers == 1:
        return sum(bool(make_clip(out, number, seconds, seed)) for number in range(count))
    with (
        tqdm(total=count, desc="clips", unit="clip", disable=quiet or None) as bar,
        ProcessPoolExecutor(workers, get_context("spawn")) as pool,
    ):
        try:
            for future in as_completed([pool.submit(make_clip, out, number, seconds, seed) for number in range(count)]):
                made += bool(future.result())
                bar.update()
        except BaseException:  # Ctrl-C too: else all that waits would still be made
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return made


def _record_settings(out: Path, settings: dict[str, float]) -> None:
    path = out / SETTINGS_FILE
    if path.is_file():
        held = json.loads(path.read_text())
        if held != settings:
            raise UsageError(f"{str(out)!r} holds clips of {held}, not of {settings}: give a new folder")
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{str(out)!r} holds something else: give a new folder")
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings) + "\n")


def _clip_seed(seed: int, number: int) -> int:
    return seed * 1_000_003 + number


def _encode_video(images: Iterable[Pixels], path: Path) -> None:
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(FPS), "-i", "pipe:0"]
    code = ["-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-pix_fmt", "yuv420p", "-threads", "1"]
    ffmpeg.run_ffmpeg(
        [*raw, *code, "-y", f"file:{path.absolute()}"], (image.tobytes() for image in images), ENCODE_TIMEOUT_S
    )
