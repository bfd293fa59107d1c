"""Encoding of a score as codes, one voice after the other.

What a voice cannot say is reduced by these rules, and counted in `Losses`: of two equal pitches at one time the louder
stays; a pitch outside the piano's keys moves by octaves; a tone for which no frame is left before the next attack is
left out, and so are notes after the end. Tones end where the next attack of their voice begins, but for those that are
held through in a pad, and those of a chord that is rolled or strummed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from v2m.core.timing import codec_frames, samples_to_seconds, seconds_to_frames
from v2m.sketch.notation import vocabulary as vocab
from v2m.sketch.notation.score import Score, ScoreNote

ROLL_FRAMES = 6  # from the first to the last attack of a rolled or strummed chord
SHORTENED_FRAMES = 5
TIE_FRAMES = 4  # by which a tone must go on after an attack to be held through it


@dataclass
class Losses:
    """Notes of the score, and those of them that are left out or changed, by reason."""

    notes: int = 0
    doubled: int = 0  # the same pitch at the same time, in one voice
    folded: int = 0  # moved by octaves
    no_room: int = 0  # more tones than there are frames before the next attack
    outside: int = 0  # begins after the end
    shortened: int = 0  # ends over 0.1 s early, at the next attack of its voice

    def to_dict(self) -> dict[str, int]:
        return asdict(self)


@dataclass
class _Attack:
    """Tones (pitch, velocity) that begin in one frame, and the last frame in which one of them sounds.

    Of a pad, tones of velocity 0 are held on, and `again` are those to strike again instead; `rest_before` asks for a
    rest in the frame before, so that all are struck again.
    """

    frame: int
    tones: list[tuple[int, int]]
    end: int = 0
    again: list[tuple[int, int]] = field(default_factory=list)
    rest_before: bool = False


def encode_score(score: Score) -> tuple[NDArray[np.int64], Losses]:
    """Return codes (K, T) of `score`, T the frames that cover its duration, and what was lost."""
    count = max(1, codec_frames(score.duration, vocab.FRAME_RATE))
    codes = np.zeros((vocab.NUM_CODEBOOKS, count), np.int64)
    codes[0] = encode_meter(score, count)
    losses = Losses()
    for row, voice in enumerate(vocab.VOICES, 1):
        codes[row] = _encode_voice(voice, score.voices.get(voice, ()), count, losses)
    return codes, losses


def encode_meter(score: Score, count: int) -> NDArray[np.int64]:
    """Return the meter's entries (`count`,): none before the first beat and after the last one's length."""
    row = np.full(count, vocab.NO_METER, np.int64)
    starts = _to_frames(score.beats)
    downbeats = set(_to_frames(score.downbeats).tolist())
    if len(starts) < 2:
        return row
    edges = [*starts.tolist(), int(2 * starts[-1] - starts[-2])]
    beat = 0
    for start, end in pairwise(edges):
        beat = 0 if start in downbeats else beat + 1
        for frame in range(max(0, start), min(end, count)):
            row[frame] = vocab.meter_entry(beat, (frame - start) / (end - start))
    return row


def _to_frames(times: object) -> NDArray[np.int64]:
    return np.round(seconds_to_frames(np.asarray(times, float), vocab.FRAME_RATE)).astype(np.int64)


def _encode_voice(voice: str, notes: Sequence[ScoreNote], count: int, losses: Losses) -> NDArray[np.int64]:
    is_drums, is_tied = voice in vocab.DRUM_VOICES, voice in vocab.TIED_VOICES
    sounding: list[tuple[int, int, int, int]] = []  # frame, end, pitch, velocity
    seen: set[tuple[int, int]] = set()
    losses.notes += len(notes)
    for note in sorted(notes, key=lambda note: (note.onset, -note.velocity)):
        frame, end = _to_frames([note.onset, note.end]).tolist()
        pitch = vocab.fold_pitch(note.pitch)
        losses.folded += pitch != note.pitch
        if frame >= count:  # the last frame may begin half a frame after the last onset
            if note.onset >= samples_to_seconds(count, vocab.FRAME_RATE):
                losses.outside += 1
                continue
            frame = count - 1
        if (frame, pitch) in seen:
            losses.doubled += 1
            continue
        seen.add((frame, pitch))
        sounding.append((max(0, frame), frame + 1 if is_drums else max(frame + 1, end), pitch, note.velocity))
    row = np.full(count, vocab.REST, np.int64)
    writer = _Writer(row, losses)
    if is_tied:
        _write_tied(_group(sounding), writer, count)
        return row
    gestures = _gestures(sounding, is_drums)
    starts = [gesture[0].frame for gesture in gestures] + [count]
    ends = ((end, starts[bisect_right(starts, frame)]) for frame, end, *_ in sounding)
    losses.shortened += sum(min(end, count) > following + SHORTENED_FRAMES for end, following in ends)
    for gesture, following in zip(gestures, starts[1:], strict=True):
        writer.write(gesture, following)
    return row


def _group(notes: list[tuple[int, int, int, int]]) -> list[list[tuple[int, int, int, int]]]:
    """Group notes by their frame, in order."""
    groups: dict[int, list[tuple[int, int, int, int]]] = defaultdict(list)
    for note in notes:
        groups[note[0]].append(note)
    return [sorted(groups[frame], key=lambda note: note[2]) for frame in sorted(groups)]


def _gestures(notes: list[tuple[int, int, int, int]], is_drums: bool) -> list[list[_Attack]]:
    """Group attacks that belong to one rolled or strummed chord: a start, and joins."""
    gestures: list[list[_Attack]] = []
    for group in _group(notes):
        attack = _Attack(group[0][0], [note[2:] for note in group], max(note[1] for note in group))
        if gestures:
            first, last = gestures[-1][0], gestures[-1][-1]
            limit = first.frame + ROLL_FRAMES
            overlaps = last.end > attack.frame + 1 or (is_drums and attack.frame == last.frame + 1)
            if attack.frame <= limit and overlaps:
                gestures[-1].append(attack)
                continue
        gestures.append([attack])
    return gestures


def _write_tied(groups: list[list[tuple[int, int, int, int]]], writer: _Writer, count: int) -> None:
    """Write the gestures of a pad; where tones have ended, a start names those again that are held on."""
    held: dict[int, int] = {}  # pitch → end of the tones that the codes hold
    index = 0
    while index < len(groups):
        gesture: list[_Attack] = []
        while index < len(groups):
            group = groups[index]
            frame, tones = group[0][0], [note[2:] for note in group]
            if held and max(held.values()) < frame:  # a rest has ended all
                held = {}
            pitches = {pitch for pitch, _ in tones}
            tied = [pitch for pitch, end in held.items() if end > frame + TIE_FRAMES and pitch not in pitches]
            attack = _Attack(frame, tones)
            if not gesture:
                again = [tone for tone in tones if tone[0] in held]
                others = [tone for tone in tones if tone[0] not in held] + [(pitch, 0) for pitch in sorted(tied)]
                attack = _Attack(frame, others or again, again=again if others else [], rest_before=not others)
                held = {pitch: held[pitch] for pitch in tied}
            elif frame > gesture[0].frame + TIE_FRAMES and (not held or len(tied) < len(held)):
                break
            gesture.append(attack)
            held |= {note[2]: note[1] for note in group}
            attack.end = max(held.values())
            index += 1
        for pitch in writer.write(gesture, groups[index][0][0] if index < len(groups) else count):
            held.pop(pitch, None)


class _Writer:
    """Writes the instructions of gestures into a row of codes."""

    def __init__(self, row: NDArray[np.int64], losses: Losses) -> None:
        self.row, self.losses, self.level = row, losses, vocab.DEFAULT_LEVEL

    def write(self, gesture: list[_Attack], following: int) -> list[int]:
        """Write one gesture, which must end before frame `following`; return the pitches left out."""
        start = gesture[0]
        if start.rest_before and start.frame and self.row[start.frame - 1] == vocab.HOLD:
            self.row[start.frame - 1] = vocab.REST
        instructions, left_out, is_exact = _spell(gesture, following, exact=True)
        if left_out or not is_exact:
            instructions, left_out, _ = _spell(gesture, following, exact=False)
        tied = {pitch for pitch, velocity in start.tones if not velocity}
        self.losses.no_room += sum(pitch not in tied for pitch in left_out)
        free = max(instructions) + 1
        levels = [level for level in map(self._new_level, gesture) if level is not None]
        if levels and free < min(following, start.frame + vocab.SPELL_FRAMES):
            self.level = levels[0]
            instructions[free] = vocab.LEVEL + self.level
        end = min(max(attack.end for attack in gesture), following)
        self.row[start.frame : end] = vocab.HOLD
        for frame, entry in instructions.items():
            self.row[frame] = entry
        return left_out

    def _new_level(self, attack: _Attack) -> int | None:
        """Return the level of the attack's tones where the current one is far from it."""
        velocities = [velocity for _, velocity in attack.tones + attack.again if velocity]
        if not velocities:
            return None
        mean = sum(velocities) / len(velocities)
        if abs(mean - vocab.level_velocity(self.level)) <= 0.75 * vocab.LEVEL_STEP:
            return None
        return vocab.level_entry(mean) - vocab.LEVEL


def _spell(gesture: list[_Attack], following: int, *, exact: bool) -> tuple[dict[int, int], list[int], bool]:
    """Return a gesture's instructions by frame, pitches left out, and whether all times are right.

    The tones of a join go before the next join. If `exact`, that one is then written late, and its time corrected.
    Else it is on time, and tones that wait go to the nearer of the last start or join and this one.
    """
    start, joins = gesture[0], gesture[1:]
    instructions = {start.frame: vocab.pitch_entry(vocab.START, start.tones[0][0])}
    with_start, with_join = [tone[0] for tone in start.tones[1:]], [tone[0] for tone in start.again]
    last, late = start.frame, 0
    for frame in range(start.frame + 1, following):
        is_due = bool(joins) and joins[0].frame <= frame
        if not is_due and frame - last >= vocab.SPELL_FRAMES and not joins:
            break
        if late:
            instructions[frame], late = vocab.earlier_entry(late), 0
        elif is_due and not (exact and with_join):
            join = joins.pop(0)
            pitches = [tone[0] for tone in join.tones]
            (with_start if last - start.frame <= join.frame - last else pitches).extend(with_join)
            instructions[frame] = vocab.pitch_entry(vocab.JOIN, pitches[0])
            with_join, last, late = pitches[1:], join.frame, frame - join.frame
            if late > vocab.MAX_EARLIER:
                break
        elif with_join:
            instructions[frame] = vocab.pitch_entry(vocab.JOIN_WITH, with_join.pop(0))
        elif with_start:
            instructions[frame] = vocab.pitch_entry(vocab.START_WITH, with_start.pop(0))
        elif not joins:
            break
    left_out = [*with_start, *with_join, *(pitch for join in joins for pitch, _ in join.tones)]
    return instructions, left_out, not late
