"""Emphasis by contrast: strikes of the accompaniment on cuts, and fewer notes in still beats."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace

from v2m.sketch.compose.drums import LIGHT_DRUMS
from v2m.sketch.compose.lead_sheet import CHORD_SPREAD_BEATS, LeadSheet, Note, Part

BREATH_BEATS = 0.125  # before a cut, in which the accompaniment is silent
MIN_STRUCK_BEATS = 0.3  # of a note before and after the cut that divides it
STRIKING_STEMS = {"harmony", "pads", "bass"}
THINNED_STEMS = {"harmony", "bass", "drums"}
SIXTEENTHS_ACTIVITY, EIGHTHS_ACTIVITY = 0.4, 0.25  # of a beat, below which it loses these notes
SOFT_VELOCITY = 45  # up to which heavy drums are ghost notes


def strike_on_cuts(sheet: LeadSheet, part: Part) -> Part:
    """Return the accompanying `part` struck again on every cut it sounds across; others stay as they are.

    A note just before a cut moves to it, or is left out where it is short. Bass notes there stay, as a pick-up.
    """
    if part.stem not in STRIKING_STEMS:
        return part
    cuts = sorted(sheet.hits)
    moves = part.stem != "bass"
    return replace(part, notes=[piece for note in part.notes for piece in _divide(note, cuts, moves=moves)])


def _divide(note: Note, cuts: list[float], *, moves: bool) -> Iterator[Note]:
    """Yield the pieces of `note` between the `cuts` in beats, each ended a breath before the next cut."""
    start, end = note.beat, note.beat + note.length
    first, last = bisect_right(cuts, start + 1e-6), bisect_right(cuts, end + BREATH_BEATS)
    if moves and first < last and cuts[first] - start < MIN_STRUCK_BEATS:
        if end - cuts[first] <= MIN_STRUCK_BEATS:
            return
        start = cuts[first]
    for cut in cuts[first:last]:
        if cut - start <= MIN_STRUCK_BEATS:
            continue
        if end - cut > MIN_STRUCK_BEATS:
            yield note._replace(beat=start, length=cut - BREATH_BEATS - start)
            start = cut
        elif abs(cut - end) < BREATH_BEATS:
            end = cut - BREATH_BEATS
    yield note._replace(beat=start, length=end - start)


def thin_still_beats(sheet: LeadSheet, part: Part) -> Part:
    """Return `part` with fewer subdivisions in the beats of least motion: no sixteenths, then no eighths.

    Notes on beats and cuts, heavy drums and the bass's eighths stay.
    """
    if part.stem not in THINNED_STEMS:
        return part
    return replace(part, notes=[note for note in part.notes if not _is_thinned(sheet, part, note)])


def _is_thinned(sheet: LeadSheet, part: Part, note: Note) -> bool:
    position = note.beat % 1.0
    if position < CHORD_SPREAD_BEATS or sheet.hits.get(note.beat) is not None:
        return False
    if part.is_drums and note.pitch not in LIGHT_DRUMS and note.velocity > SOFT_VELOCITY:
        return False
    is_eighth = 0.5 <= position < 0.5 + CHORD_SPREAD_BEATS
    if is_eighth and part.stem == "bass":
        return False
    return sheet.activity_at(note.beat) < (EIGHTHS_ACTIVITY if is_eighth else SIXTEENTHS_ACTIVITY)
