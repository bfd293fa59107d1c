"""The variable click: where the bars of a piece lie so that its beats meet the picture's cuts (hit-point scoring).

A bar-by-bar dynamic programme over bar line and tempo, both on fine grids, weighs what a film composer weighs: cuts on
beats, strong cuts on downbeats, against changes of tempo and bars of irregular length. Every bar keeps one tempo;
tempo changes only at bar lines. `steady` has one tempo for the whole piece.

P tempi, T time steps of `STEP` seconds, M beats per bar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from v2m import timing
from v2m.types import Cut, Floats

STEP = 0.005  # seconds of the time grid
BOUND = 0.08  # the tempo stays within ± this share of the one asked for
TEMPO_STEP = 0.005  # neighbouring tempi of the search differ by this share
MAX_CHANGE = 0.06  # the largest change at a bar line at steadiness 0; 0.03, what listeners just notice, at 0.5
TOLERANCE = 0.07  # a beat this near to a cut meets it
LAG = 0.01  # a beat is best a little after its cut: sound that leads is noticed first (ITU-R BT.1359: 45 ms, 125 ms)
SPREAD = 0.03
MET = 0.5  # what a beat is worth that only just meets its cut
DOWNBEAT = 0.8  # what the strongest cut is worth besides on a downbeat
RING = (1.5, 4.0)  # seconds that the final chord should last
LATEST = 0.6  # seconds that the picture may run before beat 0
LATE_COST = 0.8  # of opening a whole beat late; all costs are in cuts of full strength
DRIFT_COST = 0.001  # of a bar one tempo step away from the tempo asked for
CHANGE_COST = (0.06, 0.015)  # of a change of tempo, and of each step of it
STRONG = 0.5  # a cut of this strength may bend the bar before it
WINDOW, OVERLAP = 300.0, 30.0  # seconds searched at once, and of those the last ones that are searched again


@dataclass(frozen=True)
class Bars:
    """Bar lines in seconds (B,), beats in each bar (B,). The last bar opens with the final chord.

    `period`: seconds per beat in the last bar.
    """

    starts: Floats
    beats: tuple[int, ...]
    period: float


@dataclass(frozen=True)
class Brief:
    """What the bars must serve. `tempo` in beats per minute, `duration` in seconds."""

    cuts: tuple[Cut, ...]
    duration: float
    tempo: float
    beats_per_bar: int
    steadiness: float

    @property
    def period(self) -> float:
        return timing.beat_seconds(self.tempo)

    @property
    def periods(self) -> tuple[float, float]:
        """The shortest and longest beat allowed."""
        return timing.beat_seconds(self.tempo * (1 + BOUND)), timing.beat_seconds(self.tempo * (1 - BOUND))

    @property
    def shortest_ring(self) -> float:
        return max(RING[0], self.periods[1] + STEP)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Beats that a bar may have, the regular length first."""
        regular = self.beats_per_bar
        return (regular, *(m for m in range(max(2, regular - 2), regular + 3) if m != regular))

    @property
    def most_change(self) -> float:
        """The share by which the tempo may change at a bar line."""
        return MAX_CHANGE * (1 - self.steadiness)

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
    return Bars(np.zeros(1), (max(1, int(np.ceil(brief.duration / brief.period - 1e-6))),), brief.period)


def lay(brief: Brief) -> Bars:
    """The bars of a piece with room for at least one before the final chord."""
    starts: list[int] = []
    beats: list[int] = []
    origin, tempo = 0, None
    while True:
        window = _Window(brief, origin, tempo)
        found = window.best()
        if window.last:
            starts += [bar.start for bar in found]
            beats += [bar.beats for bar in found]
            break
        keep = [bar for bar in found if bar.start < window.stop - OVERLAP / STEP]
        starts += [bar.start for bar in keep[:-1]]
        beats += [bar.beats for bar in keep[:-1]]
        origin, tempo = keep[-1].start, keep[-2].tempo
    times = np.array(starts, float) * STEP
    period = float(times[-1] - times[-2]) / beats[-2]
    beats[-1] = int(np.ceil((brief.duration - times[-1]) / period - 1e-6))
    return Bars(times, tuple(beats), period)


@dataclass(frozen=True)
class _Bar:
    start: int
    beats: int
    tempo: int


class _Window:
    """The search over one stretch of the piece; times are in steps from `origin`."""

    def __init__(self, brief: Brief, origin: int, tempo: int | None) -> None:
        whole = int(brief.duration / STEP)
        self.brief, self.origin = brief, origin
        self.stop = min(whole, origin + int(WINDOW / STEP))
        self.last = self.stop == whole
        self.size = self.stop - origin + 1
        times = (origin + np.arange(self.size, dtype=float)) * STEP
        self.beat, self.down = rewards(brief.cuts, times)
        self.away = _tempi()
        self.steps = {m: self._steps(m) for m in brief.lengths}
        self.pad = max(int(steps.max()) for steps in self.steps.values())
        self.bends = bends(brief.cuts, times, self.pad * STEP if tempo is None else 0.0)
        self._search(tempo)

    def _steps(self, beats: int) -> np.ndarray:
        """(P,) steps that a bar of `beats` lasts, rounded to the inside of the bounds."""
        low, high = (beats * period / STEP for period in self.brief.periods)
        return np.clip(
            np.rint(beats * self.brief.period / STEP * np.exp(self.away)), np.ceil(low), np.floor(high)
        ).astype(int)

    def _gains(self) -> Floats:
        """(P, T) what a regular bar that opens at each step earns."""
        regular = self.brief.beats_per_bar
        beat = np.concatenate([self.beat, np.zeros(self.pad)])
        gains = np.repeat((self.beat + self.down)[None], len(self.away), axis=0)
        for row, steps in enumerate(self.steps[regular]):
            for k in range(1, regular):
                at = round(k * steps / regular)
                gains[row] += beat[at : at + self.size]
        return gains - DRIFT_COST * np.abs(self.away)[:, None] / TEMPO_STEP

    def _search(self, tempo: int | None) -> None:
        P, T, pad = len(self.away), self.size, self.pad
        self.value = np.full((P, T), -np.inf)  # best when a bar of this tempo ends here
        self.beats = np.full((P, T), self.brief.beats_per_bar, np.int8)  # and how long that bar was
        self.before = np.full((P, T), -1, np.int8)  # tempo of the bar before one that opens here
        ready = np.full((P, pad + T), -np.inf)  # best when a bar of this tempo is about to open here
        gains = self._gains()
        leave = np.full((P, pad + T), -np.inf)  # `ready` and the gain of a regular bar
        block = min(int(steps.min()) for steps in self.steps.values())
        rows = np.arange(P)[:, None]
        for low in range(0, T, block):
            high = min(T, low + block)
            at = np.arange(low, high)
            if low == 0:
                ready[:, pad : pad + high] = self._openings(at, tempo)
            else:
                self.value[:, low:high] = leave[rows, pad + at - self.steps[self.brief.beats_per_bar][:, None]]
                self._bend(at[self.bends[low:high]], ready)
                ready[:, pad + low : pad + high], self.before[:, low:high] = self._change(self.value[:, low:high])
            leave[:, pad + low : pad + high] = ready[:, pad + low : pad + high] + gains[:, low:high]

    def _openings(self, at: np.ndarray, tempo: int | None) -> Floats:
        """(P, block) the worth of the first bar opening at each step."""
        opening = np.full((len(self.away), len(at)), -np.inf)
        if tempo is None:
            late = at * STEP
            soon = late < min(LATEST, self.brief.period)
            opening[:, soon] = -LATE_COST * late[soon] / self.brief.period
            return opening
        ended = np.full((len(self.away), 1), -np.inf)
        ended[tempo] = 0.0
        opening[:, :1] = self._change(ended)[0]
        return opening

    def _bend(self, at: np.ndarray, ready: Floats) -> None:
        """Bars of irregular length that end at the steps `at`, where they are better."""
        rows = np.arange(len(self.away))[:, None]
        beat = np.concatenate([np.zeros(self.pad), self.beat])
        down = np.concatenate([np.zeros(self.pad), self.down])
        for m in self.brief.lengths[1:] if len(at) else ():
            steps = self.steps[m][:, None]
            opens = self.pad + at - steps
            worth = ready[rows, opens] + down[opens] - self.brief.bend_cost(m)
            for k in range(m):
                worth = worth + beat[opens + np.rint(k * steps / m).astype(int)]
            better = worth > self.value[:, at]
            self.value[:, at] = np.where(better, worth, self.value[:, at])
            self.beats[:, at] = np.where(better, m, self.beats[:, at])

    def _change(self, ended: Floats) -> tuple[Floats, np.ndarray]:
        """(P, block) the best value from which a bar of each tempo can go on, and the tempo before it."""
        best, before = ended.copy(), np.repeat(np.arange(len(ended), dtype=np.int8)[:, None], ended.shape[1], axis=1)
        for jump in range(1, int(self.brief.most_change / TEMPO_STEP + 1e-9) + 1):
            cost = CHANGE_COST[0] + CHANGE_COST[1] * jump
            for here, there in ((slice(jump, None), slice(None, -jump)), (slice(None, -jump), slice(jump, None))):
                worth = ended[there] - cost
                better = worth > best[here]
                np.copyto(best[here], worth, where=better)
                before[here][better] = (np.arange(len(ended), dtype=np.int8)[there, None] + 0 * before[here])[better]
        return best, before

    def best(self) -> list[_Bar]:
        """The bars of the best way through; the last one is only opened."""
        T = self.size
        if self.last:
            ring = self.brief.duration - (self.origin + np.arange(T, dtype=float)) * STEP
            worth = self.value + self.beat + self.down - self.brief.ring_cost(ring)
        else:
            worth = np.where(np.arange(T) >= T - self.pad, self.value, -np.inf)
        tempo, at = (int(i) for i in np.unravel_index(int(np.argmax(worth)), worth.shape))
        bars = [_Bar(self.origin + at, 0, tempo)]
        while True:
            beats = int(self.beats[tempo, at])
            at -= int(self.steps[beats][tempo])
            bars.append(_Bar(self.origin + at, beats, tempo))
            tempo = int(self.before[tempo, at])
            if tempo < 0 or at == 0:
                return bars[::-1]


def _tempi() -> Floats:
    """(P,) the natural logarithm of each beat length of the search over the one asked for; 0 is in the middle."""
    count = int(np.log(1 + BOUND) / TEMPO_STEP)
    return np.arange(-count, count + 1, dtype=float) * TEMPO_STEP
