"""SoundFont synthesis: the parts of a piece, stem by stem and block by block, into one stereo mix."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from hashlib import file_digest
from importlib import import_module
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v2m.core import mapped_array
from v2m.core.disk_space import check_space
from v2m.core.threads import map_in_threads
from v2m.core.timing import db_to_gain, samples_to_seconds, seconds_to_samples, time_grid
from v2m.core.types import Floats, ProgressFn
from v2m.sketch.compose.lead_sheet import LeadSheet, Part
from v2m.sketch.instruments import INSTRUMENTS
from v2m.sketch.perform.effects import MixBus, NoiseEffects, compress, level_sections
from v2m.sketch.perform.soundfont import (
    DRUM_BANK,
    PresetKey,
    Region,
    Sample,
    SoundFont,
    encode_soundfont,
    resolve_modulators,
)
from v2m.sketch.plan.dynamics import LEVEL_RATE

REFERENCE_DB = -46.0  # loudness to which a note of every instrument is brought; below the quietest program
MAX_ADVANCE_S = 0.12  # by which an instrument of slow attack starts early, so that it sounds on the beat
AUDIBLE_ATTACK_S = 0.04  # before half amplitude, from which on a pitched instrument is heard
MIN_DRUM_ADVANCE_S = 0.02
EXPRESSION_STEP_BEATS = 0.0625
DRUM_RELEASE_S = 3.0  # after which a drum is released: some ring forever and would use up the voices
WOW_STEPS_PER_S = 16.0  # pitch-bend events of a worn tape
PROBE_VELOCITY = 85  # at which the loudness of programs is measured
DUCK_DB = -4.0  # of the mix just before the strongest cuts, so that their accents stand out
DUCK_SHAPE_S = (-0.12, -0.06, -0.014, -0.002)  # from the accent: fall, lowest level, rise
MIN_DUCK_GAP_S = 0.25  # between two ducks
ACCENT_RING_S = 0.15  # of the last accent, before the music fades
VELOCITY_BAND = 8  # velocities that share the values of a SoundFont's modulators
MAX_VOICES = 512
GAIN_DB = 8.0  # of the synthesizer: brings the quietest programs above REFERENCE_DB
PEAK_DB = -3.0  # of the mix, in dBFS
Event = tuple[int, int, Callable[[], object]]  # sample, rank among events of that sample, action
DEFAULT_SOUNDFONT = Path(__file__).parents[1] / "soundfonts" / "general.sf3"  # made by tools/make_soundfont.py
SILENCE = -1  # number of the sample of presets that have none for the notes
_SILENT_SAMPLE = Sample("silence", np.zeros(64, np.int16), (0, 0), 44100, 60, 0)
DEFAULT_LICENSE = "MIT AND CC0-1.0 AND public-domain"  # cut from MuseScore_General_HQ


def provenance(soundfont: Path) -> dict[str, str | None]:
    """Return the SoundFont's file name, sha256 and, where it is known, license."""
    with soundfont.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    return {"file": soundfont.name, "sha256": digest, "license": soundfont_license(soundfont)}


def soundfont_license(soundfont: Path) -> str | None:
    """Return the license of a SoundFont as SPDX writes it, None where none is stated.

    It is stated in a file beside it, `NAME.license`, in lines "SPDX-License-Identifier: …" (the REUSE specification),
    all of which hold.
    """
    if soundfont == DEFAULT_SOUNDFONT:
        return DEFAULT_LICENSE
    try:
        text = soundfont.with_name(f"{soundfont.name}.license").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    return ", ".join(map(str.strip, re.findall(r"SPDX-License-Identifier:(.*)", text))) or None


@lru_cache(maxsize=2)
def _open(path: Path, _modified_ns: int, _size: int) -> SoundFont:
    return SoundFont(path)


def open_soundfont(path: Path) -> SoundFont:
    """Return the SoundFont of `path`, with the samples that were decoded before."""
    status = path.stat()
    return _open(path, status.st_mtime_ns, status.st_size)


def cut_soundfont(soundfont: SoundFont, programs: Mapping[PresetKey, Iterable[tuple[int, int]]]) -> bytes:
    """Return an .sf2 file of the regions that the notes (key, velocity) of each (bank, program) need.

    Modulators are resolved per band of velocities, and per key where they depend on it.
    """
    presets: dict[PresetKey, tuple[str, list[Region]]] = {}
    for wanted, notes in programs.items():
        key = soundfont.find_preset(*wanted)
        pairs = sorted({(pitch, velocity // VELOCITY_BAND) for pitch, velocity in notes})
        regions: dict[tuple[object, ...], Region] = {}
        for number, region in enumerate(soundfont.regions(key)):
            by_key = any((which[0] & 0xFF) == 3 and amount for which, amount in region.modulators.items())
            for pitch, band in pairs:
                low, high = band * VELOCITY_BAND, (band + 1) * VELOCITY_BAND - 1
                velocities = max(low, region.velocities[0]), min(high, region.velocities[1])
                if region.keys[0] <= pitch <= region.keys[1] and velocities[0] <= velocities[1]:
                    keys = (pitch, pitch) if by_key else region.keys
                    part = replace(region, keys=keys, velocities=velocities)
                    regions.setdefault((number, band, keys), resolve_modulators(part, pitch, (low + high) // 2 or 1))
        presets[wanted] = soundfont.preset_name(key), list(regions.values()) or [Region(SILENCE)]
    indices = {region.sample for _, regions in presets.values() for region in regions} - {SILENCE}
    with ThreadPoolExecutor(2) as pool:  # decoding releases the interpreter
        samples = dict(zip(indices, pool.map(soundfont.sample, indices), strict=True))
    return encode_soundfont(presets, {**samples, SILENCE: _SILENT_SAMPLE})


class SoundFontSynth:
    """A synthesizer for up to 16 parts with the notes (key, velocity) that each (bank, program) plays."""

    def __init__(
        self, soundfont: SoundFont, sample_rate: int, programs: Mapping[PresetKey, Iterable[tuple[int, int]]]
    ) -> None:
        # A process that has imported tinysoundfont by itself cannot load the copy in this wheel: both register the same
        # C++ types.
        tinysoundfont: Any = sys.modules.get("tinysoundfont") or import_module("_v2m_tinysoundfont")
        self.sample_rate = sample_rate
        self.synth = tinysoundfont.Synth(samplerate=sample_rate)
        self.bank = self.synth.sfload(cut_soundfont(soundfont, programs), gain=GAIN_DB, max_voices=MAX_VOICES)

    def select_program(self, channel: int, program: int, drums: bool) -> None:
        """Select the program of `channel`, one of those that the synthesizer was made with."""
        self.synth.program_select(channel, self.bank, DRUM_BANK if drums else 0, program, drums)

    def render(self, count: int) -> NDArray[np.float32]:
        """Render the next `count` samples, (2, count)."""
        return np.frombuffer(self.synth.generate_simple(count), dtype=np.float32).reshape(-1, 2).T


@lru_cache(maxsize=256)
def measure_program(soundfont: SoundFont, sample_rate: int, program: int, drums: bool) -> tuple[float, float]:
    """Measure loudness in dB and seconds to half amplitude, of notes in the middle of a register.

    Loudness is the highest power over 0.3 s after a first difference, which weights low frequencies about as ears do.
    """
    _, low, high = INSTRUMENTS.get(program, ("", 48, 72)) if not drums else ("", 0, 0)
    keys = (36, 38, 42, 46) if drums else (low + (high - low) // 3, low + (high - low) // 2)
    preset = (DRUM_BANK if drums else 0, program)
    synth = SoundFontSynth(soundfont, sample_rate, {preset: [(key, PROBE_VELOCITY) for key in keys]})
    synth.select_program(0, program, drums)
    powers: list[float] = []
    attacks: list[float] = []
    for key in keys:
        synth.synth.noteon(0, key, PROBE_VELOCITY)
        note = synth.render(seconds_to_samples(0.8, sample_rate)).mean(0)
        synth.synth.sounds_off(0)
        synth.render(seconds_to_samples(0.05, sample_rate))
        weighted = np.diff(note) * 4.0 + 0.5 * note[1:]
        powers.append(float(_moving_average(weighted**2, seconds_to_samples(0.3, sample_rate)).max()))
        level = _moving_average(note**2, seconds_to_samples(0.004, sample_rate))
        attacks.append(samples_to_seconds(int(np.argmax(level >= 0.25 * level.max())), sample_rate))
    return 10.0 * float(np.log10(np.mean(powers) + 1e-12)), float(np.median(attacks))


@lru_cache(maxsize=1024)
def measure_drum(soundfont: SoundFont, sample_rate: int, kit: int, key: int) -> float:
    """Measure the seconds until one drum first reaches half of its peak; 0 where they are too few to hear.

    Clashed cymbals slide for 36 ms before they sound.
    """
    synth = SoundFontSynth(soundfont, sample_rate, {(DRUM_BANK, kit): [(key, PROBE_VELOCITY)]})
    synth.select_program(0, kit, True)
    synth.synth.noteon(0, key, PROBE_VELOCITY)
    stroke = np.abs(synth.render(seconds_to_samples(0.3, sample_rate)).mean(0))
    attack = samples_to_seconds(int(np.argmax(stroke >= 0.5 * stroke.max())), sample_rate)
    return attack if attack > MIN_DRUM_ADVANCE_S else 0.0


def _moving_average(power: NDArray[np.floating], window: int) -> NDArray[np.floating]:
    total = np.cumsum(np.concatenate([np.zeros(1), power]))
    return (total[window:] - total[:-window]) / window


def render_mix(
    sheet: LeadSheet,
    parts: Sequence[Part],
    count: int,
    *,
    soundfont: Path,
    sample_rate: int,
    reverb: float,
    stems: bool,
    progress: ProgressFn,
) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
    """Render the mix (2, `count`), peaking at −3 dBFS, and with `stems` the stems that sum to it.

    Raises DiskFullError where they fit neither on the disk of temporary files nor in memory.
    """
    bus = MixBus(sheet.style, sample_rate, reverb)
    groups: dict[str, list[Part]] = defaultdict(list)
    for part in parts:
        groups[part.stem].append(part)
    groups.setdefault("effects", [])
    bank = open_soundfont(soundfont)
    sources = {stem: _render_blocks(sheet, group, bank, sample_rate, bus.hop) for stem, group in groups.items()}
    noises = NoiseEffects(sheet, sample_rate)
    check_space((1 + len(groups) * stems) * 8 * count)
    mix = mapped_array.zeros((2, count))
    stem_audio = {stem: mapped_array.zeros((2, count)) for stem in groups} if stems else {}
    starts = range(0, count, bus.hop)
    blocks = ((stem, next(source)) for _ in starts for stem, source in sources.items())
    spectra = map_in_threads(lambda item: bus.process(*item) if item[1].any() else None, blocks)
    for start in starts:
        total = np.zeros((2, bus.fft_size // 2 + 1), np.complex64)
        size = min(bus.fft_size, count - start)
        for stem in sources:
            spectrum = next(spectra)
            if stem == "effects" and noises:
                noise = bus.dry_spectrum(noises.render(start, start + bus.hop))
                spectrum = noise if spectrum is None else spectrum + noise
            if spectrum is None:  # silence
                continue
            total += spectrum
            if stems:
                stem_audio[stem][:, start : start + size] += bus.to_samples(spectrum)[:, :size]
        mix[:, start : start + size] += bus.to_samples(total)[:, :size]
        mapped_array.release_pages()
        progress(min(1.0, (start + bus.hop) / count))
    compress(mix, list(stem_audio.values()), sample_rate)
    level_sections(mix, list(stem_audio.values()), sample_rate, sheet.style.loudness_share)
    for audio in (mix, *stem_audio.values()):
        _apply_levels(audio, sheet.plan.levels, sample_rate)
        _duck_before_cuts(audio, sheet, sample_rate)
    fade = _final_fade(sheet, count, sample_rate)
    peak = max(float(np.abs(mix[:, part]).max()) for part in mapped_array.chunks(count))
    gain = db_to_gain(PEAK_DB) / max(peak, 1e-9)
    for audio in (mix, *stem_audio.values()):
        audio[:, count - len(fade) :] *= fade
        for part in mapped_array.chunks(count):
            audio[:, part] *= np.float32(gain)
    return mix, stem_audio


def _apply_levels(audio: NDArray[np.float32], levels: Floats, sample_rate: int) -> None:
    """Scale `audio` (2, N) in place by `levels` in dB, `LEVEL_RATE` a second."""
    knots = np.arange(len(levels)) / LEVEL_RATE
    gains = 10.0 ** (levels / 20)
    for part in mapped_array.chunks(audio.shape[1]):
        times = np.arange(part.start, part.start + audio[:, part].shape[1]) / sample_rate
        audio[:, part] *= np.interp(times, knots, gains).astype(np.float32)


def _duck_before_cuts(audio: NDArray[np.float32], sheet: LeadSheet, sample_rate: int) -> None:
    """Lower `audio` (2, N) in place just before each accent on a cut, more before stronger cuts."""
    last = -MIN_DUCK_GAP_S
    for hit in sorted(sheet.plan.hits, key=lambda hit: hit.time + hit.offset):
        time = hit.time + hit.offset
        if time - last < MIN_DUCK_GAP_S:
            continue
        last = time
        first, end = (seconds_to_samples(max(0.0, time + edge), sample_rate) for edge in (DUCK_SHAPE_S[0], 0.0))
        span = audio[:, first:end]
        offsets = (np.arange(span.shape[1]) + first) / sample_rate - time
        depth = DUCK_DB * (1 + hit.strength) / 2
        span *= (10.0 ** (np.interp(offsets, DUCK_SHAPE_S, [0.0, depth, depth, 0.0]) / 20)).astype(np.float32)


def _final_fade(sheet: LeadSheet, count: int, sample_rate: int) -> NDArray[np.float32]:
    """Return the gain at the end: a raised cosine to 0 at the last sample.

    It begins at 30 % of the last chord, or after the last accent on a cut.
    """
    start = float(sheet.plan.tempo_map.beat_to_time(sheet.last_bar.start))
    fade_s = start + 0.3 * (sheet.plan.duration - start)
    if len(sheet.plan.accents):
        fade_s = max(fade_s, sheet.plan.accents[-1] + ACCENT_RING_S)
    fade_start = min(seconds_to_samples(fade_s, sample_rate), count - 1)
    return (0.5 + 0.5 * np.cos(np.linspace(0.0, np.pi, count - max(0, fade_start)))).astype(np.float32)


def _render_blocks(
    sheet: LeadSheet, parts: Sequence[Part], soundfont: SoundFont, sample_rate: int, hop: int
) -> Iterator[NDArray[np.float32]]:
    """Yield blocks (2, hop) of the parts together, without end; events are exact to the sample."""
    if not parts:
        yield from repeat(np.zeros((2, hop), np.float32))
    programs: dict[PresetKey, set[tuple[int, int]]] = defaultdict(set)
    for part in parts:
        notes = {(note.pitch, note.velocity) for note in part.notes}
        programs[DRUM_BANK if part.is_drums else 0, part.program] |= notes
    synth = SoundFontSynth(soundfont, sample_rate, programs)
    events = sorted(
        (event for channel, part in enumerate(parts) for event in _part_events(sheet, part, channel, synth, soundfont)),
        key=lambda event: event[:2],
    )
    now, index = 0, 0
    while True:
        chunks: list[NDArray[np.float32]] = []
        end = now + hop
        while now < end:
            while index < len(events) and events[index][0] <= now:
                events[index][2]()
                index += 1
            chunk_end = min(events[index][0], end) if index < len(events) else end
            chunks.append(synth.render(chunk_end - now))
            now = chunk_end
        yield np.concatenate(chunks, axis=1)


def _part_events(
    sheet: LeadSheet, part: Part, channel: int, synth: SoundFontSynth, soundfont: SoundFont
) -> Iterator[Event]:
    """Yield the events of one part; at one sample controls come first, then releases, then attacks."""
    midi, rate = synth.synth, synth.sample_rate
    synth.select_program(channel, part.program, part.is_drums)
    loudness, attack = measure_program(soundfont, rate, part.program, part.is_drums)
    gain = min(1.0, db_to_gain(part.level_db + REFERENCE_DB - loudness + 12.0))
    midi.control_change(channel, 7, round(127 * gain ** (1 / 3)))  # TinySoundFont cubes volume and expression
    midi.control_change(channel, 10, round(63.5 + 63.5 * part.pan))
    if part.is_drums:
        attacks = {key: measure_drum(soundfont, rate, part.program, key) for key in {note.pitch for note in part.notes}}
    else:
        attacks = dict.fromkeys((note.pitch for note in part.notes), max(0.0, attack - AUDIBLE_ATTACK_S))
    times = sheet.plan.tempo_map.beat_to_time(np.array([(note.beat, note.beat + note.length) for note in part.notes]))
    for note, (on, off) in zip(part.notes, times, strict=True):
        start = seconds_to_samples(max(0.0, on - min(attacks[note.pitch], MAX_ADVANCE_S)), rate)
        yield start, 2, lambda key=note.pitch, v=note.velocity: midi.noteon(channel, key, v)
        end = on + DRUM_RELEASE_S if part.is_drums else off
        yield max(start + 1, seconds_to_samples(end, rate)), 1, lambda key=note.pitch: midi.noteoff(channel, key)
    for time, value in expression_curve(sheet, part):
        yield seconds_to_samples(time, rate), 0, lambda v=value: midi.control_change(channel, 11, v)
    if sheet.style.wow_cents and not part.is_drums:
        for time in time_grid(WOW_STEPS_PER_S, sheet.plan.duration):
            cents = sheet.style.wow_cents * (0.7 * np.sin(2.8 * time) + 0.3 * np.sin(7.1 * time))
            bend = round(8192 * (1.0 + cents / 200.0))  # the SoundFont's bend range is two semitones
            yield seconds_to_samples(float(time), rate), 0, lambda b=bend: midi.pitchbend(channel, b)


def expression_curve(sheet: LeadSheet, part: Part) -> Iterator[tuple[float, int]]:
    """Yield (seconds, MIDI value) of the part's expression controller where it changes."""
    if not part.expression:
        return
    beats, values = zip(*part.expression, strict=True)
    grid = np.arange(0.0, sheet.end_beat, EXPRESSION_STEP_BEATS)
    levels = np.round(127 * np.interp(grid, beats, values)).astype(int)
    previous = -1
    for time, level in zip(sheet.plan.tempo_map.beat_to_time(grid), levels, strict=True):
        if level != previous:
            yield max(0.0, float(time)), int(level)
            previous = level
