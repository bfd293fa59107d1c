"""Decoding of codes to a score. Every sequence of codes is valid.

Unused entries are holds. An instruction that lacks what it refers to is ignored. A tone ends at the latest after
`MAX_HOLD_S`, or with the codes; of more than `MAX_TONES` in a voice the oldest ends.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from v2m.core.timing import samples_to_seconds, seconds_to_samples
from v2m.core.types import Floats
from v2m.sketch.notation import vocabulary as vocab
from v2m.sketch.notation.score import Score, ScoreNote

MAX_HOLD_S = 20.0
MAX_TONES = 12  # of a voice at a time
MIN_BEAT_FRAMES = 8  # 375 beats a minute
DRUM_NOTE_S = 0.1


def decode_score(codes: NDArray[np.integer], duration: float | None = None) -> Score:
    """Return the score of codes (K, T); it ends at `duration`, or with the codes."""
    assert codes.ndim == 2, f"expected (K, T), not {codes.shape}"
    assert len(codes) == vocab.NUM_CODEBOOKS, f"expected {vocab.NUM_CODEBOOKS} codebooks, not {len(codes)}"
    total = samples_to_seconds(codes.shape[1], vocab.FRAME_RATE)
    duration = total if duration is None else duration
    beats, downbeats = decode_meter(codes[0])
    voices: dict[str, tuple[ScoreNote, ...]] = {}
    for voice, row in zip(vocab.VOICES, codes[1:], strict=True):
        notes = _VoiceDecoder(voice).decode(row.tolist())
        inside = [note._replace(end=min(note.end, duration)) for note in notes if note.onset < duration]
        if inside:
            voices[voice] = tuple(sorted(inside))
    return Score(duration, voices, beats[beats < duration], downbeats[downbeats < duration])


def decode_meter(row: NDArray[np.integer]) -> tuple[Floats, Floats]:
    """Return seconds of beats and downbeats: where the beat changes, or its phase begins again.

    Beats that follow closer than `MIN_BEAT_FRAMES` are none. The first frame is a beat only at phase 0.
    """
    beats: list[int] = []
    downbeats: list[int] = []
    previous: tuple[int, int] | None = None
    for frame, entry in enumerate(row.tolist()):
        place = vocab.parse_meter(entry)
        if place is not None:
            is_new = place[1] == 0 if previous is None else place[0] != previous[0] or place[1] < previous[1]
            if is_new and (not beats or frame - beats[-1] >= MIN_BEAT_FRAMES):
                beats.append(frame)
                downbeats += [frame] if place[0] == 0 else []
        previous = place
    return np.array(beats) / vocab.FRAME_RATE, np.array(downbeats) / vocab.FRAME_RATE


class _VoiceDecoder:
    """State of one voice: sounding tones, and the last start and join, for which more may be named."""

    def __init__(self, voice: str) -> None:
        self._is_drums, self._is_tied = voice in vocab.DRUM_VOICES, voice in vocab.TIED_VOICES
        self._max_frames = seconds_to_samples(MAX_HOLD_S, vocab.FRAME_RATE)
        self._velocity = vocab.level_velocity(vocab.DEFAULT_LEVEL)
        self._notes: list[list[int]] = []  # frame, end, pitch, velocity
        self._sounding: dict[int, list[int]] = {}
        self._before: dict[int, list[int]] = {}  # tones that the last start may hold on
        self._recent: list[list[int]] = []  # attacks that a velocity is for
        self._joined: list[list[int]] = []  # attacks since the last join
        self._start = self._join = -vocab.SPELL_FRAMES

    def decode(self, row: list[int]) -> list[ScoreNote]:
        """Return the notes of a row of codes."""
        for frame, entry in enumerate(row):
            self._step(frame, entry)
        self._end_all(len(row))
        length = DRUM_NOTE_S if self._is_drums else 0.0
        rate = vocab.FRAME_RATE
        return [
            ScoreNote(
                samples_to_seconds(on, rate), max(samples_to_seconds(off, rate), on / rate + length), pitch, velocity
            )
            for on, off, pitch, velocity in self._notes
        ]

    def _step(self, frame: int, entry: int) -> None:
        for pitch, note in list(self._sounding.items()):
            if frame - note[0] >= self._max_frames:
                self._end(pitch, frame)
        instruction = vocab.parse_pitch(entry)
        if entry == vocab.REST:
            self._end_all(frame)
            self._start = self._join = -vocab.SPELL_FRAMES
        elif vocab.EARLIER <= entry < vocab.NUM_ENTRIES:
            self._move_join(entry - vocab.EARLIER + 1)
        elif vocab.LEVEL <= entry < vocab.EARLIER:
            self._velocity = vocab.level_velocity(entry - vocab.LEVEL)
            if frame - max(self._start, self._join) <= vocab.SPELL_FRAMES:
                for note in self._recent:
                    note[3] = self._velocity
            self._recent = []
        elif instruction is not None:
            self._name(frame, *instruction)

    def _name(self, frame: int, kind: int, pitch: int) -> None:
        if kind == vocab.START:
            self._before = dict(self._sounding) if self._is_tied else {}
            self._end_all(frame)
            self._recent, self._start, self._join = [], frame, -vocab.SPELL_FRAMES
            self._attack(frame, pitch)
        elif kind == vocab.JOIN:
            self._join, self._joined = frame, []
            self._attack(frame, pitch)
        else:
            time = self._join if kind == vocab.JOIN_WITH and self._join >= 0 else self._start
            if kind == vocab.JOIN_WITH:
                self._before.pop(pitch, None)
            if time >= 0 and frame - max(self._start, self._join) <= vocab.SPELL_FRAMES:
                self._attack(time, pitch)

    def _move_join(self, frames: int) -> None:
        """Move the tones of the last join earlier, at most to the last start."""
        if self._join < 0:
            return
        moved = max(self._join - frames, self._start, 0)
        for note in self._joined:
            if note[0] == self._join:
                note[0] = moved
        self._join = moved

    def _attack(self, frame: int, pitch: int) -> None:
        held = self._before.pop(pitch, None)
        if held is not None and frame == self._start:  # tied: it goes on
            self._sounding[pitch] = held
            return
        if pitch in self._sounding:
            if self._sounding[pitch][0] >= frame:  # named twice
                return
            self._end(pitch, frame)
        if len(self._sounding) >= MAX_TONES:
            self._end(next(iter(self._sounding)), frame)
        note = [frame, frame, pitch, self._velocity]
        self._notes.append(note)
        self._joined.append(note)
        self._recent.append(note)
        self._sounding[pitch] = note

    def _end(self, pitch: int, frame: int) -> None:
        note = self._sounding.pop(pitch)
        note[1] = max(note[0] + 1, frame)

    def _end_all(self, frame: int) -> None:
        for pitch in list(self._sounding):
            self._end(pitch, frame)
