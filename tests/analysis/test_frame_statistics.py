"""The fast statistics of frames have every bit of the plain formulas, whatever the size of frames and chunks."""

from __future__ import annotations

import numpy as np
import pytest

from v2m.analysis import shots, visual_features
from v2m.core.types import Pixels

BINS = shots.HISTOGRAM_BINS
WEIGHTS = visual_features.LUMA_WEIGHTS
SHAPES = ((1, 54, 96), (67, 54, 96), (19, 171, 96), (9, 3, 96), (17, 55, 97), (3, 1, 1))


def random_frames(shape: tuple[int, ...], levels: int) -> Pixels:
    return np.random.default_rng(levels).integers(0, levels, (*shape, 3), dtype=np.uint8)


def plain_histogram(frame: Pixels) -> np.ndarray:
    """Each pixel's share is split between two bins, one after the other."""
    colors = frame.reshape(-1, 3).astype(np.float32) / 255
    luma = colors @ WEIGHTS
    bins = np.zeros((3, BINS))
    for axis, values in zip(bins, (luma, colors[:, 0] - luma + 0.5, colors[:, 2] - luma + 0.5), strict=True):
        position = np.clip(values, 0, 1) * (BINS - 1)
        low = np.minimum(position.astype(np.int32), BINS - 2)
        np.add.at(axis, low, 1 - (position - low))
        np.add.at(axis, low + 1, position - low)
    return (bins / len(luma)).astype(np.float32).ravel()


@pytest.mark.parametrize("levels", [256, 9])
@pytest.mark.parametrize("shape", SHAPES)
def test_histograms_are_those_of_single_pixels(shape: tuple[int, ...], levels: int) -> None:
    frames = random_frames(shape, levels)
    assert (shots._color_histogram(frames) == np.stack([plain_histogram(frame) for frame in frames])).all()


@pytest.mark.parametrize("levels", [256, 9])
@pytest.mark.parametrize("shape", SHAPES)
def test_statistics_are_those_of_the_plain_reductions(shape: tuple[int, ...], levels: int) -> None:
    frames = random_frames(shape, levels)
    luma = frames.astype(np.float32) @ (WEIGHTS / 255)
    high, low = frames.max(-1), frames.min(-1)
    saturation = (high - low) / np.maximum(high, visual_features.DARK_LEVEL).astype(np.float32)
    flat = frames.reshape(len(frames), -1, 3).astype(np.float32) @ (WEIGHTS / 255)
    expected = np.stack([flat.mean(1), flat.std(1), saturation.mean((1, 2))])
    assert (visual_features._luma_statistics(frames) == expected).all()
    n, height, width = luma.shape
    if min(height, width) >= 4:
        blocks = luma[:, : height // 2 * 2, : width // 2 * 2].reshape(n, height // 2, 2, width // 2, 2)
        luma = blocks.mean((2, 4))
    assert (visual_features._downsample_luma(frames) == luma).all()
    red, green, blue = (frames[..., channel].astype(int) >> 3 for channel in range(3))
    codes = (red << 10 | green << 5 | blue).ravel()
    assert (visual_features._count_colors(frames) == np.bincount(codes, minlength=1 << 15)).all()
