"""Dynamics that follow the picture: levels of the mix, and the activity of each beat.

The levels are hand-tuned on seeds 0 and 4 of `bench/cut_alignment.py`. K steps of 1 / `LEVEL_RATE` s,
E beats.
"""

from __future__ import annotations

import numpy as np

from v2m.core import timing
from v2m.core.types import Floats, VisualFeatures

LEVEL_RATE = 10.0  # levels a second
MOTION_RANGE_DB = 7.0  # from the stillest to the liveliest second, where the motion differs much
SMOOTHING_S = 1.0
FULL_OCTAVES = 3.0  # ratio of lively to still motion that makes the full range
SWELL_DB = 2.5  # at the middle of a dissolve
BREATH_DB = -10.0  # where a fade has ended
RETURN_S = 0.4  # after a fade out without a fade in


def plan_levels(features: VisualFeatures, duration: float) -> Floats:
    """Return (K,) levels of the mix in dB along the video: louder with motion, a swell, a breath."""
    times = timing.time_grid(LEVEL_RATE, duration + 1 / LEVEL_RATE)
    levels = MOTION_RANGE_DB * (motion_rank(features, times) - 0.5)
    for part in features.transitions:
        middle = (part.start + part.end) / 2
        if part.kind == "dissolve":
            levels += np.interp(times, [part.start, middle, part.end], [0.0, SWELL_DB, 0.0])
        elif part.kind == "fade out":
            levels += np.interp(times, [part.start, part.end, part.end + RETURN_S], [0.0, BREATH_DB, 0.0])
    return levels


def plan_activity(features: VisualFeatures, edges: Floats) -> Floats:
    """Return (E,) activity 0–1 of each beat, the rank of its motion; edges: (E + 1,) in seconds."""
    return motion_rank(features, (edges[:-1] + edges[1:]) / 2)


def motion_rank(features: VisualFeatures, times: Floats) -> Floats:
    """Return (K,) ranks 0–1 of the motion at `times`, nearer to 0.5 where it hardly differs."""
    edges = np.concatenate([times - SMOOTHING_S / 2, times + SMOOTHING_S / 2])
    total = np.append(0.0, np.cumsum(features.motion))
    low, high = np.searchsorted(features.times, edges).reshape(2, -1)
    motion = (total[high] - total[low]) / np.maximum(high - low, 1)
    still, lively = np.percentile(motion, [10, 90])
    spread = min(1.0, float(np.log2((lively + 1e-3) / (still + 1e-3))) / FULL_OCTAVES)
    ranks = np.searchsorted(np.sort(motion), motion, side="left") + np.searchsorted(np.sort(motion), motion, "right")
    return 0.5 + spread * (ranks / (2 * len(motion)) - 0.5)
