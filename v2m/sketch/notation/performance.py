"""Performance of a score by the instruments of a style: lead sheet and parts for the synthesizer."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np

from v2m.core.timing import TempoMap, beat_seconds
from v2m.core.types import Floats, Tags
from v2m.sketch.compose.arrange import Piece
from v2m.sketch.compose.harmony import ChordSpan, Key, parse_chord
from v2m.sketch.compose.lead_sheet import LeadSheet, Note, Part, rng_for
from v2m.sketch.compose.orchestration import HAND_PERCUSSION, HARP_PROGRAM, orchestrate
from v2m.sketch.instruments import INSTRUMENTS, KITS, fit_octave
from v2m.sketch.notation.score import Score, ScoreNote
from v2m.sketch.notation.vocabulary import DRUM_VOICES, MAX_BEATS_PER_BAR, PITCHED_VOICES
from v2m.sketch.notation.voices import choose_voices, layer_role
from v2m.sketch.plan.planner import Bar, FormSection, Plan
from v2m.sketch.style import Layer, Style

DEFAULT_TEMPO = 120.0  # of a score without meter
MIN_BEAT_S, MAX_BEAT_S = 0.01, 3.0  # a longer beat is divided: MIDI has no tempo for it
REGULAR_BAR = 4  # beats of the bars into which one of more than `MAX_BEATS_PER_BAR` is divided
LOW_ACCENT_BELOW = 48  # pitch below which the low instrument of the accents plays, at least an octave of its range
RUN_GAP_S, MIN_RUN = 0.3, 5  # between the single tones of a run among the accents, which are at least so many
# Krumhansl & Kessler (1982): how well each pitch class, from the tonic on, fits a key
KEY_PROFILES = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}
# Players of the voices for which a style has no layer, and of its accents: (stem, program, level in dB).
_DEFAULT_PLAYERS = {
    "bass": ("bass", 32, -4.0),
    "pad": ("pads", 48, -8.0),
    "second pad": ("pads", 89, -10.0),
    "chord": ("harmony", 0, -5.0),
    "second chord": ("harmony", 24, -7.0),
    "figure": ("harmony", 0, -5.0),
    "melody": ("melody", 73, 2.0),
    "countermelody": ("melody", 71, 0.0),
    "accent": ("effects", 0, -6.0),
}


def perform(score: Score, style: Style, tags: Tags, seed: int) -> Piece:
    """Return the score for the instruments of `style`, as `tags` change them; `seed` chooses among those."""
    style = orchestrate(style, tags, rng_for(f"{seed} {style.name}", "cast"))
    plan = _plan(score)
    key = estimate_key(score) if tags.tonic_and_mode is None else Key(*tags.tonic_and_mode, tags.tonic_and_mode[1])
    tonic = parse_chord("I" if key.mode == "major" else "i", key.tonic)
    spans = tuple(ChordSpan(bar.start, bar.beats, tonic, number) for number, bar in enumerate(plan.bars))
    sheet = LeadSheet(plan, style, key, spans)
    return Piece(sheet, tuple(_parts(score, sheet)), {})


def estimate_key(score: Score) -> Key:
    """Return the key whose profile fits the pitch classes, by length; C major without notes."""
    weights = np.zeros(12)
    for voice, note in score.notes:
        if voice not in DRUM_VOICES:
            weights[note.pitch % 12] += note.end - note.onset
    if np.ptp(weights) < 1e-9:
        return Key(0, "major", "major")
    candidates = ((tonic, mode) for mode in KEY_PROFILES for tonic in range(12))
    tonic, mode = max(candidates, key=lambda k: np.corrcoef(weights, np.roll(KEY_PROFILES[k[1]], k[0]))[0, 1])
    return Key(tonic, mode, mode)


def _plan(score: Score) -> Plan:
    """Return a plan of one section with the score's beats, from the first that fits after 0 s on."""
    beats, first = _beat_grid(score)
    downbeats = {int(np.argmin(np.abs(beats - time))) for time in score.downbeats} if first is not None else set()
    last = max(len(beats) - 1, *downbeats, 0) + (len(beats) - 1 in downbeats)
    edges = sorted({0, *downbeats})
    for low, high in pairwise([*edges, last]):
        edges += range(low + REGULAR_BAR, high, REGULAR_BAR) if high - low > MAX_BEATS_PER_BAR else ()
    edges.sort()
    bars = tuple(Bar(low, high - low, 0) for low, high in pairwise([*edges, last]))
    knots, times = np.arange(len(beats), dtype=float), beats
    if beats[0] > MIN_BEAT_S:  # a pick-up shorter than a beat is one beat of its own tempo
        knots, times = np.concatenate([[-1.0], knots]), np.concatenate([[0.0], times])
    energy = np.full(len(bars), 0.5)
    sections = (FormSection("A", 0, 0, len(bars), 0.5),)
    tempo = beat_seconds(float(np.median(np.diff(beats))))
    return Plan(score.duration, tempo, TempoMap(knots, times), bars, sections, (), energy)


def _beat_grid(score: Score) -> tuple[Floats, float | None]:
    """Return beats from near 0 s to the end, and the first that the score has; None where it has no meter."""
    given = (
        score.beats[np.concatenate([[True], np.diff(score.beats) > MIN_BEAT_S])] if len(score.beats) else np.zeros(0)
    )
    if len(given) < 2:
        step = beat_seconds(DEFAULT_TEMPO)
        return step * np.arange(int(score.duration / step) + 2, dtype=np.float64), None
    before, after = given[1] - given[0], given[-1] - given[-2]
    lead_in = given[0] - before * np.arange(int(given[0] / before + 1e-6), 0, -1)
    tail = given[-1] + after * np.arange(1, int(max(0.0, score.duration - given[-1]) / after) + 2)
    beats = np.concatenate([np.maximum(lead_in, 0.0), given, tail])
    parts = np.maximum(1, np.ceil(np.diff(beats) / MAX_BEAT_S)).astype(int)
    divided = [low + (high - low) * np.arange(n) / n for low, high, n in zip(beats, beats[1:], parts, strict=False)]
    return np.concatenate([*divided, beats[-1:]]), float(given[0])


def _parts(score: Score, sheet: LeadSheet) -> list[Part]:
    layers = _players(sheet.style)
    parts: list[Part] = []
    for voice in PITCHED_VOICES:
        notes = score.voices.get(voice, ())
        if voice == "accent":
            parts += _accent_parts(notes, sheet, layers[voice].programs[0])
        else:
            parts.append(_part(layers[voice], notes, sheet))
    strokes = [note for voice in DRUM_VOICES for note in score.voices.get(voice, ())]
    kit = sheet.style.kit or HAND_PERCUSSION
    drums = Part(KITS[kit.programs[0]], "drums", kit.programs[0], True, kit.level_db, notes=_notes(strokes, sheet))
    return [part for part in [*parts, drums] if part.notes]


def _accent_parts(notes: tuple[ScoreNote, ...], sheet: LeadSheet, default_program: int) -> list[Part]:
    """Return the low and the high accents, and in a style with glissandi the runs of the harp."""
    accent = sheet.style.accent
    spare = next((p for p in (accent.high_program, accent.low_program) if p is not None), default_program)
    low, high = (spare if program is None else program for program in (accent.low_program, accent.high_program))
    run = _runs(notes) if sheet.style.transition == "gliss" else set()
    limit = max(LOW_ACCENT_BELOW, INSTRUMENTS[low][1] + 12)
    groups = {
        Layer("effects", "", (low,), level_db=-3): [n for n in notes if n.pitch < limit and n not in run],
        Layer("effects", "", (high,), level_db=-6, pan=0.2): [n for n in notes if n.pitch >= limit and n not in run],
        Layer("effects", "", (HARP_PROGRAM,), level_db=-9, pan=-0.3): sorted(run),
    }
    return [_part(layer, group, sheet) for layer, group in groups.items()]


def _runs(notes: tuple[ScoreNote, ...]) -> set[ScoreNote]:
    """Return the notes of runs: single tones in quick succession."""
    runs: set[ScoreNote] = set()
    current: list[ScoreNote] = []
    times = Counter(note.onset for note in notes)
    for note in sorted(notes):
        is_single = times[note.onset] == 1
        if not is_single or (current and note.onset - current[-1].onset > RUN_GAP_S):
            runs |= set(current) if len(current) >= MIN_RUN else set()
            current = []
        current += [note] if is_single else []
    return runs | (set(current) if len(current) >= MIN_RUN else set())


def _players(style: Style) -> dict[str, Layer]:
    """Return the layer that plays each voice."""
    players = {
        voice: Layer(stem, "", (program,), level_db=level) for voice, (stem, program, level) in _DEFAULT_PLAYERS.items()
    }
    voices = choose_voices([layer_role(layer) for layer in style.layers])
    players |= dict(zip(reversed(voices), reversed(style.layers), strict=True))  # of two in one voice, the first
    return players


def _part(layer: Layer, notes: tuple[ScoreNote, ...] | list[ScoreNote], sheet: LeadSheet) -> Part:
    """Return the part of `layer`, with notes out of the instrument's range moved by octaves."""
    program = layer.programs[0]
    name, low, high = INSTRUMENTS[program]
    placed = [note._replace(pitch=fit_octave(note.pitch, low, high)) for note in notes]
    return Part(name, layer.stem, program, level_db=layer.level_db, pan=layer.pan, notes=_notes(placed, sheet))


def _notes(notes: list[ScoreNote], sheet: LeadSheet) -> list[Note]:
    if not notes:
        return []
    times = np.array([(note.onset, note.end) for note in notes])
    beats = sheet.plan.tempo_map.time_to_beat(times)
    return [
        Note(float(on), float(off - on), note.pitch, note.velocity)
        for note, (on, off) in sorted(zip(notes, beats, strict=True), key=lambda pair: tuple(pair[0]))
    ]
