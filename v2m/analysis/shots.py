"""Where one shot ends and the next begins.

A cut is the only change that parts *all* frames just before it from *all* frames just after it, and does so more than
anything around it. A flash or a blink comes back, a pan or a zoom changes as much in the next frame, a dissolve never
changes much at once, grain has no share in a coarse picture. Two descriptions of a frame are compared in that way: its
coarse grid of colors, and its color histogram, which does not see movement and so finds the cuts in and out of
restless shots. Fades from black are read from the brightness instead.

n frames of a chunk, F all frames, H height, W width, R rows and C columns of the grid, G gaps of 1 to G frames.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from v2m.core.types import Cut, Floats, Pixels

Array = NDArray[np.float32]

ROWS, COLUMNS = 14, 24
BINS = 9  # on each of three axes
GAPS = 25
FLASH = 0.2  # seconds; a change that is gone after that long is a flash
AROUND = 0.5  # seconds to each side in which a cut must stand out
RIVALS = 3  # as many larger changes around make it movement; fewer may be cuts too
FLOOR = 0.03  # mean absolute deviation of a picture that counts as flat, so that noise in the dark is no change
GRID_CHANGE, GRID_RATIO, GRID_NOISE = 0.22, 2.5, 0.03
COLOUR_CHANGE, COLOUR_RATIO, COLOUR_NOISE = 0.2, 3.0, 0.01
BLOCK = 10_000  # frames whose surroundings are in memory at once
BLACK = 0.02  # mean and deviation of luma under which a frame shows nothing
PAUSE = 0.5  # seconds of black that make the picture after it an event, however the black began
FULL_STRENGTH = 0.15  # mean color difference; a video whose strongest cuts stay below has none of strength 1


class CutFinder:
    """Fed with every frame once; keeps some fifty numbers of each."""

    def __init__(self) -> None:
        self._grids = np.zeros((0, 0, 0, 3), np.float32)
        self._histograms = np.zeros((0, 3 * BINS), np.float32)
        self._deviations: list[Array] = []
        self._grid_gaps: list[Array] = []
        self._histogram_gaps: list[Array] = []

    def add(self, frames: Pixels, grids: Array) -> None:
        """The next frames, (n, H, W, 3) RGB, and their `coarse` grids."""
        histograms = _histogram(frames)
        spread = np.abs(grids - grids.mean((1, 2), keepdims=True))
        self._deviations.append(spread.mean((1, 2, 3)).astype(np.float32))
        if len(self._grids):
            grids = np.concatenate([self._grids, grids])
            histograms = np.concatenate([self._histograms, histograms])
        new = len(frames)
        self._grid_gaps.append(_gaps(grids.reshape(len(grids), -1), new) / np.float32(grids[0].size))
        self._histogram_gaps.append(_gaps(histograms, new) / np.float32(6))
        self._grids, self._histograms = grids[-GAPS:], histograms[-GAPS:]

    def cuts(self, times: Floats, brightness: Floats, contrast: Floats) -> tuple[Cut, ...]:
        """The cuts among all frames so far; `times`, `brightness` and `contrast` are theirs, (F,)."""
        if len(times) < 2:
            return ()
        change, deviation = np.concatenate(self._grid_gaps, 1), np.concatenate(self._deviations)
        step = float(np.median(np.diff(times)))
        reach = min(1 + round(FLASH / step), (GAPS + 1) // 2)
        around = max(reach, round(AROUND / step))
        relative = np.stack([row / (_pair_mean(deviation, gap + 1) + FLOOR) for gap, row in enumerate(change)])
        grid = _across(relative, reach)
        color = _across(np.concatenate(self._histogram_gaps, 1), reach)
        grid_excess = grid / (GRID_RATIO * (_rival(grid, around) + GRID_NOISE))
        color_excess = color / (COLOUR_RATIO * (_rival(color, around) + COLOUR_NOISE))
        score = np.maximum(grid_excess * (grid > GRID_CHANGE), color_excess * (color > COLOUR_CHANGE))
        distance = _across(change, reach)
        strength = {n: float(distance[n]) for n in _peaks(score, reach)} | _fades(times, brightness, contrast)
        return _normalized(times, strength)


def coarse(frames: Pixels) -> Array:
    """Mean colors 0–1 of R × C blocks (fewer in a smaller frame), (n, R, C, 3)."""
    rows, columns = (
        np.linspace(0, size, min(size, parts) + 1).astype(int)
        for size, parts in zip(frames.shape[1:3], (ROWS, COLUMNS), strict=True)
    )
    sums = np.add.reduceat(np.add.reduceat(frames.astype(np.float32), rows[:-1], 1), columns[:-1], 2)
    pixels = np.diff(rows)[:, None, None] * np.diff(columns)[:, None]
    return (sums / (255 * pixels)).astype(np.float32)


def _histogram(frames: Pixels) -> Array:
    """Shares of luma, R − luma and B − luma, (n, 3·BINS); linear between bins, so that a drift of light stays small."""
    colors = frames.reshape(len(frames), -1, 3).astype(np.float32) / 255
    luma = colors @ np.array([0.2126, 0.7152, 0.0722], np.float32)
    axes = (luma, np.clip(colors[..., 0] - luma + 0.5, 0, 1), np.clip(colors[..., 2] - luma + 0.5, 0, 1))
    first = np.arange(len(frames))[:, None] * BINS
    parts = []
    for values in axes:
        position = values * (BINS - 1)
        low = np.minimum(position.astype(np.int32), BINS - 2)
        share = position - low
        count = len(frames) * BINS
        bins = np.bincount((low + first).ravel(), (1 - share).ravel(), count)
        bins += np.bincount((low + first + 1).ravel(), share.ravel(), count)
        parts.append(bins.reshape(len(frames), BINS) / luma.shape[1])
    return np.concatenate(parts, 1).astype(np.float32)


def _gaps(vectors: Array, new: int) -> Array:
    """Summed absolute differences of the last `new` vectors to those 1 … G before, (G, new); ∞ before the first."""
    total = len(vectors)
    out = np.full((GAPS, new), np.inf, np.float32)
    for gap in range(1, min(GAPS, total - 1) + 1):
        first = max(total - new, gap)
        out[gap - 1, new - (total - first) :] = np.abs(vectors[first:] - vectors[first - gap : total - gap]).sum(1)
    return out


def _pair_mean(values: Array, gap: int) -> Array:
    """Mean of each value and that `gap` before it; the first ones, which have no partner, stay."""
    out = values.copy()
    out[gap:] = (values[gap:] + values[:-gap]) / 2
    return out


def _across(change: Array, reach: int) -> Floats:
    """The least change between any of the `reach` frames before n and any of the `reach` from n on, (F,)."""
    frames = change.shape[1]
    out = np.full(frames, np.inf)
    for before in range(reach):
        for after in range(min(reach, frames)):
            row = change[before + after]
            out[: frames - after] = np.minimum(out[: frames - after], row[after:])
    out[:reach] = out[frames - reach + 1 :] = 0  # shots too short to be told from a flash
    return out


def _rival(values: Floats, around: int) -> Floats:
    """The `RIVALS`-th largest value within `around` frames of each, itself and its next neighbors left out, (F,)."""
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(values, around), 2 * around + 1)
    out = np.empty_like(values)
    for first in range(0, len(values), BLOCK):
        block = windows[first : first + BLOCK].copy()
        block[:, around - 1 : around + 2] = 0
        out[first : first + BLOCK] = np.partition(block, -RIVALS, 1)[:, -RIVALS]
    return out


def _peaks(score: Floats, reach: int) -> list[int]:
    """Frames whose score is above 1; of several within `reach` the first good one, as a flash blurs what follows."""
    peaks: list[int] = []
    for n in np.flatnonzero(score > 1):
        if (not peaks or n - peaks[-1] >= reach) and score[n] >= 0.8 * score[n : n + reach].max():
            peaks.append(int(n))
    return peaks


def _fades(times: Floats, brightness: Floats, contrast: Floats) -> dict[int, float]:
    """First visible frame after each fade through black, with half the brightness that it reaches: it comes softly."""
    black = (brightness < BLACK) & (contrast < BLACK)
    edges = np.flatnonzero(np.diff(np.r_[False, black, False].astype(int)))
    fades = {}
    for start, end in edges.reshape(-1, 2):
        if end == len(times):
            break
        before = brightness[(times > times[start] - AROUND) & (times < times[start])]
        after = brightness[(times >= times[end]) & (times < times[end] + 2 * AROUND)].max()
        faded_out = start > 0 and brightness[start - 1] < before.max() / 2
        faded_in = after > 4 * BLACK and brightness[end] < after / 2
        if faded_in and (faded_out or times[end] - times[start] >= PAUSE):
            fades[int(end)] = float(after) / 2
    return fades


def _normalized(times: Floats, strength: dict[int, float]) -> tuple[Cut, ...]:
    """Strengths relative to the strong cuts of this video (their ninth decile)."""
    if not strength:
        return ()
    full = max(FULL_STRENGTH, float(np.quantile(list(strength.values()), 0.9)))
    return tuple(Cut(float(times[n]), min(1.0, strength[n] / full)) for n in sorted(strength))
