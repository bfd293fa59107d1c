"""The search for bars whose tempo gives way, against trying every way there is."""

from __future__ import annotations

import numpy as np
import pytest

from v2m.core.types import Cut
from v2m.sketch.plan import beat_grid, variable_tempo


class Exhaustive:
    """Worth of bars by the rules alone, with every way on tried in turn: slow and obvious."""

    def __init__(self, brief: beat_grid.PlanConstraints) -> None:
        self.brief = brief
        self.last = int(brief.duration / brief.step_s)
        times = np.arange(self.last + 1, dtype=float) * brief.step_s
        self.tempi = range(93, 109)
        self.beat, self.down = beat_grid.hit_rewards(brief.cuts, times)
        self.bent = beat_grid.irregular_bar_mask(brief.cuts, times, max(brief.allowed_bar_lengths) * 108 * brief.step_s)
        self.ring = self.beat + self.down - brief.final_chord_cost(brief.duration - times)
        self.limits = [round(100 * m) for m in (brief.max_tempo_change, brief.max_tempo_change_in_bar)]
        self.starts = [int(i) for i in np.flatnonzero(times < min(beat_grid.MAX_START_S, brief.beat_range_s[0]))]
        self.memory: dict[tuple[int, int, int, int], float] = {}

    def best(self) -> float:
        return max(self.late(at) + self.play(at, 0, tempo, 0) for at in self.starts for tempo in self.tempi)

    def late(self, at: int) -> float:
        return -beat_grid.LATE_START_COST * at / 100

    def changed(self, before: int, tempo: int, way: int) -> tuple[float, int]:
        """What a change of tempo costs, and the way it went last (−1, 1; 0 for never)."""
        now = int(np.sign(tempo - before)) or way
        cost = beat_grid.tempo_change_cost(abs(tempo - before) / 100) + beat_grid.TEMPO_REVERSAL_COST * (
            now == -way != 0
        )
        return -cost, now

    def play(self, at: int, k: int, tempo: int, way: int) -> float:
        """The best from beat `k` of a bar on, which opens at `at` and lasts `tempo`."""
        key = (at, k, tempo, way)
        if key not in self.memory:
            ways_on = [self.opened(at, k, tempo) + self.after(at + tempo, k + 1, tempo, way)]
            for m in self.brief.allowed_bar_lengths[1:] if k == 0 else ():
                end = at + m * tempo
                if end <= self.last and self.bent[end]:
                    ways_on.append(self.irregular(at, m, tempo) + self.after(end, m, tempo, way, closed=True))
            self.memory[key] = max(ways_on)
        return self.memory[key]

    def after(self, at: int, k: int, tempo: int, way: int, closed: bool = False) -> float:
        if at > self.last:
            return -np.inf
        closed = closed or k == self.brief.beats_per_bar
        worths = [self.ring[at]] if closed else []
        for other in self.tempi:
            if abs(other - tempo) <= self.limits[0 if closed else 1]:
                cost, now = self.changed(tempo, other, way)
                worths.append(cost + self.play(at, 0 if closed else k, other, now))
        return max(worths)

    def opened(self, at: int, k: int, tempo: int) -> float:
        return float(self.beat[at] + self.down[at] * (k == 0) - beat_grid.tempo_deviation_cost(tempo / 100))

    def irregular(self, at: int, m: int, tempo: int) -> float:
        return sum((self.opened(at + k * tempo, k, tempo) for k in range(m)), -self.brief.irregular_bar_cost(m))

    def worth(self, bars: beat_grid.BarGrid) -> float:
        """What `bars` are worth by the same rules."""
        at = np.rint(bars.tempo_map.times / self.brief.step_s).astype(int)
        tempi, total, way, beat = np.diff(at), self.late(int(at[0])), 0, 0
        for m in bars.bar_lengths[:-1]:
            for k in range(m):
                cost, way = self.changed(tempi[max(beat - 1, 0)], tempi[beat], way)
                total += cost + self.opened(at[beat], k, tempi[beat])
                beat += 1
            total -= self.brief.irregular_bar_cost(m)
        return float(total + self.ring[at[-1]])


@pytest.mark.parametrize("seed", range(4))
def test_the_search_finds_the_best_bars_there_are(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes are cheap here, so that the best way through makes use of them all and turns where it must."""
    monkeypatch.setattr(beat_grid, "TEMPO_CHANGE_COST", 0.2)
    for module in (beat_grid, variable_tempo):
        monkeypatch.setattr(module, "TEMPO_REVERSAL_COST", 0.04)
    rng = np.random.default_rng(seed)
    cuts = tuple(Cut(float(time), float(rng.choice([0.1, 1]))) for time in np.sort(rng.uniform(0, 7, 12)))
    brief = beat_grid.PlanConstraints(cuts, 7.0, 120.0, 2 + seed % 2, 0.0)
    every = Exhaustive(brief)
    assert every.worth(variable_tempo.plan_variable_tempo(brief)) == pytest.approx(every.best(), abs=1e-9)
