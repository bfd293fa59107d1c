"""Rewards and costs of a beat grid (hit-point scoring): cuts on beats, strong cuts on downbeats.

Rewards are set against tempo changes, bars of irregular length, a late start and a final chord that is cut off.
`beat_search` searches grids whose tempo moves, and those of one tempo.

Between the beats, cuts may fall on accent positions: off-beat eighths and sixteenths at which a style plays an accent.
They earn a share of what a beat earns.

All rewards and costs are in cuts: 1.0 is what a beat on a cut of full strength earns. Unless a source is given, a value
is hand-tuned on `bench/cut_alignment.py`, seeds 0, 3, 4 and 5 (others were held out), so that more cuts are met while
bars and tempo stay regular; none was fitted to listening tests.

T time steps of `PlanConstraints.step_s` seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from v2m.core import timing
from v2m.core.timing import TempoMap
from v2m.core.types import Cut, Floats

STEPS_PER_BEAT = 100  # time steps of a beat at the requested tempo
# Limits, as shares of the requested tempo. Listeners just notice changes of 0.02 to 0.03 (Drake & Botte 1993).
MAX_TEMPO_DEVIATION = 0.06
MAX_TEMPO_CHANGE = 0.04  # at a bar line, at steadiness 0
MAX_TEMPO_CHANGE_IN_BAR = 0.015  # from beat to beat inside a bar, at steadiness 0
# Hits. ITU-R BT.1359: sound ahead of the picture is detected from 45 ms on, behind it from 125 ms, so a beat is best
# a little after its cut.
HIT_TOLERANCE_S = 0.07
SOUND_LAG_S = 0.005
HIT_SIGMA_S = 0.022  # a beat one frame (40 ms) from its cut is worth little
MIN_HIT_WEIGHT = 0.4  # of a cut of strength 0
STRONGEST_REWARD, STRONGEST_SIGMA_S = 4.0, 0.01  # more than a few other cuts, so that the strongest ones are exact
STRONGEST_POWER = 12  # of the strength, by which cuts that are less strong lose that reward
DOWNBEAT_REWARD = 1.0  # added where the strongest cut falls on a downbeat
# Start and end
TAIL_SHARE = 0.8  # of the reward, for accents while the final chord rings
MIN_TAIL_S = 0.25  # from the last accent to the end of the piece
FINAL_CHORD_S = (1.5, 4.0)  # bounds of the final chord's preferred length
FINAL_CHORD_COST = 1.5  # per squared log ratio to the preferred length
MAX_START_S = 0.6  # of the video before beat 0; the shortest beat is another limit
LATE_START_COST = 0.8  # of a start that is one beat late
# Tempo
TEMPO_DEVIATION_COST = 0.05  # of a beat, per log ratio to the requested tempo
TEMPO_CHANGE_COST = 3.0  # per relative change
TEMPO_REVERSAL_COST = 0.1  # added where an acceleration follows a deceleration, or the reverse
# Bars
IRREGULAR_BAR_COST = {0: 0.0, 1: 1.0, 2: 1.5}  # by beats missing or added, times 0.6 to 1.2 with rising steadiness
STRONG_CUT = 0.5  # the strength from which a cut may end an irregular bar
STRONG_CUT_WINDOW_S = (-0.02, 0.04)  # around such a cut, where the bar may end


class AccentPosition(NamedTuple):
    """A place between two beats where an accent may be played.

    `position`: as written, 0–1 of a beat. `played`: the same with swing. `weight`: the share of a beat's reward, 0–1.
    """

    position: float
    played: float
    weight: float


@dataclass(frozen=True)
class BarGrid:
    """Beats in each bar and their times; the last bar is the final chord's and ends with the piece."""

    bar_lengths: tuple[int, ...]
    tempo_map: TempoMap


@dataclass(frozen=True)
class PlanConstraints:
    """The task of a search: `tempo` in beats per minute, `duration` in seconds, `steadiness` 0–1.

    `max_tempo_deviation` bounds the tempo of every beat, as a share of `tempo`.
    """

    cuts: tuple[Cut, ...]
    duration: float
    tempo: float
    beats_per_bar: int
    steadiness: float
    accents: tuple[AccentPosition, ...] = ()
    max_tempo_deviation: float = MAX_TEMPO_DEVIATION

    @property
    def beat_s(self) -> float:
        """Seconds of a beat at `tempo`."""
        return timing.beat_seconds(self.tempo)

    @property
    def step_s(self) -> float:
        """Seconds of a time step."""
        return self.beat_s / STEPS_PER_BEAT

    @property
    def beat_ratio_range(self) -> tuple[float, float]:
        """Shortest and longest allowed beat, as shares of a beat at `tempo`."""
        return 1 / (1 + self.max_tempo_deviation), 1 / (1 - self.max_tempo_deviation)

    @property
    def beat_range_s(self) -> tuple[float, float]:
        """Shortest and longest allowed beat, in seconds."""
        return self.beat_s * self.beat_ratio_range[0], self.beat_s * self.beat_ratio_range[1]

    @property
    def min_final_chord_s(self) -> float:
        """Shortest final chord in seconds, longer than any beat."""
        return max(FINAL_CHORD_S[0], self.beat_range_s[1] + self.step_s)

    @cached_property
    def allowed_bar_lengths(self) -> tuple[int, ...]:
        """Numbers of beats that a bar may have, the regular one first."""
        regular = self.beats_per_bar
        return (regular, *(m for m in range(max(2, regular - 2), regular + 3) if m != regular))

    @property
    def max_tempo_change(self) -> float:
        """Largest relative tempo change at a bar line."""
        return MAX_TEMPO_CHANGE * float(np.sqrt(1 - self.steadiness))

    @property
    def max_tempo_change_in_bar(self) -> float:
        """Largest relative tempo change from beat to beat inside a bar."""
        return MAX_TEMPO_CHANGE_IN_BAR * float(np.sqrt(1 - self.steadiness))

    @property
    def is_too_short(self) -> bool:
        """True where no bar fits before the final chord."""
        return self.duration < self.beats_per_bar * self.beat_s + self.min_final_chord_s

    def irregular_bar_cost(self, beats: int) -> float:
        """Cost of a bar of `beats` beats, higher in a steadier piece."""
        return (0.6 + 0.6 * self.steadiness) * IRREGULAR_BAR_COST[abs(beats - self.beats_per_bar)]

    def final_chord_cost(self, seconds: Floats) -> Floats:
        """Cost of a final chord of `seconds`: 0 at about a bar, infinite where it is too short."""
        preferred = float(np.clip(self.beats_per_bar * self.beat_s, *FINAL_CHORD_S))
        cost = FINAL_CHORD_COST * np.log(np.maximum(seconds, 1e-3) / preferred) ** 2
        return np.where(seconds >= self.min_final_chord_s - 1e-9, cost, np.inf)


def hit_value(offset_s: Floats) -> Floats:
    """Value 0–1 of a beat `offset_s` seconds after a cut."""
    value = np.exp(-0.5 * ((offset_s - SOUND_LAG_S) / HIT_SIGMA_S) ** 2)
    return np.where(np.abs(offset_s) <= HIT_TOLERANCE_S, value, 0.0)


def strongest_value(offset_s: Floats) -> Floats:
    """Value 0–1 of a beat `offset_s` seconds after one of the strongest cuts: 0 a frame apart."""
    return np.exp(-0.5 * ((offset_s - SOUND_LAG_S) / STRONGEST_SIGMA_S) ** 2)


def hit_weight(cut: Cut) -> float:
    """Reward of a beat exactly on `cut`, without that of the strongest ones."""
    return MIN_HIT_WEIGHT + (1 - MIN_HIT_WEIGHT) * cut.strength


def strongest_weight(cut: Cut) -> float:
    """Further reward of a beat exactly on `cut`, nearly 0 unless it is one of the strongest."""
    return STRONGEST_REWARD * cut.strength**STRONGEST_POWER


def hit_rewards(
    cuts: Sequence[Cut], times: Floats, value_of: Callable[[Floats], Floats] = hit_value
) -> tuple[Floats, Floats]:
    """Return the reward of a beat at each of `times` and its further reward as a downbeat; both (T,).

    That of the strongest cuts is left out. `value_of`: the value 0–1 of a beat by its distance to a cut in seconds.
    """
    beat, down = np.zeros(len(times)), np.zeros(len(times))
    for cut in cuts:
        low, high = np.searchsorted(times, [cut.time - HIT_TOLERANCE_S, cut.time + HIT_TOLERANCE_S])
        value = value_of(times[low:high] - cut.time)
        beat[low:high] += hit_weight(cut) * value
        down[low:high] += DOWNBEAT_REWARD * cut.strength**2 * value
    return beat, down


def attack_rewards(cuts: Sequence[Cut], times: Floats) -> tuple[Floats, Floats]:
    """Return `hit_rewards` with that of the strongest cuts."""
    beat, down = hit_rewards(cuts, times)
    for cut in cuts:
        low, high = np.searchsorted(times, [cut.time - HIT_TOLERANCE_S, cut.time + HIT_TOLERANCE_S])
        beat[low:high] += strongest_weight(cut) * strongest_value(times[low:high] - cut.time)
    return beat, down


def attack_times(times: Floats, accents: Sequence[AccentPosition]) -> tuple[Floats, Floats, Floats]:
    """Return beats, seconds and weights, (A,) each, of all attacks: beats at `times`, and accents.

    Beats are as played, with swing. The last beat is followed by none.
    """
    beats = [np.arange(len(times), dtype=float), *(np.arange(len(times) - 1) + accent.played for accent in accents)]
    weights = np.repeat([1.0, *(accent.weight for accent in accents)], [len(part) for part in beats])
    positions = np.concatenate(beats)
    order = np.argsort(positions, kind="stable")
    return positions[order], np.interp(positions[order], np.arange(len(times)), times), weights[order]


def nearest_attacks(cuts: Sequence[Cut], seconds: Floats, weights: Floats) -> np.ndarray:
    """Return (K,) the index of the attack worth most at each cut, or else of the nearest one."""
    best = []
    for cut in cuts:
        low, high = np.searchsorted(seconds, [cut.time - HIT_TOLERANCE_S, cut.time + HIT_TOLERANCE_S])
        low, high = max(0, min(low, len(seconds) - 1) - 1), min(len(seconds), high + 1)
        offsets = seconds[low:high] - cut.time
        best.append(low + int(np.lexsort((np.abs(offsets), -weights[low:high] * hit_value(offsets)))[0]))
    return np.array(best, int)


def tempo_deviation_cost(ratio: float | Floats) -> Floats:
    """Cost of a beat `ratio` times as long as one at the requested tempo."""
    return TEMPO_DEVIATION_COST * np.abs(np.log(ratio))


def tempo_change_cost(change: float) -> float:
    return TEMPO_CHANGE_COST * change


def irregular_bar_mask(cuts: Sequence[Cut], times: Floats, pickup_s: float) -> np.ndarray:
    """Return (T,) bool, true where an irregular bar may end: at strong cuts, and up to `pickup_s`."""
    allowed = times <= pickup_s
    for cut in cuts:
        if cut.strength >= STRONG_CUT:
            low, high = np.searchsorted(times, [cut.time + edge for edge in STRONG_CUT_WINDOW_S])
            allowed[low:high] = True
    return allowed


def final_chord_grid(constraints: PlanConstraints) -> BarGrid:
    """Return one bar from 0 s to the end, for a piece that is only its final chord."""
    return BarGrid((count_beats(constraints.duration, constraints.beat_s),), TempoMap.constant(constraints.tempo))


def count_beats(seconds: float, beat_s: float) -> int:
    """Return how many beats of `beat_s` cover `seconds`."""
    return max(1, int(np.ceil(seconds / beat_s - 1e-6)))
