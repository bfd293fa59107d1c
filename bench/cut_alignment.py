"""Cuts met by the default recipe: `uv run python -m bench.cut_alignment [more clips …]`.

Generates clips whose cuts are known to the frame, runs the default recipe on them, and compares the beats of its music
with the true cuts, not with the detected ones. The example and clips given as arguments follow with their detected
cuts and stay out of the totals. `--no-smoothing` leaves out `v2m.sketch.plan.tempo_smoothing`. Chance and the shuffled
control are those of `v2m.analysis.synchrony`. Last line: one JSON object, with shares of all cuts of the generated
clips.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.clips import EXAMPLE, make
from v2m.analysis.synchrony import CutAlignment, cut_alignment, distance_to_nearest
from v2m.core.types import Floats, Tags
from v2m.generators.sketch import Sketch
from v2m.media import video
from v2m.media.video import Limits
from v2m.sketch.plan import tempo_smoothing
from v2m.taggers.heuristic import HeuristicTagger

SHARES = ("hits", "hits_100ms", "downbeat_hits", "chance", "chance_100ms", "chance_downbeats", "shuffled")
HEADER = f"{'clip':<24}{'s':>6}{'cuts':>6}{'style':>15}{'BPM':>5}{'range':>13}" + "".join(
    f"{title:>10}" for title in ("hits", "chance", "shuffled", "median ms", "downbeats", "chance")
)


@dataclass(frozen=True)
class Row:
    """The result of one clip. `distances`: seconds from each cut to its nearest beat."""

    name: str
    seconds: float
    alignment: CutAlignment
    distances: Floats
    style: str
    tempo: float
    tempi: tuple[float, float]

    def __str__(self) -> str:
        low, high = self.tempi
        start = f"{self.name:<24}{self.seconds:>6.1f}{self.alignment.n:>6}{self.style:>15}{self.tempo:>5.0f}"
        figures = (self.alignment.hits, self.alignment.chance, self.alignment.shuffled, self.alignment.median_ms)
        bars = (self.alignment.downbeat_hits, self.alignment.chance_downbeats)
        columns = [f"{'–' if value is None else f'{value:.2f}':>10}" for value in (*figures, *bars)]
        return f"{start}{f'{low:.1f}–{high:.1f}':>13}{''.join(columns)}"


def measure(path: Path, cuts: Sequence[float] | None, seed: int) -> Row:
    """Run the recipe on one clip; `cuts` None takes the detected ones."""
    clip = video.open(path, Limits())
    tags = HeuristicTagger().tag(clip, Tags())
    music = Sketch().generate(clip, tags, seed)
    assert music.beats is not None
    times = [cut.time for cut in clip.visual_features().cuts] if cuts is None else cuts
    alignment = cut_alignment(times, music.beats, music.downbeats, duration=clip.duration)
    low, high = music.metadata["tempo_range"]
    distances = distance_to_nearest(times, music.beats) if len(times) else np.zeros(0)
    return Row(
        path.stem, clip.duration, alignment, distances, music.metadata["style"], music.metadata["tempo"], (low, high)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("more", nargs="*", type=Path, help="further clips, shown with their detected cuts")
    parser.add_argument("--count", type=int, default=12, help="how many clips to make")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-smoothing", action="store_true", help="leave out tempo smoothing")
    args = parser.parse_args()
    if args.no_smoothing:
        tempo_smoothing.smooth_tempo = lambda constraints, grid: grid  # noqa: ARG005 - the shape of smooth_tempo
    print(HEADER)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for clip in make(Path(folder), args.count, args.seed):
            rows.append(measure(clip.path, clip.cuts, args.seed))
            print(rows[-1], flush=True)
    print("with detected cuts:")
    for path in (EXAMPLE, *args.more):
        print(measure(path, None, args.seed), flush=True)
    cuts = [row.alignment.n for row in rows]
    totals = {
        name: round(float(np.average([getattr(row.alignment, name) for row in rows], weights=cuts)), 4)
        for name in SHARES
    }
    named = {
        f"{name}_70ms" if name in {"hits", "chance", "shuffled"} else name: value for name, value in totals.items()
    }
    median = round(1000 * float(np.median(np.concatenate([row.distances for row in rows]))), 1)
    print(json.dumps({**named, "median_ms": median, "cuts": sum(cuts), "clips": len(rows)}))


if __name__ == "__main__":
    main()
