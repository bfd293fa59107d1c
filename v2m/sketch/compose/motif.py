"""The motif: a two-bar idea of rhythm and contour, and the ways in which it comes back."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple

from v2m.sketch.style import Style, parse_rhythm


class Tone(NamedTuple):
    """`onset` in beats from its bar line; `step`: scale steps above the anchor on which the motif is set."""

    onset: float
    length: float
    step: int
    loudness: int


MotifBar = tuple[Tone, ...]
Motif = tuple[MotifBar, MotifBar]

_CONTOURS = (  # where the line aims, as steps over the two bars
    (0, 2, 4, 2),
    (4, 2, 1, 0),
    (0, 1, 2, 4),
    (2, 4, 0, 1),
    (0, 4, 2, 0),
    (3, 0, 2, 4),
)


def invent(style: Style, rng: Random) -> Motif:
    """A new motif on two of the style's rhythm cells: mostly steps, now and then a leap that is filled after."""
    first, second = rng.sample(style.rhythm_cells, 2)
    contour = rng.choice(_CONTOURS)
    step, leapt = contour[0], 0
    bars: list[MotifBar] = []
    for place, cell in enumerate((first, second)):
        tones: list[Tone] = []
        for attack in parse_rhythm(cell, style.beats_per_bar, 0, style.beats_per_bar):
            tones.append(Tone(attack.onset, attack.length, step, attack.loudness))
            where = (place + attack.onset / style.beats_per_bar) / 2 * 3
            aim = contour[min(3, int(where) + 1)]
            move = _choose_interval(aim - step, style.leap_probability, rng)
            if leapt:
                move = -1 if leapt > 0 else 1
            leapt = move if abs(move) >= 3 else 0
            step = min(max(step + move, -3), 6)
        bars.append(tuple(tones))
    return bars[0], bars[1]


def _choose_interval(distance: int, leap_probability: float, rng: Random) -> int:
    sign = (distance > 0) - (distance < 0) or rng.choice((-1, 1))
    if rng.random() < 0.2:
        sign = -sign
    if rng.random() < leap_probability:
        return sign * rng.choice((3, 4, 5))
    return sign * rng.choices((0, 1, 2), (1, 6, 3))[0]


def transpose(motif: Motif, steps: int) -> Motif:
    return _map_tones(motif, lambda tone: tone._replace(step=tone.step + steps))


def invert(motif: Motif) -> Motif:
    """Upside down around its first tone."""
    axis = next((tone.step for bar in motif for tone in bar), 0)
    return _map_tones(motif, lambda tone: tone._replace(step=2 * axis - tone.step))


def thin(motif: Motif) -> Motif:
    """Only what falls on a beat and the first of each bar: a sparse recollection, the gaps sung through."""
    first, second = (_extend_tones(tuple(t for t in bar if t.onset % 1 == 0 or t is bar[0]), bar) for bar in motif)
    return first, second


def ornament(motif: Motif, rng: Random) -> Motif:
    """Some longer tones turn into a tone and its upper or lower neighbour and back."""

    def decorate(bar: MotifBar) -> MotifBar:
        out: list[Tone] = []
        for tone in bar:
            if tone.length < 1 or rng.random() < 0.4:
                out.append(tone)
                continue
            part = min(tone.length / 4, 0.5)
            turn = tone.onset + tone.length - 2 * part
            out += [
                tone._replace(length=tone.length - 2 * part),
                Tone(turn, part, tone.step + rng.choice((-1, 1)), max(1, tone.loudness - 2)),
                Tone(turn + part, part, tone.step, max(1, tone.loudness - 1)),
            ]
        return tuple(out)

    return decorate(motif[0]), decorate(motif[1])


def fragment(motif: Motif) -> Motif:
    """Its head twice, the second time a step higher: what drives towards the end of a phrase."""
    head = motif[0]
    return head, tuple(tone._replace(step=tone.step + 1) for tone in head)


def augment(motif: Motif, beats_per_bar: int) -> Motif:
    """The head at half speed, over both bars."""
    slow = [tone._replace(onset=tone.onset * 2, length=tone.length * 2) for tone in motif[0]]
    return (
        tuple(t._replace(length=min(t.length, beats_per_bar - t.onset)) for t in slow if t.onset < beats_per_bar),
        tuple(t._replace(onset=t.onset - beats_per_bar) for t in slow if t.onset >= beats_per_bar),
    )


def _extend_tones(kept: MotifBar, bar: MotifBar) -> MotifBar:
    """`kept` with each tone held up to where the next one, or the bar's last sound, ends."""
    ends = [tone.onset for tone in kept[1:]] + [max((t.onset + t.length for t in bar), default=0.0)]
    return tuple(t._replace(length=end - t.onset) for t, end in zip(kept, ends, strict=True))


def _map_tones(motif: Motif, change: Callable[[Tone], Tone]) -> Motif:
    first, second = (tuple(change(tone) for tone in bar) for bar in motif)
    return first, second
