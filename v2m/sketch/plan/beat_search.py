"""Searches for the beat grid that meets the most cuts, at a tempo that moves a little or at one tempo.

A tempo that moves is found by a Viterbi search. It may change from beat to beat, by less inside a bar than at a bar
line, and reversing the direction of change costs extra, so that the tempo swings as a player's does and does not
jitter. Time is counted in steps, `STEPS_PER_BEAT` to a beat at the requested tempo; every tempo lasts a whole number of
steps per beat, so that every beat lies on a step.

    k  position in the bar, 0 ≤ k < M          p  tempo, 0 ≤ p < P; d(p) steps per beat, rising with p
    t  time step, 0 ≤ t < T                    w  direction of the last tempo change: 0 faster, 1 slower
    r  state = (w, p), 0 ≤ r < R = 2P

Best worth of a path up to step t, where V is of a bar that ends there, its last beat in state r, and B is of beat k of
a bar that starts there, in state r:

    B[0,r,t] = max over r' (V[r',t] − C(r', r)) + beat[r,t] + downbeat[t] − deviation(p)
    B[k,r,t] = max over r' (B[k−1,r',t−d(p')] − C(r', r)) + beat[r,t] − deviation(p)           k = 1 … M−1
    V[r,t]   = max(B[M−1,r,t−d(p)], the best irregular bar that may end at t, at one tempo)

C is 0 for the same state, infinite beyond the largest allowed change, and else what the change from p' to p costs, and
a reversal besides where w' is another direction than w, that of the change. beat[r,t] is the reward of the beat and of
the accent positions after it. Rewards and costs are those of `beat_grid`.

One tempo: cuts folded modulo a beat length pile up at the phase where beats of that length would meet many of them.
Every beat length within the bounds is scored by its best phase; bars are then placed over the best few by dynamic
programming.

    L beat lengths, N phase bins
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from v2m.core import timing
from v2m.core.timing import TempoMap
from v2m.core.types import Floats
from v2m.sketch.plan.beat_grid import (
    LATE_START_COST,
    MAX_START_S,
    MIN_TAIL_S,
    STEPS_PER_BEAT,
    TAIL_SHARE,
    TEMPO_REVERSAL_COST,
    BarGrid,
    PlanConstraints,
    attack_rewards,
    count_beats,
    hit_value,
    hit_weight,
    irregular_bar_mask,
    strongest_value,
    strongest_weight,
    tempo_change_cost,
    tempo_deviation_cost,
)

# A tempo that moves: beats searched at once, which bounds the memory; the next window searches the last of them again.
WINDOW_BEATS, OVERLAP_BEATS = 240, 60
MAX_TAIL_S = 8.0  # twice the longest usual final chord
FASTER, SLOWER = 0, 1
# One tempo.
MAX_DRIFT_S = 0.02  # by which grids of neighboring beat lengths may differ at the end of the piece
PHASE_BIN_S = 0.005
NUM_CANDIDATES = 24  # tempo ranges whose best beat length gets bars
MAX_FOLDED_CUTS = 50_000_000  # bounds the work: hours of dense cutting are searched at fewer beat lengths
CHUNK_ROWS = 2048  # beat lengths folded at once: bounds the memory


class _Bar(NamedTuple):
    """A bar from step `start` on; `states`: the search state of each of its beats."""

    start: int
    states: tuple[int, ...]


def plan_variable_tempo(constraints: PlanConstraints) -> BarGrid:
    """Return the best bars, for a piece with room for at least one before the final chord."""
    bars: list[_Bar] = []
    origin, state = 0, None
    while True:
        window = _ViterbiWindow(constraints, origin, state)
        path = window.best_path()
        if window.is_last:
            return _to_bar_grid(constraints, bars + path)
        path = [bar for bar in path if bar.start < window.stop - OVERLAP_BEATS * STEPS_PER_BEAT]
        bars += path[:-1]
        origin, state = path[-1].start, path[-2].states[-1]


def _to_bar_grid(constraints: PlanConstraints, bars: list[_Bar]) -> BarGrid:
    """Turn `bars` into seconds; the last, empty one becomes the final chord at the last beat's tempo."""
    beat_steps = _beat_steps(constraints)
    durations = [beat_steps[state % len(beat_steps)] for bar in bars for state in bar.states]
    times = np.cumsum([bars[0].start, *durations]) * constraints.step_s
    final_beats = count_beats(constraints.duration - times[-1], times[-1] - times[-2])
    bar_lengths = (*(len(bar.states) for bar in bars[:-1]), final_beats)
    return BarGrid(bar_lengths, TempoMap(np.arange(len(times), dtype=float), times))


def _beat_steps(constraints: PlanConstraints) -> np.ndarray:
    """Return (P,) the steps of a beat at each tempo."""
    low, high = constraints.beat_ratio_range
    return np.arange(int(np.ceil(STEPS_PER_BEAT * low)), int(STEPS_PER_BEAT * high) + 1)


class _ViterbiWindow:
    """The search over one window of the piece; steps are counted from `origin`, where a bar line is.

    `state`: that of the beat before `origin`, None at the start of the piece.
    """

    def __init__(self, constraints: PlanConstraints, origin: int, state: int | None) -> None:
        end = int(constraints.duration / constraints.step_s)
        self.constraints, self.origin = constraints, origin
        self.stop = min(end, origin + WINDOW_BEATS * STEPS_PER_BEAT)
        self.is_last = self.stop == end
        self.num_steps = self.stop - origin + 1
        self.times = (origin + np.arange(self.num_steps, dtype=float)) * constraints.step_s
        self.beat_steps = _beat_steps(constraints)
        self.pad = max(constraints.allowed_bar_lengths) * int(self.beat_steps[-1])  # steps of the longest bar
        self.state_steps = np.tile(self.beat_steps, 2)[:, None]  # (R, 1) d(p) of each state
        self.deviation = tempo_deviation_cost(self.state_steps / STEPS_PER_BEAT)  # (R, 1)
        single, self.down = attack_rewards(constraints.cuts, self.times)
        self.beat = self._beat_rewards(single)  # (R, T)
        pickup_s = self.pad * constraints.step_s if state is None else 0.0
        self.may_end_irregular = irregular_bar_mask(constraints.cuts, self.times, pickup_s)
        self._search(state)

    def _beat_rewards(self, single: Floats) -> Floats:
        """Return (R, T) the rewards of beats with the accents after them, from those of single attacks (T,)."""
        by_tempo = np.tile(single, (len(self.beat_steps), 1))
        for accent in self.constraints.accents:
            for row, shift in zip(by_tempo, np.rint(accent.played * self.beat_steps).astype(int), strict=True):
                row[: self.num_steps - shift] += accent.weight * single[shift:]
        return np.tile(by_tempo, (2, 1))

    def _tail_rewards(self) -> Floats:
        """Return (R, T) the rewards of the accents that follow a final chord at each step, at one tempo."""
        single = attack_rewards(self.constraints.cuts, self.times)[0]
        single[self.times > self.constraints.duration - MIN_TAIL_S] = 0.0
        rewards, states = self._beat_rewards(single), np.arange(len(self.state_steps))
        tail = np.zeros((len(states), self.num_steps + int(self.beat_steps[-1])))
        first = max(0, self.num_steps - int(MAX_TAIL_S / self.constraints.step_s))
        for step in reversed(range(first, self.num_steps)):
            tail[:, step] = rewards[:, step] + tail[states, step + self.state_steps[:, 0]]
        return TAIL_SHARE * (tail[:, : self.num_steps] - single)

    def _search(self, state: int | None) -> None:
        """Fill V (`bar_worth`) and the back pointers, block after block of steps.

        A block is as long as the shortest beat, so that nothing in it depends on the same block.
        """
        M, R, T, pad = self.constraints.beats_per_bar, len(self.state_steps), self.num_steps, self.pad
        self.bar_worth = np.full((R, T), -np.inf)  # V
        self.bar_beats = np.full((R, T), M, np.int8)  # beats of the bar that ends there
        self.previous_state = np.full((M, R, T), -1, np.int8)  # of the beat before beat k; −1 at the start of a window
        bar_start = np.full((R, pad + T), -np.inf)  # best worth before a bar that starts there; padded in front
        beat_worth = np.full((M, R, pad + T), -np.inf)  # B, padded in front
        states, block = np.arange(R)[:, None], int(self.beat_steps[0])
        for low in range(0, T, block):
            high = min(T, low + block)
            steps = np.arange(low, high)
            padded = slice(pad + low, pad + high)
            previous_beat = beat_worth[:, states, pad + steps - self.state_steps]  # (M, R, block)
            self.bar_worth[:, low:high] = previous_beat[-1]
            self._add_irregular_bars(steps[self.may_end_irregular[low:high]], bar_start)
            if low == 0:
                bar_start[:, padded] = self._first_bar_worth(steps, state)
            else:
                bar_start[:, padded], self.previous_state[0, :, low:high] = self._best_transition(
                    self.bar_worth[:, low:high], self.constraints.max_tempo_change
                )
            beat_worth[0, :, padded] = bar_start[:, padded] + self.beat[:, steps] + self.down[steps] - self.deviation
            in_bar, self.previous_state[1:, :, low:high] = self._best_transition(
                previous_beat[:-1], self.constraints.max_tempo_change_in_bar
            )
            beat_worth[1:, :, padded] = in_bar + self.beat[:, steps] - self.deviation

    def _first_bar_worth(self, steps: np.ndarray, state: int | None) -> Floats:
        """Return (R, block) the worth of starting the window's first bar at each step."""
        worth = np.full((len(self.state_steps), len(steps)), -np.inf)
        if state is None:
            start_s = self.times[steps]
            allowed = start_s < min(MAX_START_S, self.constraints.beat_range_s[0])
            worth[:, allowed] = -LATE_START_COST * start_s[allowed] / self.constraints.beat_s
            return worth
        worth[state, 0] = 0.0
        return self._best_transition(worth, self.constraints.max_tempo_change)[0]

    def _add_irregular_bars(self, ends: np.ndarray, bar_start: Floats) -> None:
        """Replace bars that end at the steps `ends` by irregular ones of one tempo where these are better."""
        if not len(ends):
            return
        beat = np.concatenate([np.zeros((len(self.state_steps), self.pad)), self.beat], axis=1)
        down = np.concatenate([np.zeros(self.pad), self.down])
        states = np.arange(len(self.state_steps))[:, None]
        for num_beats in self.constraints.allowed_bar_lengths[1:]:
            starts = self.pad + ends - num_beats * self.state_steps  # (R, ends)
            cost = self.constraints.irregular_bar_cost(num_beats)
            worth = bar_start[states, starts] + down[starts] - cost - num_beats * self.deviation
            for k in range(num_beats):
                worth += beat[states, starts + k * self.state_steps]
            better = worth > self.bar_worth[:, ends]
            self.bar_worth[:, ends] = np.where(better, worth, self.bar_worth[:, ends])
            self.bar_beats[:, ends] = np.where(better, num_beats, self.bar_beats[:, ends])

    def _best_transition(self, worth: Floats, max_change: float) -> tuple[Floats, np.ndarray]:
        """Return max over r' of `worth` (…, R, block) − C(r', r), and the r' that gives it."""
        P = len(self.beat_steps)
        by_direction = worth.reshape(*worth.shape[:-2], 2, P, -1)
        state = np.arange(2 * P, dtype=np.int8).reshape(2, P, 1)
        best = by_direction.copy()
        best_from = np.repeat(np.broadcast_to(state, (*best.shape[:-1], 1)), best.shape[-1], axis=-1)
        for direction in (FASTER, SLOWER):
            same = by_direction[..., direction, :, :]
            reversal = by_direction[..., 1 - direction, :, :] - TEMPO_REVERSAL_COST
            source = np.maximum(same, reversal)
            source_state = np.where(same >= reversal, state[direction], state[1 - direction])
            for jump in range(1, round(max_change * STEPS_PER_BEAT) + 1):
                # to a beat `jump` steps shorter (faster), whose tempo index is lower, or longer
                target = slice(None, -jump) if direction == FASTER else slice(jump, None)
                origin = slice(jump, None) if direction == FASTER else slice(None, -jump)
                changed = source[..., origin, :] - tempo_change_cost(jump / STEPS_PER_BEAT)
                better = changed > best[..., direction, target, :]
                np.copyto(best[..., direction, target, :], changed, where=better)
                np.copyto(best_from[..., direction, target, :], source_state[..., origin, :], where=better)
        return best.reshape(worth.shape), best_from.reshape(worth.shape)

    def best_path(self) -> list[_Bar]:
        """Trace back the bars of the best path; the last one has no beats yet."""
        if self.is_last:
            final_chord = self.constraints.final_chord_cost(self.constraints.duration - self.times)
            single = attack_rewards(self.constraints.cuts, self.times)[0]
            worth = self.bar_worth + single + self.down + self._tail_rewards() - final_chord
        else:
            worth = np.where(np.arange(self.num_steps) >= self.num_steps - self.pad, self.bar_worth, -np.inf)
        state, step = (int(index) for index in np.unravel_index(int(np.argmax(worth)), worth.shape))
        path = [_Bar(self.origin + step, ())]
        while state >= 0:
            num_beats, states = int(self.bar_beats[state, step]), []
            for k in reversed(range(num_beats)):
                step -= int(self.state_steps[state, 0])
                states.append(state)
                if k and num_beats == self.constraints.beats_per_bar:  # an irregular bar keeps one state
                    state = int(self.previous_state[k, state, step])
            path.append(_Bar(self.origin + step, tuple(states[::-1])))
            state = int(self.previous_state[0, state, step])
        return path[::-1]


def plan_constant_tempo(constraints: PlanConstraints) -> BarGrid:
    """Return the best bars at one tempo, for a piece with room for at least one before the final chord."""
    grids = [_place_bars(constraints, beat_s, phase) for beat_s, phase in _candidate_tempi(constraints)]
    return max(grids, key=lambda scored: scored[0])[1]


def _candidate_tempi(constraints: PlanConstraints) -> list[tuple[float, float]]:
    """Return the best (seconds per beat, time of beat 0) of each of `NUM_CANDIDATES` tempo ranges."""
    shortest, longest = constraints.beat_range_s
    num_lengths = (longest - shortest) / shortest * constraints.duration / MAX_DRIFT_S
    num_lengths = int(np.clip(num_lengths, 64, MAX_FOLDED_CUTS / max(1, len(constraints.cuts))))
    lengths = np.sort(np.append(np.geomspace(shortest, longest, num_lengths), constraints.beat_s))  # (L,)
    num_bins = int(np.ceil(longest / PHASE_BIN_S))
    phases = np.arange(num_bins) / num_bins  # (N,) shares of a beat
    deviation = tempo_deviation_cost(lengths / constraints.beat_s) * constraints.duration / constraints.beat_s
    worth, best_phase_s = np.empty(len(lengths)), np.empty(len(lengths))
    for first in range(0, len(lengths), CHUNK_ROWS):
        rows = slice(first, first + CHUNK_ROWS)
        rewards = _fold_cuts(constraints, lengths[rows], num_bins) - LATE_START_COST * np.arange(num_bins) / num_bins
        rewards[phases * lengths[rows, None] > MAX_START_S] = -np.inf
        best = rewards.argmax(axis=1)
        worth[rows] = rewards[np.arange(len(best)), best] - deviation[rows]
        best_phase_s[rows] = best / num_bins * lengths[rows]
    ranges = np.array_split(np.arange(len(lengths)), NUM_CANDIDATES)
    winners = [indices[worth[indices].argmax()] for indices in ranges]
    return [(float(lengths[row]), float(best_phase_s[row])) for row in winners]


def _fold_cuts(constraints: PlanConstraints, lengths: Floats, num_bins: int) -> Floats:
    """Return (L, N) the reward of beats of each length, by the phase of beat 0.

    Histograms of the cuts' phases, circularly convolved with the value of a beat and of the accents after it.
    """
    times = np.array([cut.time for cut in constraints.cuts])
    bins = (times / lengths[:, None] % 1 * num_bins).astype(int) % num_bins
    flat_bins = (bins + num_bins * np.arange(len(lengths))[:, None]).ravel()
    offsets = np.asarray(np.fft.fftfreq(num_bins), float)  # −½ to ½ of a beat, in a circular convolution's order
    total = np.zeros((len(lengths), num_bins))
    for weight, value in ((hit_weight, hit_value), (strongest_weight, strongest_value)):
        weights = np.tile([weight(cut) for cut in constraints.cuts], len(lengths))
        histogram = np.bincount(flat_bins, weights, minlength=num_bins * len(lengths))
        kernel = value(offsets * float(lengths.mean()))
        for accent in constraints.accents:
            played = (offsets + accent.played + 0.5) % 1 - 0.5
            kernel = kernel + accent.weight * value(played * float(lengths.mean()))
        spectrum = np.fft.rfft(histogram.reshape(-1, num_bins), axis=1)
        total += np.fft.irfft(spectrum * np.fft.rfft(kernel), num_bins, axis=1)
    return total


def _place_bars(constraints: PlanConstraints, beat_s: float, phase: float) -> tuple[float, BarGrid]:
    """Return the best bars over beats `beat_s` seconds apart from `phase` on, preceded by their worth."""
    times = np.arange(phase, constraints.duration, beat_s)
    single, down = attack_rewards(constraints.cuts, times)
    beat, tail = single.copy(), np.where(times <= constraints.duration - MIN_TAIL_S, single, 0.0)
    for accent in constraints.accents:
        played = times + accent.played * beat_s
        reward = accent.weight * attack_rewards(constraints.cuts, played)[0]
        beat += reward
        tail += np.where(played <= constraints.duration - MIN_TAIL_S, reward, 0.0)
    before, after = np.cumsum(beat) - beat, np.cumsum(tail[::-1])[::-1]
    pickup_s = phase + max(constraints.allowed_bar_lengths) * beat_s
    irregular = irregular_bar_mask(constraints.cuts, times, pickup_s)
    costs = {length: constraints.irregular_bar_cost(length) for length in constraints.allowed_bar_lengths}
    best = np.full(len(times), -np.inf)  # worth of the best bars up to a bar line at each beat
    last_length = np.zeros(len(times), int)  # of the bar that ends there
    best[0] = down[0] - LATE_START_COST * phase / beat_s
    for line in range(2, len(times)):
        for length in constraints.allowed_bar_lengths if irregular[line] else constraints.allowed_bar_lengths[:1]:
            if line >= length and best[line - length] + down[line] - costs[length] > best[line]:
                best[line], last_length[line] = best[line - length] + down[line] - costs[length], length
    rewards = before + single + TAIL_SHARE * (after - single)
    worth = best + rewards - constraints.final_chord_cost(constraints.duration - times)
    final_line = int(np.argmax(worth[1:])) + 1
    line, lengths = final_line, [len(times) - final_line]
    while line > 0:
        lengths.append(int(last_length[line]))
        line -= lengths[-1]
    deviation = float(tempo_deviation_cost(beat_s / constraints.beat_s)) * final_line
    tempo_map = TempoMap.constant(timing.beat_seconds(beat_s), phase)
    return float(worth[final_line]) - deviation, BarGrid(tuple(lengths[::-1]), tempo_map)
