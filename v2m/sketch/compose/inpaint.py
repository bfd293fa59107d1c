"""Inpainting: a piece is composed again from its sidecar, and a time range recomposed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np

from v2m.core.errors import UsageError
from v2m.core.types import InpaintRequest, Tags, VisualFeatures
from v2m.sketch.compose.arrange import Piece, compose, recompose
from v2m.sketch.compose.lead_sheet import Note, Part
from v2m.sketch.plan import planner
from v2m.sketch.plan.planner import Plan
from v2m.sketch.style import Style
from v2m.sketch.styles import STYLES

SEAM_TOLERANCE_BEATS = 0.06  # of humanized notes that belong to the seam's beat; above `arrange.MAX_TIMING_BEATS`
MIN_RESTRIKE_BEATS = 0.25  # of the rest of a tone that is struck again at a seam; a shorter rest is dropped
BEAT_TOLERANCE_S = 0.002  # sidecars round beats to a millisecond
MAX_PITCHED_PARTS = 15  # a MIDI file has as many channels besides the drums'


@dataclass(frozen=True)
class TakeRecord:
    """Seed and tags of the music from `start` to `end` seconds."""

    start: float
    end: float
    seed: int
    tags: Tags

    def to_dict(self) -> dict[str, Any]:
        return {"start": self.start, "end": self.end, "seed": self.seed, "tags": self.tags.to_dict()}


@dataclass(frozen=True)
class TakeHistory:
    """The take of a whole piece, then those laid over it. beats: (B,) seconds, to a millisecond."""

    style: Style
    takes: tuple[TakeRecord, ...]
    beats: tuple[float, ...]

    @classmethod
    def from_request(cls, request: InpaintRequest) -> TakeHistory:
        """Read the history from the source's sidecar.

        Raises:
            UsageError: There is no sidecar, it lacks the history, or another generator wrote it.
        """
        record = request.source_metadata or {}
        try:
            music, span = record["music"], record["range"]
            rows = music.get("takes") or [
                {"start": 0.0, "end": span["end"] - span["start"], "seed": record["seed"], "tags": record["tags"]}
            ]
            rows = [*rows[:-1], {**rows[-1], "seed": record["seed"]}]  # each of several candidates has its own seed
            takes = tuple(
                TakeRecord(float(row["start"]), float(row["end"]), int(row["seed"]), Tags(**row["tags"]))
                for row in rows
            )
            return cls(STYLES[music["style"]], takes, tuple(float(beat) for beat in music["beats"]))
        except (KeyError, TypeError, ValueError, AttributeError):
            name = repr(request.source_path.name) if request.source_path else "the music to keep"
            raise UsageError(
                f"the sidecar of {name} is missing or does not record how Sketch composed it: give an output of "
                "Sketch, or a WAV of it, with its sidecar beside it"
            ) from None


def recompose_range(
    history: TakeHistory, features: VisualFeatures, duration: float, take: TakeRecord
) -> tuple[Piece, Piece]:
    """Return the piece of `history` and the same piece with `take` over it: same beats, key and chords.

    Raises:
        UsageError: The video or this version of Sketch gives other beats, or there are too many instruments.
    """
    style, base = history.style, history.takes[0]
    plan = planner.plan_for_style(style, features, duration, base.tags, base.seed)
    if len(plan.beats) != len(history.beats) or np.abs(plan.beats - history.beats).max() > BEAT_TOLERANCE_S:
        raise UsageError(
            "the beats of the music to keep are not those that Sketch finds here: it is another video's, span's or "
            "version's; generate all of it again"
        )
    base_piece = compose(plan, style, base.tags, base.seed)

    def lay_over(piece: Piece, take: TakeRecord) -> Piece:
        variation = recompose(base_piece, plan, style, take.tags, seed=base.seed, variation_seed=take.seed)
        return splice_parts(piece, variation, *beats_inside(plan, take.start, take.end))

    source = reduce(lay_over, history.takes[1:], base_piece)
    result = lay_over(source, take)
    num_pitched = sum(not part.is_drums for part in result.parts)
    if num_pitched > MAX_PITCHED_PARTS:
        raise UsageError(
            f"old and new parts together need {num_pitched} instruments, more than the {MAX_PITCHED_PARTS} of a MIDI "
            "file: give the tags of the music to keep"
        )
    return source, result


def beats_inside(plan: Plan, start: float, end: float) -> tuple[float, float]:
    """Return the first and last beat of `start` to `end` seconds: whole beats, if one lies inside."""
    low, high = (float(beat) for beat in plan.tempo_map.time_to_beat([start, end]))
    first, last = float(np.ceil(low - SEAM_TOLERANCE_BEATS)), float(np.floor(high + SEAM_TOLERANCE_BEATS))
    if end >= plan.duration - BEAT_TOLERANCE_S:
        last = np.inf
    return (first, last) if last - first >= 1 else (low, high)


def splice_parts(old: Piece, new: Piece, first: float, last: float) -> Piece:
    """Return `old` with the beats `first` ≤ beat < `last` taken from `new`, part by part."""
    old_parts = {_part_key(part): part for part in old.parts}
    new_parts = {_part_key(part): part for part in new.parts}
    parts: list[Part] = []
    for key in {**old_parts, **new_parts}:
        part = old_parts.get(key) or replace(new_parts[key], notes=[])
        new_notes = new_parts[key].notes if key in new_parts else []
        notes = _splice_notes(part.notes, new_notes, first, part.is_drums)
        notes = _splice_notes(notes, part.notes, last, part.is_drums)
        if notes:
            parts.append(replace(part, notes=notes))
    return replace(old, parts=tuple(parts))


def _part_key(part: Part) -> tuple[Any, ...]:
    return part.stem, part.is_drums, part.program, part.name, part.level_db, part.pan


def _splice_notes(before: Sequence[Note], after: Sequence[Note], seam: float, is_drums: bool) -> list[Note]:
    """Join attacks of `before` up to beat `seam` with those of `after` from there on.

    A pitched tone that sounds across the seam in both is tied; one that does so in `after` alone is struck at the seam.
    """
    seam_start = seam - SEAM_TOLERANCE_BEATS
    notes = [note for note in before if note.beat < seam_start]
    sounding = {note.pitch: index for index, note in enumerate(notes) if note.beat + note.length > seam_start}
    if not is_drums:
        notes = [note._replace(length=min(note.length, seam - note.beat)) for note in notes]
    for note in after:
        end = note.beat + note.length
        if note.beat >= seam_start:
            notes.append(note)
        elif is_drums or end <= seam + MIN_RESTRIKE_BEATS:
            continue
        elif note.pitch in sounding:
            index = sounding[note.pitch]
            notes[index] = notes[index]._replace(length=end - notes[index].beat)
        else:
            notes.append(Note(seam, end - seam, note.pitch, note.velocity))
    return sorted(_truncate_overlaps(notes))


def _truncate_overlaps(notes: Sequence[Note]) -> Iterator[Note]:
    """Yield the notes from last to first, each ended where its pitch is struck again, without doubles."""
    next_attack: dict[int, float] = {}
    for note in sorted(notes, reverse=True):
        gap = next_attack.get(note.pitch, np.inf) - note.beat
        next_attack[note.pitch] = note.beat
        if gap > 1e-3:
            yield note._replace(length=min(note.length, gap))
