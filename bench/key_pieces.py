"""Keys of music whose own are known, by kind of error: `python -m bench.key_pieces`.

Pieces of 26 to 86 s are chord progressions common in pop, electronic, lo-fi, ambient and orchestral music, played by
SoundFonts: a texture, instruments and tempo by chance, a melody of chord and scale notes, two progressions in turn, and
the tonic's chord at the end. `_produced` is the same piece through reverb, saturation and drums of noise. Progressions
and programs of the two splits differ: `development` is for choosing weights, `held_out` for figures.

`--chorales N`: N chorales of Bach from music21's corpus, too, on an instrument and in a key by chance. Their key is
that of the signature whose tonic the last bass note is. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np

from v2m.analysis.key_tempo import Key, estimate_key
from v2m.core.timing import beat_seconds, seconds_to_samples
from v2m.core.types import Audio
from v2m.sketch.perform.soundfont import DRUM_BANK
from v2m.sketch.perform.synthesizer import DEFAULT_SOUNDFONT, SoundFontSynth, open_soundfont

RATE = 32000
PIECES = 20  # of each split and SoundFont
BEATS = 4  # of a bar
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
QUALITIES = {
    **{"": (0, 4, 7), "m": (0, 3, 7), "dim": (0, 3, 6), "sus": (0, 5, 7)},
    **{"7": (0, 4, 7, 10), "maj7": (0, 4, 7, 11), "m7": (0, 3, 7, 10), "9": (0, 2, 4, 7), "m9": (0, 3, 7, 14)},
}
DEGREES = {
    **{"I": 0, "bII": 1, "II": 2, "bIII": 3, "III": 4, "IV": 5, "V": 7, "bVI": 8, "VI": 9, "bVII": 10, "VII": 11},
}
# Chords by degree above the tonic and quality, a bar each
PROGRESSIONS = {
    "development": {
        "major": (
            *("I V VIm IV", "I VIm IV V", "I IV V IV", "I IV", "I IIm IV V", "I IIIm IV V", "I V IV IV"),
            *("IIm7 V7 Imaj7 Imaj7", "Imaj7 IVmaj7", "I bVII IV I", "I IV VIm V", "I9 VIm7 IIm7 V7", "I VIm IIm V"),
        ),
        "minor": (
            *("Im bVI bIII bVII", "Im IVm Vm Im", "Im bVII bVI bVII", "Im IVm bVII bIII", "Im bVI IVm V"),
            *("Im bVII bVI V", "Im Vm bVI IVm", "Im7 IVm7", "Im IV", "Im IVm Im V", "Im bVI", "Im9 bVImaj7 IVm7 Vm7"),
        ),
    },
    "held_out": {
        "major": (
            *("IV I V VIm", "I V IIm IV", "I IIIm VIm IV", "Imaj7 VIm7 IVmaj7 V7", "I IV IIm V", "I Vsus IV I"),
            *("IV V I VIm", "I IV I V", "Imaj7 IIm7", "I II IV I", "I IVm I V", "I V VIm IIIm IV I IV V"),
        ),
        "minor": (
            *("Im bIII bVII IVm", "Im bVI bVII Im", "Im IVm bVI V", "Im7 Vm7 IVm7 Im7", "Im bVII IVm Im", "Im bII"),
            *("bVI bVII Im Im", "Im bIII bVI bVII", "IIm7 V7 Im7 Im7", "Im Vm", "IVm bVII bIII bVI IVm V Im Im"),
            "Im IV bVII Im",
        ),
    },
}
# Programs of General MIDI: chords, melody, bass
TEXTURES = {
    "development": {
        "pop": ((0, 4, 27), (73, 80, 26), (33, 34)),
        "electronic": ((81, 90), (80, 87), (38,)),
        "lo-fi": ((4, 11), (26, 11), (32, 33)),
        "ambient": ((89, 95, 88), (8, 52), (89, 43)),
        "orchestral": ((48, 60), (40, 71, 68), (42, 43)),
    },
    "held_out": {
        "pop": ((1, 25, 5), (65, 28, 82), (35, 36)),
        "electronic": ((50, 62), (84, 81), (39,)),
        "lo-fi": ((5, 24), (12, 66), (35, 39)),
        "ambient": ((91, 92, 51), (10, 46), (92, 39)),
        "orchestral": ((49, 61), (72, 56, 69), (70, 58)),
    },
}
DRUMMED = ("pop", "electronic", "lo-fi")
KICK, SNARE, HAT, CRASH = 36, 38, 42, 49


@dataclass(frozen=True)
class KeyPiece:
    """A piece and its key; `name` says what it is made of."""

    name: str
    key: Key
    sound: Audio


def key_pieces(split: str, soundfont: Path, count: int = PIECES) -> Iterator[KeyPiece]:
    """Yield `count` pieces of a set, the same ones at each call."""
    for number in range(count):
        random = np.random.default_rng([2, list(PROGRESSIONS).index(split), number, soundfont.stat().st_size])
        mode = ("major", "minor")[number % 2]
        texture = tuple(TEXTURES[split])[number // 2 % len(TEXTURES[split])]
        key = int(random.integers(12)), mode
        pool = PROGRESSIONS[split][mode]
        first, second = (pool[index] for index in random.choice(len(pool), 2, replace=False))
        chords = [*_chords(first) * 2, *_chords(second) * 2, *_chords(first) * 2]
        chords = [*chords[:24], _chords("I" if mode == "major" else "Im")[0]]
        programs = [int(random.choice(instruments)) for instruments in TEXTURES[split][texture]]
        parts: Parts = {
            (0, programs[0]): _accompaniment(texture, key[0], chords, random),
            (0, programs[1]): _melody(key, chords, random),
            (0, programs[2]): _bass(texture, key[0], chords, random),
        }
        if texture in DRUMMED:
            parts[DRUM_BANK, 0] = _drums(len(chords) - 1, random)
        sound = _render(soundfont, parts, float(random.uniform(70, 130)))
        yield KeyPiece(f"{texture}: {first}, {second}", key, sound)


Chord = tuple[int, tuple[int, ...]]  # root above the tonic, notes above the root
Note = tuple[float, float, int, int]  # beat, length, pitch, velocity
Parts = dict[tuple[int, int], list[Note]]  # by bank and program


def _chords(text: str) -> list[Chord]:
    chords = []
    for symbol in text.split():
        degree = max((name for name in DEGREES if symbol.startswith(name)), key=len)
        chords.append((DEGREES[degree], QUALITIES[symbol[len(degree) :]]))
    return chords


def _render(soundfont: Path, parts: Parts, tempo: float) -> Audio:
    synth = SoundFontSynth(
        open_soundfont(soundfont), RATE, {preset: [note[2:] for note in notes] for preset, notes in parts.items()}
    )
    events = []
    for channel, ((bank, program), notes) in enumerate(parts.items()):
        synth.select_program(channel, program, bank == DRUM_BANK)
        for beat, length, pitch, velocity in notes:
            events += [(beat, channel, pitch, velocity), (beat + length, channel, pitch, 0)]
    now, blocks = 0, []
    for beat, channel, pitch, velocity in sorted(events, key=lambda event: (event[0], event[3])):
        place = seconds_to_samples(beat * beat_seconds(tempo), RATE)
        if place > now:
            blocks.append(synth.render(place - now))
            now = place
        if velocity:
            synth.synth.noteon(channel, pitch, velocity)
        else:
            synth.synth.noteoff(channel, pitch)
    samples = np.concatenate([*blocks, synth.render(RATE)], axis=1)
    return Audio((0.7 * samples / max(float(np.abs(samples).max()), 1e-9)).astype(np.float32), RATE)


def _accompaniment(texture: str, tonic: int, chords: Sequence[Chord], random: np.random.Generator) -> list[Note]:
    """Chords held, repeated or broken, around middle C."""
    figure = {"ambient": "held", "orchestral": "held"}.get(texture) or random.choice(["held", "repeated", "broken"])
    notes: list[Note] = []
    for bar, (root, quality) in enumerate(chords):
        pitches = sorted(54 + (tonic + root + note - 54) % 12 for note in quality)
        start = BEATS * bar
        if figure == "held":
            notes += [(start, BEATS - 0.1, pitch, 70) for pitch in pitches]
        elif figure == "repeated":
            notes += [(start + beat, 0.8, pitch, 72) for beat in range(BEATS) for pitch in pitches]
        else:
            notes += [(start + k / 2, 0.6, pitches[k % len(pitches)], 74) for k in range(2 * BEATS)]
    return notes


def _bass(texture: str, tonic: int, chords: Sequence[Chord], random: np.random.Generator) -> list[Note]:
    """Roots, held or repeated, with fifths at times; the tonic throughout where there is a pedal."""
    pedal = texture == "ambient" and random.random() < 0.4
    step = BEATS if texture in ("ambient", "orchestral") else int(random.choice([1, 2, 4]))
    notes: list[Note] = []
    for bar, (root, _) in enumerate(chords):
        low = 33 + (tonic + (0 if pedal else root) - 33) % 12
        for beat in range(0, BEATS, step):
            fifth = 7 if beat and random.random() < 0.2 and not pedal else 0
            notes.append((BEATS * bar + beat, step - 0.1, low + fifth, 85))
    return notes


def _melody(key: Key, chords: Sequence[Chord], random: np.random.Generator) -> list[Note]:
    """A walk over the scale: notes of the chord on beats 1 and 3; silent at first and in some bars."""
    tonic, mode = key
    scale = [pitch for pitch in range(64, 88) if (pitch - tonic) % 12 in SCALES[mode]]
    pitch = scale[len(scale) // 2]
    notes: list[Note] = []
    for bar, (root, quality) in enumerate(chords):
        if bar < len(chords) // 6 or random.random() < 0.15:
            continue
        inside = {(tonic + root + note) % 12 for note in quality}
        beat = 0.0
        while beat < BEATS:
            length = float(random.choice([0.5, 1.0, 1.0, 2.0]))
            near = [other for other in scale if abs(other - pitch) <= 4] or scale
            if beat % 2 == 0:
                near = [other for other in range(62, 90) if other % 12 in inside and abs(other - pitch) <= 6] or near
            pitch = int(random.choice(near))
            notes.append((BEATS * bar + beat, min(length, BEATS - beat) - 0.05, pitch, 84))
            beat += length
    return notes


def _drums(bars: int, random: np.random.Generator) -> list[Note]:
    four = random.random() < 0.4
    notes: list[Note] = [(0.0, 1.0, CRASH, 90)]
    for beat in range(BEATS, BEATS * bars):
        if four or beat % 2 == 0:
            notes.append((beat, 0.4, KICK, 105))
        if beat % 2:
            notes.append((beat, 0.4, SNARE, 95))
        notes += [(beat + k / 2, 0.2, HAT, 70) for k in range(2)]
    return notes


def produce(sound: Audio, random: np.random.Generator) -> Audio:
    """Return the sound through reverb, saturation, drums of noise and a spectral tilt, by chance."""
    rate, x = sound.sample_rate, sound.samples.mean(axis=0)
    t = np.arange(len(x)) / rate
    tail = random.normal(size=3 * rate) * 10 ** (-3 * np.arange(3 * rate) / rate / random.uniform(0.8, 3.0))
    size = 1 << (len(x) + len(tail)).bit_length()
    wet = np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(tail, size), size)[: len(x)]
    x = np.tanh(random.uniform(0.3, 1.2) * (x / x.std() + random.uniform(0.3, 1.2) * wet / wet.std()))
    beat = beat_seconds(random.uniform(80, 140))
    kick = np.sin(2 * np.pi * (50 * (t % beat) + 8 * (1 - np.exp(-30 * (t % beat))))) * np.exp(-8 * (t % beat))
    snare = random.normal(size=len(x)) * np.exp(-12 * ((t - beat) % (2 * beat)))
    hat = random.normal(size=len(x)) * np.exp(-40 * (t % (beat / 2)))
    for drum, most in ((kick, 1.2), (snare, 0.6), (hat, 0.7)):
        x = x + random.uniform(0, most) * x.std() * drum / drum.std()
    size = 1 << len(x).bit_length()
    tilt = (np.fft.rfftfreq(size, 1 / rate) + 30) ** random.uniform(-0.4, 0.3)
    x = np.fft.irfft(np.fft.rfft(x, size) * tilt, size)[: len(x)]
    return Audio((0.7 * x / np.abs(x).max())[None].astype(np.float32), rate)


def chorales(soundfonts: Sequence[Path], count: int) -> Iterator[KeyPiece]:
    """Yield chorales, each in one of the SoundFonts; music21 has to be installed."""
    music21 = import_module("music21")
    random = np.random.default_rng(3)
    paths = sorted(path for path in music21.corpus.getComposer("bach") if path.suffix in (".mxl", ".xml"))
    found = 0
    for index in random.permutation(len(paths)):
        score = music21.converter.parse(paths[index])
        signatures = list(score.flatten().getElementsByClass(music21.key.KeySignature))
        if not signatures or len(score.parts) < 4:
            continue
        major = 7 * signatures[0].sharps % 12
        last = list(score.parts[-1].flatten().notes)[-1].pitches[0].pitchClass
        if last not in (major, (major + 9) % 12):
            continue
        shift, program = int(random.integers(-5, 7)), int(random.choice([0, 48, 19, 4, 24, 50, 89, 73, 52]))
        notes = [
            (float(note.offset), float(note.quarterLength) - 0.03, int(pitch.midi) + shift, 85)
            for note in score.flatten().notes
            for pitch in note.pitches
            if note.quarterLength
        ]
        sound = _render(soundfonts[found % len(soundfonts)], {(0, program): notes}, float(random.uniform(70, 120)))
        yield KeyPiece(paths[index].stem, ((last + shift) % 12, "major" if last == major else "minor"), sound)
        found += 1
        if found == count:
            return


def error_kind(estimate: Key | None, reference: Key) -> str:
    """Return "right", "fifth", "relative", "parallel" or "other"."""
    if estimate is None:
        return "other"
    interval = (estimate[0] - reference[0]) % 12
    if estimate[1] == reference[1]:
        return {0: "right", 5: "fifth", 7: "fifth"}.get(interval, "other")
    if interval == 0:
        return "parallel"
    return "relative" if interval == (9 if reference[1] == "major" else 3) else "other"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--soundfont", type=Path, action="append", help="several times; else the default one alone")
    parser.add_argument("--count", type=int, default=PIECES)
    parser.add_argument("--chorales", type=int, default=0)
    args = parser.parse_args()
    soundfonts = args.soundfont or [DEFAULT_SOUNDFONT]
    counts: dict[str, Counter[str]] = defaultdict(Counter)

    def measure(group: str, piece: KeyPiece, sound: Audio) -> None:
        kind = error_kind(estimate := estimate_key(sound), piece.key)
        counts[group][kind] += 1
        if kind != "right":
            print(f"{group:22s} {kind:8s} {piece.name}: {piece.key}, not {estimate}", flush=True)

    for split, soundfont in ((split, soundfont) for split in PROGRESSIONS for soundfont in soundfonts):
        for number, piece in enumerate(key_pieces(split, soundfont, args.count)):
            measure(split, piece, piece.sound)
            measure(f"{split}_produced", piece, produce(piece.sound, np.random.default_rng([4, number])))
    for piece in chorales(soundfonts, args.chorales) if args.chorales else ():
        measure("chorales", piece, piece.sound)
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
