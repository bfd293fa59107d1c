"""The plan of a Sketch piece: how its beats, bars and sections lie on the picture, before any note is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v2m.core import timing
from v2m.core.timing import TempoMap
from v2m.core.types import Cut, Floats, Tags, VisualFeatures
from v2m.sketch.plan import beat_grid, constant_tempo, form, tempo_smoothing, variable_tempo
from v2m.sketch.style import Style


@dataclass(frozen=True)
class Bar:
    """A bar: it opens at beat `start` and lasts `beats` of them. `section` indexes `Plan.passages`."""

    start: int
    beats: int
    section: int


@dataclass(frozen=True)
class FormSection:
    """A section of the form: bars `first` ≤ bar < `last`.

    `name`: "intro", "A", "B", "C", "ending"; a theme's letter returns when the passage is a return of it, and then
    `variant` counts the returns (0 = first time). `energy` 0–1 follows the picture's motion.
    """

    name: str
    variant: int
    first: int
    last: int
    energy: float


@dataclass(frozen=True)
class Hit:
    """A cut and where the music met it: `beat` is the nearest beat, `offset` = its time − the cut's, in seconds."""

    time: float
    strength: float
    beat: int
    offset: float
    downbeat: bool


@dataclass(frozen=True)
class Plan:
    """Where everything falls. `tempo_map` turns beats into seconds from the video's first frame.

    Bars follow each other without a gap from beat 0, which may lie after 0 s (a pick-up); the last bar is the ending's
    and opens with the final chord, which rings until `duration`. `energy` (len(bars),) 0–1 is the dynamic of each bar.
    `hits` are the cuts that a beat meets within ±70 ms, `missed` the others.
    """

    duration: float
    tempo: float
    tempo_map: TempoMap
    bars: tuple[Bar, ...]
    sections: tuple[FormSection, ...]
    hits: tuple[Hit, ...]
    energy: Floats
    missed: tuple[Cut, ...] = ()

    @property
    def beats(self) -> Floats:
        """Seconds of every beat up to the final chord's; the grid goes on, but after it nothing new sounds."""
        return self.tempo_map.beat_to_time(np.arange(self.bars[-1].start + 1))

    @property
    def downbeats(self) -> Floats:
        """Seconds of every bar line, the last of them the final chord's."""
        return self.tempo_map.beat_to_time([bar.start for bar in self.bars])


def plan_piece(
    features: VisualFeatures,
    duration: float,
    tempo: float,
    seed: int,
    *,
    beats_per_bar: int = 4,
    steadiness: float = 0.5,
) -> Plan:
    """Plans a piece for `picture`: as many cuts as possible on beats, the strongest on downbeats, and a real ending.

    The tempo stays within ±8 % of `tempo` (beats per minute). `steadiness` 0–1: at 1 one tempo holds throughout, at
    0.5 it changes by up to 3 % at a bar line, about what listeners just notice (Drake & Botte 1993), and by 1 % from
    beat to beat inside a bar; at 0 by up to 4 % and 2 %. Bars have `beats_per_bar` beats, but one before a strong cut
    may be up to two shorter or longer, and so may a pick-up at the very beginning. The final chord rings 1.5–4 s,
    about a bar. A video too short for a bar before that gets the chord alone. The seed chooses among forms that fit
    equally.

    Raises:
        ValueError: a duration or tempo that is not positive, fewer than 2 beats per bar, or steadiness outside 0–1.
    """
    if not (duration > 0 and tempo > 0 and beats_per_bar >= 2 and 0 <= steadiness <= 1):
        raise ValueError(
            f"duration {duration:g} and tempo {tempo:g} must be positive, beats_per_bar {beats_per_bar} at least 2, "
            f"steadiness {steadiness:g} within 0 to 1"
        )
    cuts = tuple(cut for cut in features.cuts if 0 < cut.time < duration)
    brief = beat_grid.PlanConstraints(cuts, duration, tempo, beats_per_bar, steadiness)
    lay = (
        beat_grid.final_chord_grid
        if brief.is_too_short
        else constant_tempo.plan_constant_tempo
        if steadiness == 1
        else _plan_smooth_tempo
    )
    laid = lay(brief)
    openings = np.concatenate([[0], np.cumsum(laid.bar_lengths)])
    hits, missed = _match_cuts(cuts, laid.tempo_map, openings[:-1])
    accents = np.zeros(len(laid.bar_lengths))
    for hit in hits:
        if hit.downbeat:
            bar = int(np.searchsorted(openings, hit.beat))
            accents[bar] = max(accents[bar], hit.strength)
    moved = form.measure_bar_energy(features, cuts, np.minimum(laid.tempo_map.beat_to_time(openings), duration))
    parts = form.choose_form(accents, moved, seed)
    energy = form.shape_energy(parts, moved)
    section = np.repeat(np.arange(len(parts)), [part.last - part.first for part in parts])
    bars = tuple(Bar(*map(int, row)) for row in zip(openings, laid.bar_lengths, section, strict=False))
    return Plan(duration, tempo, laid.tempo_map, bars, _form_sections(parts, energy), hits, energy, missed)


def plan_for_style(style: Style, features: VisualFeatures, duration: float, tags: Tags, seed: int) -> Plan:
    """The plan of a piece in `style`, at the tempo that the tags name or that is usual in it."""
    tempo = tags.tempo or style.tempo[1]
    return plan_piece(features, duration, tempo, seed, beats_per_bar=style.beats_per_bar, steadiness=style.steadiness)


def _plan_smooth_tempo(brief: beat_grid.PlanConstraints) -> beat_grid.BarGrid:
    return tempo_smoothing.smooth_tempo(brief, variable_tempo.plan_variable_tempo(brief))


def _form_sections(parts: Sequence[form.SectionBounds], energy: Floats) -> tuple[FormSection, ...]:
    names = [part.name for part in parts]
    return tuple(
        FormSection(name, names[:index].count(name), first, last, float(energy[first:last].mean()))
        for index, (name, first, last) in enumerate(parts)
    )


def _match_cuts(
    cuts: Sequence[Cut], tempo_map: TempoMap, downbeats: NDArray[np.integer]
) -> tuple[tuple[Hit, ...], tuple[Cut, ...]]:
    """The cuts that meet a beat up to the last downbeat, and those that do not."""
    hits, missed = [], []
    for cut in cuts:
        beat = int(np.clip(np.rint(tempo_map.time_to_beat(cut.time)), 0, downbeats[-1]))
        offset = float(tempo_map.beat_to_time(beat)) - cut.time
        if abs(offset) <= beat_grid.HIT_TOLERANCE_S:
            hits.append(Hit(cut.time, cut.strength, beat, offset, bool(np.isin(beat, downbeats))))
        else:
            missed.append(cut)
    return tuple(hits), tuple(missed)


def describe_plan(plan: Plan) -> dict[str, Any]:
    """What the plan reached, as plain values for the sidecar; `alignment` is that of `metrics.rhythm`."""
    from v2m.analysis.cut_alignment import cut_alignment

    beats = np.diff(plan.tempo_map.beats)
    seconds = np.diff(plan.tempo_map.times)
    tempi = [timing.beat_seconds(float(s / b)) for s, b in zip(seconds, beats, strict=True)]
    counts = [bar.beats for bar in plan.bars[:-1]]
    regular = max(set(counts), key=counts.count, default=0)
    cuts = sorted([hit.time for hit in plan.hits] + [cut.time for cut in plan.missed])
    return {
        "tempo": round(plan.tempo, 2),
        "tempo_range": [round(min(tempi), 2), round(max(tempi), 2)],
        "bars": len(plan.bars),
        "irregular_bars": sum(count != regular for count in counts),
        "form": [f"{passage.name}{passage.variant + 1 if passage.variant else ''}" for passage in plan.sections],
        "alignment": cut_alignment(cuts, plan.beats, plan.downbeats, duration=plan.duration).to_dict(),
        "hits": [
            {
                "time": round(h.time, 3),
                "strength": round(h.strength, 3),
                "offset": round(h.offset, 3),
                "downbeat": h.downbeat,
            }
            for h in plan.hits
        ],
    }
