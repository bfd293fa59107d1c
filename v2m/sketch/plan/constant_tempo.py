"""Beat grids of one tempo: the beat length and phase whose beats meet the most cuts, and the bars over them.

Cuts folded modulo a beat length pile up at the phase where beats of that length would meet many of them. Every beat
length within the bounds is scored by its best phase; bars are then placed over the best few by dynamic programming.
R beat lengths, B phase bins.
"""

from __future__ import annotations

import numpy as np

from v2m.core import timing
from v2m.core.timing import TempoMap
from v2m.core.types import Floats
from v2m.sketch.plan.beat_grid import (
    LATE_START_COST,
    MAX_START_S,
    BarGrid,
    PlanConstraints,
    hit_rewards,
    hit_value,
    hit_weight,
    irregular_bar_mask,
    tempo_deviation_cost,
)

MAX_DRIFT_S = 0.02  # by which grids of neighboring beat lengths may differ at the end of the piece
PHASE_BIN_S = 0.005
NUM_CANDIDATES = 24  # tempo ranges whose best beat length gets bars
MAX_FOLDED_CUTS = 50_000_000  # bounds the work: hours of dense cutting are searched at fewer beat lengths
CHUNK_ROWS = 2048  # beat lengths folded at once: bounds the memory


def plan_constant_tempo(constraints: PlanConstraints) -> BarGrid:
    """Return the best bars at one tempo, for a piece with room for at least one before the final chord."""
    grids = [_place_bars(constraints, beat_s, phase) for beat_s, phase in _candidate_tempi(constraints)]
    return max(grids, key=lambda scored: scored[0])[1]


def _candidate_tempi(constraints: PlanConstraints) -> list[tuple[float, float]]:
    """Return the best (seconds per beat, time of beat 0) of each of `NUM_CANDIDATES` tempo ranges."""
    shortest, longest = constraints.beat_range_s
    num_lengths = (longest - shortest) / shortest * constraints.duration / MAX_DRIFT_S
    num_lengths = int(np.clip(num_lengths, 64, MAX_FOLDED_CUTS / max(1, len(constraints.cuts))))
    lengths = np.sort(np.append(np.geomspace(shortest, longest, num_lengths), constraints.beat_s))  # (R,)
    num_bins = int(np.ceil(longest / PHASE_BIN_S))
    phases = np.arange(num_bins) / num_bins  # (B,) shares of a beat
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
    """Return (R, B) the reward of beats of each length, by the phase of beat 0.

    A histogram of the cuts' phases, circularly convolved with `hit_value`.
    """
    times = np.array([cut.time for cut in constraints.cuts])
    weights = np.array([hit_weight(cut) for cut in constraints.cuts])
    bins = (times / lengths[:, None] % 1 * num_bins).astype(int) % num_bins
    flat_bins = bins + num_bins * np.arange(len(lengths))[:, None]
    histogram = np.bincount(flat_bins.ravel(), np.tile(weights, len(lengths)), minlength=num_bins * len(lengths))
    offsets = np.asarray(np.fft.fftfreq(num_bins), float)  # −½ to ½ of a beat, in a circular convolution's order
    kernel = np.fft.rfft(hit_value(offsets * float(lengths.mean())))
    spectrum = np.fft.rfft(histogram.reshape(-1, num_bins), axis=1)
    return np.fft.irfft(spectrum * kernel, num_bins, axis=1)


def _place_bars(constraints: PlanConstraints, beat_s: float, phase: float) -> tuple[float, BarGrid]:
    """Return the best bars over beats `beat_s` seconds apart from `phase` on, preceded by their worth."""
    times = np.arange(phase, constraints.duration, beat_s)
    beat, down = hit_rewards(constraints.cuts, times)
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
    worth = best + np.cumsum(beat) - constraints.final_chord_cost(constraints.duration - times)
    final_line = int(np.argmax(worth[1:])) + 1
    line, lengths = final_line, [len(times) - final_line]
    while line > 0:
        lengths.append(int(last_length[line]))
        line -= lengths[-1]
    deviation = float(tempo_deviation_cost(beat_s / constraints.beat_s)) * final_line
    tempo_map = TempoMap.constant(timing.beat_seconds(beat_s), phase)
    return float(worth[final_line]) - deviation, BarGrid(tuple(lengths[::-1]), tempo_map)
