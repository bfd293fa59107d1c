"""Entries of the score codec's codebooks: `NUM_CODEBOOKS` rows, `FRAME_RATE` frames a second.

Codebook 0 is the meter, the others are voices. A voice is a stream of instructions, at most one in a frame: a chord is
spelled in successive frames, and its tones sound at the time of its first one. So any voicing, roll or strum has a
notation without a table of chords, and a velocity is one more instruction after the notes that it is for.

The order matters: under the delay pattern a codebook is predicted from those before it in its frame. The meter leads,
the bass and the harmony come next, then the melodies over them, and the drums and accents last.

Twelve codebooks are the players that Sketch's styles have: up to two harmony players and two sustained ones, two
melodies, a bass, a figure, drums (two rows, since a groove strikes skins and cymbals at once) and the accents on cuts.
"""

from __future__ import annotations

FRAME_RATE = 50  # frames a second: onsets are exact to 10 ms, and a chord of four tones is spelled in 80 ms
METER = "meter"
PITCHED_VOICES = (
    "bass", "pad", "second pad", "chord", "second chord", "figure", "melody", "countermelody", "accent",
)  # fmt: skip
DRUM_VOICES = ("drums", "cymbals")
VOICES = (*PITCHED_VOICES[:-1], *DRUM_VOICES, PITCHED_VOICES[-1])
TIED_VOICES = ("pad", "second pad")  # a start holds those of its tones on that sound already
CODEBOOKS = (METER, *VOICES)
NUM_CODEBOOKS = len(CODEBOOKS)

# Meter: 0 is no meter; else the beat of the bar and the sixteenth of that beat in which the frame lies.
NO_METER = 0
MAX_BEATS_PER_BAR, BEAT_PHASES = 12, 16  # a longer bar counts its later beats as the twelfth

# Voices: pitches are MIDI keys, or drums of General MIDI.
REST, HOLD = 0, 1  # end all tones; go on
LOWEST, HIGHEST = 21, 108  # the keys of a piano; other pitches are moved by octaves
NUM_PITCHES = HIGHEST - LOWEST + 1
START, START_WITH, JOIN, JOIN_WITH = range(2, 2 + 4 * NUM_PITCHES, NUM_PITCHES)
LEVEL = JOIN_WITH + NUM_PITCHES  # velocity of the tones just named and, until changed, of all that follow
NUM_LEVELS, LEVEL_STEP = 16, 8
EARLIER = LEVEL + NUM_LEVELS  # moves the tones of the last join 1 to `MAX_EARLIER` frames earlier
MAX_EARLIER = 8
SPELL_FRAMES = 16  # after a start or join in which tones and a velocity are still named for it
NUM_ENTRIES = EARLIER + MAX_EARLIER  # of a voice; the meter uses the first 193
CODEBOOK_SIZE = 384  # of all codebooks: the next multiple of 64
DEFAULT_LEVEL = 9  # of a voice before its first instruction: velocity 76

_PITCH_INSTRUCTIONS = {
    START: "start",  # end all tones, and start this one in this frame
    START_WITH: "with",  # this tone as well, at the time of the last start; a pad holds it on if it sounds already
    JOIN: "join",  # start this tone in this frame, the others go on
    JOIN_WITH: "join with",  # this tone as well, at the time of the last start or join; never held on
}


def meter_entry(beat: int, phase: float) -> int:
    """Return the entry of `phase` 0–1 of beat number `beat`, from 0, of a bar."""
    return 1 + min(beat, MAX_BEATS_PER_BAR - 1) * BEAT_PHASES + min(int(phase * BEAT_PHASES), BEAT_PHASES - 1)


def parse_meter(entry: int) -> tuple[int, int] | None:
    """Return (beat, sixteenth of the beat) of an entry, both from 0; None for no meter."""
    beat, phase = divmod(entry - 1, BEAT_PHASES)
    return (beat, phase) if 0 <= beat < MAX_BEATS_PER_BAR else None


def pitch_entry(kind: int, pitch: int) -> int:
    """Return the entry of instruction `kind` (`START` …) for `pitch`, moved by octaves into the range."""
    return kind + fold_pitch(pitch) - LOWEST


def parse_pitch(entry: int) -> tuple[int, int] | None:
    """Return (kind, pitch) of an entry; None for one without pitch."""
    if not START <= entry < LEVEL:
        return None
    kind, key = divmod(entry - START, NUM_PITCHES)
    return START + kind * NUM_PITCHES, LOWEST + key


def level_entry(velocity: float) -> int:
    return LEVEL + min(max(int(velocity) // LEVEL_STEP, 0), NUM_LEVELS - 1)


def earlier_entry(frames: int) -> int:
    return EARLIER + frames - 1


def level_velocity(level: int) -> int:
    """Return the MIDI velocity in the middle of `level` 0–15."""
    return level * LEVEL_STEP + LEVEL_STEP // 2


def fold_pitch(pitch: int) -> int:
    """Move `pitch` by octaves into the range of the entries."""
    if pitch < LOWEST:
        return LOWEST + (pitch - LOWEST) % 12
    return HIGHEST - (HIGHEST - pitch) % 12 if pitch > HIGHEST else pitch


def entry_name(codebook: str, entry: int) -> str:
    """Return the name of an entry, such as "start 60" or "beat 2, phase 5/16"; "unused" without meaning."""
    if codebook == METER:
        place = parse_meter(entry)
        if entry == NO_METER or place is None:
            return "no meter" if entry == NO_METER else "unused"
        return f"beat {place[0] + 1}, phase {place[1]}/{BEAT_PHASES}"
    if entry in {REST, HOLD}:
        return "rest" if entry == REST else "hold"
    if entry >= EARLIER:
        return f"join {entry - EARLIER + 1} earlier" if entry < NUM_ENTRIES else "unused"
    if entry >= LEVEL:
        return f"velocity {level_velocity(entry - LEVEL)}"
    instruction = parse_pitch(entry)
    assert instruction is not None, f"no entry {entry}"
    return f"{_PITCH_INSTRUCTIONS[instruction[0]]} {instruction[1]}"


VOCABULARY: dict[str, tuple[str, ...]] = {
    name: tuple(entry_name(name, entry) for entry in range(CODEBOOK_SIZE)) for name in CODEBOOKS
}
"""Names of the entries of each codebook, by number."""
