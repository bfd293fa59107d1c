"""Memory, disk and time of an hour with all extras: `uv run python -m bench.hour_memory`.

The command is a user's, in a process of its own: `infer.py CLIP --stems --midi --report --markers --mix.original duck`.
Its peak is the resident memory of the process with all its children, as the kernel counts it: pages of mapped files
are in it, and pages that processes share count once for each. The memory of its own alone (`anonymous`) is read beside
it. Writes bench/results/hour_memory.json for an hour; last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from bench.default_recipe import FFMPEG, ROOT, process_tree, resident_mb
from bench.install import processor

RESULT = ROOT / "bench" / "results" / "hour_memory.json"
EXTRAS = ("--stems", "--midi", "--report", "--markers", "--mix.original", "duck")
PICTURES = ("testsrc2", "mandelbrot", "testsrc", "rgbtestsrc", "smptebars", "yuvtestsrc", "smptehdbars", "pal75bars")
SIZE, FPS = "128x72", 12
PIECE_S, SHOT_S = 60.0, (3.5, 5.0, 2.5, 7.0, 4.0, 8.0)  # the shots of a piece repeat these
NUM_PIECES = 5
SAMPLE_S = 0.1  # between two readings of the resident memory; of the others twenty times that


def make_clip(folder: Path, minutes: float) -> Path:
    """Write a clip with a cut every few seconds and a tone that comes and goes, which ducks the music."""
    pieces = [_make_piece(folder / f"piece{number}.mp4", number) for number in range(NUM_PIECES)]
    count = -(-round(60 * minutes) // round(PIECE_S))
    names = "".join(f"file '{pieces[number % NUM_PIECES]}'\n" for number in range(count))
    (folder / "pieces.txt").write_text(names, encoding="utf-8")
    path = folder / "clip.mp4"
    pieces_list = ("-f", "concat", "-safe", "0", "-i", str(folder / "pieces.txt"))
    command = [FFMPEG, "-v", "error", "-y", *pieces_list, "-t", f"{60 * minutes:g}", "-c", "copy", str(path)]
    subprocess.run(command, check=True)
    return path


def _make_piece(path: Path, number: int) -> Path:
    shots, position = [], 0.0
    while position < PIECE_S:
        length = min(SHOT_S[(len(shots) + number) % len(SHOT_S)], PIECE_S - position)
        picture = PICTURES[(3 * len(shots) + number) % len(PICTURES)]
        hue = f"hue=h={(57 * len(shots) + 90 * number) % 360}"
        shots.append(
            f"{picture}=s={SIZE}:r={FPS},trim=duration={length:g},format=yuv420p,{hue},setsar=1[v{len(shots)}]"
        )
        position += length
    joined = "".join(f"[v{index}]" for index in range(len(shots))) + f"concat=n={len(shots)}:v=1[out]"
    tone = f"0.3*sin({600 + 100 * number}*t)*gt(mod(t,{9 + number}),5)+0.01*sin(440*t)"
    sound = f"aevalsrc='{tone}':s=48000:d={PIECE_S:g}"
    video = ["-map", "[out]", "-c:v", "libx264", "-preset", "ultrafast", "-g", "120", "-t", f"{PIECE_S:g}"]
    command = [FFMPEG, "-v", "error", "-y", "-f", "lavfi", "-i", sound, "-filter_complex", ";".join([*shots, joined])]
    subprocess.run([*command, *video, "-map", "0:a", "-c:a", "aac", "-b:a", "64k", str(path)], check=True)
    return path


def anonymous_mb(pid: int) -> float:
    """Return the memory that belongs to no file, in MB."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def mapped_mb(pid: int) -> float:
    """Return the size of the mapped temporary files without a name, in MB."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    ranges = [line.split(maxsplit=1)[0].split("-") for line in lines if line.endswith(" (deleted)")]
    return sum(int(end, 16) - int(start, 16) for start, end in ranges) / 2**20


def folder_mb(folder: Path) -> float:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_blocks * 512
        except FileNotFoundError:  # moved into place meanwhile
            continue
    return total / 2**20


def measure_hour(minutes: float = 60.0) -> dict[str, float]:
    """Return the figures of one run: peaks in MB (2²⁰ bytes), wall seconds of the command."""
    names = ("hour_all_extras_mb", "anonymous_mb", "temporary_disk_mb", "output_disk_mb")
    peaks: dict[str, float] = dict.fromkeys(names, 0.0)

    def raise_to(name: str, value: float) -> None:
        peaks[name] = max(peaks[name], value)

    with tempfile.TemporaryDirectory(prefix="v2m-hour-") as name:
        folder, temporary = Path(name), Path(name, "temporary")
        (folder / "out").mkdir()
        temporary.mkdir()
        clip = make_clip(folder, minutes)
        command = [sys.executable, "infer.py", str(clip), "-o", str(folder / "out"), "--quiet", *EXTRAS]
        environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
        start, reading = time.perf_counter(), 0
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=sys.stderr)
        while process.poll() is None:
            pids = process_tree(process.pid)
            raise_to("hour_all_extras_mb", sum(map(resident_mb, pids)))
            if reading % 20 == 0:
                raise_to("anonymous_mb", sum(map(anonymous_mb, pids)))
                raise_to("temporary_disk_mb", sum(map(mapped_mb, pids)) + folder_mb(temporary))
                raise_to("output_disk_mb", folder_mb(folder / "out"))
            reading += 1
            time.sleep(SAMPLE_S)
        seconds = time.perf_counter() - start
        assert process.returncode == 0, f"{command} ended with {process.returncode}"
        produced = {path.suffix for path in (folder / "out").rglob("*")}
        assert {".mp4", ".json", ".mid", ".png", ".edl", ".wav"} <= produced, produced
    return {"minutes": minutes, **{key: round(value, 1) for key, value in peaks.items()}, "seconds": round(seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    minutes = parser.parse_args().minutes
    figures = measure_hour(minutes)
    for name, value in figures.items():
        print(f"{name:<20} {value}")
    if minutes == 60:
        machine = f"{processor()}, {os.cpu_count()} cores, {sys.platform}"
        record = {
            "command": "python -m bench.hour_memory",
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "machine": machine,
            **figures,
        }
        RESULT.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
