"""Transition detection: dissolves, fades, flashes, and sudden motion within a shot.

It shares the one pass over small frames with `shots`. A dissolve is a span whose pictures are linear blends of its two
ends, at a constant rate, with hardly any change in that direction before and after; textures that are averaged lose
contrast, which a change of light does not (Lienhart, "Reliable transition detection in videos", 2001). A fade is a ramp
of the contrast to or from an even picture. A flash is brighter than all around it for at most three frames. Sudden
motion is a peak of the motion far above that around it, away from all others.

n frames of a chunk, F all frames, K time steps at `RATE`, P = 3 · rows · columns values of a coarse picture, S spans.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from v2m.core import timing
from v2m.core.types import Cut, Floats, Transition

Array = NDArray[np.float32]

LUMA_WEIGHTS = np.array([0.2126, 0.7152, 0.0722], np.float32)  # ITU-R BT.709

MIN_FRAMES = 6  # of a video that can have transitions
RATE = 20.0  # time steps per second of the search for dissolves
KEPT_FPS = 31.0  # frames kept per second, at most
# Dissolves
SPAN_STEPS = (5, 6, 8, 10, 13, 16, 20, 26, 32, 40)  # lengths that are tried
BLOCK_STEPS = 4096  # time steps whose spans are compared at once, which bounds the memory
MIN_DIFFERENCE = 0.05  # mean difference of the colors 0–1 of a dissolve's ends
MAX_RESIDUAL = 0.38  # distance of the pictures to the blends of the ends, as a share of the ends' distance
MAX_OUTSIDE = 0.1  # share of the change that may happen before and after, each within a third of the span
MAX_JUMP = 0.25  # share of the change by which one eighth of the span may differ from an eighth
MIN_DIP = 0.08  # share of the contrast that is missing, against a ramp
MAX_EXCESS, EXCESS_SLOPE = 0.05, 0.6  # share of contrast beyond a blend's, and how much more for a larger difference
# Fades
EVEN_CONTRAST, EVENEST_CONTRAST = 0.03, 0.015  # deviation of luma near, and at the end of a fade
EVEN_SLACK = 0.003  # by which the contrast may differ among pictures that are equally even
MIN_CONTRAST = 0.03  # of a picture that fades
FADE_S = (0.2, 3.0)
SLOPE_FRAMES, MIN_RAMP_SHARE = 8, 0.75  # frames whose median slope is the ramp's; share of it at which the ramp ends
FADE_SLACK = 0.04  # share by which the contrast may go against the ramp from frame to frame
BLACK, WHITE = 0.1, 0.85  # brightness of an even picture below, above which it is black, white
# Flashes and motion
FLASH_FRAMES, FLASH_S = 3, 0.13
FLASH_RISE = 0.1  # of the brightness
MOTION_WINDOW_S = 1.0  # on each side
SUDDEN_SHARE = 0.45  # of the rise, that comes with one frame
MOTION_RATIO, MIN_MOTION_RISE = 2.0, 0.3  # above the median motion around, in luma change per second
MOTION_CLEARANCE_S = 0.25  # from cuts and other transitions
SAME_MOTION_S = 0.4


class TransitionDetector:
    """A detector that takes every frame once and keeps a coarse picture of at most `KEPT_FPS` a second."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._pictures: list[NDArray[np.float16]] = []

    def add(self, times: Floats, grids: Array) -> None:
        """Add the next frames: their times (n,) and `coarse_grid` (n, R, C, 3)."""
        kept = []
        for index, time in enumerate(times):
            if not self._times or time - self._times[-1] >= 1 / KEPT_FPS:
                self._times.append(float(time))
                kept.append(index)
        if kept:
            self._pictures.append(_halve(grids[kept]).astype(np.float16))

    def find(
        self, times: Floats, brightness: Floats, contrast: Floats, motion: Floats, cuts: tuple[Cut, ...]
    ) -> tuple[Transition, ...]:
        """Return the transitions among all frames so far, in order; the curves are theirs, (F,)."""
        if len(times) < MIN_FRAMES:
            return ()
        fades = _find_fades(times, brightness, contrast)
        flashes = _find_flashes(times, brightness)
        dissolves = [
            span for span in self._find_dissolves(times, contrast, cuts) if not _overlaps(span, [*fades, *flashes])
        ]
        motions = _find_sudden_motion(times, motion, cuts, [*fades, *flashes, *dissolves])
        return tuple(sorted([*fades, *flashes, *dissolves, *motions], key=lambda span: span.start))

    def _find_dissolves(self, times: Floats, contrast: Floats, cuts: tuple[Cut, ...]) -> list[Transition]:
        steps = timing.time_grid(RATE, float(times[-1]))
        shown = timing.frame_index_at(np.array(self._times), steps)
        pictures = np.concatenate(self._pictures)
        pictures = pictures.reshape(len(pictures), -1)[shown].astype(np.float32)  # (K, P)
        deviation = contrast[timing.frame_index_at(times, steps)]
        cut_steps = np.array([cut.time * RATE for cut in cuts])
        spans: list[tuple[float, int, int, float]] = []  # cost, first, last, difference
        for length in SPAN_STEPS:
            for first in range(0, len(pictures) - length, BLOCK_STEPS):
                block = slice(first, min(first + BLOCK_STEPS + length, len(pictures)))
                costs, differences = _blend_costs(pictures, deviation, block, length)
                for start in np.flatnonzero(np.isfinite(costs)):
                    low = first + int(start)
                    is_cut = ((cut_steps > low + 0.5) & (cut_steps < low + length + 0.5)).any()
                    if not is_cut:
                        spans.append((float(costs[start]), low, low + length, float(differences[start])))
        chosen: list[Transition] = []
        for _, low, high, difference in sorted(spans):
            span = Transition("dissolve", float(steps[low]), float(steps[high]), min(1.0, 4 * difference))
            if not _overlaps(span, chosen):
                chosen.append(span)
        return chosen


def _halve(grids: Array) -> Array:
    """Average blocks of 2 × 2 where there are enough."""
    n, rows, columns, _ = grids.shape
    if min(rows, columns) < 4:
        return grids
    return grids[:, : rows // 2 * 2, : columns // 2 * 2].reshape(n, rows // 2, 2, columns // 2, 2, 3).mean((2, 4))


def _blend_costs(pictures: Array, deviation: Floats, block: slice, length: int) -> tuple[Floats, Floats]:
    """Return (S,) costs of spans of `length` steps as dissolves, ∞ for none, and differences of ends."""
    starts = np.arange(block.start, block.stop - length)
    ends = starts + length
    change = pictures[ends] - pictures[starts]  # (S, P)
    difference = np.abs(change).mean(1)
    power = np.maximum((change**2).sum(1), 1e-9)
    cost = np.full(len(starts), np.inf)
    rows = np.flatnonzero(difference >= MIN_DIFFERENCE)
    if not len(rows):
        return cost, difference.astype(float)
    starts, ends, change, power = starts[rows], ends[rows], change[rows], power[rows]
    residual, jump, before_share = np.zeros(len(rows)), np.zeros(len(rows)), np.zeros(len(rows))
    offsets = np.unique(np.rint(np.linspace(0, length, 9)).astype(int))
    for low, offset in pairwise(offsets):
        moved = pictures[starts + offset] - pictures[starts]
        share = (moved * change).sum(1) / power
        jump = np.maximum(jump, np.abs(share - before_share - (offset - low) / length))
        before_share = share
        if offset < length:
            residual += ((moved - offset / length * change) ** 2).sum(1) / power
    residual = np.sqrt(residual / max(1, len(offsets) - 2))
    reach = max(2, round(length / 3))
    before = pictures[np.maximum(starts - reach, 0)] - pictures[starts]
    after = pictures[np.minimum(ends + reach, len(pictures) - 1)] - pictures[ends]
    outside = np.maximum(np.abs((before * change).sum(1)), np.abs((after * change).sum(1))) / power
    dip, excess = _contrast_of_blend(pictures, deviation, starts, length)
    is_dissolve = (residual < MAX_RESIDUAL) & (outside < MAX_OUTSIDE) & (jump < MAX_JUMP) & (dip > MIN_DIP)
    is_dissolve &= excess < MAX_EXCESS + EXCESS_SLOPE * difference[rows]
    is_dissolve &= np.minimum(deviation[starts], deviation[ends]) > EVEN_CONTRAST
    cost[rows[is_dissolve]] = (residual + outside)[is_dissolve]
    return cost, difference.astype(float)


def _contrast_of_blend(pictures: Array, deviation: Floats, starts: np.ndarray, length: int) -> tuple[Floats, Floats]:
    """Return (S,) the shares of contrast missing against a ramp, and in excess of a blend's.

    The contrast of a blend follows from that of its ends and from their covariance, here that of coarse pictures.
    """
    ends = starts + length
    first, last = ((luma - luma.mean(1, keepdims=True)) for luma in (_luma(pictures[starts]), _luma(pictures[ends])))
    covariance = (first * last).mean(1)
    dip, excess = np.zeros(len(starts)), np.zeros(len(starts))
    for part in (0.25, 0.5, 0.75):
        offset = round(part * length)
        share = offset / length
        ramp = (1 - share) * deviation[starts] + share * deviation[ends]
        power = ((1 - share) * deviation[starts]) ** 2 + (share * deviation[ends]) ** 2
        blend = np.sqrt(np.maximum(power + 2 * share * (1 - share) * covariance, 1e-9))
        dip += (1 - deviation[starts + offset] / np.maximum(ramp, 1e-6)) / 3
        excess += (deviation[starts + offset] / blend - 1) / 3
    return dip, excess


def _luma(pictures: Array) -> Array:
    return pictures.reshape(len(pictures), -1, 3) @ LUMA_WEIGHTS


def _overlaps(span: Transition, others: list[Transition]) -> bool:
    return any(span.start < other.end and other.start < span.end for other in others)


def _find_fades(times: Floats, brightness: Floats, contrast: Floats) -> list[Transition]:
    """Return ramps of the contrast to and from even pictures: "fade out" and "fade in"."""
    even = contrast < EVEN_CONTRAST
    edges = np.flatnonzero(np.diff(np.r_[False, even, False].astype(int))).reshape(-1, 2)
    fades: list[Transition] = []
    for start, stop in edges:
        evenest = np.flatnonzero(contrast[start:stop] <= contrast[start:stop].min() + EVEN_SLACK) + start
        first, last = int(evenest[0]), int(evenest[-1])
        if contrast[first] > EVENEST_CONTRAST or BLACK < brightness[first] < WHITE:
            continue
        begin, end = _walk_ramp(times, contrast, first, -1), _walk_ramp(times, contrast, last, 1)
        if _is_ramp(times, contrast, begin, first):
            fades.append(Transition("fade out", float(times[begin]), float(times[first]), 1.0))
        if _is_ramp(times, contrast, last, end):
            fades.append(Transition("fade in", float(times[last]), float(times[end]), 1.0))
    return fades


def _walk_ramp(times: Floats, contrast: Floats, index: int, direction: int) -> int:
    """Return the frame at which the contrast, which rises from frame `index` on, leaves its ramp."""
    start, top, slopes = index, index, []
    while 0 <= index + direction < len(contrast):
        value, seconds = contrast[index + direction], abs(times[index + direction] - times[start])
        if value < contrast[top] * (1 - FADE_SLACK) - EVEN_SLACK or seconds > FADE_S[1]:
            break
        index += direction
        rise = value - contrast[start]
        slopes.append(rise / max(seconds, 1e-6))
        if len(slopes) > SLOPE_FRAMES and rise < MIN_RAMP_SHARE * float(np.median(slopes[:SLOPE_FRAMES])) * seconds:
            break
        top = index if value > contrast[top] else top
    return top


def _is_ramp(times: Floats, contrast: Floats, first: int, last: int) -> bool:
    """Return whether the contrast from frame `first` to `last` is a ramp, not a cut, of a fade's length."""
    seconds = float(times[last] - times[first])
    full = max(contrast[first], contrast[last])
    middle = contrast[(first + last) // 2] / max(full, 1e-6)
    return FADE_S[0] <= seconds <= FADE_S[1] and full >= MIN_CONTRAST and 0.2 < middle < 0.8


def _find_flashes(times: Floats, brightness: Floats) -> list[Transition]:
    """Return runs of up to three frames that are brighter than all around them."""
    flashes: list[Transition] = []
    padded = np.concatenate([np.full(5, -np.inf), brightness[:-1]])
    recent = np.lib.stride_tricks.sliding_window_view(padded, 5).max(1)  # of the five frames before each
    end = 1
    for n in (np.flatnonzero(brightness[1:-1] - recent[1:-1] > FLASH_RISE) + 1).tolist():
        if n < end:
            continue
        for count in range(1, FLASH_FRAMES + 1):
            after = brightness[n + count : n + count + 5]
            if not len(after) or times[min(n + count, len(times) - 1)] - times[n] > FLASH_S:
                break
            rise = float(brightness[n : n + count].min() - max(recent[n], after.max()))
            if rise > FLASH_RISE:
                flashes.append(Transition("flash", float(times[n]), float(times[n + count]), min(1.0, 2 * rise)))
                end = n + count + 1
                break
    return flashes


def _find_sudden_motion(
    times: Floats, motion: Floats, cuts: tuple[Cut, ...], others: list[Transition]
) -> list[Transition]:
    """Return peaks of the motion far above that around them, which it reaches from one frame to the next."""
    step = float(np.median(np.diff(times)))
    reach = max(2, round(MOTION_WINDOW_S / step))
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(np.convolve(motion, np.full(MIN_FRAMES - 1, 1 / (MIN_FRAMES - 1)), mode="same"), reach, mode="edge"),
        2 * reach + 1,
    )
    usual = np.concatenate([np.median(part, axis=1) for part in np.array_split(windows, 1 + len(windows) // 10_000)])
    padded = np.pad(motion, (3, 2), mode="edge")
    recent, peak = (
        np.lib.stride_tricks.sliding_window_view(padded, 3)[first:][: len(motion)].max(1) for first in (0, 3)
    )
    busy = [(cut.time, cut.time) for cut in cuts] + [(other.start, other.end) for other in others]
    peaks: list[Transition] = []
    rise = np.where(
        motion - recent >= SUDDEN_SHARE * (peak - usual), peak - MOTION_RATIO * usual - MIN_MOTION_RISE, 0.0
    )
    for n in np.argsort(-rise):
        if rise[n] <= 0:
            break
        time = float(times[n])
        near = [abs(other.start - time) < SAME_MOTION_S for other in peaks]
        near += [start - MOTION_CLEARANCE_S < time < end + MOTION_CLEARANCE_S for start, end in busy]
        if not any(near):
            strength = float(peak[n] / (peak[n] + 4 * usual[n] + 1.0))
            peaks.append(Transition("motion", time, time, strength))
    return peaks
