"""Visual event features: what happens in the video, in equal steps, alike in training and inference.

R steps, C channels, F frames of the video.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from v2m.core.timing import mean_rate, segment_count, segment_times
from v2m.core.types import Cut, Floats, VisualFeatures

EVENT_RATE = 20.0  # Hz
EVENT_CHANNELS = ("cut", "motion", "motion_rise", "flow", "brightness", "flash", "contrast", "saturation")
HALF_MOTION = 0.25  # luma change per second that becomes 0.5: a walk past a still camera
HALF_FLOW = 0.1  # widths of the frame per second that become 0.5


def visual_event_features(
    features: VisualFeatures, start: float, duration: float, rate: float = EVENT_RATE
) -> NDArray[np.float32]:
    """(R, C) features of `duration` seconds from `start`, each of EVENT_CHANNELS within 0–1.

    cut: strength of the strongest cut in the step, else 0. motion, flow: compressed, so that 1 is never reached;
    motion_rise: its increase since the step before, 0 where it fell. flash: the change of brightness, up or down.
    contrast: 1 for half black, half white. A frame is weighted by the time for which it is shown in a step.
    """
    count = segment_count(duration, rate)
    step = duration / count
    edges = np.linspace(start - step, start + duration, count + 2)  # and the step before
    motion = _interval_means(features.times, features.motion / (features.motion + HALF_MOTION), edges)
    brightness = _interval_means(features.times, features.brightness, edges)
    others = features.flow / (features.flow + HALF_FLOW), 2 * features.contrast, features.saturation
    flow, contrast, saturation = (_interval_means(features.times, curve, edges)[1:] for curve in others)
    rise, flash = np.diff(motion).clip(min=0), np.abs(np.diff(brightness))
    cuts = _cut_strengths(features, edges[1:])
    channels = [cuts, motion[1:], rise, flow, brightness[1:], flash, contrast, saturation]
    return np.stack(channels, axis=1).clip(0, 1).astype(np.float32)


def features_from_events(events: NDArray[np.floating], names: Sequence[str], duration: float) -> VisualFeatures:
    """Return the visual features that events (R, C) of channels `names` determine; all others are 0.

    Each cut is in the middle of its step.
    """
    times = segment_times(duration, len(events))
    curves = {name: events[:, column].astype(float) for column, name in enumerate(names)}
    zeros = np.zeros(len(events))
    motion, flow = (curves.get(name, zeros).clip(0, 0.999) for name in ("motion", "flow"))
    cuts = curves.get("cut", zeros)
    return VisualFeatures(
        fps=mean_rate(len(events), duration),
        times=times,
        brightness=curves.get("brightness", zeros),
        saturation=curves.get("saturation", zeros),
        contrast=curves.get("contrast", zeros) / 2,
        motion=HALF_MOTION * motion / (1 - motion),
        flow=HALF_FLOW * flow / (1 - flow),
        hues=np.zeros(12),
        warmth=0.0,
        cuts=tuple(Cut(float(times[step]), float(cuts[step])) for step in np.flatnonzero(cuts > 0)),
    )


def _interval_means(times: Floats, curve: Floats, edges: Floats) -> Floats:
    """Average between `edges` a curve that holds each value until the next of `times`."""
    ends = np.array([min(edges[0], times[0]) - 1.0, max(edges[-1], times[-1]) + 1.0])
    knots = np.concatenate([ends[:1], times, ends[1:]])
    values = np.concatenate([curve[:1], curve])
    area = np.concatenate([[0.0], np.cumsum(values * np.diff(knots))])
    return np.diff(np.interp(edges, knots, area)) / np.diff(edges)


def _cut_strengths(features: VisualFeatures, edges: Floats) -> Floats:
    strengths = np.zeros(len(edges) - 1)
    for cut in features.cuts:
        step = int(np.searchsorted(edges, cut.time + 1e-6, side="right")) - 1  # times are rounded
        if 0 <= step < len(strengths):
            strengths[step] = max(strengths[step], cut.strength)
    return strengths
