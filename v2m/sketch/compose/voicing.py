"""Voice leading: which tones of a chord to play, and how high, so that the hands hardly move."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from itertools import combinations, pairwise

from v2m.sketch.compose.chords import Chord

Voicing = tuple[int, ...]  # MIDI pitches, rising

MISSING_TONE_COST = 3.0  # semitones of movement that a tone is worth without which the chord is another
CLASH_COST = 8.0  # semitones of movement that a semitone against another player is worth avoiding
PARALLEL_COST = 8.0  # semitones of movement that a parallel fifth or octave is worth avoiding
MAX_GAP = 9


@lru_cache(maxsize=4096)
def candidate_voicings(chord: Chord, voices: int, low: int, high: int, rootless: bool) -> tuple[Voicing, ...]:
    """Every way to lay `voices` tones of `chord` between `low` and `high` without gaps wider than a sixth."""
    tones = chord.pitch_classes[1:] if rootless and len(chord.pitch_classes) > voices else chord.pitch_classes
    ladder = [pitch for pitch in range(low, high + 1) if pitch % 12 in tones]
    return tuple(
        pick
        for pick in combinations(ladder, min(voices, len(ladder)))
        if all(3 <= above - below <= MAX_GAP or (above - below == 2 and below > 55) for below, above in pairwise(pick))
    )


def mean_movement(before: Voicing, after: Voicing) -> float:
    """Mean semitones that each voice moves, the voices matched from the top."""
    paired = list(zip(reversed(before), reversed(after), strict=False))
    return sum(abs(a - b) for a, b in paired) / max(1, len(paired))


def has_parallels(before: Voicing, after: Voicing) -> bool:
    """Whether the outer voices move together from one perfect fifth or octave to another."""
    first, second = (before[-1] - before[0]) % 12, (after[-1] - after[0]) % 12
    return first == second and first in {0, 7} and before[0] != after[0]


def choose_voicing(
    chord: Chord,
    before: Voicing | None,
    *,
    voices: int,
    low: int,
    high: int,
    bass: int,
    avoid_parallels: bool,
    rootless: bool,
    occupied: Collection[int] = (),
) -> Voicing:
    """The voicing of `chord` in [low, high] nearest to the one `before` it.

    `bass` is the pitch that sounds below: semitone clusters against it are avoided. With `strict` the outer voices
    keep out of parallel fifths and octaves, where any other voicing exists. `heard` are the pitches of the other
    players, against which semitones and minor ninths are avoided.
    """
    centre = (low + high) / 2
    needed = frozenset(chord.essential_tones) - (
        {chord.root} if rootless and len(chord.pitch_classes) > voices else set()
    )
    rubbing = {pitch + interval for pitch in occupied for interval in (-13, -1, 1, 13)}
    choices = candidate_voicings(chord, voices, low, high, rootless)
    while not choices:  # a narrow register holds too few tones of an open chord
        low, voices = low - 2, max(2, voices - 1)
        choices = candidate_voicings(chord, voices, low, high, rootless)

    def cost(pick: Voicing) -> tuple[float, Voicing]:
        tones = {pitch % 12 for pitch in pick}
        doubled = voices - len(tones)
        total = 0.15 * abs(sum(pick) / len(pick) - centre) + 0.5 * doubled
        total += 2.0 * any(0 < pitch - bass < 3 for pitch in pick)
        total += MISSING_TONE_COST * len(needed - tones)
        total += CLASH_COST * len(rubbing.intersection(pick))
        if before is not None:
            total += 1.6 * mean_movement(before, pick)
            total += PARALLEL_COST * (avoid_parallels and has_parallels(before, pick))
        else:
            total += 0.4 * abs(sum(pick) / len(pick) - centre)
        return total, pick

    return min(choices, key=cost)
