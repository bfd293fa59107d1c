"""The measures that need no weights, on the default recipe and three baselines: `uv run python -m bench.offline_table`.

Made clips and the example (more as arguments) get the music of the default recipe; silence; one fixed loop of drums,
bass and chords; and Sketch's music for the same picture with its shots in another order, whose cuts lie elsewhere.
All are mixed and read back as `v2m evaluate` does. Cuts are the detected ones. Last line: one JSON object with
the means of each system.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np

from bench.clips import EXAMPLE, make
from bench.retime import loop, with_cuts
from v2m.cli.evaluate import evaluate_paths
from v2m.core.types import Audio, Cut, Tags, Video
from v2m.evaluation import tables
from v2m.generators.sketch import Sketch
from v2m.media import video
from v2m.mixing import mixer
from v2m.pipeline.score import score_video
from v2m.taggers.heuristic import Palette

RATE = 48_000


def reordered(clip: Video, rng: np.random.Generator) -> Video:
    """`clip` as if its shots came in another order."""
    cuts = clip.visual_features().cuts
    lengths = np.diff([0.0, *(cut.time for cut in cuts), clip.duration])
    times = np.cumsum(rng.permutation(lengths))[:-1]
    strengths = rng.permutation([cut.strength for cut in cuts]) if cuts else []
    return with_cuts(clip, tuple(Cut(float(t), float(s)) for t, s in zip(times, strengths, strict=True)))


def score_all(paths: list[Path], folder: Path, seed: int) -> dict[str, str]:
    """A folder for each system, with all videos."""
    places = {name: folder / name for name in ("sketch", "loop", "shuffled", "silence")}
    for place in places.values():
        place.mkdir()
    for number, path in enumerate(paths):
        rng = np.random.default_rng([seed, number])
        score_video(path, places["sketch"] / f"{path.stem}.mp4", seed=seed)
        clip = video.open(path)
        tags = Palette().tag(clip, Tags())
        count = round(clip.duration * RATE)
        pieces = {
            "loop": loop(clip.duration, np.random.default_rng(seed))[0],
            "shuffled": Sketch().generate(reordered(clip, rng), tags, seed).audio,
            "silence": Audio(np.zeros((2, count), np.float32), RATE),
        }
        for name, music in pieces.items():
            out = places[name] / f"{path.stem}.mp4"
            mixer.mix(clip, music, out)
            shutil.copy(places["sketch"] / f"{path.stem}.json", out.with_suffix(".json"))  # for its tags
        print(f"scored {path.name}", flush=True)
    return {name: str(place) for name, place in places.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("more", nargs="*", type=Path, help="further clips")
    parser.add_argument("--count", type=int, default=20, help="how many clips to make")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = [clip.path for clip in make(folder / "clips", args.count, args.seed)] + [EXAMPLE, *args.more]
        systems = {system: evaluate_paths([place]) for system, place in score_all(paths, folder, args.seed).items()}
    print(tables.comparison_markdown(systems))
    shown = {
        system: {name: round(mean.value, 4) for name, mean in tables.column_means(rows).items()}
        for system, rows in systems.items()
    }
    print(json.dumps({"clips": len(paths), **shown}))


if __name__ == "__main__":
    main()
