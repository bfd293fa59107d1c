"""The variable click: bars whose tempo gives way a little so that their beats meet the cuts.

A dynamic programme over beats, tempi and the way the tempo last went. The tempo may change from beat to beat, by less
inside a bar than at a bar line, and turning round costs extra, so that it swings like a player's and does not twitch.
Time is counted in steps, `RESOLUTION` to a beat at the tempo asked for, and each tempo has a whole number of them to a
beat, so that every beat lies on a step.

P tempi, R = 2P states (last became faster or slower × tempo), T steps of time, M beats in a regular bar.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from v2m.core.timing import TempoMap
from v2m.core.types import Floats
from v2m.sketch.plan.beat_grid import (
    LATE_COST,
    LATEST,
    RESOLUTION,
    TURN_COST,
    Bars,
    Brief,
    beats_to,
    bends,
    change_cost,
    drift_cost,
    rewards,
)

WINDOW, OVERLAP = 240, 60  # beats searched at once, and of those the last ones that are searched again


class _Bar(NamedTuple):
    """A bar from step `start` on; `states`: the row of the search of each of its beats."""

    start: int
    states: tuple[int, ...]


def lay(brief: Brief) -> Bars:
    """The bars of a piece with room for at least one before the final chord."""
    bars: list[_Bar] = []
    origin, state = 0, None
    while True:
        window = _Window(brief, origin, state)
        found = window.best()
        if window.last:
            break
        found = [bar for bar in found if bar.start < window.stop - OVERLAP * RESOLUTION]
        bars += found[:-1]
        origin, state = found[-1].start, found[-2].states[-1]
    return _bars(brief, bars + found)


def _bars(brief: Brief, bars: list[_Bar]) -> Bars:
    """`bars` with the last one, which has no beats yet, as the final chord at the tempo of the last beat before it."""
    tempi = _tempi()
    steps = np.cumsum([bars[0].start, *(tempi[state % len(tempi)] for bar in bars for state in bar.states)])
    times = steps * brief.step
    last = beats_to(brief.duration - times[-1], times[-1] - times[-2])
    beats = (*(len(bar.states) for bar in bars[:-1]), last)
    return Bars(beats, TempoMap(np.arange(len(times), dtype=float), times))


def _tempi() -> np.ndarray:
    """(P,) steps that a beat of each tempo lasts."""
    low, high = Brief.bounds
    return np.arange(int(np.ceil(RESOLUTION * low)), int(RESOLUTION * high) + 1)


class _Window:
    """The search over one stretch of the piece; times are in steps from `origin`, where a bar line is.

    `state`: that of the beat before, None at the beginning of the piece.
    """

    def __init__(self, brief: Brief, origin: int, state: int | None) -> None:
        whole = int(brief.duration / brief.step)
        self.brief, self.origin = brief, origin
        self.stop = min(whole, origin + WINDOW * RESOLUTION)
        self.last = self.stop == whole
        self.size = self.stop - origin + 1
        self.times = (origin + np.arange(self.size, dtype=float)) * brief.step
        self.tempi = _tempi()
        self.pad = max(brief.lengths) * int(self.tempi[-1])
        self.lasts = np.tile(self.tempi, 2)[:, None]  # (R, 1) steps
        self.beat, self.down = rewards(brief.cuts, self.times)
        self.bends = bends(brief.cuts, self.times, self.pad * brief.step if state is None else 0.0)
        self._search(state)

    def _search(self, state: int | None) -> None:
        M, R, T, pad = self.brief.beats_per_bar, len(self.lasts), self.size, self.pad
        self.value = np.full((R, T), -np.inf)  # best when a bar ends at a step
        self.beats = np.full((R, T), M, np.int8)  # of that bar
        self.before = np.full((M, R, T), -1, np.int8)  # state of the beat before the one that opens at a step
        ready = np.full((R, pad + T), -np.inf)  # best when a bar is about to open
        leave = np.full((M, R, pad + T), -np.inf)  # best when beat k of a bar has opened
        drift = drift_cost(self.lasts / RESOLUTION)
        rows, block = np.arange(R)[:, None], int(self.tempi[0])
        for low in range(0, T, block):
            high = min(T, low + block)
            at = np.arange(low, high)
            here = slice(pad + low, pad + high)
            ended = leave[:, rows, pad + at - self.lasts]  # (M, R, block)
            self.value[:, low:high] = ended[-1]
            self._bend(at[self.bends[low:high]], ready)
            if low == 0:
                ready[:, here] = self._openings(at, state)
            else:
                opened, self.before[0, :, low:high] = self._change(self.value[:, low:high], self.brief.most_change)
                ready[:, here] = opened
            leave[0, :, here] = ready[:, here] + self.beat[at] + self.down[at] - drift
            inside, self.before[1:, :, low:high] = self._change(ended[:-1], self.brief.most_change_inside)
            leave[1:, :, here] = inside + self.beat[at] - drift

    def _openings(self, at: np.ndarray, state: int | None) -> Floats:
        """(R, block) the worth of the first bar opening at each step."""
        opening = np.full((len(self.lasts), len(at)), -np.inf)
        if state is None:
            late = self.times[at]
            soon = late < min(LATEST, self.brief.periods[0])
            opening[:, soon] = -LATE_COST * late[soon] / self.brief.period
            return opening
        opening[state, 0] = 0.0
        return self._change(opening, self.brief.most_change)[0]

    def _bend(self, at: np.ndarray, ready: Floats) -> None:
        """Bars of irregular length that end at the steps `at`, at one tempo each, where they are better."""
        if not len(at):
            return
        beat = np.concatenate([np.zeros(self.pad), self.beat])
        down = np.concatenate([np.zeros(self.pad), self.down])
        rows = np.arange(len(self.lasts))[:, None]
        for m in self.brief.lengths[1:]:
            opens = self.pad + at - m * self.lasts
            worth = ready[rows, opens] + down[opens] - self.brief.bend_cost(m) - m * drift_cost(self.lasts / RESOLUTION)
            for k in range(m):
                worth += beat[opens + k * self.lasts]
            better = worth > self.value[:, at]
            self.value[:, at] = np.where(better, worth, self.value[:, at])
            self.beats[:, at] = np.where(better, m, self.beats[:, at])

    def _change(self, ended: Floats, most: float) -> tuple[Floats, np.ndarray]:
        """(…, R, block) the best value from which a beat can go on in each state, and the state before it."""
        P = len(self.tempi)
        ways = ended.reshape(*ended.shape[:-2], 2, P, -1)
        state = np.arange(2 * P, dtype=np.int8).reshape(2, P, 1)
        best, before = ways.copy(), np.repeat(np.broadcast_to(state, (*ways.shape[:-1], 1)), ways.shape[-1], axis=-1)
        for way, sign in ((0, -1), (1, 1)):
            on, turned = ways[..., way, :, :], ways[..., 1 - way, :, :] - TURN_COST
            worth, came = np.maximum(on, turned), np.where(on >= turned, state[way], state[1 - way])
            for jump in range(1, round(most * RESOLUTION) + 1):
                here, there = (slice(jump, None), slice(None, -jump))[::sign]
                paid = worth[..., there, :] - change_cost(jump / RESOLUTION)
                better = paid > best[..., way, here, :]
                np.copyto(best[..., way, here, :], paid, where=better)
                np.copyto(before[..., way, here, :], came[..., there, :], where=better)
        return best.reshape(ended.shape), before.reshape(ended.shape)

    def best(self) -> list[_Bar]:
        """The bars of the best way through; the last one is only opened."""
        if self.last:
            worth = self.value + self.beat + self.down - self.brief.ring_cost(self.brief.duration - self.times)
        else:
            worth = np.where(np.arange(self.size) >= self.size - self.pad, self.value, -np.inf)
        state, at = (int(i) for i in np.unravel_index(int(np.argmax(worth)), worth.shape))
        found = [_Bar(self.origin + at, ())]
        while state >= 0:
            beats, states = int(self.beats[state, at]), []
            for k in reversed(range(beats)):
                at -= int(self.lasts[state, 0])
                states.append(state)
                if k and beats == self.brief.beats_per_bar:
                    state = int(self.before[k, state, at])
            found.append(_Bar(self.origin + at, tuple(states[::-1])))
            state = int(self.before[0, state, at])
        return found[::-1]
