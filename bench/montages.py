"""Montages of real footage: clips with real pictures, real motion, and hard cuts at random times.

    uv run python -m bench.montages FOLDER OUT [--count 40] [--seconds 8] [--seed 0]

Real videos with cuts are rare among those that may be used freely. Each montage joins parts of different videos of
FOLDER, without their sound. `bench.learned --clips OUT` finds the cuts as in any other video. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random

from tests.conftest import ffmpeg
from v2m.media import video

SIZE, FPS = (320, 240), 25
SHOT_S = (1.0, 2.6)  # shortest and longest


def draw_shots(durations: dict[Path, float], seconds: float, random: Random) -> list[tuple[Path, float, float]]:
    """Return the shots of a montage: file, start and length in seconds; no file comes twice in a row."""
    shots: list[tuple[Path, float, float]] = []
    left = seconds
    while left > 1e-6:
        length = random.uniform(*SHOT_S)
        length = left if left - length < SHOT_S[0] else length
        usable = [path for path, duration in durations.items() if duration > length + 0.1]
        path = random.choice([path for path in usable if not shots or path != shots[-1][0]])
        frames = max(1, round(length * FPS))
        shots.append((path, random.uniform(0, durations[path] - length - 0.1), frames / FPS))
        left -= frames / FPS
    return shots


def write_montage(shots: list[tuple[Path, float, float]], out: Path) -> None:
    """Write the shots one after the other."""
    inputs = [word for path, start, length in shots for word in ("-ss", str(start), "-t", str(length), "-i", str(path))]
    width, height = SIZE
    fit = f"scale={width}:{height}:force_original_aspect_ratio=increase,crop={width}:{height},setsar=1,fps={FPS}"
    parts = [
        f"[{n}:v]{fit},trim=end_frame={round(shot[2] * FPS)},setpts=PTS-STARTPTS[v{n}]" for n, shot in enumerate(shots)
    ]
    joined = "".join(f"[v{n}]" for n in range(len(shots)))
    graph = ";".join([*parts, f"{joined}concat=n={len(shots)}:v=1:a=0[v]"])
    encoder = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-pix_fmt", "yuv420p", "-threads", "1")
    ffmpeg(*inputs, "-filter_complex", graph, "-map", "[v]", *encoder, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    durations = {path: video.open(path).duration for path in sorted(args.folder.glob("*.mp4"))}
    args.out.mkdir(parents=True, exist_ok=True)
    num_cuts = 0
    for number in range(args.count):
        shots = draw_shots(durations, args.seconds, Random(1000 * args.seed + number))
        write_montage(shots, args.out / f"montage-{number:03d}.mp4")
        num_cuts += len(shots) - 1
    print(json.dumps({"clips": args.count, "sources": len(durations), "cuts": num_cuts}))


if __name__ == "__main__":
    main()
