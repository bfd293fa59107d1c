"""The plan of a Sketch piece: its beats, bars and sections on the video, before any note is chosen.

Section boundaries are chosen by dynamic programming, at strong cuts and changes of energy, where lengths stay musical.
The gains and costs of the form are hand-tuned; no benchmark measures form.

B bars, the last of which opens with the final chord.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from v2m.analysis.synchrony import cut_alignment
from v2m.core import timing
from v2m.core.timing import TempoMap
from v2m.core.types import Cut, Floats, Tags, Transition, VisualFeatures
from v2m.sketch.plan import beat_grid, beat_search, tempo_smoothing
from v2m.sketch.plan.beat_grid import AccentPosition, PlanConstraints
from v2m.sketch.plan.dynamics import plan_activity, plan_levels
from v2m.sketch.style import Style

# Themes A, B and C, by number of sections. Pieces with more sections than the longest form begin with rounds of four.
FORMS: dict[int, tuple[str, ...]] = {
    0: ("",),
    1: ("A",),
    2: ("AB", "AA"),
    3: ("ABA", "AAB"),
    4: ("AABA", "ABCA", "ABAB"),
    5: ("ABACA", "AABCA", "AABBA"),
    6: ("ABACBA", "AABACA", "ABABCA"),
}
ROUND_FORMS = ("ABAC", "AABC", "ABCB")
# Dynamics of the form itself, added to the energy measured from the video.
SECTION_ENERGY_OFFSET = {"intro": -0.12, "A": 0.0, "B": 0.1, "C": -0.05, "ending": -0.1}
RETURN_ENERGY_OFFSET = 0.04  # for each return of a theme, up to the third
MAX_ACCENT_SHIFT_S, MAX_ACCENT_SHIFT_BEATS = 0.02, 0.04  # of the notes on a cut: about as exact as players are
MOMENT_STRENGTH = 0.4  # of the accent on a flash or sudden motion, at most
MOTION_SHARE, CUT_RATE_SHARE = 0.7, 0.3  # of a bar's measured energy


@dataclass(frozen=True)
class Bar:
    """A bar of `beats` beats from beat `start` on; `section` indexes `Plan.sections`."""

    start: int
    beats: int
    section: int


@dataclass(frozen=True)
class FormSection:
    """A section of the form: bars `first` ≤ bar < `last`.

    `name`: "intro", "A", "B", "C", "ending"; a theme's letter comes again when the section is a return of it, and
    then `variant` counts the returns (0 = first time). `energy` 0–1 follows the video's motion.
    """

    name: str
    variant: int
    first: int
    last: int
    energy: float


@dataclass(frozen=True)
class Hit:
    """A cut that a beat or an accent meets.

    `beat`: as written, a fraction off the beat. `offset`: the time at which its notes are played − the cut's, in
    seconds.
    """

    time: float
    strength: float
    beat: float
    offset: float
    downbeat: bool


@dataclass(frozen=True)
class Plan:
    """Beats, bars and sections in time. `tempo_map` maps beats to seconds from the video's first frame.

    Bars follow each other without a gap from beat 0, which may lie after 0 s (a pick-up); the last bar is the ending's
    and starts with the final chord, which rings until `duration`. `energy` (len(bars),) 0–1 is the dynamic of each bar.
    `hits` are the cuts with a beat or an accent within ±70 ms, `missed` the others.
    """

    duration: float
    tempo: float
    tempo_map: TempoMap
    bars: tuple[Bar, ...]
    sections: tuple[FormSection, ...]
    hits: tuple[Hit, ...]
    energy: Floats
    missed: tuple[Cut, ...] = ()
    moments: tuple[Hit, ...] = ()  # flashes and sudden motion that accents meet
    transitions: tuple[Transition, ...] = ()  # dissolves and fades
    activity: Floats = field(default_factory=lambda: np.full(1, 0.5))  # of each beat, see `dynamics`
    levels: Floats = field(default_factory=lambda: np.zeros(1))  # of the mix in dB, see `dynamics`

    @property
    def beats(self) -> Floats:
        """Seconds of every beat up to the final chord's, after which nothing new sounds."""
        return self.tempo_map.beat_to_time(np.arange(self.bars[-1].start + 1))

    @property
    def accents(self) -> Floats:
        """Seconds of the accents played for cuts and moments, on beats, between, and under the last chord."""
        return np.unique([hit.time + hit.offset for hit in (*self.hits, *self.moments)])

    @property
    def downbeats(self) -> Floats:
        """Seconds of every bar line up to the final chord's."""
        return self.tempo_map.beat_to_time([bar.start for bar in self.bars])


def plan_piece(
    features: VisualFeatures,
    duration: float,
    tempo: float,
    seed: int,
    *,
    beats_per_bar: int = 4,
    steadiness: float = 0.5,
    accents: Sequence[AccentPosition] = (),
    max_tempo_deviation: float = beat_grid.MAX_TEMPO_DEVIATION,
) -> Plan:
    """Plan a piece with as many cuts as possible on beats and `accents`, and a final chord.

    Strong cuts fall on downbeats where possible. `tempo` is in beats per minute; that of each beat differs from it
    by `max_tempo_deviation`, a share, at most.
    `steadiness` 0–1: at 1 one tempo holds throughout, at 0.5 it changes by up to 3 % at a bar line, about what
    listeners just notice (Drake & Botte 1993), and by 1 % from beat to beat inside a bar; at 0 by up to 4 % and 2 %.
    Bars have `beats_per_bar` beats, but one before a strong cut may be up to two shorter or longer, and so may a pick-
    up at the very beginning. The final chord rings 1.5–4 s, about a bar. A video too short for a bar before that gets
    the chord alone. The seed chooses among forms of the same number of sections.

    Raises:
        ValueError: A duration or tempo that is not positive, fewer than 2 beats per bar, steadiness outside 0–1, or
            a deviation outside 0–0.5.
    """
    if not (duration > 0 and tempo > 0 and beats_per_bar >= 2 and 0 <= steadiness <= 1):
        raise ValueError(
            f"duration {duration:g} and tempo {tempo:g} must be positive, beats_per_bar {beats_per_bar} at least 2, "
            f"steadiness {steadiness:g} within 0 to 1"
        )
    if not 0 <= max_tempo_deviation <= 0.5:
        raise ValueError(f"max_tempo_deviation {max_tempo_deviation:g} must lie within 0 to 0.5")
    cuts = tuple(cut for cut in features.cuts if 0 < cut.time < duration)
    constraints = PlanConstraints(cuts, duration, tempo, beats_per_bar, steadiness, tuple(accents), max_tempo_deviation)
    grid = _plan_beat_grid(constraints)
    bar_lines = np.concatenate([[0], np.cumsum(grid.bar_lengths)])  # beats; the last one is the end
    hits, missed = _match_cuts(constraints, grid.tempo_map, bar_lines)
    moments, _ = _match_cuts(replace(constraints, cuts=_moments(features, duration)), grid.tempo_map, bar_lines)
    cut_strengths = np.zeros(len(grid.bar_lengths))  # of those on downbeats
    for hit in hits:
        if hit.downbeat:
            bar = int(np.searchsorted(bar_lines, hit.beat))
            cut_strengths[bar] = max(cut_strengths[bar], hit.strength)
    beat_times = np.minimum(grid.tempo_map.beat_to_time(np.arange(bar_lines[-1] + 1)), duration)
    edges = beat_times[bar_lines]
    measured_energy = measure_bar_energy(features, cuts, edges)
    sections = choose_form(cut_strengths, measured_energy, seed)
    energy = shape_energy(sections, measured_energy)
    section_of_bar = np.repeat(np.arange(len(sections)), [section.last - section.first for section in sections])
    bars = tuple(Bar(*map(int, row)) for row in zip(bar_lines[:-1], grid.bar_lengths, section_of_bar, strict=True))
    return Plan(
        duration, tempo, grid.tempo_map, bars, _form_sections(sections, energy), hits, energy, missed,
        moments if accents else (), _transitions(features, duration), plan_activity(features, beat_times),
        plan_levels(features, duration),
    )  # fmt: skip


def _moments(features: VisualFeatures, duration: float) -> tuple[Cut, ...]:
    """Return flashes and sudden motion as weak cuts."""
    return tuple(
        Cut(part.start, MOMENT_STRENGTH * part.strength)
        for part in features.transitions
        if part.kind in {"flash", "motion"} and 0 < part.start < duration
    )


def _transitions(features: VisualFeatures, duration: float) -> tuple[Transition, ...]:
    return tuple(
        replace(part, end=min(part.end, duration))
        for part in features.transitions
        if part.kind in {"dissolve", "fade out", "fade in"} and part.start < duration
    )


def plan_for_style(
    style: Style,
    features: VisualFeatures,
    duration: float,
    tags: Tags,
    seed: int,
    *,
    max_tempo_deviation: float = beat_grid.MAX_TEMPO_DEVIATION,
) -> Plan:
    """Plan a piece in `style`, at the tags' tempo or else the style's usual one."""
    tempo = tags.tempo or style.tempo[1]
    accents = [AccentPosition(at, style.swing_beat(at), weight) for at, weight in style.accent_weights.items()]
    return plan_piece(
        features, duration, tempo, seed, beats_per_bar=style.beats_per_bar, steadiness=style.steadiness,
        accents=accents, max_tempo_deviation=max_tempo_deviation,
    )  # fmt: skip


def _plan_beat_grid(constraints: PlanConstraints) -> beat_grid.BarGrid:
    if constraints.is_too_short:
        return beat_grid.final_chord_grid(constraints)
    if constraints.steadiness == 1:
        return beat_search.plan_constant_tempo(constraints)
    return tempo_smoothing.smooth_tempo(constraints, beat_search.plan_variable_tempo(constraints))


def section_label(section: FormSection) -> str:
    """Return a section's name for readers: A, then A2 where it returns."""
    return f"{section.name}{section.variant + 1 if section.variant else ''}"


def _form_sections(sections: Sequence[SectionBounds], energy: Floats) -> tuple[FormSection, ...]:
    names = [section.name for section in sections]
    return tuple(
        FormSection(name, names[:index].count(name), first, last, float(energy[first:last].mean()))
        for index, (name, first, last) in enumerate(sections)
    )


def _match_cuts(
    constraints: PlanConstraints, tempo_map: TempoMap, bar_lines: np.ndarray
) -> tuple[tuple[Hit, ...], tuple[Cut, ...]]:
    """Return the cuts that beats or accents meet, and the others.

    An accent is played a little earlier or later than written, to be nearer to its cut. None comes after the last
    downbeat where there are no accents, nor shortly before the end.
    """
    written = {accent.played: accent.position for accent in constraints.accents}
    num_beats = int(bar_lines[-1] if constraints.accents else bar_lines[-2])
    beats, seconds, weights = beat_grid.attack_times(
        tempo_map.beat_to_time(np.arange(num_beats + 1)), constraints.accents
    )
    is_playable = (beats <= bar_lines[-2]) | (seconds <= constraints.duration - beat_grid.MIN_TAIL_S)
    beats, seconds, weights = beats[is_playable], seconds[is_playable], weights[is_playable]
    max_shift_s = min(MAX_ACCENT_SHIFT_S, MAX_ACCENT_SHIFT_BEATS * constraints.beat_s)
    hits, missed = [], []
    for cut, index in zip(constraints.cuts, beat_grid.nearest_attacks(constraints.cuts, seconds, weights), strict=True):
        target = cut.time + beat_grid.SOUND_LAG_S - seconds[index]
        shift = float(np.clip(target, -max_shift_s, max_shift_s)) if constraints.accents else 0.0
        offset = float(seconds[index] - cut.time) + shift
        whole, played = divmod(float(beats[index]), 1.0)
        beat = whole + min(written.items(), key=lambda item: abs(item[0] - played))[1] if played > 1e-6 else whole
        if abs(offset) <= beat_grid.HIT_TOLERANCE_S:
            hits.append(Hit(cut.time, cut.strength, beat, offset, beat in bar_lines[:-1]))
        else:
            missed.append(cut)
    return tuple(hits), tuple(missed)


def describe_plan(plan: Plan) -> dict[str, Any]:
    """Return the plan as plain values for the sidecar; `alignment` is `cut_alignment`'s."""
    beats = np.diff(plan.tempo_map.beats)
    seconds = np.diff(plan.tempo_map.times)
    tempi = [timing.beat_seconds(float(s / b)) for s, b in zip(seconds, beats, strict=True)]
    counts = [bar.beats for bar in plan.bars[:-1]]
    regular = max(set(counts), key=counts.count, default=0)
    cuts = sorted(cut.time for cut in (*plan.hits, *plan.missed))
    alignment = cut_alignment(cuts, plan.beats, plan.downbeats, duration=plan.duration, accents=plan.accents)
    return {
        "tempo": round(plan.tempo, 2),
        "tempo_range": [round(min(tempi), 2), round(max(tempi), 2)],
        "bars": len(plan.bars),
        "irregular_bars": sum(count != regular for count in counts),
        "form": [section_label(section) for section in plan.sections],
        "alignment": alignment.to_dict(),
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


class SectionBounds(NamedTuple):
    """Bars `first` ≤ bar < `last` of one section: "intro", a theme's letter, or "ending"."""

    name: str
    first: int
    last: int


def choose_form(accents: Floats, energy: Floats, seed: int) -> list[SectionBounds]:
    """Return sections that cover all bars, beginning at strong cuts where lengths stay musical.

    accents: (B,) strength of the cut that each bar's downbeat meets, 0 for none. energy: (B,) 0–1.
    """
    rng = np.random.default_rng(seed)
    bounds, has_intro = _section_bounds(accents, energy)
    num_themes = len(bounds) - 2 - has_intro
    num_rounds = (num_themes - 3) // 4 if num_themes > max(FORMS) else 0
    letters = "".join(ROUND_FORMS[rng.integers(len(ROUND_FORMS))] for _ in range(num_rounds))
    choices = FORMS[num_themes - len(letters)]
    letters += choices[rng.integers(len(choices))]
    names = ["intro"] * has_intro + list(letters) + ["ending"]
    return [SectionBounds(*row) for row in zip(names, bounds[:-1], bounds[1:], strict=True)]


def shape_energy(sections: Sequence[SectionBounds], energy: Floats) -> Floats:
    """Return (B,) energy with the form's dynamics added: themes differ, returns grow, the ending fades."""
    energy = energy.copy()
    returns: Counter[str] = Counter()
    for section in sections:
        offset = SECTION_ENERGY_OFFSET[section.name] + RETURN_ENERGY_OFFSET * min(returns[section.name], 3)
        energy[section.first : section.last] += offset
        returns[section.name] += 1
    ending = sections[-1]
    energy[ending.first :] *= np.linspace(0.9, 0.6, ending.last - ending.first)
    return np.clip(energy, 0.1, 1.0)


def measure_bar_energy(features: VisualFeatures, cuts: Sequence[Cut], edges: Floats) -> Floats:
    """Return (B,) motion and cut rate of each bar relative to the video, 0.1–0.9; 0.5 if all are alike.

    edges: (B + 1,) bar lines in seconds.
    """
    total = np.concatenate([[0.0], np.cumsum(features.motion)])
    index = np.searchsorted(features.times, edges)
    low = np.minimum(index[:-1], len(features.times) - 1)
    high = np.maximum(index[1:], low + 1)
    curves = [_normalize((total[high] - total[low]) / (high - low))]
    if cuts:
        reach = 1.5 * np.median(np.diff(edges))
        times = np.array([cut.time for cut in cuts])
        centers = (edges[:-1] + edges[1:]) / 2
        num_cuts = np.searchsorted(times, centers + reach) - np.searchsorted(times, centers - reach)
        curves.append(_normalize(num_cuts))
    mixed = np.average(curves, axis=0, weights=[MOTION_SHARE, CUT_RATE_SHARE][: len(curves)])
    padded = np.pad(mixed, 2, mode="edge")  # binomial smoothing over five bars
    return 0.1 + 0.8 * np.convolve(padded, np.array([1, 4, 6, 4, 1]) / 16, mode="valid")


def _normalize(curve: np.ndarray) -> Floats:
    """Scale `curve` from its 5th to its 95th percentile to 0–1; 0.5 throughout where it hardly changes."""
    low, high = np.percentile(curve, [5, 95])
    if high - low <= 0.1 * high:
        return np.full(len(curve), 0.5)
    return np.clip((curve - low) / (high - low), 0.0, 1.0)


def _section_bounds(accents: Floats, energy: Floats) -> tuple[list[int], bool]:
    """Return the bars at which sections begin, with B at the end, and whether there is an intro."""
    B = len(accents)
    has_intro = B >= 7
    usual_bars = 4 if B < 24 else 8 if B < 96 else 16
    intro_costs = {1: 0.5, 2: 0.0, 4: 0.0 if B >= 24 else 0.6} if has_intro else {0: 0.0}  # by length in bars
    ending_costs = {1: 0.0, 2: 0.1} if B < 24 else {2: 0.1, 3: 0.4, 4: 0.0}
    gain = 0.5 * np.abs(np.diff(energy, prepend=energy[:1])) + 1.2 * accents
    best = np.full(B + 1, -np.inf)  # worth of the best sections before a boundary at each bar
    previous = np.full(B + 1, -1)
    for first, cost in intro_costs.items():
        best[first] = gain[first] - cost if first else 0.0
    for end in range(1, B):
        for length in range(1, min(end, 2 * usual_bars) + 1):
            worth = best[end - length] + gain[end] - _length_cost(length, usual_bars)
            if worth > best[end]:
                best[end], previous[end] = worth, end - length
    for length, cost in ending_costs.items():
        if length < B and best[B - length] - cost > best[B]:
            best[B], previous[B] = best[B - length] - cost, B - length
    if B == 1:
        return [0, 1], False
    bounds = [B]
    while previous[bounds[-1]] >= 0:
        bounds.append(int(previous[bounds[-1]]))
    return ([0] if has_intro else []) + bounds[::-1], has_intro


def _length_cost(bars: int, usual_bars: int) -> float:
    """Cost of a section of `bars` bars: multiples of four and about `usual_bars` are cheapest."""
    odd = 0.0 if bars % 4 == 0 else 0.25 if bars % 2 == 0 else 0.7
    return odd + 0.6 * abs(np.log2(bars / usual_bars)) + (1.0 if bars == 1 else 0.0) + 0.5
