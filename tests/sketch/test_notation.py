"""Scores as codes: what a round trip keeps, what noise decodes to, and who plays which voice."""

from __future__ import annotations

import io
from collections import Counter, defaultdict

import mido
import numpy as np
import pytest

from tests.sketch.stub_videos import compose_piece
from v2m.core.types import Tags
from v2m.sketch.notation import vocabulary as vocab
from v2m.sketch.notation.decoding import MAX_HOLD_S, MAX_TONES, decode_score
from v2m.sketch.notation.encoding import encode_score
from v2m.sketch.notation.performance import estimate_key, perform
from v2m.sketch.notation.score import Score, ScoreNote
from v2m.sketch.notation.voices import CYMBALS, Line
from v2m.sketch.perform.midi import encode_midi
from v2m.sketch.styles import STYLES

FRAME_S = 1 / vocab.FRAME_RATE


def score_of(duration: float = 4.0, **voices: list[tuple[float, float, int, int]]) -> Score:
    named = {name.replace("_", " "): tuple(ScoreNote(*note) for note in notes) for name, notes in voices.items()}
    return Score(duration, named)


def round_trip(score: Score) -> Score:
    return decode_score(encode_score(score)[0], score.duration)


def noise(seed: int, frames: int = 400, size: int = vocab.CODEBOOK_SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, size, (vocab.NUM_CODEBOOKS, frames))


def lost_notes(before: Score, after: Score, tolerance: float) -> list[tuple[str, ScoreNote]]:
    """The notes of `before` without one of their own pitch and voice in `after` within `tolerance` seconds."""
    onsets: dict[tuple[str, int], list[float]] = defaultdict(list)
    for voice, note in after.notes:
        onsets[voice, note.pitch].append(note.onset)
    lost = []
    for voice, note in before.notes:
        near = [onset for onset in onsets[voice, note.pitch] if abs(onset - note.onset) <= tolerance]
        if near:
            onsets[voice, note.pitch].remove(near[0])
        else:
            lost.append((voice, note))
    return lost


@pytest.mark.parametrize("style", STYLES)
def test_round_trip_keeps_the_notes_of_every_style(style: str) -> None:
    """To the nearest frame, all but strokes and tones that double another one."""
    score = Score.from_piece(compose_piece(style, 3))
    codes, losses = encode_score(score)
    decoded = decode_score(codes, score.duration)
    assert losses.notes == len(score.notes)
    assert losses.doubled <= 0.02 * losses.notes
    assert len(lost_notes(score, decoded, 0.0101)) == losses.doubled
    assert losses.no_room == losses.folded == losses.outside == 0
    assert len(decoded.notes) == losses.notes - losses.doubled


@pytest.mark.parametrize("style", STYLES)
def test_meter_comes_back_to_the_nearest_frame(style: str) -> None:
    score = Score.from_piece(compose_piece(style, 1))
    decoded = round_trip(score)
    np.testing.assert_allclose(decoded.beats, score.beats, atol=FRAME_S / 2 + 1e-9)
    np.testing.assert_allclose(decoded.downbeats, score.downbeats, atol=FRAME_S / 2 + 1e-9)


def test_every_voicing_comes_back_at_its_first_tones_time() -> None:
    chord = [(1.0, 2.0, pitch, 80) for pitch in (30, 47, 61, 66, 88)]
    assert {(n.onset, n.pitch) for _, n in round_trip(score_of(chord=chord)).notes} == {(1.0, p) for *_, p, _ in chord}


def test_strum_faster_than_its_notation_keeps_its_times() -> None:
    """Two strings in a frame and the next in the next: instructions come late, and correct the times."""
    times = (1.0, 1.013, 1.026, 1.04, 1.053, 1.061)
    strum = [(time, 2.0, 40 + 5 * index, 80) for index, time in enumerate(times)]
    decoded = sorted(round_trip(score_of(chord=strum)).voices["chord"], key=lambda note: note.pitch)
    np.testing.assert_allclose([note.onset for note in decoded], times, atol=0.0101)


def test_strum_keeps_its_order() -> None:
    strum = [(1.0 + 0.02 * index, 2.0, pitch, 80) for index, pitch in enumerate((64, 60, 55, 52))]
    decoded = sorted(note for _, note in round_trip(score_of(chord=strum)).notes)
    assert [(round(n.onset, 2), n.pitch) for n in decoded] == [(1.0, 64), (1.02, 60), (1.04, 55), (1.06, 52)]


def test_pad_holds_common_tones_and_strikes_repeated_ones_again() -> None:
    tied = [(0.0, 4.0, 60, 70), (0.0, 2.0, 64, 70), (2.0, 4.0, 65, 70)]
    again = [(0.0, 2.0, 60, 70), (0.0, 2.0, 64, 70), (2.0, 4.0, 60, 70), (2.0, 4.0, 64, 70)]
    mixed = [(0.0, 4.0, 60, 70), (0.0, 2.0, 64, 70), (2.0, 4.0, 64, 70), (2.0, 4.0, 67, 70), (0.0, 2.0, 69, 70)]
    for notes in (tied, again, mixed):
        decoded = round_trip(score_of(pad=notes)).voices["pad"]
        assert sorted((n.onset, n.pitch) for n in decoded) == sorted((onset, pitch) for onset, _, pitch, _ in notes)


def test_velocities_come_back_within_a_level() -> None:
    notes = [(0.2 * index, 0.2 * index + 0.15, 60, velocity) for index, velocity in enumerate((10, 60, 62, 127, 30))]
    decoded = round_trip(score_of(melody=notes)).voices["melody"]
    assert [abs(a.velocity - b[3]) <= vocab.LEVEL_STEP for a, b in zip(decoded, notes, strict=True)] == [True] * 5


def test_strokes_in_one_frame_and_in_the_next_all_come_back() -> None:
    strokes = [(1.0, 1.1, 36, 80), (1.0, 1.1, 38, 80), (1.02, 1.1, 45, 80), (1.5, 1.6, 36, 80)]
    decoded = round_trip(score_of(drums=strokes)).voices["drums"]
    assert {(n.onset, n.pitch) for n in decoded} == {(onset, pitch) for onset, _, pitch, _ in strokes}


def test_losses_are_counted_by_reason() -> None:
    crowd = [(1.0 + 0.02 * index, 1.01 + 0.02 * index, 40 + 3 * k, 80) for index in range(5) for k in range(4)]
    notes = [*crowd, (1.5, 2.5, 60, 80), (2.0, 2.5, 12, 80), (2.0, 2.5, 12, 90), (9.0, 9.5, 60, 80)]
    codes, losses = encode_score(score_of(figure=notes))
    assert losses.to_dict() == {
        "notes": 24, "doubled": 1, "folded": 2, "no_room": 12, "outside": 1, "shortened": 1,
    }  # fmt: skip
    decoded = decode_score(codes, 4.0).voices["figure"]
    assert len(decoded) == 24 - 12 - 1 - 1
    assert decoded[-1].pitch == 24


def random_score(seed: int) -> Score:
    """Ten seconds of chords of any length at any time in all voices: far denser than music."""
    random = np.random.default_rng(seed)
    voices: dict[str, tuple[ScoreNote, ...]] = {}
    for voice in vocab.VOICES:
        notes = []
        for onset in random.uniform(0, 9.9, random.integers(0, 60)):
            end = min(10.0, onset + random.choice([0.02, 0.1, 0.5, 2.0, 6.0]))
            size = random.choice([1, 1, 1, 3, 5])
            pitches, velocities = random.integers(36, 84, size), random.integers(1, 128, size)
            notes += [ScoreNote(float(onset), end, *map(int, pair)) for pair in zip(pitches, velocities, strict=True)]
        voices[voice] = tuple(sorted(notes))
    return Score(10.0, voices)


@pytest.mark.parametrize("seed", range(6))
def test_notes_of_any_score_come_back_or_are_counted(seed: int) -> None:
    """All but one in a hundred, in the pads of a score too dense for any music; and none is invented."""
    score = random_score(seed)
    codes, losses = encode_score(score)
    decoded = decode_score(codes, score.duration)
    counted = len(decoded.notes) + losses.doubled + losses.no_room + losses.outside
    assert abs(counted - losses.notes) <= 0.01 * losses.notes
    assert len(decoded.notes) > 0.9 * losses.notes
    assert len(lost_notes(decoded, score, 0.0101)) <= 0.01 * losses.notes


@pytest.mark.parametrize("style", ["ambient", "orchestral", "waltz", "funk"])
def test_instruments_of_a_piece_play_its_score_again(style: str) -> None:
    """The cast of the style but for a third pad, the accents' two instruments, and the harp's runs."""
    piece = compose_piece(style, 1)
    again = perform(Score.from_piece(piece), STYLES[style], Tags(), 1)
    before, after = (
        Counter((p.program, n.pitch) for p in parts for n in p.notes) for parts in (piece.parts, again.parts)
    )
    assert (before & after).total() >= 0.95 * before.total()


@pytest.mark.parametrize("seed", range(8))
def test_noise_decodes_without_stuck_notes(seed: int) -> None:
    """Any codes are a score: notes end with the clip, hold no longer than stated, and are no more than stated."""
    codes = noise(seed, frames=1500, size=(vocab.CODEBOOK_SIZE, vocab.START + 20, 2000)[seed % 3])
    score = decode_score(codes, 29.5)
    assert score.notes or seed % 3 == 2
    for voice, note in score.notes:
        assert 0 <= note.onset < note.end <= 29.5
        assert note.end - note.onset <= MAX_HOLD_S + 1e-9 or voice in vocab.DRUM_VOICES
        assert 1 <= note.velocity <= 127
    for voice in set(vocab.PITCHED_VOICES) & score.voices.keys():
        for frame in range(0, 1475, 25):
            sounding = [n for n in score.voices[voice] if n.onset <= frame * FRAME_S < n.end]
            assert len(sounding) <= MAX_TONES + 1
    mido.MidiFile(file=io.BytesIO(midi_of(score)))


def test_endless_hold_ends() -> None:
    codes = np.full((vocab.NUM_CODEBOOKS, 3000), vocab.HOLD)
    codes[vocab.CODEBOOKS.index("pad"), 0] = vocab.pitch_entry(vocab.START, 60)
    codes[0] = vocab.NO_METER
    assert decode_score(codes).voices == {"pad": (ScoreNote(0.0, MAX_HOLD_S, 60, 76),)}


def midi_of(score: Score) -> bytes:
    piece = perform(score, STYLES["rock"], Tags(), 0)
    return encode_midi(piece.sheet, piece.parts, "noise")


@pytest.mark.parametrize("meter", ["none", "one beat", "no downbeat", "slow", "late"])
def test_any_meter_has_midi_in_time(meter: str) -> None:
    beats = {
        "none": [],
        "one beat": [1.0],
        "no downbeat": np.arange(0, 59, 0.5),
        "slow": [0.0, 40.0],
        "late": [33.3, 33.9, 34.5],
    }[meter]
    notes = (ScoreNote(0.0, 0.5, 60, 90), ScoreNote(31.4, 32.0, 62, 90), ScoreNote(58.0, 59.9, 64, 90))
    downbeats = np.array([40.0]) if meter == "slow" else np.zeros(0)
    file = mido.MidiFile(file=io.BytesIO(midi_of(Score(60.0, {"melody": notes}, np.array(beats), downbeats))))
    now, onsets = 0.0, []
    for message in file:
        now += message.time
        onsets += [now] if message.type == "note_on" else []
    np.testing.assert_allclose(onsets, [0.0, 31.4, 58.0], atol=0.003)


def test_names_of_entries_are_unique_and_stable() -> None:
    for names in vocab.VOCABULARY.values():
        used = [name for name in names if name != "unused"]
        assert len(names) == vocab.CODEBOOK_SIZE
        assert len(set(used)) == len(used)
    assert vocab.VOCABULARY["melody"][:3] == ("rest", "hold", "start 21")
    assert vocab.VOCABULARY["meter"][17] == "beat 2, phase 0/16"


def test_voices_of_sketch_follow_the_stems() -> None:
    piece = compose_piece("funk", 1)
    voices = Score.from_piece(piece).voices
    notes = {stem: {n.pitch for p in piece.parts if p.stem == stem for n in p.notes} for stem in ("bass", "drums")}
    assert {note.pitch for note in voices["bass"]} == notes["bass"]
    assert {note.pitch for note in voices["cymbals"]} <= CYMBALS
    assert {"chord", "melody", "drums", "bass"} <= voices.keys()


def line(pitches: tuple[int, ...], program: int = 0, length: float = 0.4) -> Line:
    return Line(tuple((0.5 * n, 0.5 * n + length, pitch, 80) for n in range(8) for pitch in pitches), "", program)


def test_lines_without_stems_get_voices_by_program_pitch_and_chords() -> None:
    voices = Score.from_lines(
        [line((60, 64, 67)), line((72,), 73), line((40,), 33), line((84,), 40), line((55, 59), 48, 1.9)],
        4.0, np.zeros(0), np.zeros(0),
    ).voices  # fmt: skip
    assert {voice: {note.pitch for note in notes} for voice, notes in voices.items()} == {
        "melody": {84}, "countermelody": {72}, "bass": {40}, "chord": {60, 64, 67}, "pad": {55, 59},
    }  # fmt: skip


def test_solo_piano_is_split_into_melody_bass_and_chords() -> None:
    voices = Score.from_lines([line((40, 60, 64, 76))], 4.0, np.zeros(0), np.zeros(0)).voices
    assert {voice: {note.pitch for note in notes} for voice, notes in voices.items()} == {
        "melody": {76}, "bass": {40}, "chord": {60, 64},
    }  # fmt: skip


def test_key_is_estimated_from_the_notes() -> None:
    scale = [
        (0.5 * index, 0.5 * index + 0.5, pitch, 80) for index, pitch in enumerate((57, 59, 60, 62, 64, 65, 68, 69))
    ]
    assert estimate_key(score_of(melody=scale)).name.startswith("A")
    assert estimate_key(score_of()).name == "C major"
