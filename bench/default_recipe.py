"""Speed and exactness of the default recipe: `uv run python -m bench.default_recipe`.

Times whole processes (`infer.py` as a user starts it), each after one warm-up run, and checks the files they wrote with
PyAV and ffmpeg's ebur128, not with v2m's own reports. `--minutes 60` times an hour of 1080p, too, once. `processor_s`
counts all processes of a run, on all cores; the parts of a run are those of `bench.recipe_parts`. Last line: one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import av
import imageio_ffmpeg
import numpy as np

from tests.fixtures.packets import packet_digest

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "data" / "examples" / "bunny_wakes.mp4"
FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


def process_tree(pid: int) -> list[int]:
    """Return `pid` and its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(descendant for child in children for descendant in process_tree(int(child)))]


def resident_mb(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    except OSError:
        return 0.0


class Cost(NamedTuple):
    """Wall seconds, processor seconds and peak resident MB of a command with all its children."""

    seconds: float
    processor_s: float
    peak_mb: float


def measure(*command: str) -> Cost:
    """Run a command once; its memory is read every 20 ms."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start, peak = time.perf_counter(), 0.0
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        try:
            status = process.wait(0.02)
            break
        except subprocess.TimeoutExpired:
            peak = max(peak, sum(resident_mb(pid) for pid in process_tree(process.pid)))
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert status == 0, f"{command} ended with {status}"
    return Cost(seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak)


def best_of(runs: int, *command: str) -> Cost:
    """Return the least seconds and processor seconds of several runs, and the highest peak."""
    costs = [measure(*command) for _ in range(runs)]
    return Cost(
        min(cost.seconds for cost in costs), min(cost.processor_s for cost in costs), max(c.peak_mb for c in costs)
    )


def measure_parts(clip: Path, out: Path) -> dict[str, float]:
    """Return the seconds of the parts of one run (`bench.recipe_parts`)."""
    command = [sys.executable, "-m", "bench.recipe_parts", str(clip), "-o", str(out), "--overwrite", "--quiet"]
    return json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.splitlines()[-1])


def stream_lengths(path: Path) -> tuple[float, float]:
    """Return the seconds of the video stream and of the decoded audio, both from the video's first frame."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        packets = [(packet.pts, packet.duration or 0) for packet in container.demux(stream) if packet.pts is not None]
        first_s = float(min(packets)[0] * stream.time_base)
        video_s = float(sum(max(packets)) * stream.time_base) - first_s
    with av.open(str(path)) as container:
        *_, frame = container.decode(container.streams.audio[0])
        assert frame.time is not None
        return video_s, frame.time + frame.samples / frame.sample_rate - first_s


def loudness(path: Path) -> tuple[float, float]:
    """Return LUFS and dBTP, measured by ffmpeg's ebur128."""
    command = [
        FFMPEG,
        "-hide_banner",
        "-nostats",
        "-i",
        str(path),
        "-filter_complex",
        "ebur128=peak=true",
        "-f",
        "null",
        "-",
    ]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stderr.rpartition("Summary:")[2]
    levels = {name: float(value) for name, value in re.findall(r"(I|Peak):\s+(-?[\d.]+)", text)}
    return levels["I"], levels["Peak"]


def make_minute(folder: Path) -> Path:
    """Write 60 s of 1080p30 H.264 with a cut every few seconds and enough detail to be slow to decode."""
    path = folder / "minute.mp4"
    lengths_s = np.random.default_rng(0).permutation([2.4, 3.1, 3.8, 4.4, 5.0, 5.7, 6.3, 7.0, 7.7, 8.3, 6.3])
    names = ["testsrc2=", "mandelbrot=", "testsrc=", "gradients=seed=0:"]
    sources = [
        f"{names[k % 4]}s=1920x1080:r=30,trim=duration={s:.3f},format=yuv420p[v{k}]" for k, s in enumerate(lengths_s)
    ]
    joined = "".join(f"[v{k}]" for k in range(len(sources)))
    graph = ";".join(sources) + f";{joined}concat=n={len(sources)}:v=1,noise=alls=8:allf=t:all_seed=1[out]"
    encode = ["-c:v", "libx264", "-preset", "ultrafast", "-b:v", "10M", "-pix_fmt", "yuv420p"]
    command = [FFMPEG, "-v", "error", "-y", "-filter_complex", graph, "-map", "[out]", "-t", "60", *encode, str(path)]
    subprocess.run(command, check=True)
    return path


def make_long(minute: Path, minutes: int) -> Path:
    """Write `minute` so many times over into one file, its packets copied."""
    path, names = minute.with_name("long.mp4"), minute.with_name("minutes.txt")
    names.write_text(f"file '{minute}'\n" * minutes, encoding="utf-8")
    pieces = ["-f", "concat", "-safe", "0", "-i", str(names)]
    subprocess.run([FFMPEG, "-v", "error", "-y", *pieces, "-c", "copy", str(path)], check=True)
    return path


def check_output(clip: Path, out: Path) -> dict[str, float | bool]:
    """Return what is wrong with an output, read by other programs."""
    video_s, audio_s = stream_lengths(out)
    lufs, true_peak = loudness(out)
    return {
        "length_error_ms": 1000 * abs(video_s - audio_s),
        "video_identical": packet_digest(clip) == packet_digest(out),
        "lufs_error": abs(lufs + 14),
        "true_peak_db": true_peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="runs of each command; the fastest counts")
    parser.add_argument("--minutes", type=int, default=0, help="also time a file of so many minutes, 60 at most")
    options = parser.parse_args()
    infer = [sys.executable, "infer.py"]
    figures: dict[str, float | bool] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # A user's Python keeps compiled modules; build machines often tell theirs not to.
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "compiled")
        measure(*infer, "--help")
        figures["help_s"] = best_of(options.runs, *infer, "--help").seconds
        start = best_of(options.runs, sys.executable, "-c", "pass").seconds
        import_s = best_of(options.runs, sys.executable, "-c", "import v2m").seconds
        figures["import_s"] = max(0.0, import_s - start)
        clips = {"example": EXAMPLE, "minute_1080p": make_minute(folder)}
        errors = []
        for label, clip in clips.items():
            out = folder / f"{label}.mp4"
            command = [*infer, str(clip), "-o", str(out), "--overwrite"]
            measure(*command)
            figures[f"{label}_s"], figures[f"{label}_processor_s"], peak = best_of(options.runs, *command)
            figures["peak_mb"] = max(peak, figures.get("peak_mb", 0.0))
            errors.append(check_output(clip, out))
        out = folder / "parts.mp4"
        figures |= {f"part_{part}": seconds for part, seconds in measure_parts(clips["minute_1080p"], out).items()}
        if options.minutes:
            clip = make_long(clips["minute_1080p"], options.minutes)
            cost = measure(*infer, str(clip), "-o", str(out), "--overwrite")
            names = ("long_s", "long_processor_s", "long_peak_mb")
            figures |= {"long_minutes": options.minutes, **dict(zip(names, cost, strict=True))}
    figures |= {figure: max(error[figure] for error in errors) for figure in errors[0]}
    figures["video_identical"] = all(error["video_identical"] for error in errors)
    for figure, value in figures.items():
        print(f"{figure:<24} {value if isinstance(value, bool) else round(value, 3)}")
    print(
        json.dumps({figure: value if isinstance(value, bool) else round(value, 3) for figure, value in figures.items()})
    )


if __name__ == "__main__":
    main()
