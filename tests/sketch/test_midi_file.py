"""MIDI files of any origin as scores: tempo, meter, voices, and what is refused."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mido
import numpy as np
import pytest

from tests.sketch.stub_videos import compose_piece
from v2m.core.errors import InvalidInputError
from v2m.sketch.notation.decoding import decode_score
from v2m.sketch.notation.encoding import encode_score
from v2m.sketch.notation.midi_file import MAX_BYTES, read_midi
from v2m.sketch.notation.score import Score
from v2m.sketch.perform.midi import encode_midi

TICKS = 480
Event = tuple[int, Any]


def meta(kind: str, tick: int = 0, **values: Any) -> Event:
    return tick, mido.MetaMessage(kind, **values)


def note(tick: int, pitch: int = 60, length: int = TICKS, channel: int = 0) -> list[Event]:
    on, off = (mido.Message(kind, note=pitch, channel=channel, velocity=80) for kind in ("note_on", "note_off"))
    return [(tick, on), (tick + length, off)]


def file_of(*tracks: Sequence[Event], kind: int = 1, ticks: int = TICKS) -> bytes:
    file = mido.MidiFile(type=kind, ticks_per_beat=ticks)
    for events in tracks:
        track, now = mido.MidiTrack(), 0
        for tick, message in sorted(events, key=lambda event: event[0]):
            track.append(message.copy(time=tick - now))
            now = tick
        file.tracks.append(track)
    buffer = io.BytesIO()
    file.save(file=buffer)
    return buffer.getvalue()


def notes_of(data: bytes) -> list[tuple[float, int]]:
    return [(round(note.onset, 4), note.pitch) for _, note in read_midi(data).notes]


def test_midi_of_sketch_comes_back_with_its_voices_and_meter() -> None:
    piece = compose_piece("funk", 2)
    score = Score.from_piece(piece)
    read = read_midi(encode_midi(piece.sheet, piece.parts, "funk"), score.duration)
    assert {voice: len(notes) for voice, notes in read.voices.items()} == {
        voice: len(notes) for voice, notes in score.voices.items()
    }
    for voice, notes in score.voices.items():
        found = sorted((n.pitch, n.onset) for n in read.voices[voice])
        np.testing.assert_allclose(found, sorted((n.pitch, n.onset) for n in notes), atol=0.002)
    np.testing.assert_allclose(read.downbeats[: len(score.downbeats)], score.downbeats, atol=0.002)


def test_tempo_changes_of_another_track_hold() -> None:
    tempi = [meta("set_tempo", tempo=500_000), meta("set_tempo", 2 * TICKS, tempo=1_000_000)]
    assert notes_of(file_of(tempi, [*note(0), *note(2 * TICKS), *note(3 * TICKS)])) == [(0, 60), (1.0, 60), (2.0, 60)]


def test_without_tempo_and_signature_it_is_120_in_four() -> None:
    score = read_midi(file_of(note(0, length=9 * TICKS)))
    np.testing.assert_allclose(score.beats, np.arange(9) * 0.5)
    np.testing.assert_allclose(score.downbeats, [0.0, 2.0, 4.0])


@pytest.mark.parametrize(
    ("numerator", "denominator", "beat", "bar"),
    [
        (3, 4, 0.5, 1.5),
        (6, 8, 0.75, 1.5),
        (3, 8, 0.25, 0.75),
        (5, 8, 0.25, 1.25),
        (7, 8, 0.25, 1.75),
        (2, 2, 1.0, 2.0),
        (12, 8, 0.75, 3.0),
    ],
)
def test_beats_follow_the_time_signature(numerator: int, denominator: int, beat: float, bar: float) -> None:
    signature = meta("time_signature", numerator=numerator, denominator=denominator)
    score = read_midi(file_of([signature, *note(0, length=12 * TICKS)]))
    np.testing.assert_allclose(np.diff(score.beats), beat)
    np.testing.assert_allclose(np.diff(score.downbeats), bar)
    decoded = decode_score(encode_score(score)[0], score.duration)
    np.testing.assert_allclose(decoded.downbeats, score.downbeats, atol=0.0101)


def test_a_new_signature_begins_a_bar() -> None:
    changes = [meta("time_signature", numerator=4), meta("time_signature", 6 * TICKS, numerator=3)]
    score = read_midi(file_of([*changes, *note(0, length=12 * TICKS)]))
    np.testing.assert_allclose(score.downbeats, [0.0, 2.0, 3.0, 4.5])


def test_bars_of_five_and_seven_eighths_alternate() -> None:
    eighth = TICKS // 2
    changes = [meta("time_signature", 12 * bar * eighth, numerator=5, denominator=8) for bar in range(2)]
    changes += [meta("time_signature", (12 * bar + 5) * eighth, numerator=7, denominator=8) for bar in range(2)]
    score = read_midi(file_of([*changes, *note(0, length=24 * eighth)]))
    np.testing.assert_allclose(score.downbeats, [0.0, 1.25, 3.0, 4.25])
    np.testing.assert_allclose(np.diff(score.beats), 0.25)


def test_channel_ten_is_drums_and_programs_choose_voices() -> None:
    bass = [(0, mido.Message("program_change", program=33, channel=1)), *note(0, 40, channel=1)]
    score = read_midi(file_of([*bass, *note(0, 42, channel=9), *note(0, 36, channel=9), *note(0, 72, channel=2)]))
    assert {voice: [n.pitch for n in notes] for voice, notes in score.voices.items()} == {
        "bass": [40], "drums": [36], "cymbals": [42], "melody": [72],
    }  # fmt: skip


def test_unreleased_and_restruck_notes_end() -> None:
    on = mido.Message("note_on", note=60, velocity=80)
    stop, text = mido.Message("note_on", note=64, velocity=0), meta("text", 4 * TICKS, text="x")
    data = file_of([(0, on), (TICKS, on), (2 * TICKS, stop), text])
    assert [(n.onset, n.end) for _, n in read_midi(data).notes] == [(0.0, 0.5), (0.5, 2.0)]


def test_empty_tracks_are_no_obstacle() -> None:
    assert notes_of(file_of([], [meta("track_name", name="empty")], note(0))) == [(0, 60)]


def test_ten_thousand_notes_a_second_are_reduced_and_counted() -> None:
    events = [event for index in range(10_000) for event in note(index // 10, 30 + index % 70, length=4)]
    score = read_midi(file_of([meta("set_tempo", tempo=480_000), *events]))
    codes, losses = encode_score(score)
    kept = decode_score(codes, score.duration)
    assert losses.notes == len(score.notes) > 5000
    assert 0 < len(kept.notes) <= losses.notes - losses.no_room - losses.doubled
    assert losses.no_room > 0.9 * losses.notes - losses.doubled


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "midi"),
        (b"no MIDI at all", "midi"),
        (b"MThd\x00\x00\x00\x06\x00\x01\x00\x01\x01\xe0MTrk\x00\x00\x00\x20\x00\x90", "midi"),
        (b"MThd\x00\x00\x00\x06\x00\x01\x00\x01\xe7\x28MTrk\x00\x00\x00\x04\x00\xff\x2f\x00", "midi"),
        (b"MThd\x00\x00\x00\x06\x00\x01\x00\x01\x00\x00MTrk\x00\x00\x00\x04\x00\xff\x2f\x00", "midi"),
        (file_of(note(0), kind=2), "midi"),
        (file_of([meta("set_tempo", tempo=500_000)]), "no_notes"),
        (file_of(), "no_notes"),
        (file_of(note(0), note(TICKS * 20_000)), "too_long"),
        (file_of([meta("set_tempo", tempo=1), *note(0), *note(TICKS * 200_000)]), "too_long"),
        (bytes(MAX_BYTES + 1), "too_large"),
    ],
    ids=["empty", "text", "cut off", "film frames", "no ticks", "format 2", "no notes", "no tracks", "hours", "beats",
         "large"],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_its_reason(data: bytes, reason: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        read_midi(data)
    assert error.value.reason == reason


def test_notes_after_the_duration_are_no_notes(tmp_path: Path) -> None:
    (tmp_path / "late.mid").write_bytes(file_of(note(8 * TICKS)))
    with pytest.raises(InvalidInputError, match=r"late\.mid has no notes before 3 s"):
        read_midi(tmp_path / "late.mid", 3.0)


def test_broken_bytes_are_read_or_refused_never_more() -> None:
    whole = file_of([meta("set_tempo", tempo=400_000), meta("key_signature", key="Am"), *note(0), *note(TICKS, 67)])
    random_bytes = random.Random(0)
    outcomes = set()
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(random_bytes.randint(1, 4)):
            data[random_bytes.randrange(len(data))] = random_bytes.randrange(256)
        try:
            outcomes.add(bool(read_midi(bytes(data[: random_bytes.choice((None, len(data) - 7))])).notes))
        except InvalidInputError as error:
            outcomes.add(error.reason)
    assert {True, "midi"} <= outcomes
