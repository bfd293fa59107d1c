"""Cut detection against PySceneDetect on clips with known cuts: `uv run python -m bench.cuts`.

PySceneDetect runs at its defaults but for the shortest scene, which is 5 frames as quick edits need it. A cut counts as
found within one frame. The seed makes other clips than those on which v2m's detector was developed (seed 0), of the
same kinds of material. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from scenedetect import AdaptiveDetector, ContentDetector, detect

from bench import clips
from v2m.media import video


def ours(path: Path) -> list[float]:
    return [cut.time for cut in video.open(path).visual_features().cuts]


def scenes(detector: type[AdaptiveDetector | ContentDetector]) -> Callable[[Path], list[float]]:
    return lambda path: [begin.seconds for begin, _ in detect(str(path), detector(min_scene_len=5))[1:]]


def matched(found: Sequence[float], true: Sequence[float], frame: float) -> int:
    """Count the cuts of `found` that have a true cut within one frame."""
    return sum(any(abs(time - cut) <= frame + 1e-3 for cut in true) for time in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--count", type=int, default=12)
    options = parser.parse_args()
    detectors = {"v2m": ours, "adaptive": scenes(AdaptiveDetector), "content": scenes(ContentDetector)}
    counts = {name: [0, 0, 0, 0] for name in detectors}  # found, of them true, cuts, of them found
    with tempfile.TemporaryDirectory() as folder:
        made = clips.make(Path(folder), options.count, options.seed)
        for clip in made:
            frame = 1 / video.open(clip.path).fps
            for name, detector in detectors.items():
                found = detector(clip.path)
                sums = (len(found), matched(found, clip.cuts, frame), len(clip.cuts), matched(clip.cuts, found, frame))
                counts[name] = [total + each for total, each in zip(counts[name], sums, strict=True)]
    figures: dict[str, float] = {"clips": len(made), "cuts": counts["v2m"][2]}
    print(f"{'detector':<10} precision  recall")
    for name, (found, right, cuts, recalled) in counts.items():
        figures |= {f"{name}_precision": round(right / max(found, 1), 3), f"{name}_recall": round(recalled / cuts, 3)}
        print(f"{name:<10} {figures[f'{name}_precision']:9.3f} {figures[f'{name}_recall']:7.3f}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
