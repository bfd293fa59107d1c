"""Metrics without weights of the default recipe and of three baselines.

`uv run python -m bench.offline_table`

Generated clips and the example (more as arguments) get the music of the default recipe; silence; one fixed loop of
drums, bass and chords; and Sketch's music for the same footage with its shots in another order, whose cuts lie
elsewhere. All are mixed and read back as `v2m evaluate` does. Cuts are the detected ones. Last line: one JSON object
with the means of each system.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from bench.align_to_cuts import loop, with_cuts
from bench.clips import EXAMPLE, make
from v2m.cli.evaluate import evaluate_paths
from v2m.core.types import Audio, Cut, Tags, Video
from v2m.evaluation import tables
from v2m.generators.sketch import Sketch
from v2m.media import video
from v2m.mixing import mixer
from v2m.pipeline.score import score_video
from v2m.taggers.heuristic import HeuristicTagger

RATE = 48_000


def reordered(clip: Video, rng: np.random.Generator) -> Video:
    """Return `clip` with the cuts of another order of its shots."""
    cuts = clip.visual_features().cuts
    lengths = np.diff([0.0, *(cut.time for cut in cuts), clip.duration])
    times = np.cumsum(rng.permutation(lengths))[:-1]
    strengths = rng.permutation([cut.strength for cut in cuts]) if cuts else []
    return with_cuts(clip, tuple(Cut(float(t), float(s)) for t, s in zip(times, strengths, strict=True)))


def generate_all(paths: list[Path], folder: Path, seed: int) -> dict[str, str]:
    """Write all videos of each system and return its folder by name."""
    folders = {name: folder / name for name in ("sketch", "loop", "shuffled", "silence")}
    for path in folders.values():
        path.mkdir()
    for number, path in enumerate(paths):
        rng = np.random.default_rng([seed, number])
        score_video(path, folders["sketch"] / f"{path.stem}.mp4", seed=seed)
        clip = video.open(path)
        tags = HeuristicTagger().tag(clip, Tags())
        count = round(clip.duration * RATE)
        pieces = {
            "loop": loop(clip.duration, np.random.default_rng(seed))[0],
            "shuffled": Sketch().generate(reordered(clip, rng), tags, seed).audio,
            "silence": Audio(np.zeros((2, count), np.float32), RATE),
        }
        for name, music in pieces.items():
            out = folders[name] / f"{path.stem}.mp4"
            mixer.mix(clip, music, out)
            shutil.copy(folders["sketch"] / f"{path.stem}.json", out.with_suffix(".json"))  # for its tags
        print(f"generated {path.name}", flush=True)
    return {name: str(path) for name, path in folders.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("more", nargs="*", type=Path, help="further clips")
    parser.add_argument("--count", type=int, default=20, help="how many clips to make")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [clip.path for clip in make(folder / "clips", args.count, args.seed)] + [EXAMPLE, *args.more]
        systems = {system: evaluate_paths([path]) for system, path in generate_all(paths, folder, args.seed).items()}
    print(tables.comparison_markdown(systems))
    means = {
        system: {name: round(mean.value, 4) for name, mean in tables.column_means(rows).items()}
        for system, rows in systems.items()
    }
    print(json.dumps({"clips": len(paths), **means}))


if __name__ == "__main__":
    main()
