"""Plays the parts through a SoundFont, stem by stem and block by block, into one stereo mix."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from v2m.core.errors import UsageError
from v2m.core.timing import db_to_gain, every, sample_count, seconds_of
from v2m.sketch.compose.lead_sheet import LeadSheet, Part
from v2m.sketch.instruments import INSTRUMENTS
from v2m.sketch.perform.compressor import compress
from v2m.sketch.perform.noise_effects import NoiseEffects
from v2m.sketch.perform.reverb import MixBus

REFERENCE_DB = -46.0  # dB: the loudness that a note of every instrument is brought to; below the quietest program
MAX_ADVANCE_S = 0.12  # seconds: how far ahead a slow instrument may start so that its sound arrives on the beat
EXPRESSION_STEP_BEATS = 0.0625  # beats between two steps of an expression curve
DRUM_RELEASE_S = 3.0  # seconds after which a drum is released: some never end by themselves and would pile up
WOW_STEPS_PER_S = 16.0  # a second: steps of the tape's wavering
PROBE_VELOCITY = 85  # the velocity at which instruments are compared
Event = tuple[int, int, Callable[[], object]]


class SoundFontSynth:
    """A synthesiser with one bank loaded: up to 16 parts at once."""

    def __init__(self, soundfont: Path, sample_rate: int) -> None:
        import tinysoundfont

        self.sample_rate = sample_rate
        self.synth = tinysoundfont.Synth(samplerate=sample_rate)
        try:
            self.bank = self.synth.sfload(str(soundfont), max_voices=512)
        except RuntimeError as error:
            raise UsageError(f"{soundfont} is not a SoundFont that can be read (.sf2, .sf3)") from error

    def select_program(self, channel: int, program: int, drums: bool) -> None:
        """Gives `channel` its sound; where the bank lacks it, TinySoundFont takes a near one."""
        self.synth.program_select(channel, self.bank, 128 if drums else 0, program, drums)

    def render(self, count: int) -> NDArray[np.float32]:
        """The next `count` samples, (2, count)."""
        return np.frombuffer(self.synth.generate_simple(count), dtype=np.float32).reshape(-1, 2).T


@lru_cache(maxsize=256)
def measure_program(soundfont: Path, sample_rate: int, program: int, drums: bool) -> tuple[float, float]:
    """(loudness in dB, seconds until the sound has half its level) of a typical note of the program in this bank.

    Loudness is the greatest power in 0.3 s, after a first difference that weighs highs as ears do at low frequencies.
    """
    player = SoundFontSynth(soundfont, sample_rate)
    player.select_program(0, program, drums)
    _, low, high = INSTRUMENTS.get(program, ("", 48, 72)) if not drums else ("", 0, 0)
    keys = (36, 38, 42, 46) if drums else (low + (high - low) // 3, low + (high - low) // 2)
    powers: list[float] = []
    attacks: list[float] = []
    for key in keys:
        player.synth.noteon(0, key, PROBE_VELOCITY)
        sound = player.render(sample_count(0.8, sample_rate)).mean(0)
        player.synth.sounds_off(0)
        player.render(sample_count(0.05, sample_rate))
        weighed = np.diff(sound) * 4.0 + 0.5 * sound[1:]
        powers.append(float(_moving_average(weighed**2, sample_count(0.3, sample_rate)).max()))
        level = _moving_average(sound**2, sample_count(0.004, sample_rate))
        attacks.append(seconds_of(int(np.argmax(level >= 0.25 * level.max())), sample_rate))
    return 10.0 * float(np.log10(np.mean(powers) + 1e-12)), float(np.median(attacks))


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
    progress: Callable[[float], None],
) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
    """The mix (2, `count`), peaking at −3 dBFS, and with `stems` the sounds of the groups, which sum to it."""
    desk = MixBus(sheet.style, sample_rate, reverb)
    groups: dict[str, list[Part]] = defaultdict(list)
    for part in parts:
        groups[part.stem].append(part)
    groups.setdefault("effects", [])
    sources = {stem: _render_blocks(sheet, group, soundfont, sample_rate, desk.hop) for stem, group in groups.items()}
    noises = NoiseEffects(sheet, sample_rate)
    mix = np.zeros((2, count), np.float32)
    split = {stem: np.zeros((2, count), np.float32) for stem in groups} if stems else {}
    for start in range(0, count, desk.hop):
        together = np.zeros((2, desk.fft_size // 2 + 1), np.complex64)
        room = min(desk.fft_size, count - start)
        for stem, source in sources.items():
            spectrum = desk.process(stem, next(source))
            if stem == "effects" and noises:
                spectrum += desk.dry_spectrum(noises.render(start, start + desk.hop))
            together += spectrum
            if stems:
                split[stem][:, start : start + room] += desk.to_samples(spectrum)[:, :room]
        mix[:, start : start + room] += desk.to_samples(together)[:, :room]
        progress(min(1.0, (start + desk.hop) / count))
    compress(mix, list(split.values()), sample_rate)
    gain = _final_fade(sheet, count, sample_rate)
    peak = db_to_gain(-3.0) / max(float(mix.max()), -float(mix.min()), 1e-9)  # no copy of an hour of sound
    for sound in (mix, *split.values()):
        sound[:, count - len(gain) :] *= gain
        np.multiply(sound, np.float32(peak), out=sound)
    return mix, split


def _final_fade(sheet: LeadSheet, count: int, sample_rate: int) -> NDArray[np.float32]:
    """The fade of the last chord: untouched while it speaks, then a raised cosine to silence at the last sample."""
    last = float(sheet.plan.tempo_map.beat_to_time(sheet.last_bar.start))
    spoken = min(sample_count(last + 0.3 * (sheet.plan.duration - last), sample_rate), count - 1)
    return (0.5 + 0.5 * np.cos(np.linspace(0.0, np.pi, count - max(0, spoken)))).astype(np.float32)


def _render_blocks(
    sheet: LeadSheet, parts: Sequence[Part], soundfont: Path, sample_rate: int, hop: int
) -> Iterator[NDArray[np.float32]]:
    """Blocks (2, hop) of the parts playing together, for ever; events fall on their exact sample."""
    player = SoundFontSynth(soundfont, sample_rate)
    events = sorted(
        (
            event
            for channel, part in enumerate(parts)
            for event in _part_events(sheet, part, channel, player, soundfont)
        ),
        key=lambda event: event[:2],
    )
    now, place = 0, 0
    while True:
        pieces: list[NDArray[np.float32]] = []
        end = now + hop
        while now < end:
            while place < len(events) and events[place][0] <= now:
                events[place][2]()
                place += 1
            until = min(events[place][0], end) if place < len(events) else end
            pieces.append(player.render(until - now))
            now = until
        yield np.concatenate(pieces, axis=1)


def _part_events(
    sheet: LeadSheet, part: Part, channel: int, player: SoundFontSynth, soundfont: Path
) -> Iterator[Event]:
    """(sample, rank, action) of one part; at one sample controls come first, then releases, then attacks."""
    synth, rate = player.synth, player.sample_rate
    player.select_program(channel, part.program, part.is_drums)
    loudness, attack = measure_program(soundfont, rate, part.program, part.is_drums)
    gain = min(1.0, db_to_gain(part.level_db + REFERENCE_DB - loudness + 12.0))
    synth.control_change(channel, 7, round(127 * gain ** (1 / 3)))  # TinySoundFont cubes volume and expression
    synth.control_change(channel, 10, round(63.5 + 63.5 * part.pan))
    ahead = 0.0 if part.is_drums else min(attack, MAX_ADVANCE_S)
    times = sheet.plan.tempo_map.beat_to_time([(note.beat, note.beat + note.length) for note in part.notes])
    for note, (on, off) in zip(part.notes, times, strict=True):
        # TinySoundFont's level is linear in velocity; General MIDI's is nearer to the square
        velocity = max(1, round(127 * (note.velocity / 127) ** 1.7))
        start = sample_count(max(0.0, on - ahead), rate)
        yield start, 2, lambda key=note.pitch, v=velocity: synth.noteon(channel, key, v)
        end = on + DRUM_RELEASE_S if part.is_drums else off
        yield max(start + 1, sample_count(end, rate)), 1, lambda key=note.pitch: synth.noteoff(channel, key)
    for time, value in expression_curve(sheet, part):
        yield sample_count(time, rate), 0, lambda v=value: synth.control_change(channel, 11, v)
    if sheet.style.wow_cents and not part.is_drums:
        for time in every(WOW_STEPS_PER_S, sheet.plan.duration):
            cents = sheet.style.wow_cents * (0.7 * np.sin(2.8 * time) + 0.3 * np.sin(7.1 * time))
            bend = round(8192 * (1.0 + cents / 200.0))  # the bank's range is two semitones
            yield sample_count(float(time), rate), 0, lambda b=bend: synth.pitchbend(channel, b)


def expression_curve(sheet: LeadSheet, part: Part) -> Iterator[tuple[float, int]]:
    """(seconds, MIDI value) of the part's expression controller, only where it changes."""
    if not part.expression:
        return
    beats, values = zip(*part.expression, strict=True)
    grid = np.arange(0.0, sheet.end_beat, EXPRESSION_STEP_BEATS)
    levels = np.round(127 * np.interp(grid, beats, values)).astype(int)
    before = -1
    for time, level in zip(sheet.plan.tempo_map.beat_to_time(grid), levels, strict=True):
        if level != before:
            yield max(0.0, float(time)), int(level)
            before = level
