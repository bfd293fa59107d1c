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
    LATE_START_COST,
    MAX_START_S,
    STEPS_PER_BEAT,
    TEMPO_REVERSAL_COST,
    BarGrid,
    PlanConstraints,
    count_beats,
    hit_rewards,
    irregular_bar_mask,
    tempo_change_cost,
    tempo_deviation_cost,
)

WINDOW_BEATS, OVERLAP_BEATS = 240, 60  # beats searched at once, and of those the last ones that are searched again


class _Bar(NamedTuple):
    """A bar from step `start` on; `states`: the row of the search of each of its beats."""

    start: int
    states: tuple[int, ...]


def plan_variable_tempo(brief: PlanConstraints) -> BarGrid:
    """The bars of a piece with room for at least one before the final chord."""
    bars: list[_Bar] = []
    origin, state = 0, None
    while True:
        window = _ViterbiWindow(brief, origin, state)
        found = window.best()
        if window.last:
            break
        found = [bar for bar in found if bar.start < window.stop - OVERLAP_BEATS * STEPS_PER_BEAT]
        bars += found[:-1]
        origin, state = found[-1].start, found[-2].states[-1]
    return _to_bar_grid(brief, bars + found)


def _to_bar_grid(brief: PlanConstraints, bars: list[_Bar]) -> BarGrid:
    """`bars` with the last one, which has no beats yet, as the final chord at the tempo of the last beat before it."""
    tempi = _beat_steps()
    steps = np.cumsum([bars[0].start, *(tempi[state % len(tempi)] for bar in bars for state in bar.states)])
    times = steps * brief.step_s
    last = count_beats(brief.duration - times[-1], times[-1] - times[-2])
    beats = (*(len(bar.states) for bar in bars[:-1]), last)
    return BarGrid(beats, TempoMap(np.arange(len(times), dtype=float), times))


def _beat_steps() -> np.ndarray:
    """(P,) steps that a beat of each tempo lasts."""
    low, high = PlanConstraints.beat_ratio_range
    return np.arange(int(np.ceil(STEPS_PER_BEAT * low)), int(STEPS_PER_BEAT * high) + 1)


class _ViterbiWindow:
    """The search over one stretch of the piece; times are in steps from `origin`, where a bar line is.

    `state`: that of the beat before, None at the beginning of the piece.
    """

    def __init__(self, brief: PlanConstraints, origin: int, state: int | None) -> None:
        whole = int(brief.duration / brief.step_s)
        self.brief, self.origin = brief, origin
        self.stop = min(whole, origin + WINDOW_BEATS * STEPS_PER_BEAT)
        self.last = self.stop == whole
        self.size = self.stop - origin + 1
        self.times = (origin + np.arange(self.size, dtype=float)) * brief.step_s
        self.tempi = _beat_steps()
        self.pad = max(brief.allowed_bar_lengths) * int(self.tempi[-1])
        self.lasts = np.tile(self.tempi, 2)[:, None]  # (R, 1) steps
        self.beat, self.down = hit_rewards(brief.cuts, self.times)
        self.bends = irregular_bar_mask(brief.cuts, self.times, self.pad * brief.step_s if state is None else 0.0)
        self._search(state)

    def _search(self, state: int | None) -> None:
        M, R, T, pad = self.brief.beats_per_bar, len(self.lasts), self.size, self.pad
        self.value = np.full((R, T), -np.inf)  # best when a bar ends at a step
        self.beats = np.full((R, T), M, np.int8)  # of that bar
        self.before = np.full((M, R, T), -1, np.int8)  # state of the beat before the one that opens at a step
        ready = np.full((R, pad + T), -np.inf)  # best when a bar is about to open
        leave = np.full((M, R, pad + T), -np.inf)  # best when beat k of a bar has opened
        drift = tempo_deviation_cost(self.lasts / STEPS_PER_BEAT)
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
                opened, self.before[0, :, low:high] = self._change(self.value[:, low:high], self.brief.max_tempo_change)
                ready[:, here] = opened
            leave[0, :, here] = ready[:, here] + self.beat[at] + self.down[at] - drift
            inside, self.before[1:, :, low:high] = self._change(ended[:-1], self.brief.max_tempo_change_in_bar)
            leave[1:, :, here] = inside + self.beat[at] - drift

    def _openings(self, at: np.ndarray, state: int | None) -> Floats:
        """(R, block) the worth of the first bar opening at each step."""
        opening = np.full((len(self.lasts), len(at)), -np.inf)
        if state is None:
            late = self.times[at]
            soon = late < min(MAX_START_S, self.brief.beat_range_s[0])
            opening[:, soon] = -LATE_START_COST * late[soon] / self.brief.beat_s
            return opening
        opening[state, 0] = 0.0
        return self._change(opening, self.brief.max_tempo_change)[0]

    def _bend(self, at: np.ndarray, ready: Floats) -> None:
        """Bars of irregular length that end at the steps `at`, at one tempo each, where they are better."""
        if not len(at):
            return
        beat = np.concatenate([np.zeros(self.pad), self.beat])
        down = np.concatenate([np.zeros(self.pad), self.down])
        rows = np.arange(len(self.lasts))[:, None]
        for m in self.brief.allowed_bar_lengths[1:]:
            opens = self.pad + at - m * self.lasts
            worth = (
                ready[rows, opens]
                + down[opens]
                - self.brief.irregular_bar_cost(m)
                - m * tempo_deviation_cost(self.lasts / STEPS_PER_BEAT)
            )
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
            on, turned = ways[..., way, :, :], ways[..., 1 - way, :, :] - TEMPO_REVERSAL_COST
            worth, came = np.maximum(on, turned), np.where(on >= turned, state[way], state[1 - way])
            for jump in range(1, round(most * STEPS_PER_BEAT) + 1):
                here, there = (slice(jump, None), slice(None, -jump))[::sign]
                paid = worth[..., there, :] - tempo_change_cost(jump / STEPS_PER_BEAT)
                better = paid > best[..., way, here, :]
                np.copyto(best[..., way, here, :], paid, where=better)
                np.copyto(before[..., way, here, :], came[..., there, :], where=better)
        return best.reshape(ended.shape), before.reshape(ended.shape)

    def best(self) -> list[_Bar]:
        """The bars of the best way through; the last one is only opened."""
        if self.last:
            worth = self.value + self.beat + self.down - self.brief.final_chord_cost(self.brief.duration - self.times)
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
