"""Performed MIDI of free scores, as music without video to learn from.

    uv run --with music21 python -m bench.free_scores OUT [--corpus FOLDER] [--count N]

Reads the public-domain music of `COLLECTIONS` that the package music21 carries, or a folder of the same layout, and
writes OUT/NAME.mid with NAME.tags.json beside it. Taken are collections whose files state no limit of their use. Not
taken are those for noncommercial use alone (essenFolksong), those that refer to an agreement (palestrina, the .krn of
Bach) or are GPL (josquin), and those whose terms are not stated clearly (the rest).

A score becomes a performance: tempo that changes by bars and slows down at the ends of phrases, velocities by metrical
position, contour and section, and instruments of a drawn ensemble. Tunes get bass and chords of their key. Each piece
is written as it stands and once transposed. All is drawn from the name, so that the same corpus gives the same files.
The last line is JSON: pieces, hours, and files that could not be read.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mido
import numpy as np
from tqdm import tqdm

from v2m.taggers.heuristic import MOODS, TONICS

TICKS = 480
MIN_S, MAX_S = 20.0, 60.0
PHRASE_BARS, SECTION_BARS = 4, 8
NAMES = {7 * fifth % 12: name for fifth, name in enumerate(TONICS)}
MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)


@dataclass(frozen=True)
class Collection:
    """One folder of the corpus. `is_tunes`: melodies alone. `tempi`: lowest and highest, in bpm."""

    pattern: str
    genre: str
    is_tunes: bool
    tempi: tuple[float, float]
    max_pieces: int


COLLECTIONS = {
    "bach": Collection("bach/*.mxl", "orchestral", False, (58, 92), 380),  # chorales; no terms in the files
    "ryan": Collection("ryansMammoth/*.abc", "acoustic folk", True, (84, 126), 300),  # Boston 1883
    "oneill": Collection("oneills1850/*.abc", "acoustic folk", True, (80, 120), 200),  # Chicago 1903
    "aird": Collection("airdsAirs/*.abc", "acoustic folk", True, (84, 126), 100),  # Glasgow 1778–1801
}
# (program, name in tags) of soprano, alto, tenor, bass
ENSEMBLES = (
    ((40, "violin"), (40, "violin"), (41, "viola"), (42, "cello")),
    ((48, "string ensemble"),) * 4,
    ((56, "trumpet"), (60, "French horns"), (57, "trombone"), (58, "tuba")),
    ((73, "flute"), (68, "oboe"), (71, "clarinet"), (70, "bassoon")),
    ((52, "choir"),) * 4,
    ((19, "church organ"),) * 4,
    ((0, "piano"),) * 4,
    ((73, "flute"), (48, "string ensemble"), (48, "string ensemble"), (43, "double bass")),
)
LEADS = ((110, "fiddle"), (73, "flute"), (78, "whistle"), (21, "accordion"), (0, "piano"), (105, "banjo"))
CHORDS = ((25, "acoustic guitar"), (24, "nylon guitar"), (0, "piano"), (46, "harp"), (21, "accordion"))
BASSES = ((32, "double bass"), (42, "cello"), (33, "electric bass"))


@dataclass(frozen=True)
class Event:
    """A note: quarter notes from the first bar's start, MIDI key."""

    start: float
    length: float
    pitch: int


@dataclass(frozen=True)
class Piece:
    """Notes of each part from high to low, bars as (start, quarters), beats of a bar, and the key."""

    parts: tuple[tuple[Event, ...], ...]
    bars: tuple[tuple[float, float], ...]
    signature: tuple[int, int]
    tonic: int
    mode: str

    @property
    def beat(self) -> float:
        """The quarters of a beat."""
        numerator, denominator = self.signature
        return 12 / denominator if denominator >= 8 and numerator % 3 == 0 and numerator > 3 else 4 / denominator

    @property
    def end(self) -> float:
        start, length = self.bars[-1]
        return start + length


def names_another_source(path: Path) -> bool:
    """Return whether a file was taken from a page of MuseScore, whose terms it does not state."""
    if path.suffix != ".mxl":
        return False
    with zipfile.ZipFile(path) as archive:
        return any(b"musescore.com" in archive.read(name).lower() for name in archive.namelist())


def read_pieces(path: Path) -> Iterator[Piece]:
    """Yield the pieces of a file, one or a book of tunes, in one time signature each."""
    from music21 import converter  # pyright: ignore[reportMissingImports]  # noqa: PLC0415 - no dependency

    parsed: Any = converter.parse(path)
    for score in getattr(parsed, "scores", None) or [parsed]:
        piece = _read_score(score)
        if piece is not None:
            yield piece


def _read_score(score: Any) -> Piece | None:
    parts = list(score.parts) or [score]
    signatures = {s.ratioString for s in score.recurse().getElementsByClass("TimeSignature")}
    measures = [m for m in parts[0].getElementsByClass("Measure") if m.duration.quarterLength > 0]
    if len(signatures) != 1 or len(measures) < 6:
        return None
    numerator, denominator = map(int, signatures.pop().split("/"))
    if numerator > 12 or denominator not in {2, 4, 8, 16}:
        return None
    key = score.analyze("key")
    events = []
    for part in parts[:4]:
        notes = part.stripTies().flatten().notes
        events.append(
            tuple(
                Event(float(note.offset), float(note.quarterLength), pitch.midi)
                for note in notes
                if note.quarterLength > 0 and not note.duration.isGrace and note.classes[0] in {"Note", "Chord"}
                for pitch in note.pitches
            )
        )
    bars = tuple((float(m.offset), float(m.duration.quarterLength)) for m in measures)
    filled = sorted((part for part in events if part), key=lambda part: -np.mean([event.pitch for event in part]))
    if not filled or any(length <= 0 for _, length in bars):
        return None
    return Piece(tuple(filled), bars, (numerator, denominator), key.tonic.pitchClass, key.mode)


def accompany(piece: Piece, random: np.random.Generator) -> Piece:
    """Return a tune with chords and a bass: the triads of its key that fit each half bar, or bar, best."""
    scale = MAJOR if piece.mode == "major" else MINOR
    roots = [(piece.tonic + scale[degree]) % 12 for degree in (0, 3, 4, 5 if piece.mode == "major" else 2)]
    melody, full = piece.parts[0], max(length for _, length in piece.bars)
    chords: list[Event] = []
    bass: list[Event] = []
    pattern = int(random.integers(3))
    for start, length in piece.bars:
        if length < full:
            continue
        count = 2 if length >= 3 and pattern else 1
        for low, span in [(start + index * length / count, length / count) for index in range(count)]:
            weights = np.zeros(12)
            for event in melody:
                shared = min(event.start + event.length, low + span) - max(event.start, low)
                weights[event.pitch % 12] += max(0.0, shared)
            triads = [[root, (root + _third(root, piece)) % 12, (root + 7) % 12] for root in roots]
            bonus = (0.2, 0.05, 0.1, 0.0)
            fits = [weights[triad].sum() + extra * weights.sum() for triad, extra in zip(triads, bonus, strict=True)]
            triad = triads[int(np.argmax(fits))]
            bass.append(Event(low, span * 0.9, 36 + (triad[0] - 36) % 12))
            first = low + min(piece.beat, span / 2) if pattern else low
            for beat in np.arange(first, low + span - 1e-6, piece.beat):
                chords += [Event(float(beat), piece.beat * 0.5, 52 + (pitch - 52) % 12) for pitch in triad]
    return Piece((melody, tuple(chords), tuple(bass)), piece.bars, piece.signature, piece.tonic, piece.mode)


def _third(root: int, piece: Piece) -> int:
    scale = {(piece.tonic + step) % 12 for step in (MAJOR if piece.mode == "major" else MINOR)}
    return 4 if (root + 4) % 12 in scale else 3


def repeated(piece: Piece) -> Piece:
    """Return the piece played twice."""
    shift = piece.end - piece.bars[0][0]
    parts = tuple(
        (*part, *(Event(event.start + shift, event.length, event.pitch) for event in part)) for part in piece.parts
    )
    bars = (*piece.bars, *((start + shift, length) for start, length in piece.bars))
    return Piece(parts, bars, piece.signature, piece.tonic, piece.mode)


def shortened(piece: Piece, quarters: float) -> Piece:
    """Return the bars that end within `quarters`."""
    bars = tuple(bar for bar in piece.bars if sum(bar) <= quarters)
    end = sum(bars[-1])
    parts = tuple(tuple(event for event in part if event.start < end) for part in piece.parts)
    return Piece(parts, bars, piece.signature, piece.tonic, piece.mode)


def perform(
    piece: Piece, tempo: float, programs: Sequence[int], transposition: int, random: np.random.Generator
) -> mido.MidiFile:
    """Return the MIDI file of a performance."""
    messages: list[tuple[int, int, Any]] = [
        (_tick(beat), 0, mido.MetaMessage("set_tempo", tempo=round(6e7 / now / piece.beat)))
        for beat, now in tempo_curve(piece, tempo, random)
    ]
    full = piece.signature[0] * 4 / piece.signature[1]
    first = piece.bars[0][1]
    if first < full - 1e-6:
        unit = 64 if first % 0.25 else 16
        pickup = mido.MetaMessage("time_signature", numerator=round(first * unit / 4), denominator=unit)
        if first % 1 == 0:
            pickup = mido.MetaMessage("time_signature", numerator=int(first), denominator=4)
        messages.append((0, 0, pickup))
    numerator, denominator = piece.signature
    at = _tick(piece.bars[1][0]) if first < full - 1e-6 else 0
    messages.append((at, 0, mido.MetaMessage("time_signature", numerator=numerator, denominator=denominator)))
    sections = random.uniform(-10, 14, len(piece.bars) // SECTION_BARS + 1)
    for channel, (part, program) in enumerate(zip(piece.parts, programs, strict=True)):
        messages.append((0, 1, mido.Message("program_change", program=program, channel=channel)))
        for event in part:
            velocity = _velocity(event, part, piece, sections, random) + (8 if channel == 0 else 0)
            note: dict[str, Any] = {"note": event.pitch + transposition, "channel": channel}
            on, off = _tick(event.start), _tick(event.start + 0.94 * event.length)
            messages.append((on, 3, mido.Message("note_on", velocity=int(np.clip(velocity, 12, 124)), **note)))
            messages.append((max(on + 1, off), 2, mido.Message("note_off", **note)))
    track, last = mido.MidiTrack(), 0
    for tick, _, message in sorted(messages, key=lambda item: item[:2]):
        track.append(message.copy(time=tick - last))
        last = tick
    return mido.MidiFile(ticks_per_beat=TICKS, tracks=[track])


def tempo_curve(piece: Piece, tempo: float, random: np.random.Generator) -> Iterator[tuple[float, float]]:
    """Yield (quarters, beats a minute) of each beat: rubato by bar, slower at the ends of phrases."""
    drift, slowing = 0.0, random.uniform(0.03, 0.1)
    for number, (start, length) in enumerate(piece.bars):
        drift = float(np.clip(0.6 * drift + random.normal(0, 0.015), -0.03, 0.03))
        beats = np.arange(start, start + length - 1e-6, piece.beat)
        is_last, ends_phrase = number == len(piece.bars) - 1, number % PHRASE_BARS == PHRASE_BARS - 1
        for index, beat in enumerate(beats):
            share = (index + 1) / len(beats)
            held = 0.35 * share if is_last else slowing * max(0.0, share - 0.4) / 0.6 * ends_phrase
            yield float(beat), tempo * (1 + drift) * (1 - held)


def _velocity(event: Event, part: Sequence[Event], piece: Piece, sections: Any, random: np.random.Generator) -> float:
    number = max(0, int(np.searchsorted([start for start, _ in piece.bars], event.start + 1e-6)) - 1)
    start, length = piece.bars[number]
    position = event.start - start
    on_beat = abs(position / piece.beat - round(position / piece.beat)) < 1e-3
    metrical = 10 if position < 1e-3 else 4 if on_beat else -4
    opening = 12 if position < 1e-3 and number % SECTION_BARS == 0 else 0
    contour = 0.7 * np.clip(event.pitch - np.mean([other.pitch for other in part]), -10, 10)
    arc = 6 * np.sin(np.pi * (number % PHRASE_BARS + position / length) / PHRASE_BARS)
    return 62 + metrical + opening + contour + arc + sections[number // SECTION_BARS] + random.normal(0, 3)


def _tick(quarters: float) -> int:
    return round(quarters * TICKS)


def write(piece: Piece, collection: Collection, name: str, out: Path) -> float:
    """Write a piece as it stands and transposed; return the seconds of both."""
    random = np.random.default_rng([*hashlib.sha256(name.encode()).digest()[:16]])
    tempo = float(random.uniform(*collection.tempi))
    if collection.is_tunes:
        piece = accompany(piece, random)
        players = [choice[int(random.integers(len(choice)))] for choice in (LEADS, CHORDS, BASSES)]
    else:
        players = list(ENSEMBLES[int(random.integers(len(ENSEMBLES)))][-len(piece.parts) :])
    while piece.end / piece.beat * 60 / tempo < MIN_S + 5:
        piece = repeated(piece)
    piece = shortened(piece, (MAX_S - 3) * tempo / 60 * piece.beat)
    low = min(event.pitch for part in piece.parts for event in part)
    shift = int(random.choice([s for s in range(-5, 7) if s and low + s >= 28]))
    row = int(np.digitize(tempo, (72, 100)))
    for transposition in (0, shift):
        midi = perform(piece, tempo, [program for program, _ in players], transposition, random)
        stem = f"{name}_{transposition:+d}"
        midi.save(out / f"{stem}.mid")
        tags = {
            "genres": [collection.genre],
            "instruments": list(dict.fromkeys(word for _, word in players)),
            "moods": list(MOODS[row][2 if piece.mode == "major" else 0]),
            "tempo": round(tempo, 1),
            "key": f"{NAMES[(piece.tonic + transposition) % 12]} {piece.mode}",
        }
        (out / f"{stem}.tags.json").write_text(json.dumps(tags) + "\n")
    return 2 * piece.end / piece.beat * 60 / tempo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--corpus", type=Path, default=None, help="a folder of the layout of music21's corpus")
    parser.add_argument("--count", type=int, default=None, help="most pieces of each collection")
    args = parser.parse_args()
    corpus = args.corpus
    if corpus is None:
        import music21  # pyright: ignore[reportMissingImports]  # noqa: PLC0415 - no dependency

        corpus = Path(str(music21.__file__)).parent / "corpus"
    args.out.mkdir(parents=True, exist_ok=True)
    pieces, seconds, unread = Counter[str](), 0.0, Counter[str]()
    for name, collection in COLLECTIONS.items():
        most = min(collection.max_pieces, args.count or collection.max_pieces)
        for path in tqdm(sorted(corpus.glob(collection.pattern)), desc=name):
            if pieces[name] >= most:
                break
            if names_another_source(path):
                continue
            try:
                read = list(read_pieces(path))
            except Exception:  # of a parser of several formats
                unread[name] += 1
                continue
            for piece in read[: most - pieces[name]]:
                if collection.is_tunes != (len(piece.parts) == 1):
                    continue
                seconds += write(piece, collection, f"{name}_{pieces[name]:04d}", args.out)
                pieces[name] += 1
    result = {"pieces": dict(pieces), "files": 2 * pieces.total(), "hours": round(seconds / 3600, 2)}
    print(json.dumps(result | {"unread": dict(unread)}))


if __name__ == "__main__":
    main()
