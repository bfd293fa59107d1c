"""Voice leading: the tones and octaves of each chord that move least from the last one."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from itertools import combinations, pairwise

from v2m.sketch.compose.chords import Chord

Voicing = tuple[int, ...]  # MIDI pitches, rising

# Costs, in semitones of a voice's movement; hand-tuned, no benchmark measures voice leading.
MISSING_TONE_COST = 3.0  # of each essential tone that is left out
CLASH_COST = 8.0  # of a semitone or minor ninth against another player
PARALLEL_COST = 8.0  # of parallel fifths or octaves
MAX_GAP = 9  # semitones between neighboring voices: a sixth


@lru_cache(maxsize=4096)
def candidate_voicings(chord: Chord, voices: int, low: int, high: int, rootless: bool) -> tuple[Voicing, ...]:
    """Return all voicings of `chord` with `voices` tones from `low` to `high`, without wide gaps or low seconds."""
    tones = chord.pitch_classes[1:] if rootless and len(chord.pitch_classes) > voices else chord.pitch_classes
    pitches = [pitch for pitch in range(low, high + 1) if pitch % 12 in tones]
    return tuple(
        voicing
        for voicing in combinations(pitches, min(voices, len(pitches)))
        if all(
            3 <= upper - lower <= MAX_GAP or (upper - lower == 2 and lower > 55) for lower, upper in pairwise(voicing)
        )
    )


def mean_movement(before: Voicing, after: Voicing) -> float:
    """Return the mean movement of a voice in semitones, voices matched from the top."""
    pairs = list(zip(reversed(before), reversed(after), strict=False))
    return sum(abs(a - b) for a, b in pairs) / max(1, len(pairs))


def has_parallels(before: Voicing, after: Voicing) -> bool:
    """Return whether the outer voices move in parallel fifths or octaves."""
    first, second = (before[-1] - before[0]) % 12, (after[-1] - after[0]) % 12
    return first == second and first in {0, 7} and before[0] != after[0]


def choose_voicing(
    chord: Chord,
    previous: Voicing | None,
    *,
    voices: int,
    low: int,
    high: int,
    bass: int,
    avoid_parallels: bool,
    rootless: bool,
    occupied: Collection[int] = (),
) -> Voicing:
    """Choose the voicing of `chord` in [low, high] that moves least from `previous`.

    Args:
        chord: The chord.
        previous: The voicing before, None for the first one.
        voices: Number of tones.
        low: Lowest pitch, moved down where the register holds too few tones.
        high: Highest pitch.
        bass: The pitch that sounds below, against which seconds are avoided.
        avoid_parallels: Avoid parallel fifths and octaves of the outer voices.
        rootless: Leave out the root where the chord has more tones than `voices`.
        occupied: Pitches of other players, against which semitones and minor ninths are avoided.
    """
    center = (low + high) / 2
    essential = set(chord.essential_tones)
    if rootless and len(chord.pitch_classes) > voices:
        essential.discard(chord.root)
    clashing = {pitch + interval for pitch in occupied for interval in (-13, -1, 1, 13)}
    choices = candidate_voicings(chord, voices, low, high, rootless)
    while not choices:  # a narrow register holds too few tones of an open chord
        low, voices = low - 2, max(2, voices - 1)
        choices = candidate_voicings(chord, voices, low, high, rootless)

    def cost(voicing: Voicing) -> tuple[float, Voicing]:
        tones = {pitch % 12 for pitch in voicing}
        num_doubled = voices - len(tones)
        off_center = abs(sum(voicing) / len(voicing) - center)
        total = 0.15 * off_center + 0.5 * num_doubled
        total += 2.0 * any(0 < pitch - bass < 3 for pitch in voicing)
        total += MISSING_TONE_COST * len(essential - tones)
        total += CLASH_COST * len(clashing.intersection(voicing))
        if previous is not None:
            total += 1.6 * mean_movement(previous, voicing)
            total += PARALLEL_COST * (avoid_parallels and has_parallels(previous, voicing))
        else:
            total += 0.4 * off_center
        return total, voicing

    return min(choices, key=cost)
