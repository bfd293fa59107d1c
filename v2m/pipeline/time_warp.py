"""Planning of a time warp that moves the beats of finished music to cuts: a Viterbi search.

Between two beats the music is stretched at one rate. The search runs over beats, the shift of each, and the rate after
it. Gains and costs are in cuts of full strength, as in `v2m.sketch.plan.beat_grid`. Without a source given, values are
hand-tuned on 20 pieces of Sketch's music (`bench/align_to_cuts.py` measures others). B beats, S shifts `GRID_S` apart,
R rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from v2m.analysis.rhythm import BeatTrack
from v2m.core import timing
from v2m.core.timing import TimeMap
from v2m.core.types import Cut, Floats
from v2m.sketch.plan.beat_grid import HIT_TOLERANCE_S, SOUND_LAG_S, hit_rewards

# Share by which the music becomes longer or shorter: people sing songs that they know within 0.08 of their tempo
# (Levitin & Cook 1996)
MAX_STRETCH = 0.06
MAX_STRETCH_CHANGE = 0.02  # from beat to beat; listeners just notice 0.02 to 0.03 (Drake & Botte 1993)
GRID_S = 0.004
MAX_SHIFT_S = 2.0
MAX_RATES = 8  # on either side of no stretch; bounds the work for long beats
MAX_START_S = 0.5  # of the video before the music
MAX_TRIM_S = 1.0  # of the music's beginning and of its end; half a bar is another limit
LATE_START_COST = 0.6  # per second that the music starts late
TRIMMED_START_COST = 0.4  # per second of its beginning that is lost
TRIMMED_END_COST = 0.4  # per second of its end that is lost
STRETCH_CHANGE_COST = 1.0  # per relative change of rate
STRETCH_COST = 0.25  # per second of music and relative stretch
EXACT_S = 0.02  # from a cut, below which all beats are equal
BEAT_ERROR_S = 0.02  # of measured beats: the scale of a logistic distribution
SECTION_GAIN = 2.0  # of a section that stays on its cut
MIN_LAST_GAP_S = 0.05  # from the last beat that is used to the end


@dataclass(frozen=True)
class _StretchOptions:
    """Possible stretches from one beat to the next: `steps` (R,) of the grid, and relative `rates` (R,)."""

    steps: np.ndarray
    rates: Floats

    @classmethod
    def from_gap(cls, gap: float) -> _StretchOptions:
        max_steps = int(np.floor(MAX_STRETCH * gap / GRID_S + 1e-9))
        stride = max(1, -(-max_steps // MAX_RATES))
        steps = np.arange(-(max_steps // stride), max_steps // stride + 1) * stride
        return cls(steps, np.asarray(steps * GRID_S / gap, float))


def plan_time_warp(
    track: BeatTrack, cuts: Sequence[Cut], duration: float, sections: Sequence[float] = ()
) -> TimeMap | None:
    """Return the warp that meets most cuts, at least as long as `duration`; None if none is better.

    A downbeat on the strongest cut counts before all else, the more accented the better; then the strengths of all cuts
    that beats meet within ±70 ms, and those of cuts on downbeats again. A start of one of `sections` (seconds) that
    stays on its cut counts as two cuts. The stretch is at most 6 % and changes by at most 2 % a beat.
    """
    beats = track.beats[track.beats < duration - MIN_LAST_GAP_S]
    cuts = [cut for cut in cuts if 0 < cut.time < duration]
    if len(beats) < 3 or not cuts:
        return None
    shifts = np.linspace(-MAX_SHIFT_S, MAX_SHIFT_S, 2 * round(MAX_SHIFT_S / GRID_S) + 1)
    gains = _hit_gains(track, beats, cuts, shifts)
    for start in sections:
        if min(abs(start - cut.time) for cut in cuts) <= HIT_TOLERANCE_S:
            gains[np.abs(beats - start).argmin()] += SECTION_GAIN * (np.abs(shifts) <= HIT_TOLERANCE_S)
    gaps = np.diff(beats)
    options = [_StretchOptions.from_gap(float(gap)) for gap in gaps]
    max_trim_s = min(MAX_TRIM_S, float(np.median(gaps)) * track.meter / 2)
    start_cost = _start_cost(options[0], float(beats[0]), shifts, max_trim_s)
    end_cost = _end_cost(options[-1], duration - float(beats[-1]), shifts, max_trim_s)
    worth, steps = _viterbi(gains, options, start_cost, end_cost, gaps)
    is_better = worth > gains[:, len(shifts) // 2].sum() + 1e-6 and steps.any()
    return TimeMap(beats, beats + steps * GRID_S) if is_better else None


def _met_value(offset_s: Floats) -> Floats:
    """Return the probability, 0–1, that a beat is within 70 ms of a cut, by its measured distance."""
    distance = np.maximum(np.abs(offset_s - SOUND_LAG_S), EXACT_S)
    value = 1 / (1 + np.exp((distance - HIT_TOLERANCE_S) / BEAT_ERROR_S))
    return np.where(np.abs(offset_s) <= HIT_TOLERANCE_S, value, 0.0)


def _hit_gains(track: BeatTrack, beats: Floats, cuts: Sequence[Cut], shifts: Floats) -> Floats:
    """Return (B, S) the gain of each beat at each shift."""
    times = np.arange(-MAX_SHIFT_S, beats[-1] + 2 * MAX_SHIFT_S, GRID_S)
    beat_reward, downbeat_reward = hit_rewards(cuts, times, _met_value)
    strongest = max(cuts, key=lambda cut: cut.strength)
    top_reward = 1.0 + sum(1.8 * cut.strength + 0.4 for cut in cuts)  # more than all other rewards together
    meets_strongest = hit_rewards([strongest], times, _met_value)[0] > 0
    first_index = np.rint(timing.seconds_to_frames(beats, 1 / GRID_S)).astype(int)
    index = first_index[:, None] + np.arange(len(shifts))  # (B, S) into `times`
    is_downbeat, accents = track.is_downbeat[: len(beats), None], track.accents[: len(beats), None]
    top_gain = meets_strongest[index] * (top_reward + accents)
    return beat_reward[index] + is_downbeat * (downbeat_reward[index] + top_gain)


def _start_cost(options: _StretchOptions, lead_s: float, shifts: Floats, max_trim_s: float) -> Floats:
    """Return (R, S) the cost of where the music starts, `lead_s` before its first beat, by rate and shift."""
    start = shifts - options.rates[:, None] * lead_s
    cost = np.where(start > 0, LATE_START_COST * start, -TRIMMED_START_COST * start)
    cost[(start > MAX_START_S) | (start < -max_trim_s - 1e-9)] = np.inf
    return cost


def _end_cost(options: _StretchOptions, tail_s: float, shifts: Floats, max_trim_s: float) -> Floats:
    """Return (R, S) the cost of where the music ends, `tail_s` after its last beat, by rate and shift."""
    trimmed = shifts + options.rates[:, None] * tail_s
    cost = TRIMMED_END_COST * trimmed
    cost[(trimmed < -1e-9) | (trimmed > max_trim_s + 1e-9)] = np.inf
    return cost


def _viterbi(
    gains: Floats, options: Sequence[_StretchOptions], start_cost: Floats, end_cost: Floats, gaps: Floats
) -> tuple[float, Floats]:
    """Return the worth of the best warp, and (B,) the shift of each beat in steps of the grid.

    With V[b, r, s] the best worth up to beat b at shift s, when rate r follows it, and e(r) the steps of a rate:

        V[b+1, r, s] = max over r' (V[b, r', s − e(r')] − change(r', r)) + gain[b+1, s] − stretch(r)
    """
    costs = [STRETCH_COST * gap * np.abs(option.rates)[:, None] for gap, option in zip(gaps, options, strict=True)]
    worth = gains[0] - start_cost - costs[0]  # (R, S)
    previous_rates: list[np.ndarray] = []  # r', by r and s
    for beat, current in enumerate(options):
        reached = np.stack([_shift_row(row, int(step)) for row, step in zip(worth, current.steps, strict=True)])
        reached += gains[beat + 1]
        if beat + 1 == len(options):
            worth = reached - end_cost
            break
        following = options[beat + 1]
        change = np.abs(following.rates[:, None] - current.rates)
        change_cost = np.where(change <= MAX_STRETCH_CHANGE + 1e-9, STRETCH_CHANGE_COST * change, np.inf)
        candidates = reached - change_cost[..., None]  # (R, R', S)
        previous_rates.append(candidates.argmax(axis=1).astype(np.int8))
        worth = candidates.max(axis=1) - costs[beat + 1]
    rate, shift = (int(index) for index in np.unravel_index(int(worth.argmax()), worth.shape))
    path = [shift]
    for beat in range(len(options) - 1, -1, -1):
        path.append(path[-1] - int(options[beat].steps[rate]))
        rate = int(previous_rates[beat - 1][rate, path[-1]]) if beat else rate
    return float(worth.max()), np.array(path[::-1], float) - gains.shape[1] // 2


def _shift_row(row: Floats, step: int) -> Floats:
    """Return (S,) `row` moved up by `step` shifts; values from beyond the grid are −inf."""
    out = np.full_like(row, -np.inf)
    if step >= 0:
        out[step:] = row[: len(row) - step]
    else:
        out[:step] = row[-step:]
    return out
