"""Motifs: two bars of rhythm and contour, and the operations that vary them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from v2m.sketch.style import Style, parse_rhythm


class Tone(NamedTuple):
    """A tone of a motif: `onset` in beats from its bar line, `step` in scale steps above the anchor."""

    onset: float
    length: float
    step: int
    loudness: int


MotifBar = tuple[Tone, ...]
Motif = tuple[MotifBar, MotifBar]

_CONTOURS = (  # target steps at four points of the two bars
    (0, 2, 4, 2),
    (4, 2, 1, 0),
    (0, 1, 2, 4),
    (2, 4, 0, 1),
    (0, 4, 2, 0),
    (3, 0, 2, 4),
)


def invent(style: Style, rng: Random) -> Motif:
    """Invent a motif on two of the style's rhythm cells: steps, and leaps followed by a step back."""
    first, second = rng.sample(style.rhythm_cells, 2)
    contour = rng.choice(_CONTOURS)
    step, last_leap = contour[0], 0
    bars: list[MotifBar] = []
    for index, cell in enumerate((first, second)):
        tones: list[Tone] = []
        for attack in parse_rhythm(cell, style.beats_per_bar, 0, style.beats_per_bar):
            tones.append(Tone(attack.onset, attack.length, step, attack.loudness))
            contour_position = (index + attack.onset / style.beats_per_bar) / 2 * 3
            target = contour[min(3, int(contour_position) + 1)]
            interval = _choose_interval(target - step, style.leap_probability, rng)
            if last_leap:
                interval = -1 if last_leap > 0 else 1
            last_leap = interval if abs(interval) >= 3 else 0
            step = min(max(step + interval, -3), 6)
        bars.append(tuple(tones))
    return bars[0], bars[1]


def _choose_interval(distance: int, leap_probability: float, rng: Random) -> int:
    """Draw an interval in scale steps, mostly towards the target `distance` steps away."""
    sign = (distance > 0) - (distance < 0) or rng.choice((-1, 1))
    if rng.random() < 0.2:
        sign = -sign
    if rng.random() < leap_probability:
        return sign * rng.choice((3, 4, 5))
    return sign * rng.choices((0, 1, 2), (1, 6, 3))[0]


def transpose(motif: Motif, steps: int) -> Motif:
    return _map_tones(motif, lambda tone: tone._replace(step=tone.step + steps))


def invert(motif: Motif) -> Motif:
    """Turn the motif upside down around its first tone."""
    axis = next((tone.step for bar in motif for tone in bar), 0)
    return _map_tones(motif, lambda tone: tone._replace(step=2 * axis - tone.step))


def thin(motif: Motif) -> Motif:
    """Keep only the tones on a beat and the first of each bar, held through the gaps."""

    def thin_bar(bar: MotifBar) -> MotifBar:
        return _extend_tones(tuple(tone for tone in bar if tone.onset % 1 == 0 or tone is bar[0]), bar)

    return thin_bar(motif[0]), thin_bar(motif[1])


def ornament(motif: Motif, rng: Random) -> Motif:
    """Add an upper or lower neighbor note to some of the longer tones."""

    def ornament_bar(bar: MotifBar) -> MotifBar:
        tones: list[Tone] = []
        for tone in bar:
            if tone.length < 1 or rng.random() < 0.4:
                tones.append(tone)
                continue
            length = min(tone.length / 4, 0.5)
            neighbor_onset = tone.onset + tone.length - 2 * length
            tones += [
                tone._replace(length=tone.length - 2 * length),
                Tone(neighbor_onset, length, tone.step + rng.choice((-1, 1)), max(1, tone.loudness - 2)),
                Tone(neighbor_onset + length, length, tone.step, max(1, tone.loudness - 1)),
            ]
        return tuple(tones)

    return ornament_bar(motif[0]), ornament_bar(motif[1])


def fragment(motif: Motif) -> Motif:
    """Repeat the first bar a step higher in place of the second."""
    head = motif[0]
    return head, tuple(tone._replace(step=tone.step + 1) for tone in head)


def augment(motif: Motif, beats_per_bar: int) -> Motif:
    """Stretch the first bar over both, at half speed."""
    slow = [tone._replace(onset=tone.onset * 2, length=tone.length * 2) for tone in motif[0]]
    return (
        tuple(t._replace(length=min(t.length, beats_per_bar - t.onset)) for t in slow if t.onset < beats_per_bar),
        tuple(t._replace(onset=t.onset - beats_per_bar) for t in slow if t.onset >= beats_per_bar),
    )


def _extend_tones(tones: MotifBar, bar: MotifBar) -> MotifBar:
    """Hold each of `tones` until the next one, the last until `bar`'s last tone ends."""
    ends = [tone.onset for tone in tones[1:]] + [max((t.onset + t.length for t in bar), default=0.0)]
    return tuple(t._replace(length=end - t.onset) for t, end in zip(tones, ends, strict=True))


def _map_tones(motif: Motif, change: Callable[[Tone], Tone]) -> Motif:
    return tuple(change(tone) for tone in motif[0]), tuple(change(tone) for tone in motif[1])
