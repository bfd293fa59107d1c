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


def v2m_cuts(path: Path) -> list[float]:
    return [cut.time for cut in video.open(path).visual_features().cuts]


def make_detector(detector: type[AdaptiveDetector | ContentDetector]) -> Callable[[Path], list[float]]:
    return lambda path: [start.seconds for start, _ in detect(str(path), detector(min_scene_len=5))[1:]]


def count_matches(detected: Sequence[float], true: Sequence[float], frame: float) -> int:
    """Count the cuts of `detected` that have a true cut within one frame."""
    return sum(any(abs(time - cut) <= frame + 1e-3 for cut in true) for time in detected)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--count", type=int, default=12)
    args = parser.parse_args()
    detectors = {
        "v2m": v2m_cuts,
        "adaptive": make_detector(AdaptiveDetector),
        "content": make_detector(ContentDetector),
    }
    counts = {name: [0, 0, 0, 0] for name in detectors}  # found, of them true, cuts, of them found
    with tempfile.TemporaryDirectory() as folder:
        generated = clips.make(Path(folder), args.count, args.seed)
        for clip in generated:
            frame = 1 / video.open(clip.path).fps
            for name, detector in detectors.items():
                detected = detector(clip.path)
                sums = (
                    len(detected),
                    count_matches(detected, clip.cuts, frame),
                    len(clip.cuts),
                    count_matches(clip.cuts, detected, frame),
                )
                counts[name] = [total + count for total, count in zip(counts[name], sums, strict=True)]
    figures: dict[str, float] = {"clips": len(generated), "cuts": counts["v2m"][2]}
    print(f"{'detector':<10} precision  recall")
    for name, (num_detected, num_right, num_cuts, num_recalled) in counts.items():
        figures |= {
            f"{name}_precision": round(num_right / max(num_detected, 1), 3),
            f"{name}_recall": round(num_recalled / num_cuts, 3),
        }
        print(f"{name:<10} {figures[f'{name}_precision']:9.3f} {figures[f'{name}_recall']:7.3f}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
