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

STEPS_PER_BEAT = 100  # steps of time in a beat at the tempo asked for
MAX_TEMPO_DEVIATION = 0.08  # the tempo stays within ± this share of the one asked for
MAX_TEMPO_CHANGE = 0.04  # the largest change at a bar line at steadiness 0
MAX_TEMPO_CHANGE_IN_BAR = 0.015  # the same from beat to beat inside a bar; listeners just notice 0.02 to 0.03
HIT_TOLERANCE_S = 0.07  # a beat this near to a cut meets it
SOUND_LAG_S = (
    0.01  # a beat is best a little after its cut: sound that leads is noticed first (ITU-R BT.1359: 45 ms, 125 ms)
)
HIT_SIGMA_S = 0.03
MIN_HIT_VALUE = 0.9  # what a beat is worth that only just meets its cut
DOWNBEAT_REWARD = 0.8  # what the strongest cut is worth besides on a downbeat
FINAL_CHORD_S = (1.5, 4.0)  # seconds that the final chord should last
MAX_START_S = 0.6  # seconds that the picture may run before beat 0, and less than the shortest beat
LATE_START_COST = 0.8  # of opening a whole beat late; all costs are in cuts of full strength
TEMPO_DEVIATION_COST = 0.05  # of a beat, for its share away from the tempo asked for
TEMPO_CHANGE_COST = 3.0  # of a change of tempo, for its share
TEMPO_REVERSAL_COST = 0.1  # of becoming faster after having become slower, or the reverse, besides
STRONG_CUT = 0.5  # a cut of this strength may bend the bar before it


@dataclass(frozen=True)
class BarGrid:
    """Beats in each bar, and when they fall. The last bar opens with the final chord and lasts to the piece's end."""

    bar_lengths: tuple[int, ...]
    tempo_map: TempoMap


@dataclass(frozen=True)
class PlanConstraints:
    """What the bars must serve. `tempo` in beats per minute, `duration` in seconds."""

    cuts: tuple[Cut, ...]
    duration: float
    tempo: float
    beats_per_bar: int
    steadiness: float
    beat_ratio_range: ClassVar[tuple[float, float]] = (
        1 / (1 + MAX_TEMPO_DEVIATION),
        1 / (1 - MAX_TEMPO_DEVIATION),
    )  # of a beat's length, as shares

    @property
    def beat_s(self) -> float:
        return timing.beat_seconds(self.tempo)

    @property
    def step_s(self) -> float:
        """Seconds of a step of `rubato`'s time."""
        return self.beat_s / STEPS_PER_BEAT

    @property
    def beat_range_s(self) -> tuple[float, float]:
        """The shortest and longest beat allowed."""
        return self.beat_s * self.beat_ratio_range[0], self.beat_s * self.beat_ratio_range[1]

    @property
    def min_final_chord_s(self) -> float:
        return max(FINAL_CHORD_S[0], self.beat_range_s[1] + self.step_s)

    @cached_property
    def allowed_bar_lengths(self) -> tuple[int, ...]:
        """Beats that a bar may have, the regular length first."""
        regular = self.beats_per_bar
        return (regular, *(m for m in range(max(2, regular - 2), regular + 3) if m != regular))

    @property
    def max_tempo_change(self) -> float:
        """The share by which the tempo may change at a bar line."""
        return MAX_TEMPO_CHANGE * float(np.sqrt(1 - self.steadiness))

    @property
    def max_tempo_change_in_bar(self) -> float:
        """The share by which it may change from beat to beat inside a bar."""
        return MAX_TEMPO_CHANGE_IN_BAR * float(np.sqrt(1 - self.steadiness))

    @property
    def is_too_short(self) -> bool:
        """Whether no bar fits before the final chord."""
        return self.duration < self.beats_per_bar * self.beat_s + self.min_final_chord_s

    def irregular_bar_cost(self, beats: int) -> float:
        """What a bar of `beats` costs, in cuts; a steady piece bends less."""
        return (0.6 + 0.6 * self.steadiness) * {0: 0.0, 1: 1.0, 2: 1.5}[abs(beats - self.beats_per_bar)]

    def final_chord_cost(self, seconds: Floats) -> Floats:
        """What a final chord of `seconds` costs: nothing at about a bar, all where it would be too short."""
        wanted = float(np.clip(self.beats_per_bar * self.beat_s, *FINAL_CHORD_S))
        cost = 1.5 * np.log(np.maximum(seconds, 1e-3) / wanted) ** 2
        return np.where(seconds >= self.min_final_chord_s - 1e-9, cost, np.inf)


def hit_value(offset_s: Floats) -> Floats:
    """How well a beat `off` seconds after a cut meets it, 0–1."""
    near = MIN_HIT_VALUE + (1 - MIN_HIT_VALUE) * np.exp(-0.5 * ((offset_s - SOUND_LAG_S) / HIT_SIGMA_S) ** 2)
    return np.where(np.abs(offset_s) <= HIT_TOLERANCE_S, near, 0.0)


def hit_weight(cut: Cut) -> float:
    """What a beat that meets `cut` earns."""
    return 0.4 + 0.6 * cut.strength


def hit_rewards(cuts: Sequence[Cut], times: Floats) -> tuple[Floats, Floats]:
    """What a beat at each of `times` earns, and what it earns besides when it is a downbeat; both (T,)."""
    beat, down = np.zeros(len(times)), np.zeros(len(times))
    for cut in cuts:
        low, high = np.searchsorted(times, [cut.time - HIT_TOLERANCE_S, cut.time + HIT_TOLERANCE_S])
        near = hit_value(times[low:high] - cut.time)
        beat[low:high] += hit_weight(cut) * near
        down[low:high] += DOWNBEAT_REWARD * cut.strength**2 * near
    return beat, down


def tempo_deviation_cost(ratio: float | Floats) -> Floats:
    """What a beat costs that is `ratio` times as long as one at the tempo asked for."""
    return TEMPO_DEVIATION_COST * np.abs(np.log(ratio))


def tempo_change_cost(change: float) -> float:
    return TEMPO_CHANGE_COST * change


def irregular_bar_mask(cuts: Sequence[Cut], times: Floats, pickup_s: float) -> np.ndarray:
    """(T,) where a bar of irregular length may end: at strong cuts, and up to `pickup` seconds."""
    allowed = times <= pickup_s
    for cut in cuts:
        if cut.strength >= STRONG_CUT:
            low, high = np.searchsorted(times, [cut.time - 0.02, cut.time + 0.04])
            allowed[low:high] = True
    return allowed


def final_chord_grid(brief: PlanConstraints) -> BarGrid:
    """One bar from 0 s to the end, for a piece that is its final chord."""
    return BarGrid((count_beats(brief.duration, brief.beat_s),), TempoMap.constant(brief.tempo))


def count_beats(seconds: float, beat_s: float) -> int:
    """Beats of `period` that cover `seconds`."""
    return max(1, int(np.ceil(seconds / beat_s - 1e-6)))
