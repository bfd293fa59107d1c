"""A part of a Sketch piece written anew. What the piece stands on is found again by what its sidecar says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from v2m.core.errors import UsageError
from v2m.core.types import InpaintRequest, Tags, VisualFeatures
from v2m.sketch.compose.arrange import Piece, compose, recompose
from v2m.sketch.compose.lead_sheet import Note, Part
from v2m.sketch.plan import plan as planning
from v2m.sketch.plan.plan import Plan
from v2m.sketch.style import Style
from v2m.sketch.styles import STYLES

SEAM_TOLERANCE_BEATS = 0.06  # beats by which a hand may be early or late and still be on the seam
MIN_RESTRIKE_BEATS = 0.25  # beats: what is left of a tone at a seam is struck again where it lasts longer
BEAT_TOLERANCE_S = 0.002  # seconds within which two beats are one
MAX_PITCHED_PARTS = 15  # besides drums, of which a MIDI file has one channel each


@dataclass(frozen=True)
class TakeRecord:
    """What `seed` and `tags` wrote from second `begin` to `end`: first a whole piece, then what lies over it."""

    start: float
    end: float
    seed: int
    tags: Tags

    @classmethod
    def from_request(cls, request: InpaintRequest, seed: int, tags: Tags) -> TakeRecord:
        return cls(request.start, request.end, seed, tags)

    def to_dict(self) -> dict[str, Any]:
        return {"start": self.start, "end": self.end, "seed": self.seed, "tags": self.tags.to_dict()}


@dataclass(frozen=True)
class TakeHistory:
    """How the music that is kept came about. beats: (B,) its seconds, rounded to a millisecond."""

    style: Style
    takes: tuple[TakeRecord, ...]
    beats: tuple[float, ...]

    @classmethod
    def from_request(cls, request: InpaintRequest) -> TakeHistory:
        """Raises UsageError where the sidecar beside the music does not say it, or says that another made it."""
        record, name = request.source_metadata, request.source_path.name if request.source_path else "it"
        try:
            assert record is not None
            music, span = record["music"], record["span"]
            style = STYLES[music["style"]]
            rows = music.get("takes") or [
                {"start": 0.0, "end": span["end"] - span["start"], "seed": record["seed"], "tags": record["tags"]}
            ]
            rows = [*rows[:-1], {**rows[-1], "seed": record["seed"]}]  # of several takes each has its own
            written = tuple(_parse_take(row) for row in rows)
            return cls(style, written, tuple(float(beat) for beat in music["beats"]))
        except (AssertionError, KeyError, TypeError, ValueError, AttributeError):
            raise UsageError(
                f"nothing beside {name!r} says that Sketch wrote it, and how: keep one of its outputs, or a WAV of it, "
                "with the sidecar where it was"
            ) from None


def _parse_take(row: Mapping[str, Any]) -> TakeRecord:
    return TakeRecord(float(row["start"]), float(row["end"]), int(row["seed"]), Tags(**row["tags"]))


def recompose_range(
    history: TakeHistory, features: VisualFeatures, duration: float, take: TakeRecord
) -> tuple[Piece, Piece]:
    """The piece of `origin`, and the same with `part` over it, on its beats, in its key and over its chords.

    Raises:
        UsageError: The picture or this version of Sketch gives other beats, or too many players are asked for.
    """
    style, whole = history.style, history.takes[0]
    plan = planning.plan_for_style(style, features, duration, whole.tags, whole.seed)
    if len(plan.beats) != len(history.beats) or np.abs(plan.beats - history.beats).max() > BEAT_TOLERANCE_S:
        raise UsageError(
            "the beats of the music to keep are not those that Sketch finds here: it is another video's, span's or "
            "version's; write all of it anew"
        )
    first = old = made = compose(plan, style, whole.tags, whole.seed)
    for each in (*history.takes[1:], take):
        old, other = made, recompose(first, plan, style, each.tags, seed=whole.seed, variation_seed=each.seed)
        made = splice_parts(made, other, *beats_inside(plan, each.start, each.end))
    if sum(not each.is_drums for each in made.parts) > MAX_PITCHED_PARTS:
        raise UsageError(
            f"the parts together need more than {MAX_PITCHED_PARTS} players: give the tags of what is kept"
        )
    return old, made


def beats_inside(plan: Plan, start: float, end: float) -> tuple[float, float]:
    """The beats from which to which the seconds from `begin` to `end` are written: whole ones, if one lies inside."""
    low, high = (float(beat) for beat in plan.tempo_map.time_to_beat([start, end]))
    first, last = float(np.ceil(low - SEAM_TOLERANCE_BEATS)), float(np.floor(high + SEAM_TOLERANCE_BEATS))
    if end >= plan.duration - BEAT_TOLERANCE_S:
        last = np.inf
    return (first, last) if last - first >= 1 else (low, high)


def splice_parts(old: Piece, new: Piece, first: float, last: float) -> Piece:
    """`old` with the beats `first` ≤ beat < `last` out of `new`, player by player."""
    before, within = ({_part_key(part): part for part in piece.parts} for piece in (old, new))
    parts: list[Part] = []
    for name in {**before, **within}:
        part = before.get(name) or replace(within[name], notes=[])
        fresh = within[name].notes if name in within else []
        notes = _splice_notes(_splice_notes(part.notes, fresh, first, part.is_drums), part.notes, last, part.is_drums)
        if notes:
            parts.append(replace(part, notes=notes))
    return replace(old, parts=tuple(parts))


def _part_key(part: Part) -> tuple[Any, ...]:
    return part.stem, part.is_drums, part.program, part.name, part.level_db, part.pan


def _splice_notes(before: Sequence[Note], after: Sequence[Note], seam: float, drums: bool) -> list[Note]:
    """What is struck before `seam` of the one, from there on of the other. A tone that both hold there is tied."""
    notes = [note for note in before if note.beat < seam - SEAM_TOLERANCE_BEATS]
    held = {
        note.pitch: place for place, note in enumerate(notes) if note.beat + note.length > seam - SEAM_TOLERANCE_BEATS
    }
    if not drums:
        notes = [note._replace(length=min(note.length, seam - note.beat)) for note in notes]
    for note in after:
        end = note.beat + note.length
        if note.beat >= seam - SEAM_TOLERANCE_BEATS:
            notes.append(note)
        elif not drums and end > seam + MIN_RESTRIKE_BEATS and note.pitch in held:
            notes[held[note.pitch]] = (tied := notes[held[note.pitch]])._replace(length=end - tied.beat)
        elif not drums and end > seam + MIN_RESTRIKE_BEATS:
            notes.append(Note(seam, end - seam, note.pitch, note.velocity))
    return sorted(_truncate_overlaps(notes))


def _truncate_overlaps(notes: Sequence[Note]) -> Iterator[Note]:
    """No note running into the next one of its own pitch."""
    following: dict[int, float] = {}
    for note in sorted(notes, reverse=True):
        until = following.get(note.pitch, np.inf)
        following[note.pitch] = note.beat
        if until - note.beat > 1e-3:
            yield note._replace(length=min(note.length, until - note.beat))
