"""Where the beats of finished music should go: each piece between two beats a little longer or shorter.

A search over beats, what each is shifted by, and how fast the music runs there (Viterbi). Gains and costs are in cuts
of full strength, as in Sketch's plans.

B beats, S shifts `GRID` apart, R rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from v2m.analysis.beats import BeatTrack
from v2m.core import timing
from v2m.core.timing import TimeMap
from v2m.core.types import Cut, Floats
from v2m.sketch.plan.beat_grid import HIT_TOLERANCE_S, hit_rewards

MAX_STRETCH = 0.04  # pieces become longer or shorter by up to this share
MAX_STRETCH_CHANGE = (
    0.02  # from beat to beat by up to this: what listeners just notice is 0.02 to 0.03 (Drake & Botte 1993)
)
GRID_S = 0.004  # seconds
MAX_SHIFT_S = 2.0  # seconds that a beat may be shifted by
MAX_RATES = 8  # at most so many on either side of 1
MAX_START_S = 0.5  # seconds that the music may begin after the picture
MAX_TRIM_S = 1.0  # seconds of its beginning, and of its end, that may be given up, and at most half a bar of each
COSTS = (0.6, 0.4, 0.4)  # per second: of beginning late, of what is lost at the beginning, at the end
STRETCH_CHANGE_COST = 1.0  # per change of rate, for its share
STRETCH_COST = 0.25  # per second of music, for the share by which it is stretched
SECTION_GAIN = 2.0  # what a section on a cut is worth
MIN_LAST_GAP_S = 0.05  # seconds: a beat nearer to the end is left out


@dataclass(frozen=True)
class _StretchOptions:
    """What may become of the music from one beat to the next: (R,) `steps` of the grid, `rates` as shares of it."""

    steps: np.ndarray
    rates: Floats

    @classmethod
    def from_gap(cls, gap: float) -> _StretchOptions:
        most = int(np.floor(MAX_STRETCH * gap / GRID_S + 1e-9))
        stride = max(1, -(-most // MAX_RATES))
        steps = np.arange(-(most // stride), most // stride + 1) * stride
        return cls(steps, np.asarray(steps * GRID_S / gap, float))


def plan_time_warp(
    pulse: BeatTrack, cuts: Sequence[Cut], duration: float, sections: Sequence[float] = ()
) -> TimeMap | None:
    """The map that lets most cuts be met, music of `duration` becoming at least as long; None where none is better.

    First of all a downbeat meets the strongest cut, the stronger the better, where one can be brought there; then the
    cuts' strengths that beats meet within ±70 ms count, and strong cuts once more on downbeats. Nowhere does the music
    run more than 4 % faster or slower, nor change by more than 2 % from one beat to the next. Where one of `sections`
    (seconds) begins on a cut, it is worth two cuts that it stays there.
    """
    keep = pulse.beats < duration - MIN_LAST_GAP_S
    beats, cuts = pulse.beats[keep], [cut for cut in cuts if 0 < cut.time < duration]
    if len(beats) < 3 or not cuts:
        return None
    shifts = np.linspace(-MAX_SHIFT_S, MAX_SHIFT_S, 2 * round(MAX_SHIFT_S / GRID_S) + 1)
    gains = _hit_gains(pulse, beats, cuts, shifts)
    for begin in sections:
        if min(abs(begin - cut.time) for cut in cuts) <= HIT_TOLERANCE_S:
            gains[np.abs(beats - begin).argmin()] += SECTION_GAIN * (np.abs(shifts) <= HIT_TOLERANCE_S)
    moves = [_StretchOptions.from_gap(float(gap)) for gap in np.diff(beats)]
    bar = float(np.median(np.diff(beats))) * pulse.meter
    value, shift = _viterbi(
        gains, moves, _end_costs(moves, beats, shifts, duration, min(MAX_TRIM_S, bar / 2)), np.diff(beats)
    )
    stay = gains[:, len(shifts) // 2].sum()
    if value <= stay + 1e-6 or not shift.any():
        return None
    return TimeMap(beats, beats + shift * GRID_S)


def _hit_gains(pulse: BeatTrack, beats: Floats, cuts: Sequence[Cut], shifts: Floats) -> Floats:
    """(B, S): what each beat earns where a shift puts it."""
    times = np.arange(-MAX_SHIFT_S, beats[-1] + 2 * MAX_SHIFT_S, GRID_S)
    met, opening = hit_rewards(cuts, times)
    strongest = max(cuts, key=lambda cut: cut.strength)
    above_all = 1.0 + sum(1.8 * cut.strength + 0.4 for cut in cuts)  # more than everything else together
    top = hit_rewards([strongest], times)[0] > 0
    begin = np.rint(timing.place_at(beats, 1 / GRID_S)).astype(int)
    places = begin[:, None] + np.arange(len(shifts))  # of each beat and shift in `times`
    opens, accents = pulse.is_downbeat[: len(beats), None], pulse.accents[: len(beats), None]
    return met[places] + opens * (opening[places] + top[places] * (above_all + accents))


def _end_costs(
    moves: Sequence[_StretchOptions], beats: Floats, shifts: Floats, duration: float, lost: float
) -> tuple[Floats, Floats]:
    """(R, S) each, costs: of where the music begins, by the first beat's rate and shift, and of where it would end."""
    begins = shifts - moves[0].rates[:, None] * beats[0]
    over = shifts + moves[-1].rates[:, None] * (duration - beats[-1])
    late, early, long = COSTS
    first = np.where(begins > 0, late * begins, -early * begins)
    last = long * over
    first[(begins > MAX_START_S) | (begins < -lost - 1e-9)] = np.inf
    last[(over < -1e-9) | (over > lost + 1e-9)] = np.inf
    return first, last


def _viterbi(
    gains: Floats, moves: Sequence[_StretchOptions], ends: tuple[Floats, Floats], gaps: Floats
) -> tuple[float, Floats]:
    """The value of the best route, and (B,) the shift of each beat in steps of the grid.

    `value` (R, S) is of a route up to a beat, by the rate after it and its shift.
    """
    value = gains[0] - ends[0] - _stretch_cost(moves[0], float(gaps[0]))
    came: list[np.ndarray] = []
    for beat, here in enumerate(moves):
        arrived = np.stack([_shift_row(row, int(step)) for row, step in zip(value, here.steps, strict=True)])
        arrived += gains[beat + 1]
        if beat + 1 == len(moves):
            value = arrived - ends[1]
            break
        after = moves[beat + 1]
        change = np.abs(after.rates[:, None] - here.rates)
        options = (
            arrived - np.where(change <= MAX_STRETCH_CHANGE + 1e-9, STRETCH_CHANGE_COST * change, np.inf)[..., None]
        )
        came.append(options.argmax(axis=1).astype(np.int8))
        value = options.max(axis=1) - _stretch_cost(after, float(gaps[beat + 1]))
    rate, place = (int(each) for each in np.unravel_index(int(value.argmax()), value.shape))
    places = [place]
    for beat in range(len(moves) - 1, -1, -1):
        places.append(places[-1] - int(moves[beat].steps[rate]))
        rate = int(came[beat - 1][rate, places[-1]]) if beat else rate
    return float(value.max()), np.array(places[::-1], float) - gains.shape[1] // 2


def _stretch_cost(moves: _StretchOptions, gap: float) -> Floats:
    return STRETCH_COST * gap * np.abs(moves.rates)[:, None]


def _shift_row(row: Floats, step: int) -> Floats:
    """(S,) `row` with every shift raised by `step`; what comes from beyond the grid cannot be."""
    out = np.full_like(row, -np.inf)
    if step >= 0:
        out[step:] = row[: len(row) - step]
    else:
        out[:step] = row[-step:]
    return out
