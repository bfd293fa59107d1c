"""The steady click: the one tempo and phase whose beats meet the most cuts, and the bars over them.

Cuts folded by a beat length pile up where a beat would meet many of them; the piles of every length within the bounds
are compared, and the best few are barred by a dynamic programme over beats. R beat lengths, B bins of phase.
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

MAX_DRIFT_S = 0.02  # seconds by which neighbouring beat lengths may part over the whole piece
PHASE_BIN_S = 0.005  # seconds of phase that are told apart
NUM_CANDIDATES = 24  # stretches of tempo whose best click is barred
MAX_FOLDED_CUTS = 50_000_000  # folded cuts at most: hours of dense cutting are searched more coarsely
CHUNK_ROWS = 2048  # beat lengths folded at once


def plan_constant_tempo(brief: PlanConstraints) -> BarGrid:
    """As `rubato.lay`, at one tempo."""
    barred = [_place_bars(brief, period, phase) for period, phase in _candidate_tempi(brief)]
    return max(barred, key=lambda scored: scored[0])[1]


def _candidate_tempi(brief: PlanConstraints) -> list[tuple[float, float]]:
    """The most promising (seconds per beat, time of beat 0) of each stretch of tempo."""
    low, high = brief.beat_range_s
    count = int(
        np.clip((high - low) / low * brief.duration / MAX_DRIFT_S, 64, MAX_FOLDED_CUTS / max(1, len(brief.cuts)))
    )
    periods = np.sort(np.append(np.geomspace(low, high, count), brief.beat_s))  # (R,)
    bins = int(np.ceil(high / PHASE_BIN_S))
    drift = tempo_deviation_cost(periods / brief.beat_s) * brief.duration / brief.beat_s
    worth = np.empty(len(periods))
    phases = np.empty(len(periods))
    for first in range(0, len(periods), CHUNK_ROWS):
        rows = slice(first, first + CHUNK_ROWS)
        piles = _fold_cuts(brief, periods[rows], bins) - LATE_START_COST * np.arange(bins) / bins
        piles[np.arange(bins) / bins * periods[rows, None] > MAX_START_S] = -np.inf
        best = piles.argmax(axis=1)
        worth[rows] = piles[np.arange(len(best)), best] - drift[rows]
        phases[rows] = best / bins * periods[rows]
    stripes = np.array_split(np.arange(len(periods)), NUM_CANDIDATES)
    rows = [stripe[worth[stripe].argmax()] for stripe in stripes]
    return [(float(periods[row]), float(phases[row])) for row in rows]


def _fold_cuts(brief: PlanConstraints, periods: Floats, bins: int) -> Floats:
    """(R, B) what beats of each length earn when beat 0 lies at each bin's share of a beat."""
    times = np.array([cut.time for cut in brief.cuts])
    weights = np.array([hit_weight(cut) for cut in brief.cuts])
    fold = (times / periods[:, None] % 1 * bins).astype(int) % bins + bins * np.arange(len(periods))[:, None]
    heights = np.bincount(fold.ravel(), np.tile(weights, len(periods)), minlength=bins * len(periods))
    turns = np.asarray(np.fft.fftfreq(bins), float)  # −½ to ½ of a beat, as a circular convolution wants them
    kernel = np.fft.rfft(hit_value(turns * float(periods.mean())))
    return np.fft.irfft(np.fft.rfft(heights.reshape(-1, bins), axis=1) * kernel, bins, axis=1)


def _place_bars(brief: PlanConstraints, period: float, phase: float) -> tuple[float, BarGrid]:
    """The best bars over beats `period` seconds apart from `phase` on, and their worth."""
    times = np.arange(phase, brief.duration, period)
    beat, down = hit_rewards(brief.cuts, times)
    longest = max(brief.allowed_bar_lengths)
    bent = irregular_bar_mask(brief.cuts, times, phase + longest * period)
    costs = {m: brief.irregular_bar_cost(m) for m in brief.allowed_bar_lengths}
    best = np.full(len(times), -np.inf)  # a bar line at each beat
    length = np.zeros(len(times), int)  # of the bar before it
    best[0] = down[0] - LATE_START_COST * phase / period
    for k in range(2, len(times)):
        for m in brief.allowed_bar_lengths if bent[k] else brief.allowed_bar_lengths[:1]:
            if k >= m and best[k - m] + down[k] - costs[m] > best[k]:
                best[k], length[k] = best[k - m] + down[k] - costs[m], m
    worth = best + np.cumsum(beat) - brief.final_chord_cost(brief.duration - times)
    line = int(np.argmax(worth[1:])) + 1
    at, beats = line, [len(times) - line]
    while at > 0:
        beats.append(int(length[at]))
        at -= beats[-1]
    drift = float(tempo_deviation_cost(period / brief.beat_s)) * line
    return float(worth[line]) - drift, BarGrid(
        tuple(beats[::-1]), TempoMap.constant(timing.beat_seconds(period), phase)
    )
