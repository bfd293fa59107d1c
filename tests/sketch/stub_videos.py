"""Stub videos without pixels: visual features with known cuts and a motion that rises and falls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from v2m.core.types import Cut, Pixels, ProgressFn, Soundtrack, Tags, Video, VisualFeatures
from v2m.generators.sketch import Sketch
from v2m.sketch.compose.arrange import Piece, compose
from v2m.sketch.plan.planner import plan_for_style
from v2m.sketch.styles import STYLES

CUTS = ((5.2, 0.6), (9.9, 0.9), (14.1, 0.5), (19.7, 1.0), (24.3, 0.7))
SECONDS = 22.0  # of a rendered piece
Cuts = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class StubFrameSource:
    """A frame source with visual features and no frames."""

    features: VisualFeatures

    def frames_at(self, times: Sequence[float], width: int | None = None, convert: object = None) -> Pixels:
        raise AssertionError("Sketch reads features, not frames")

    def visual_features(self, progress: ProgressFn | None = None) -> VisualFeatures:
        return self.features


def video(duration: float = 30.0, cuts: Cuts = CUTS) -> Video:
    times = np.arange(max(1, int(np.ceil(duration * 10)))) / 10
    motion = np.interp(times / duration, [0, 0.15, 0.35, 0.65, 0.85, 1], [0.1, 0.3, 0.5, 0.9, 0.7, 0.2])
    flat = np.full(len(times), 0.4)
    inside = tuple(Cut(time, strength) for time, strength in cuts if time < duration)
    features = VisualFeatures(10.0, times, flat, flat, flat / 2, motion, motion, np.ones(12) / 12, 0.1, inside)
    frames = np.arange(max(1, int(duration * 25))) / 25
    return Video(
        Path("drawn.mp4"), "mp4", "h264", 640, 360, 0, 25.0, duration, frames, 0.0, (), source=StubFrameSource(features)
    )


def compose_piece(
    style: str, seed: int, tags: Tags | None = None, *, duration: float = 30.0, cuts: Cuts = CUTS
) -> Piece:
    """Compose a piece without rendering it."""
    style_data = STYLES[style]
    plan = plan_for_style(style_data, video(duration, cuts).visual_features(), duration, Tags(), seed)
    return compose(plan, style_data, tags or Tags(), seed)


@lru_cache(maxsize=32)
def render_piece(style: str, seed: int, duration: float = SECONDS) -> Soundtrack:
    """Render a piece with its stems."""
    return Sketch(style).generate(video(duration), Tags(), seed, stems=True)
