"""Voices of the score codec: for the lines (tracks) of any music, and the layers of a style.

The rule, for a line whose role is known (a part of Sketch, or a track that names its stem):

* drums: by the stroke; cymbals, hats and small percussion are "cymbals", the rest "drums";
* melody: "melody", the next "countermelody"; bass: "bass"; effects: "accent";
* harmony: one tone at a time prefers "figure", chords prefer "chord", then "second chord";
* pads: held ones "pad", then "second pad"; short ones "second chord".

A line takes the first free voice of its preference. Where all are taken it shares the last one.

The role of any other line, in this order: MIDI channel 10 is drums; the programs of basses, contrabass and tuba are the
bass, or else the lowest line of single tones below G3; of the other lines of single tones, the two whose tones lie
highest are the melodies; programs of ensembles, choirs and pads, and chords held 0.8 s or more, are pads; the rest is
harmony. A file without melody gets the highest line split: its highest tone at each time is the melody, and where there
is no bass, the lowest tones of the lowest line are the bass.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from v2m.sketch.instruments import STEMS
from v2m.sketch.style import Layer

NoteTuple = tuple[float, float, int, int]  # onset and end in seconds, pitch, velocity
CYMBALS = frozenset({42, 44, 46, 49, 51, 52, 53, 54, 55, 56, 57, 58, 59, 69, 70, 71, 72, 73, 74, 75, 80, 81, 82})
BASS_PROGRAMS = frozenset({*range(32, 40), 43, 58})
PAD_PROGRAMS = frozenset({*range(48, 55), *range(88, 96)})
CHORD_WINDOW_S = 0.03  # in which tones are of one chord
SINGLE_SHARE = 0.9  # of a line's attacks that are single tones, from which it is one of single tones
HELD_S = 0.8  # median length of the notes of a held line
BASS_BELOW = 55  # mean pitch, G3: between the basses and the tenors of a choir
SHARED = {
    "melody": ("melody", "countermelody"),
    "bass": ("bass",),
    "effects": ("accent",),
    "single": ("figure", "chord", "second chord"),
    "chords": ("chord", "second chord", "figure"),
    "held": ("pad", "second pad"),
    "short": ("second chord", "chord", "second pad"),
}


@dataclass(frozen=True)
class Line:
    """Notes of one player. `stem`: one of `instruments.STEMS`, or "" where it is not known."""

    notes: tuple[NoteTuple, ...]
    stem: str = ""
    program: int = 0
    is_drums: bool = False

    @cached_property
    def attacks(self) -> list[list[NoteTuple]]:
        """The notes by attack: those that follow within `CHORD_WINDOW_S` of the first are of one."""
        groups: list[list[NoteTuple]] = []
        for note in sorted(self.notes):
            if groups and note[0] - groups[-1][0][0] <= CHORD_WINDOW_S:
                groups[-1].append(note)
            else:
                groups.append([note])
        return groups

    @cached_property
    def is_single(self) -> bool:
        """True for a line of single tones."""
        attacks = self.attacks
        return sum(len(attack) == 1 for attack in attacks) >= SINGLE_SHARE * len(attacks)

    @cached_property
    def is_held(self) -> bool:
        lengths = sorted(end - onset for onset, end, *_ in self.notes)
        return bool(lengths) and lengths[len(lengths) // 2] >= HELD_S

    @cached_property
    def mean_pitch(self) -> float:
        return sum(note[2] for note in self.notes) / max(1, len(self.notes))

    @property
    def role(self) -> str:
        """The key of `SHARED` for a line whose stem is known."""
        if self.stem == "harmony":
            return "single" if self.is_single else "chords"
        if self.stem == "pads":
            return "held" if self.is_held else "short"
        return self.stem


def assign_voices(lines: Sequence[Line]) -> dict[str, list[NoteTuple]]:
    """Return the notes of each voice, those of lines that share one together."""
    voices: dict[str, list[NoteTuple]] = defaultdict(list)
    pitched: list[Line] = []
    for line in (line for line in lines if line.notes):
        if line.is_drums:
            for note in line.notes:
                voices["cymbals" if note[2] in CYMBALS else "drums"].append(note)
        else:
            pitched.append(line if line.stem in STEMS and line.stem != "drums" else replace(line, stem=""))
    pitched = _with_stems(pitched)
    for line, voice in zip(pitched, choose_voices([line.role for line in pitched]), strict=True):
        voices[voice] += line.notes
    return dict(voices)


def choose_voices(roles: Sequence[str]) -> list[str]:
    """Return the voice of each line, given their `SHARED` keys in order."""
    taken: set[str] = set()
    chosen: list[str] = []
    for role in roles:
        preferred = SHARED[role]
        chosen.append(next((voice for voice in preferred if voice not in taken), preferred[-1]))
        taken.add(chosen[-1])
    return chosen


def layer_role(layer: Layer) -> str:
    """Return the key of `SHARED` for a layer of a style."""
    kinds = {"lead": "melody", "answer": "melody", "bass": "bass", "walk": "bass", "pad": "held"}
    if layer.kind in kinds:
        return kinds[layer.kind]
    if layer.stem == "pads":
        return "short"
    return "single" if layer.kind == "arp" else "chords"


def _with_stems(lines: list[Line]) -> list[Line]:
    """Return the lines, each with a stem, melodies first."""
    known, unknown = [line for line in lines if line.stem], [line for line in lines if not line.stem]
    if not unknown:
        return known
    basses = [line for line in unknown if line.program in BASS_PROGRAMS]
    if not basses and not any(line.stem == "bass" for line in known):
        low = [line for line in unknown if line.is_single and line.mean_pitch < BASS_BELOW]
        basses = sorted(low, key=lambda line: line.mean_pitch)[:1]
    rest = [line for line in unknown if not _is_in(line, basses)]
    num_melodies = 2 - sum(line.stem == "melody" for line in known)
    single = [line for line in rest if line.is_single and line.program not in PAD_PROGRAMS]
    single = single or [line for line in rest if line.is_single]
    melodies = sorted(single, key=lambda line: -line.mean_pitch)[: max(0, num_melodies)]
    others = [line for line in rest if not _is_in(line, melodies)]
    if not melodies and num_melodies == 2 and others:
        melodies, basses, others = _split(others, basses)
    stems = [replace(line, stem="melody") for line in melodies] + [replace(line, stem="bass") for line in basses]
    for line in others:
        is_pad = line.program in PAD_PROGRAMS or (line.is_held and not line.is_single)
        stems.append(replace(line, stem="pads" if is_pad else "harmony"))
    return [*known, *stems]


def _split(lines: list[Line], basses: list[Line]) -> tuple[list[Line], list[Line], list[Line]]:
    """Split the melody off the highest of `lines`, and the bass off the lowest where there is none."""
    others = list(lines)
    highest = max(others, key=lambda line: line.mean_pitch)
    melody, others = _split_off(others, highest, top=True)
    lowest = min(others, key=lambda line: line.mean_pitch, default=None)
    if not basses and lowest is not None:
        bass, others = _split_off(others, lowest, top=False)
        basses = [bass]
    return [melody], basses, others


def _split_off(lines: list[Line], line: Line, *, top: bool) -> tuple[Line, list[Line]]:
    """Split the highest (`top`) or lowest tone of each attack off `line`; return them and all lines."""
    choose = max if top else min
    outer = [choose(attack, key=lambda note: note[2]) for attack in line.attacks]
    chosen = set(outer)
    inner = tuple(note for note in line.notes if note not in chosen)
    rest = [other for other in lines if other is not line]
    return replace(line, notes=tuple(outer)), rest + ([replace(line, notes=inner)] if inner else [])


def _is_in(line: Line, lines: Sequence[Line]) -> bool:
    return any(line is other for other in lines)
