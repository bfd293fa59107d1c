"""Visual features in one pass over small frames: light, color, motion, cuts.

n frames of a chunk, F all frames, H height, W width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from v2m.analysis.shots import ShotDetector, coarse_grid, frame_blocks
from v2m.analysis.transitions import TransitionDetector
from v2m.core.timing import mean_rate
from v2m.core.types import Floats, Pixels, ProgressFn, VisualFeatures

SCAN_WIDTH = 96  # pixels; the features do not change with more
SCAN_FPS = 60.0  # up to which cuts are exact to the frame
LUMA_WEIGHTS = np.array([0.2126, 0.7152, 0.0722], np.float32)  # ITU-R BT.709
MIN_CHROMA = 0.1  # chroma (largest − smallest of R, G, B) from which a pixel has a hue
MIN_GRADIENT = 0.01  # of luma a pixel; flatter places do not show how they move
DARK_LEVEL = 16  # of 255; below, saturation falls to 0 with the light, since noise in black has any hue
WARMEST_HUE = np.deg2rad(30.0)  # the warmest hue; blue, the coldest, lies opposite


class FrameScanner(Protocol):
    """A source of upright RGB frames with their times in seconds, in order."""

    def scan(self, width: int, fps: float) -> Iterator[tuple[Floats, Pixels]]:
        """Yield times (n,) and frames (n, H, W, 3), about `width` wide, at most about `fps` a second."""
        ...


def extract_features(source: FrameScanner, duration: float, progress: ProgressFn | None = None) -> VisualFeatures:
    """Extract the features of `source`, `duration` seconds long, at every frame up to 60 per second.

    Motion is measured on a coarse grid, to leave out grain; at a cut it is that of the frame after.
    """
    detector, transition_detector = ShotDetector(), TransitionDetector()
    times, luma_statistics, motions, flows = [], [], [], []
    colors = np.zeros(1 << 15)
    last: np.ndarray | None = None
    fine: np.ndarray | None = None
    for chunk_times, frames in source.scan(SCAN_WIDTH, SCAN_FPS):
        grids = coarse_grid(frames)
        detector.add(frames, grids)
        transition_detector.add(chunk_times, grids)
        luma = grids @ LUMA_WEIGHTS
        motions.append(np.abs(np.diff(luma, axis=0, prepend=luma[:1] if last is None else last)).mean((1, 2)))
        last = luma[-1:]
        smooth = _downsample_luma(frames)
        flows.append(_normal_flow(smooth, smooth[:1] if fine is None else fine))
        fine = smooth[-1:]
        times.append(chunk_times)
        luma_statistics.append(_luma_statistics(frames))
        colors += _count_colors(frames)
        if progress is not None:
            progress(min(1.0, float(chunk_times[-1]) / duration))
    assert times, "a video without frames is refused before it is measured"
    timestamps = np.concatenate(times).astype(float)
    brightness, contrast, saturation = np.concatenate(luma_statistics, 1).astype(float)
    cuts = detector.find_cuts(timestamps, brightness, contrast)
    hues, warmth = _hues_and_warmth(colors)
    cut_times = [cut.time for cut in cuts]
    fps = mean_rate(1, float(np.median(np.diff(timestamps)))) if len(timestamps) > 1 else SCAN_FPS
    motion, flow = (_to_rate(timestamps, np.concatenate(part).astype(float), cut_times) for part in (motions, flows))
    transitions = transition_detector.find(timestamps, brightness, contrast, motion, cuts)
    return VisualFeatures(
        fps=fps, times=timestamps, brightness=brightness, saturation=saturation, contrast=contrast, motion=motion,
        flow=flow, hues=hues, warmth=warmth, cuts=cuts,
        transitions=transitions,
    )  # fmt: skip


def _luma_statistics(frames: Pixels) -> np.ndarray:
    """(3, n) mean and standard deviation of luma and mean saturation of each frame."""
    return np.concatenate([_block_statistics(frames[part]) for part in frame_blocks(len(frames))], 1)


def _block_statistics(frames: Pixels) -> np.ndarray:
    luma = frames.reshape(len(frames), -1, 3).astype(np.float32) @ (LUMA_WEIGHTS / 255)
    red, green, blue = (frames[..., channel] for channel in range(3))  # .max(-1) takes ten times as long
    high, low = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    saturation = (high - low) / np.maximum(high, DARK_LEVEL).astype(np.float32)
    return np.stack([luma.mean(1), luma.std(1), saturation.mean((1, 2))])


def _downsample_luma(frames: Pixels) -> np.ndarray:
    """(n, H / 2, W / 2) luma 0–1 of blocks of 2 × 2 pixels, which halves the grain."""
    luma = frames.astype(np.float32) @ (LUMA_WEIGHTS / 255)
    _, height, width = luma.shape
    if min(height, width) < 4:
        return luma
    top, bottom = (luma[:, first : height // 2 * 2 : 2, : width // 2 * 2] for first in (0, 1))
    return ((top[..., ::2] + top[..., 1::2]) + (bottom[..., ::2] + bottom[..., 1::2])) / np.float32(4)


def _normal_flow(luma: np.ndarray, before: np.ndarray) -> np.ndarray:
    """(n,) normal flow: speed from frame to frame, in widths of the frame; `before` is (1, H, W).

    The mean speed along the gradient of luma (Horn and Schunck, "Determining optical flow", 1981), weighted by the
    gradient: half to all of the speed. A change of the overall light is removed.
    """
    change = np.diff(luma, axis=0, prepend=before)
    change -= change.mean((1, 2), keepdims=True)
    down, across = (np.gradient(luma, axis=axis) if luma.shape[axis] > 1 else np.zeros_like(luma) for axis in (1, 2))
    steep = down**2 + across**2
    return (np.abs(change) * np.sqrt(steep)).mean((1, 2)) / (steep.mean((1, 2)) + MIN_GRADIENT**2) / luma.shape[2]


def _to_rate(times: Floats, moves: Floats, cuts: list[float]) -> Floats:
    """(F,) change per second; the first frame and those at `cuts` take the value that follows."""
    motion = moves / np.maximum(np.diff(times, prepend=times[0] - 1), 1e-3)
    for n in reversed([0, *np.searchsorted(times, cuts)]):
        motion[n] = motion[n + 1] if n + 1 < len(motion) else 0.0
    return motion


def _count_colors(frames: Pixels) -> np.ndarray:
    """(2¹⁵,) number of pixels of each color of 5 bits a channel."""
    red, green, blue = (frames[..., channel] for channel in range(3))
    code = (red & 0xF8).astype(np.uint16) << 7 | (green & 0xF8).astype(np.uint16) << 2 | blue >> 3
    return np.bincount(code.ravel(), minlength=1 << 15)


def _hues_and_warmth(count: np.ndarray) -> tuple[Floats, float]:
    """Return hue shares (12,), the first centered on red, and warmth, from blue (−1) to orange (1)."""
    code = np.arange(1 << 15)
    rgb = np.stack([code >> 10, (code >> 5) & 31, code & 31]) / 31
    red, green, blue = rgb
    chroma = rgb.max(0) - rgb.min(0)
    hue = np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue)
    bins = np.round(hue / np.deg2rad(30)).astype(int) % 12
    colored = count * (chroma >= MIN_CHROMA)
    hues = np.bincount(bins, colored, 12) / max(1, colored.sum())
    weight = count * chroma
    warmth = (weight * np.cos(hue - WARMEST_HUE)).sum() / (weight.sum() + MIN_CHROMA / 2 * count.sum())
    return hues, float(warmth)
