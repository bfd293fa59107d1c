"""The score: notes of each voice in seconds, with beats and downbeats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from v2m.core.types import Floats
from v2m.sketch.compose.arrange import Piece
from v2m.sketch.notation.vocabulary import DRUM_VOICES, VOICES
from v2m.sketch.notation.voices import Line, assign_voices


class ScoreNote(NamedTuple):
    """A note from second `onset` to second `end`; `pitch` a MIDI key or drum, `velocity` 1–127."""

    onset: float
    end: float
    pitch: int
    velocity: int


@dataclass(frozen=True)
class Score:
    """Music of `duration` seconds: the notes of each of `vocabulary.VOICES`, in order of time.

    `beats` and `downbeats` are rising seconds; every downbeat is a beat. Both are empty where there is no meter.
    """

    duration: float
    voices: Mapping[str, tuple[ScoreNote, ...]]
    beats: Floats = field(default_factory=lambda: np.zeros(0))
    downbeats: Floats = field(default_factory=lambda: np.zeros(0))

    @property
    def notes(self) -> list[tuple[str, ScoreNote]]:
        """All notes with the name of their voice."""
        return [(voice, note) for voice in VOICES for note in self.voices.get(voice, ())]

    def transposed(self, semitones: int) -> Score:
        """Return the score with all pitches but those of drums moved."""
        voices = {
            voice: notes
            if voice in DRUM_VOICES
            else tuple(note._replace(pitch=note.pitch + semitones) for note in notes)
            for voice, notes in self.voices.items()
        }
        return replace(self, voices=voices)

    @classmethod
    def from_lines(cls, lines: Iterable[Line], duration: float, beats: Floats, downbeats: Floats) -> Score:
        """Return the score of `lines`, each in the voice that `assign_voices` gives it."""
        voices: dict[str, list[ScoreNote]] = {}
        for voice, notes in assign_voices(list(lines)).items():
            voices[voice] = sorted(ScoreNote(*note) for note in notes)
        return cls(duration, {voice: tuple(notes) for voice, notes in voices.items()}, beats, downbeats)

    @classmethod
    def from_piece(cls, piece: Piece) -> Score:
        """Return the score of a piece of Sketch, as it is played."""
        plan = piece.sheet.plan
        lines: list[Line] = []
        for part in piece.parts:
            beats = np.array([(note.beat, note.beat + note.length) for note in part.notes])
            times = plan.tempo_map.beat_to_time(beats)
            notes = tuple(
                (float(on), float(off), note.pitch, note.velocity)
                for note, (on, off) in zip(part.notes, times, strict=True)
            )
            lines.append(Line(notes, part.stem, part.program, part.is_drums))
        inside = [beat for beat in plan.beats if beat < plan.duration]
        return cls.from_lines(lines, plan.duration, np.array(inside), plan.downbeats[plan.downbeats < plan.duration])
