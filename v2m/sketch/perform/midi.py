"""MIDI export: a Standard MIDI File of format 1, the conductor track first, then one track per part.

A part's track states its stem as the name of the instrument, by which `v2m.sketch.notation.midi_file` assigns voices.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from v2m.core.timing import beat_seconds
from v2m.sketch.compose.lead_sheet import LeadSheet, Part
from v2m.sketch.perform.synthesizer import expression_curve
from v2m.sketch.plan.planner import section_label

if TYPE_CHECKING:
    from mido import Message, MetaMessage, MidiTrack

TICKS_PER_BEAT = 960
DRUM_CHANNEL = 9
_KEY_SIGNATURES = {
    "major": ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"),
    "minor": ("Cm", "C#m", "Dm", "Ebm", "Em", "Fm", "F#m", "Gm", "G#m", "Am", "Bbm", "Bm"),
}


def encode_midi(sheet: LeadSheet, parts: tuple[Part, ...], title: str) -> bytes:
    """Return the file's bytes. A late beat 0 is preceded by one beat of rest that lasts until it."""
    import mido

    lead_in = float(sheet.plan.tempo_map.beat_to_time(0.0))
    shift = TICKS_PER_BEAT if lead_in > 1e-4 else 0
    file = mido.MidiFile(type=1, ticks_per_beat=TICKS_PER_BEAT)
    file.tracks.append(_conductor_track(sheet, title, shift, lead_in))
    pitched_channels = (channel for channel in range(16) if channel != DRUM_CHANNEL)
    for part in parts:
        file.tracks.append(_part_track(sheet, part, DRUM_CHANNEL if part.is_drums else next(pitched_channels), shift))
    buffer = BytesIO()
    file.save(file=buffer)
    return buffer.getvalue()


def _conductor_track(sheet: LeadSheet, heading: str, shift: int, lead_in: float) -> MidiTrack:
    from mido import MetaMessage

    events: list[tuple[int, Message | MetaMessage]] = [
        (0, MetaMessage("track_name", name=heading)),
        (0, MetaMessage("key_signature", key=_KEY_SIGNATURES[sheet.key.mode][sheet.key.tonic])),
    ]
    if shift:
        events.append((0, MetaMessage("set_tempo", tempo=round(lead_in * 1e6))))
        events.append((0, MetaMessage("time_signature", numerator=1)))
    tempo_map = sheet.plan.tempo_map
    changes = [beat for beat in tempo_map.beats if 0 < beat < sheet.end_beat]
    for beat in [0.0, *changes]:
        tempo = round(1e6 * beat_seconds(tempo_map.tempo(float(beat))))
        events.append((shift + round(beat * TICKS_PER_BEAT), MetaMessage("set_tempo", tempo=tempo)))
    signature = 0
    for bar in sheet.plan.bars:
        if bar.beats != signature:
            events.append((shift + bar.start * TICKS_PER_BEAT, MetaMessage("time_signature", numerator=bar.beats)))
            signature = bar.beats
    for section in sheet.plan.sections:
        tick = shift + sheet.plan.bars[section.first].start * TICKS_PER_BEAT
        events.append((tick, MetaMessage("marker", text=section_label(section))))
    return _to_track(events)


def _part_track(sheet: LeadSheet, part: Part, channel: int, shift: int) -> MidiTrack:
    from mido import Message, MetaMessage

    volume = round(100 * 10 ** (part.level_db / 40))
    events: list[tuple[int, Message | MetaMessage]] = [
        (0, MetaMessage("track_name", name=part.name)),
        (0, MetaMessage("instrument_name", name=part.stem)),
        (0, Message("program_change", channel=channel, program=part.program)),
        (0, Message("control_change", channel=channel, control=7, value=min(127, volume))),
        (0, Message("control_change", channel=channel, control=10, value=round(63.5 + 63.5 * part.pan))),
    ]
    for time, value in expression_curve(sheet, part):
        beat = float(sheet.plan.tempo_map.time_to_beat(time))
        tick = shift + round(max(0.0, beat) * TICKS_PER_BEAT)
        events.append((tick, Message("control_change", channel=channel, control=11, value=value)))
    for note in part.notes:
        on, off = shift + round(note.beat * TICKS_PER_BEAT), shift + round((note.beat + note.length) * TICKS_PER_BEAT)
        events.append((on, Message("note_on", channel=channel, note=note.pitch, velocity=note.velocity)))
        events.append((max(on + 1, off), Message("note_off", channel=channel, note=note.pitch)))
    return _to_track(events)


def _to_track(events: list[tuple[int, Message | MetaMessage]]) -> MidiTrack:
    """Return a track of the (tick, message) events; at one tick releases come before attacks."""
    from mido import MidiTrack

    track = MidiTrack()
    now = 0
    for tick, message in sorted(events, key=lambda event: (event[0], event[1].dict()["type"] == "note_on")):
        track.append(message.copy(time=tick - now))
        now = tick
    return track
