"""Rendered audio of Sketch: exact lengths, determinism, accents on time, a decaying ending."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.sketch.stub_videos import SECONDS, compose_piece, render_piece, video
from v2m.core.errors import UsageError
from v2m.core.protocols import MusicGenerator
from v2m.core.types import Floats, Soundtrack, Tags
from v2m.generators.sketch import Sketch
from v2m.sketch.compose.lead_sheet import Note, Part
from v2m.sketch.instruments import STEMS
from v2m.sketch.perform.synthesizer import DEFAULT_SOUNDFONT, render_mix
from v2m.sketch.styles import STYLES

ALL = list(STYLES)
RATE = 48000
ROOT = Path(__file__).parents[2]
STEP = 120  # samples: 2.5 ms


def level(sound: np.ndarray, window: int) -> Floats:
    """Return the power of consecutive windows of (2, N) samples."""
    mono = sound.mean(0)[: sound.shape[1] // window * window]
    return (mono.reshape(-1, window).astype(float) ** 2).mean(1)


def digest(result: Soundtrack) -> str:
    return hashlib.sha256(result.audio.samples.tobytes() + (result.midi or b"")).hexdigest()


def test_sketch_is_a_music_generator() -> None:
    assert isinstance(Sketch(), MusicGenerator)


def test_output_is_deterministic_across_processes() -> None:
    path = Path(__file__).with_name("stub_videos.py")
    code = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('stub_videos', {str(path)!r})\n"
        "stubs = sys.modules['stub_videos'] = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(stubs)\n"
        "result = stubs.Sketch('jazz').generate(stubs.video(9.0), stubs.Tags(), 5)\n"
        "import hashlib; print(hashlib.sha256(result.audio.samples.tobytes() + result.midi).hexdigest())"
    )
    environment = os.environ | {"PYTHONHASHSEED": "77", "PYTHONPATH": str(ROOT)}
    process = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    result = Sketch("jazz").generate(video(9.0), Tags(), 5)
    assert process.stdout.strip() == digest(result)
    assert digest(result) != digest(Sketch("jazz").generate(video(9.0), Tags(), 6))


@pytest.mark.parametrize("duration", [0.03, 0.2, 0.77, 1.99, 3.337, 7.123456])
@pytest.mark.parametrize("style", ["ambient", "rock", "waltz"])
def test_length_matches_the_video_to_the_sample(style: str, duration: float) -> None:
    result = Sketch(style).generate(video(duration, ((duration / 2, 0.8),)), Tags(), 1)
    assert result.audio.samples.shape == (2, int(np.floor(duration * RATE + 0.5)))
    assert result.audio.samples.dtype == np.float32
    assert 0.1 < np.abs(result.audio.samples).max() <= 0.71


def test_other_sample_rates_give_the_same_music() -> None:
    result = Sketch("rock", sample_rate=44100).generate(video(6.0), Tags(), 1)
    assert result.audio.samples.shape == (2, 6 * 44100)
    other = Sketch("rock").generate(video(6.0), Tags(), 1)
    ours, theirs = level(result.audio.samples, 4410), level(other.audio.samples, 4800)
    difference = 10 * np.log10(ours / theirs)[:-5]
    assert np.abs(difference - np.median(difference)).max() < 1.0  # dB
    assert difference.std() < 0.4


@pytest.mark.parametrize("tempo", [30.0, 300.0])
def test_extreme_tempi(tempo: float) -> None:
    for style in ("ambient", "jazz", "waltz"):
        result = Sketch(style).generate(video(7.0), Tags(tempo=tempo), 1)
        low, high = result.metadata["tempo_range"]
        assert 0.92 * tempo - 0.1 <= low <= high <= 1.08 * tempo + 0.1
        assert np.isfinite(result.audio.samples).all()


def test_stems_sum_to_the_mix() -> None:
    result = render_piece("cinematic", 1, 10.0)
    assert 4 <= len(result.stems) <= 7
    assert set(result.stems) <= set(STEMS)
    total = np.sum([stem.samples for stem in result.stems.values()], axis=0)
    assert np.abs(total - result.audio.samples).max() < 1e-5
    plain = Sketch("cinematic").generate(video(10.0), Tags(), 1)
    assert np.array_equal(plain.audio.samples, result.audio.samples), "asking for stems changes nothing"


@pytest.mark.parametrize("style", ALL)
def test_accents_sound_within_15_ms_of_their_beat(style: str) -> None:
    result = render_piece(style, 1)
    offsets = []
    for hit in result.metadata["hits"]:
        if hit["downbeat"]:
            beat = hit["time"] + hit["offset"]
            start = int((beat - 0.08) * RATE)
            power = level(np.diff(result.audio.samples[:, start : start + int(0.16 * RATE)]), STEP)
            rise = np.convolve(np.sqrt(power), [1, 1, -1, -1], "valid")
            steep = np.flatnonzero(rise > 0.8 * rise.max())  # a slow tone may rise as much a little later
            distances = (start + (steep + 2) * STEP) / RATE - beat
            offsets.append(distances[np.abs(distances).argmin()])
    assert offsets
    assert np.abs(offsets).max() <= 0.015


@pytest.mark.parametrize("style", ALL)
def test_loudness_follows_section_energy(style: str) -> None:
    result = render_piece(style, 1)
    bars = [section.energy for section in result.sections]
    loud = []
    for section in result.sections:
        sound = result.audio.samples[:, int(section.start * RATE) : int(section.end * RATE)]
        loud.append(10 * np.log10(level(sound, sound.shape[1])[0]))
    assert np.corrcoef(bars, loud)[0, 1] > 0.7, list(zip(bars, loud, strict=True))
    assert max(loud) - loud[0] > 3, "the intro is softer than the height of the piece"


@pytest.mark.parametrize("style", ALL)
def test_the_final_chord_rings_and_decays(style: str) -> None:
    """The last chord rings, decays without a step, and is silent at the last sample."""
    result = render_piece(style, 1)
    assert result.downbeats is not None
    last = float(result.downbeats[-1])
    assert 1.0 < SECONDS - last < 6.0
    tail = 10 * np.log10(level(result.audio.samples[:, int(last * RATE) :], 2400) + 1e-12)
    whole = 10 * np.log10(level(result.audio.samples, 2400).mean())
    assert tail[:4].max() > whole - 12, "it is heard"
    assert tail[len(tail) // 3] > whole - 26, "and rings"
    assert (np.diff(tail[len(tail) // 2 : -2]) < 4).all(), "nothing new is struck after it"
    assert tail[-1] < whole - 35
    assert np.abs(result.audio.samples[:, -1]).max() < 1e-4


@pytest.mark.parametrize("style", ALL)
def test_no_gaps_no_clipping_and_balanced_stereo(style: str) -> None:
    result = render_piece(style, 1)
    assert result.beats is not None
    sound = result.audio.samples[:, int(result.beats[0] * RATE) : int((SECONDS - 1.5) * RATE)]
    loud = 10 * np.log10(level(sound, RATE // 2) + 1e-12)
    assert loud.min() > loud.max() - 40
    assert np.abs(result.audio.samples).max() == pytest.approx(10 ** (-3 / 20), abs=1e-3)
    left, right = (float((side.astype(float) ** 2).mean()) for side in result.audio.samples)
    assert abs(10 * np.log10(left / right)) < 3, "neither side is heavier"
    assert np.corrcoef(*result.audio.samples)[0, 1] < 0.99, "it is stereo"


@pytest.mark.parametrize("style", ALL)
def test_melody_and_bass_are_loud_enough(style: str) -> None:
    result = render_piece(style, 1)
    powers = {stem: 10 * np.log10(float((sound.samples**2).mean())) for stem, sound in result.stems.items()}
    whole = 10 * np.log10(float((result.audio.samples**2).mean()))
    assert powers["melody"] > whole - 16
    assert powers["bass"] > whole - 14
    assert powers.get("drums", -99.0) < whole - 1


def test_midi_matches_the_played_notes() -> None:
    import pretty_midi

    for style in ("cinematic", "waltz", "electronic"):
        result, music = render_piece(style, 1), compose_piece(style, 1, duration=SECONDS)
        assert result.midi is not None
        assert result.downbeats is not None
        midi = pretty_midi.PrettyMIDI(io.BytesIO(result.midi))
        assert [(i.program, i.is_drum) for i in midi.instruments if not i.is_drum] == [
            (part.program, False) for part in music.parts if not part.is_drums
        ]
        ours = sorted(
            (float(music.sheet.plan.tempo_map.beat_to_time(note.beat)), note.pitch)
            for part in music.parts
            for note in part.notes
        )
        theirs = sorted((note.start, note.pitch) for instrument in midi.instruments for note in instrument.notes)
        assert len(ours) == len(theirs)
        assert np.abs(np.array(sorted(t for t, _ in ours)) - sorted(t for t, _ in theirs)).max() < 0.002
        bars = midi.get_downbeats()
        assert all(np.abs(bars - downbeat).min() < 0.002 for downbeat in result.downbeats)
        assert midi.key_signature_changes[0].key_number % 12 == music.sheet.key.tonic
        names = {instrument.name for instrument in midi.instruments}
        assert set(result.metadata["instruments"]) >= names


def test_metadata_describes_the_piece() -> None:
    result = Sketch().generate(video(8.0), Tags(genres=["jazz"], key="Eb major", vocals=True), 3)
    assert (result.metadata["style"], result.metadata["key"]) == ("jazz", "Eb major")
    assert result.metadata["progressions"]["A"]
    assert "vocals" in result.metadata["note"]
    assert [section.name for section in result.sections] == result.metadata["form"]
    assert json.loads(json.dumps(result.metadata)) == result.metadata, "plain values"
    assert result.sections[0].start == pytest.approx(float(result.downbeats[0]))  # type: ignore[index]
    assert result.sections[-1].end == 8.0


def test_progress_rises_to_one() -> None:
    fractions: list[float] = []

    def record(fraction: float) -> None:
        fractions.append(fraction)

    Sketch("ambient").generate(video(12.0), Tags(), 1, progress=record)
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert len(fractions) > 3


def test_reverb_fills_the_gap_after_a_drum_stroke() -> None:
    sheet = compose_piece("funk", 1, duration=6.0).sheet
    stroke = Part("kit", "drums", 8, True, notes=[Note(1.0, 0.25, 36, 100)])

    def gap(reverb: float) -> float:
        mix, _ = render_mix(
            sheet, [stroke], 4 * RATE, soundfont=DEFAULT_SOUNDFONT, sample_rate=RATE, reverb=reverb, stems=False,
            progress=lambda fraction: None,
        )  # fmt: skip
        start = int(float(sheet.plan.tempo_map.beat_to_time(1.0)) * RATE)
        powers = level(mix[:, start : start + RATE], RATE // 10)
        return float(10 * np.log10(powers[5] / powers[0]))

    assert gap(2.0) > gap(0.0) + 10


@pytest.mark.parametrize(
    ("settings", "word"),
    [({"style": "polka"}, "polka"), ({"soundfont": "nowhere.sf2"}, "nowhere.sf2"), ({"reverb": 9.0}, "9")],
)
def test_invalid_settings_are_refused(settings: dict[str, str], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        Sketch(**settings)  # type: ignore[arg-type]


def test_a_file_that_is_not_a_soundfont_is_refused(tmp_path: Path) -> None:
    fake = tmp_path / "fake.sf2"
    fake.write_text("not a bank")
    with pytest.raises(UsageError, match=r"fake\.sf2"):
        Sketch("jazz", soundfont=str(fake)).generate(video(3.0), Tags(), 1)
