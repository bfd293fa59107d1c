"""The Viterbi search of variable tempo against exhaustive search."""

from __future__ import annotations

import numpy as np
import pytest

from v2m.core.types import Cut
from v2m.sketch.plan import beat_grid, beat_search


class Exhaustive:
    """Worth of bars by exhaustive recursion: the slow, obvious version of the search."""

    def __init__(self, constraints: beat_grid.PlanConstraints) -> None:
        self.constraints = constraints
        self.last = int(constraints.duration / constraints.step_s)
        times = np.arange(self.last + 1, dtype=float) * constraints.step_s
        self.tempi = range(95, 107)
        self.beat, self.down = beat_grid.attack_rewards(constraints.cuts, times)
        self.irregular = beat_grid.irregular_bar_mask(
            constraints.cuts, times, max(constraints.allowed_bar_lengths) * 106 * constraints.step_s
        )
        self.ring = self.beat + self.down - constraints.final_chord_cost(constraints.duration - times)
        self.limits = [round(100 * m) for m in (constraints.max_tempo_change, constraints.max_tempo_change_in_bar)]
        self.starts = [int(i) for i in np.flatnonzero(times < min(beat_grid.MAX_START_S, constraints.beat_range_s[0]))]
        self.memory: dict[tuple[int, int, int, int], float] = {}

    def best(self) -> float:
        return max(
            self.start_worth(at) + self.path_worth(at, 0, tempo, 0) for at in self.starts for tempo in self.tempi
        )

    def start_worth(self, at: int) -> float:
        return -beat_grid.LATE_START_COST * at / 100

    def change_worth(self, before: int, tempo: int, direction: int) -> tuple[float, int]:
        """Return the cost of a tempo change, negated, and the direction of the last change (−1, 1; 0 for none)."""
        now = int(np.sign(tempo - before)) or direction
        cost = beat_grid.tempo_change_cost(abs(tempo - before) / 100) + beat_grid.TEMPO_REVERSAL_COST * (
            now == -direction != 0
        )
        return -cost, now

    def path_worth(self, at: int, k: int, tempo: int, direction: int) -> float:
        """Return the best worth from beat `k` of a bar on, which starts at step `at` and lasts `tempo`."""
        key = (at, k, tempo, direction)
        if key not in self.memory:
            candidates = [self.beat_worth(at, k, tempo) + self.next_worth(at + tempo, k + 1, tempo, direction)]
            for m in self.constraints.allowed_bar_lengths[1:] if k == 0 else ():
                end = at + m * tempo
                if end <= self.last and self.irregular[end]:
                    candidates.append(
                        self.irregular_worth(at, m, tempo) + self.next_worth(end, m, tempo, direction, closed=True)
                    )
            self.memory[key] = max(candidates)
        return self.memory[key]

    def next_worth(self, at: int, k: int, tempo: int, direction: int, closed: bool = False) -> float:
        if at > self.last:
            return -np.inf
        closed = closed or k == self.constraints.beats_per_bar
        worths = [self.ring[at] + self.tail_worth(at, tempo)] if closed else []
        for other in self.tempi:
            if abs(other - tempo) <= self.limits[0 if closed else 1]:
                cost, now = self.change_worth(tempo, other, direction)
                worths.append(cost + self.path_worth(at, 0 if closed else k, other, now))
        return max(worths)

    def accents_worth(self, at: int, tempo: int, last: int) -> float:
        """Return the rewards of the accents of the beat at step `at`, up to step `last`."""
        steps = [(at + int(np.rint(accent.played * tempo)), accent.weight) for accent in self.constraints.accents]
        return float(sum(weight * self.beat[step] for step, weight in steps if step <= last))

    def tail_worth(self, at: int, tempo: int) -> float:
        """Return the rewards of the accents while the final chord at step `at` rings."""
        last = int((self.constraints.duration - beat_grid.MIN_TAIL_S) / self.constraints.step_s + 1e-6)
        beats = range(at, last + 1, tempo)
        total = sum(self.beat[beat] * (beat > at) + self.accents_worth(beat, tempo, last) for beat in beats)
        return beat_grid.TAIL_SHARE * float(total)

    def beat_worth(self, at: int, k: int, tempo: int) -> float:
        rewards = self.beat[at] + self.accents_worth(at, tempo, self.last) + self.down[at] * (k == 0)
        return float(rewards - beat_grid.tempo_deviation_cost(tempo / 100))

    def irregular_worth(self, at: int, m: int, tempo: int) -> float:
        return sum(
            (self.beat_worth(at + k * tempo, k, tempo) for k in range(m)), -self.constraints.irregular_bar_cost(m)
        )

    def worth(self, bars: beat_grid.BarGrid) -> float:
        """Return the worth of `bars` by the same rules."""
        at = np.rint(bars.tempo_map.times / self.constraints.step_s).astype(int)
        tempi, total, direction, beat = np.diff(at), self.start_worth(int(at[0])), 0, 0
        for m in bars.bar_lengths[:-1]:
            for k in range(m):
                cost, direction = self.change_worth(tempi[max(beat - 1, 0)], tempi[beat], direction)
                total += cost + self.beat_worth(at[beat], k, tempi[beat])
                beat += 1
            total -= self.constraints.irregular_bar_cost(m)
        return float(total + self.ring[at[-1]] + self.tail_worth(int(at[-1]), int(tempi[-1])))


@pytest.mark.parametrize("seed", range(4))
def test_viterbi_matches_exhaustive_search(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With cheap changes, so that the best path uses all of them, reversals too."""
    monkeypatch.setattr(beat_grid, "TEMPO_CHANGE_COST", 0.2)
    for module in (beat_grid, beat_search):
        monkeypatch.setattr(module, "TEMPO_REVERSAL_COST", 0.04)
    rng = np.random.default_rng(seed)
    cuts = tuple(Cut(float(time), float(rng.choice([0.1, 1]))) for time in np.sort(rng.uniform(0, 7, 12)))
    accents = (beat_grid.AccentPosition(0.5, 0.6, 0.7), beat_grid.AccentPosition(0.25, 0.3, 0.4))[:seed]
    constraints = beat_grid.PlanConstraints(cuts, 7.0, 120.0, 2 + seed % 2, 0.0, accents)
    exhaustive = Exhaustive(constraints)
    assert exhaustive.worth(beat_search.plan_variable_tempo(constraints)) == pytest.approx(exhaustive.best(), abs=1e-9)
