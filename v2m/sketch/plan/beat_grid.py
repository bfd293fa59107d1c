"""What bars must serve and what they earn (hit-point scoring): cuts on beats, strong cuts on downbeats.

Against that stand changes of tempo, bars of irregular length, a late beginning and an ending that is cut off. `rubato`
searches bars whose tempo moves, `steady` those of one tempo. All costs are in cuts of full strength.

T time steps of `STEP` seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from v2m.core import timing
from v2m.core.timing import TempoMap
from v2m.core.types import Cut, Floats

RESOLUTION = 100  # steps of time in a beat at the tempo asked for
BOUND = 0.08  # the tempo stays within ± this share of the one asked for
MAX_CHANGE = 0.04  # the largest change at a bar line at steadiness 0
MAX_CHANGE_INSIDE = 0.015  # the same from beat to beat inside a bar; listeners just notice 0.02 to 0.03
TOLERANCE = 0.07  # a beat this near to a cut meets it
LAG = 0.01  # a beat is best a little after its cut: sound that leads is noticed first (ITU-R BT.1359: 45 ms, 125 ms)
SPREAD = 0.03
MET = 0.9  # what a beat is worth that only just meets its cut
DOWNBEAT = 0.8  # what the strongest cut is worth besides on a downbeat
RING = (1.5, 4.0)  # seconds that the final chord should last
LATEST = 0.6  # seconds that the picture may run before beat 0, and less than the shortest beat
LATE_COST = 0.8  # of opening a whole beat late; all costs are in cuts of full strength
DRIFT_COST = 0.05  # of a beat, for its share away from the tempo asked for
CHANGE_COST = 3.0  # of a change of tempo, for its share
TURN_COST = 0.1  # of becoming faster after having become slower, or the reverse, besides
STRONG = 0.5  # a cut of this strength may bend the bar before it


@dataclass(frozen=True)
class Bars:
    """Beats in each bar, and when they fall. The last bar opens with the final chord and lasts to the piece's end."""

    beats: tuple[int, ...]
    tempo_map: TempoMap


@dataclass(frozen=True)
class Brief:
    """What the bars must serve. `tempo` in beats per minute, `duration` in seconds."""

    cuts: tuple[Cut, ...]
    duration: float
    tempo: float
    beats_per_bar: int
    steadiness: float
    bounds: ClassVar[tuple[float, float]] = (1 / (1 + BOUND), 1 / (1 - BOUND))  # of a beat's length, as shares

    @property
    def period(self) -> float:
        return timing.beat_seconds(self.tempo)

    @property
    def step(self) -> float:
        """Seconds of a step of `rubato`'s time."""
        return self.period / RESOLUTION

    @property
    def periods(self) -> tuple[float, float]:
        """The shortest and longest beat allowed."""
        return self.period * self.bounds[0], self.period * self.bounds[1]

    @property
    def shortest_ring(self) -> float:
        return max(RING[0], self.periods[1] + self.step)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Beats that a bar may have, the regular length first."""
        regular = self.beats_per_bar
        return (regular, *(m for m in range(max(2, regular - 2), regular + 3) if m != regular))

    @property
    def most_change(self) -> float:
        """The share by which the tempo may change at a bar line."""
        return MAX_CHANGE * float(np.sqrt(1 - self.steadiness))

    @property
    def most_change_inside(self) -> float:
        """The share by which it may change from beat to beat inside a bar."""
        return MAX_CHANGE_INSIDE * float(np.sqrt(1 - self.steadiness))

    @property
    def too_short(self) -> bool:
        """Whether no bar fits before the final chord."""
        return self.duration < self.beats_per_bar * self.period + self.shortest_ring

    def bend_cost(self, beats: int) -> float:
        """What a bar of `beats` costs, in cuts; a steady piece bends less."""
        return (0.6 + 0.6 * self.steadiness) * {0: 0.0, 1: 1.0, 2: 1.5}[abs(beats - self.beats_per_bar)]

    def ring_cost(self, seconds: Floats) -> Floats:
        """What a final chord of `seconds` costs: nothing at about a bar, all where it would be too short."""
        wanted = float(np.clip(self.beats_per_bar * self.period, *RING))
        cost = 1.5 * np.log(np.maximum(seconds, 1e-3) / wanted) ** 2
        return np.where(seconds >= self.shortest_ring - 1e-9, cost, np.inf)


def nearness(off: Floats) -> Floats:
    """How well a beat `off` seconds after a cut meets it, 0–1."""
    near = MET + (1 - MET) * np.exp(-0.5 * ((off - LAG) / SPREAD) ** 2)
    return np.where(np.abs(off) <= TOLERANCE, near, 0.0)


def weight(cut: Cut) -> float:
    """What a beat that meets `cut` earns."""
    return 0.4 + 0.6 * cut.strength


def rewards(cuts: Sequence[Cut], times: Floats) -> tuple[Floats, Floats]:
    """What a beat at each of `times` earns, and what it earns besides when it is a downbeat; both (T,)."""
    beat, down = np.zeros(len(times)), np.zeros(len(times))
    for cut in cuts:
        low, high = np.searchsorted(times, [cut.time - TOLERANCE, cut.time + TOLERANCE])
        near = nearness(times[low:high] - cut.time)
        beat[low:high] += weight(cut) * near
        down[low:high] += DOWNBEAT * cut.strength**2 * near
    return beat, down


def drift_cost(ratio: float | Floats) -> Floats:
    """What a beat costs that is `ratio` times as long as one at the tempo asked for."""
    return DRIFT_COST * np.abs(np.log(ratio))


def change_cost(share: float) -> float:
    return CHANGE_COST * share


def bends(cuts: Sequence[Cut], times: Floats, pickup: float) -> np.ndarray:
    """(T,) where a bar of irregular length may end: at strong cuts, and up to `pickup` seconds."""
    allowed = times <= pickup
    for cut in cuts:
        if cut.strength >= STRONG:
            low, high = np.searchsorted(times, [cut.time - 0.02, cut.time + 0.04])
            allowed[low:high] = True
    return allowed


def chord(brief: Brief) -> Bars:
    """One bar from 0 s to the end, for a piece that is its final chord."""
    return Bars((beats_to(brief.duration, brief.period),), TempoMap.constant(brief.tempo))


def beats_to(seconds: float, period: float) -> int:
    """Beats of `period` that cover `seconds`."""
    return max(1, int(np.ceil(seconds / period - 1e-6)))
