"""The zero-shot path from end to end on tiny checkpoints: `uv run python -m bench.zero_shot_tiny`.

Writes random checkpoints of every model in the format it is published in, makes clips, and runs the command line: the
shipped recipe `v2b` with folders in place of the hub's repositories. Lengths are counted in the files that were
written. `vocal_energy_db` is the level (dBFS) of the vocal stem, −200 where there is none: the music is then the
instrumental stem, sample for sample. Times say little about real sizes. Last line: one JSON object, of the longest
clip.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import imageio_ffmpeg
import numpy as np
import soundfile

from tests.fixtures.tiny import v2b, videollama

ROOT = Path(__file__).parents[1]
SHOTS = ("testsrc2", "mandelbrot", "smptehdbars")
FLOOR = 1e-10


def make_clip(path: Path, seconds: float) -> Path:
    """Write a silent clip of three shots, of exactly `seconds` at 25 frames a second."""
    frames = round(seconds * 25)
    first, second = frames // 3, frames // 4
    lengths = (first, second, frames - first - second)
    shots = ";".join(
        f"{shot}=s=320x180:r=25,trim=end_frame={count},format=yuv420p[v{k}]"
        for k, (shot, count) in enumerate(zip(SHOTS, lengths, strict=True))
    )
    graph = f"{shots};[v0][v1][v2]concat=n=3[v]"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-filter_complex", graph, "-map", "[v]"]
    subprocess.run([*command, "-c:v", "libx264", "-preset", "veryfast", str(path)], check=True)
    return path


def audio_seconds(path: Path) -> float:
    """Return the seconds of audio that can be decoded from a file."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        return sum(frame.samples for frame in container.decode(stream)) / stream.rate


def measure(weights: Path, clip: Path, seconds: float, *more: str) -> dict[str, Any]:
    out = clip.with_name(f"{clip.stem}{'_song' if more else ''}.scored.mp4")
    start = time.perf_counter()
    command = [sys.executable, "infer.py", str(clip), "-o", str(out), "--stems", "--quiet", *v2b.flags(weights), *more]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    elapsed = time.perf_counter() - start
    record = json.loads(out.with_suffix(".json").read_text())
    stems = {path.stem: soundfile.read(path)[0] for path in out.with_name(f"{out.stem}.stems").glob("*.wav")}
    voice = stems.get("vocals", np.zeros(1))
    return {
        "seconds_out": round(audio_seconds(out), 4),
        "seconds_wanted": seconds,
        "stem_seconds": {name: round(len(stem) / 44_100, 5) for name, stem in stems.items()},
        "sections": len(record["music"]["sections"]),
        "vocal_energy_db": round(20 * math.log10(max(float(np.sqrt(np.mean(voice**2))), FLOOR)), 1),
        "warnings": record["warnings"],
        "genre_line": record["music"]["genre_line"],
        "weights": len(record["weights"]),
        "took": round(elapsed, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, nargs="+", default=[4.0, 31.24, 75.0])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = v2b.write_yue(folder / "weights")
        videollama.make_native(weights / "tagger", answer=videollama.BOTH)
        song = folder / "song.txt"
        song.write_text("[verse]\nhappy sun\n\n[chorus]\nthe music from the sun\n")
        rows = {}
        for seconds in args.seconds:
            clip = make_clip(folder / f"clip{seconds:g}.mp4", seconds)
            rows[f"{seconds:g} s"] = measure(weights, clip, seconds)
        shortest = folder / f"clip{args.seconds[0]:g}.mp4"
        rows["a song"] = measure(weights, shortest, args.seconds[0], "--lyrics", str(song))
    for label, row in rows.items():
        print(f"{label:>8}: {row}")
    last = rows[f"{args.seconds[-1]:g} s"]
    print(json.dumps({key: last[key] for key in ("seconds_out", "seconds_wanted", "sections", "vocal_energy_db")}))


if __name__ == "__main__":
    main()
