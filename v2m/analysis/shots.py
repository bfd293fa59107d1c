"""Shot detection: hard cuts, and fades from black.

Not PySceneDetect or TransNetV2: this shares one pass over small frames with the visual features, needs no weights, and
gives each cut a strength. A cut is the only change that separates *all* frames just before it from *all* frames just
after it, by more than any change around it. A flash or a blink returns to what was before, a pan or a zoom changes as
much in the next frame, a dissolve never changes much at once, grain has no share in a coarse picture. Two descriptors
of a frame are compared in that way: its coarse grid of colors, and its color histogram, which is insensitive to
movement and so finds the cuts in and out of restless shots. Fades from black are read from the brightness instead.

n frames of a chunk, F all frames, H height, W width, R rows and C columns of the grid, G gaps of 1 to G frames.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from v2m.core.types import Cut, Floats, Pixels

Array = NDArray[np.float32]

GRID_ROWS, GRID_COLUMNS = 14, 24
HISTOGRAM_BINS = 9  # on each of three axes
MAX_GAP = 25
FLASH_S = 0.2  # a change that is gone after that long is a flash
CONTEXT_S = 0.5  # on each side, in which a cut must stand out
NUM_RIVALS = 3  # larger changes around a candidate that make it movement; fewer may be cuts too
FLAT_DEVIATION = 0.03  # mean absolute deviation of a flat picture, so that noise in the dark is no change
GRID_CHANGE, GRID_RATIO, GRID_NOISE = 0.22, 2.5, 0.03
HISTOGRAM_CHANGE, HISTOGRAM_RATIO, HISTOGRAM_NOISE = 0.2, 3.0, 0.01
CACHE_FRAMES = 8  # of some 100 pixels' width
BLOCK_FRAMES = 10_000  # frames whose context is in memory at once
BLACK_LEVEL = 0.02  # mean and deviation of luma under which a frame shows nothing
MIN_BLACK_S = 0.5  # after which a fade-in counts, whether or not the black began with a fade
FULL_STRENGTH = 0.15  # mean color difference of a cut of strength 1, at least


class ShotDetector:
    """A detector that takes every frame once and keeps some fifty numbers of each."""

    def __init__(self) -> None:
        self._grids = np.zeros((0, 0, 0, 3), np.float32)
        self._histograms = np.zeros((0, 3 * HISTOGRAM_BINS), np.float32)
        self._deviations: list[Array] = []
        self._grid_differences: list[Array] = []
        self._histogram_differences: list[Array] = []

    def add(self, frames: Pixels, grids: Array) -> None:
        """Add the next frames, (n, H, W, 3) RGB, and their `coarse_grid`."""
        histograms = _color_histogram(frames)
        spread = np.abs(grids - grids.mean((1, 2), keepdims=True))
        self._deviations.append(spread.mean((1, 2, 3)).astype(np.float32))
        if len(self._grids):
            grids = np.concatenate([self._grids, grids])
            histograms = np.concatenate([self._histograms, histograms])
        new = len(frames)
        differences = _lagged_differences(grids.reshape(len(grids), -1), new)
        self._grid_differences.append(differences / np.float32(grids[0].size))
        self._histogram_differences.append(_lagged_differences(histograms, new) / np.float32(6))
        self._grids, self._histograms = grids[-MAX_GAP:], histograms[-MAX_GAP:]

    def find_cuts(self, times: Floats, brightness: Floats, contrast: Floats) -> tuple[Cut, ...]:
        """Return the cuts among all frames so far; `times`, `brightness` and `contrast` are theirs, (F,)."""
        if len(times) < 2:
            return ()
        change, deviation = np.concatenate(self._grid_differences, 1), np.concatenate(self._deviations)
        step = float(np.median(np.diff(times)))
        reach = min(1 + round(FLASH_S / step), (MAX_GAP + 1) // 2)
        around = max(reach, round(CONTEXT_S / step))
        relative = np.stack([row / (_pair_mean(deviation, gap + 1) + FLAT_DEVIATION) for gap, row in enumerate(change)])
        grid = _min_across_boundary(relative, reach)
        color = _min_across_boundary(np.concatenate(self._histogram_differences, 1), reach)
        grid_excess = grid / (GRID_RATIO * (_kth_largest_nearby(grid, around) + GRID_NOISE))
        color_excess = color / (HISTOGRAM_RATIO * (_kth_largest_nearby(color, around) + HISTOGRAM_NOISE))
        score = np.maximum(grid_excess * (grid > GRID_CHANGE), color_excess * (color > HISTOGRAM_CHANGE))
        distance = _min_across_boundary(change, reach)
        strength = {n: float(distance[n]) for n in _pick_peaks(score, reach)} | _find_fades(times, brightness, contrast)
        return _normalized(times, strength)


def coarse_grid(frames: Pixels) -> Array:
    """(n, R, C, 3) mean colors 0–1 of R × C blocks, fewer in a smaller frame."""
    height, width = frames.shape[1:3]
    rows, columns = _memberships(height, GRID_ROWS), _memberships(width, GRID_COLUMNS)
    pixels = rows.sum(1, dtype=int)[:, None, None] * columns.sum(1, dtype=int)[:, None]
    grids = []
    for part in frame_blocks(len(frames)):
        lines = rows @ frames[part].astype(np.float32).reshape(-1, height, 3 * width)  # whole numbers, so exact
        sums = columns @ lines.reshape(-1, len(rows), width, 3)
        grids.append((sums / (255 * pixels)).astype(np.float32))
    return np.concatenate(grids)


def _memberships(size: int, count: int) -> Array:
    """(`count`, `size`) 1 where a line of pixels belongs to a block, else 0; fewer blocks than lines."""
    edges = np.linspace(0, size, min(size, count) + 1).astype(int)
    lines = np.arange(size)
    return ((lines >= edges[:-1, None]) & (lines < edges[1:, None])).astype(np.float32)


def _color_histogram(frames: Pixels) -> Array:
    """(n, 3 · bins) shares of luma, R − luma and B − luma, split linearly between two bins."""
    return np.concatenate([_block_histogram(frames[part]) for part in frame_blocks(len(frames))])


def _block_histogram(frames: Pixels) -> Array:
    colors = frames.reshape(len(frames), -1, 3).astype(np.float32) / 255
    luma = colors @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    axes = (luma, np.clip(colors[..., 0] - luma + 0.5, 0, 1), np.clip(colors[..., 2] - luma + 0.5, 0, 1))
    count = len(frames) * HISTOGRAM_BINS
    first = np.arange(0, count, HISTOGRAM_BINS)[:, None]
    parts = []
    for values in axes:
        position = values * (HISTOGRAM_BINS - 1)
        low = np.minimum(position.astype(np.int32), HISTOGRAM_BINS - 2)
        number = (low + first).ravel()
        upper = np.bincount(number, (position - low.astype(np.float32)).ravel(), count)  # what the next bin gets
        bins = np.bincount(number, minlength=count) - upper
        bins[1:] += upper[:-1]
        parts.append(bins.reshape(len(frames), HISTOGRAM_BINS) / luma.shape[1])
    return np.concatenate(parts, 1).astype(np.float32)


def frame_blocks(count: int) -> Iterator[slice]:
    """Yield slices of `count` frames, so small that work on them stays in the processor's cache."""
    return (slice(first, first + CACHE_FRAMES) for first in range(0, count, CACHE_FRAMES))


def _lagged_differences(vectors: Array, num_new: int) -> Array:
    """(G, num_new) summed differences of the last vectors to those 1 … G before; ∞ before the first."""
    total = len(vectors)
    out = np.full((MAX_GAP, num_new), np.inf, np.float32)
    for gap in range(1, min(MAX_GAP, total - 1) + 1):
        first = max(total - num_new, gap)
        out[gap - 1, num_new - (total - first) :] = np.abs(vectors[first:] - vectors[first - gap : total - gap]).sum(1)
    return out


def _pair_mean(values: Array, gap: int) -> Array:
    """Average each value with that `gap` before it; the first `gap` values stay."""
    out = values.copy()
    out[gap:] = (values[gap:] + values[:-gap]) / 2
    return out


def _min_across_boundary(change: Array, reach: int) -> Floats:
    """(F,) the least change between any of the `reach` frames before n and any of the `reach` from n on."""
    frames = change.shape[1]
    out = np.full(frames, np.inf)
    for before in range(reach):
        for after in range(min(reach, frames)):
            row = change[before + after]
            out[: frames - after] = np.minimum(out[: frames - after], row[after:])
    out[:reach] = out[frames - reach + 1 :] = 0  # shots too short to be distinguished from a flash
    return out


def _kth_largest_nearby(values: Floats, reach: int) -> Floats:
    """(F,) the `NUM_RIVALS`-th largest value within `reach` frames, the three in the middle left out."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(values, reach), 2 * reach + 1)
    out = np.empty_like(values)
    for first in range(0, len(values), BLOCK_FRAMES):
        block = windows[first : first + BLOCK_FRAMES].copy()
        block[:, reach - 1 : reach + 2] = 0
        out[first : first + BLOCK_FRAMES] = np.partition(block, -NUM_RIVALS, 1)[:, -NUM_RIVALS]
    return out


def _pick_peaks(score: Floats, reach: int) -> list[int]:
    """Return frames that score above 1; of several within `reach` the first good one."""
    peaks: list[int] = []
    for n in np.flatnonzero(score > 1):
        if (not peaks or n - peaks[-1] >= reach) and score[n] >= 0.8 * score[n : n + reach].max():
            peaks.append(int(n))
    return peaks


def _find_fades(times: Floats, brightness: Floats, contrast: Floats) -> dict[int, float]:
    """Return the first visible frame of each fade from black: half the brightness that it reaches."""
    black = (brightness < BLACK_LEVEL) & (contrast < BLACK_LEVEL)
    edges = np.flatnonzero(np.diff(np.r_[False, black, False].astype(int)))
    fades = {}
    for start, end in edges.reshape(-1, 2):
        if end == len(times):
            break
        before = brightness[(times > times[start] - CONTEXT_S) & (times < times[start])]
        after = brightness[(times >= times[end]) & (times < times[end] + 2 * CONTEXT_S)].max()
        faded_out = start > 0 and brightness[start - 1] < before.max() / 2
        faded_in = after > 4 * BLACK_LEVEL and brightness[end] < after / 2
        if faded_in and (faded_out or times[end] - times[start] >= MIN_BLACK_S):
            fades[int(end)] = float(after) / 2
    return fades


def _normalized(times: Floats, strength: dict[int, float]) -> tuple[Cut, ...]:
    """Scale strengths relative to the strong cuts of this video (their ninth decile)."""
    if not strength:
        return ()
    full = max(FULL_STRENGTH, float(np.quantile(list(strength.values()), 0.9)))
    return tuple(Cut(float(times[n]), min(1.0, strength[n] / full)) for n in sorted(strength))
