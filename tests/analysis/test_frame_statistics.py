"""The fast statistics of frames have every bit of the plain formulas, whatever the size of frames and chunks."""

from __future__ import annotations

import numpy as np
import pytest

from v2m.analysis import shots, transitions, visual_features
from v2m.core.types import Floats, Pixels

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


@pytest.mark.parametrize("levels", [256, 9])
@pytest.mark.parametrize("shape", SHAPES)
def test_coarse_colors_are_the_means_of_their_pixels(shape: tuple[int, ...], levels: int) -> None:
    frames = random_frames(shape, levels)
    grids = shots.coarse_grid(frames)
    rows, columns = (
        np.linspace(0, size, count + 1).astype(int) for size, count in zip(shape[1:], grids.shape[1:3], strict=True)
    )
    for row, column in np.ndindex(grids.shape[1:3]):
        block = frames[:, rows[row] : rows[row + 1], columns[column] : columns[column + 1]]
        total, pixels = block.sum((1, 2)), block.shape[1] * block.shape[2]
        assert (grids[:, row, column] == (total / (255 * pixels)).astype(np.float32)).all()
    assert grids.shape[1:3] == (min(shape[1], shots.GRID_ROWS), min(shape[2], shots.GRID_COLUMNS))


def plain_flashes(times: Floats, brightness: Floats) -> list[tuple[float, float, float]]:
    """Each frame in turn is compared with the five before it and those after one, two and three frames."""
    flashes, n = [], 1
    while n < len(brightness) - 1:
        before = brightness[max(0, n - 5) : n].max()
        for end in range(n + 1, min(n + transitions.FLASH_FRAMES, len(brightness) - 1) + 1):
            rise = brightness[n:end].min() - max(before, brightness[end : end + 5].max())
            if times[end] - times[n] > transitions.FLASH_S:
                break
            if rise > transitions.FLASH_RISE:
                flashes.append((times[n], times[end], min(1.0, 2 * rise)))
                n = end
                break
        n += 1
    return flashes


@pytest.mark.parametrize("seed", range(20))
def test_flashes_are_those_of_a_search_frame_by_frame(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(3, 300))
    brightness = 0.3 * rng.random(count) + 0.5 * (rng.random(count) < 0.15)
    times = np.cumsum(rng.choice([1 / 60, 1 / 25, 0.1], count))
    found = transitions._find_flashes(times, brightness)
    assert [(flash.start, flash.end, flash.strength) for flash in found] == plain_flashes(times, brightness)
    assert found or count < 30
