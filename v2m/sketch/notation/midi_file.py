"""Scores read from Standard MIDI Files of any origin.

Tempo and time signatures of all tracks hold for all. Without a tempo it is 120 beats a minute, without a signature 4/4,
as the format says. A signature begins a bar where it stands. In 6/8, 9/8, 12/8 and the like a beat is three of the
denominator's notes; else it is one. An opening bar of one beat, by which Sketch waits for a late first beat, is no bar.

Each channel of each track is a line, with the program of its first note, and with the stem that the track's instrument
name states where it is one of Sketch's. A note that is never released ends with its track; one that is struck again
ends there. Not read: pedals, bends, controllers, banks, and text.
"""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from collections.abc import Iterable
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from v2m.core.errors import InvalidInputError, error_text
from v2m.core.timing import TempoMap
from v2m.core.types import Floats
from v2m.sketch.instruments import STEMS
from v2m.sketch.notation.score import Score
from v2m.sketch.notation.voices import Line

MAX_BYTES = 16 * 1024**2
MAX_DURATION_S = 2 * 3600.0
MAX_BEATS = 100_000
DEFAULT_TEMPO_US = 500_000  # microseconds a quarter note
DRUM_CHANNEL = 9  # MIDI channel 10
_MidiNote = tuple[int, int, int, int]  # tick, end, pitch, velocity


def read_midi(source: Path | bytes, duration: float | None = None) -> Score:
    """Return the score of a MIDI file, or of its bytes; it lasts `duration`, or until the last note ends.

    Raises InvalidInputError: `midi` where it is no MIDI file, is broken, or counts time in frames or sequences;
    `no_notes` where none begins before `duration`; `too_large` and `too_long` beyond 16 MiB, two hours or 100,000
    beats.
    """
    name = "the MIDI file" if isinstance(source, bytes) else source.name
    file = _parse(source, name)
    end_tick, tempo_map = _tempo_map(file)
    tracks = [track for index in range(len(file.tracks)) for track in _read_track(file.tracks[index])]
    if not tracks:
        raise InvalidInputError("no_notes", f"{name} has no notes")
    seconds = float(tempo_map.beat_to_time(end_tick / file.ticks_per_beat))
    if seconds > MAX_DURATION_S:
        raise InvalidInputError(
            "too_long", f"{name} lasts {seconds / 3600:.1f} hours, more than {MAX_DURATION_S / 3600:g}"
        )
    lines = [_to_line(track, tempo_map, file.ticks_per_beat) for track in tracks]
    last = max(note[1] for line in lines for note in line.notes)
    duration = last if duration is None else duration
    if not any(note[0] < duration for line in lines for note in line.notes):
        raise InvalidInputError("no_notes", f"{name} has no notes before {duration:g} s")
    beats, downbeats = _meter(file, end_tick, tempo_map, name)
    return Score.from_lines(lines, duration, beats[beats < duration], downbeats[downbeats < duration])


def read_programs(source: Path | bytes) -> Counter[tuple[int, bool]]:
    """Return the number of notes of each (program, is a drum kit). Raise InvalidInputError, `midi`."""
    file = _parse(source, "the MIDI file" if isinstance(source, bytes) else source.name)
    lines = [line for track in file.tracks for line in _read_track(track)]
    return sum((Counter({(line.program, line.is_drums): len(line.notes)}) for line in lines), Counter())


def _parse(source: Path | bytes, name: str) -> Any:
    import mido

    try:
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        if size > MAX_BYTES:
            raise InvalidInputError("too_large", f"{name} has {size / 1e6:.0f} MB, more than {MAX_BYTES / 1e6:.0f}")
        data = source if isinstance(source, bytes) else source.read_bytes()
        file = mido.MidiFile(file=BytesIO(data), clip=True)
    except OSError as error:
        if error.errno is not None:  # of the disk, not of the parser
            raise
        raise InvalidInputError("midi", f"{name} is no MIDI file, or broken ({error_text(error)})") from error
    except (EOFError, ValueError, LookupError, TypeError, struct.error, mido.KeySignatureError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError("midi", f"{name} is no MIDI file, or broken ({error_text(error)})") from error
    if file.ticks_per_beat <= 0:
        raise InvalidInputError("midi", f"{name} counts time in frames of film: export it with ticks per quarter note")
    if file.type == 2:
        raise InvalidInputError("midi", f"{name} holds separate sequences (format 2): export it as format 0 or 1")
    return file


def _timed(track: Iterable[Any]) -> Iterable[tuple[int, Any]]:
    """Yield (tick, message)."""
    tick = 0
    for message in track:
        tick += message.time
        yield tick, message


def _tempo_map(file: Any) -> tuple[int, TempoMap]:
    """Return the last tick of a note, and the map of quarter notes to seconds."""
    tempi, end = {0: DEFAULT_TEMPO_US}, 0
    for tick, message in (event for track in file.tracks for event in _timed(track)):
        if message.type == "set_tempo" and message.tempo > 0:
            tempi[tick] = message.tempo
        if message.type in {"note_on", "note_off"}:
            end = max(end, tick)
    ticks = np.array(sorted(tempi), float)
    beats = np.append(ticks, ticks[-1] + file.ticks_per_beat) / file.ticks_per_beat
    lengths = np.diff(beats) * np.array([tempi[int(tick)] for tick in ticks]) / 1e6
    return end, TempoMap(beats, np.concatenate([[0.0], np.cumsum(lengths)]))


class _TrackNotes:
    """Notes of one channel of a track."""

    def __init__(self, is_drums: bool) -> None:
        self.is_drums, self.program, self.stem = is_drums, 0, ""
        self.notes: list[_MidiNote] = []
        self.sounding: dict[int, tuple[int, int]] = {}  # pitch → tick, velocity

    def release(self, pitch: int, tick: int) -> None:
        if pitch in self.sounding:
            start, velocity = self.sounding.pop(pitch)
            self.notes.append((start, max(tick, start + 1), pitch, velocity))


def _read_track(track: Iterable[Any]) -> list[_TrackNotes]:
    """Return the channels of a track that have notes."""
    channels: dict[int, _TrackNotes] = {}
    programs: dict[int, int] = defaultdict(int)
    stem, tick = "", 0
    for tick, message in _timed(track):
        if message.type == "instrument_name" and message.name in STEMS:
            stem = message.name
        elif message.type == "program_change":
            programs[message.channel] = message.program
        elif message.type in {"note_on", "note_off"}:
            channel = channels.get(message.channel)
            if message.type == "note_on" and message.velocity > 0:
                if channel is None:
                    channel = channels[message.channel] = _TrackNotes(message.channel == DRUM_CHANNEL)
                    channel.program = programs[message.channel]
                channel.release(message.note, tick)
                channel.sounding[message.note] = (tick, message.velocity)
            elif channel is not None:
                channel.release(message.note, tick)
    for channel in channels.values():
        channel.stem = stem
        for pitch in list(channel.sounding):
            channel.release(pitch, tick)
    return list(channels.values())


def _to_line(track: _TrackNotes, tempo_map: TempoMap, ticks_per_beat: int) -> Line:
    ticks = np.array([(start, end) for start, end, *_ in track.notes])
    times = tempo_map.beat_to_time(ticks / ticks_per_beat)
    notes = tuple(
        (float(on), float(off), pitch, velocity)
        for (on, off), (*_, pitch, velocity) in zip(times, track.notes, strict=True)
    )
    return Line(tuple(sorted(notes)), track.stem, track.program, track.is_drums)


def _meter(file: Any, end_tick: int, tempo_map: TempoMap, name: str) -> tuple[Floats, Floats]:
    """Return seconds of beats and downbeats up to the last note's end."""
    signatures = {0: (4, 4)}
    for tick, message in (event for track in file.tracks for event in _timed(track)):
        if message.type == "time_signature" and message.numerator > 0 and tick < end_tick:
            signatures[tick] = (message.numerator, message.denominator)
    ticks = sorted(signatures)
    if signatures[0][0] == 1 and len(ticks) > 1 and ticks[1] * signatures[0][1] == 4 * file.ticks_per_beat:
        ticks = ticks[1:]
    edges = [*ticks, end_tick]
    beats: list[Floats] = []
    downbeats: list[Floats] = []
    for start, end in pairwise(edges):
        numerator, denominator = signatures[start]
        is_compound = denominator >= 8 and numerator % 3 == 0 and numerator > 3
        per_bar, unit = (numerator // 3, 12.0 / denominator) if is_compound else (numerator, 4.0 / denominator)
        count = int(np.ceil((end - start) / file.ticks_per_beat / unit - 1e-9))
        if count + sum(map(len, beats)) > MAX_BEATS:
            raise InvalidInputError("too_long", f"{name} has more than {MAX_BEATS} beats")
        positions = start / file.ticks_per_beat + unit * np.arange(count)
        beats.append(tempo_map.beat_to_time(positions))
        downbeats.append(beats[-1][::per_bar])
    if not beats:
        return np.zeros(0), np.zeros(0)
    return np.concatenate(beats), np.concatenate(downbeats)
