"""The mix of Sketch: few clashes between parts, few peaks, and noise effects."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from tests.sketch.stub_videos import SECONDS, Cuts, compose_piece, render_piece, video
from v2m.analysis.loudness import integrated_loudness, true_peak
from v2m.core.types import Floats, Tags
from v2m.generators.sketch import Sketch
from v2m.sketch.compose.arrange import Piece
from v2m.sketch.compose.lead_sheet import Note, Part
from v2m.sketch.perform import effects
from v2m.sketch.perform.effects import NoiseEffects, compress, level_sections, render_riser
from v2m.sketch.perform.synthesizer import DEFAULT_SOUNDFONT, provenance, render_mix
from v2m.sketch.styles import STYLES

ALL = list(STYLES)
RATE = 48000
CUTS: Cuts = ((5.2, 0.6), (9.9, 0.9), (19.7, 1.0), (31.0, 0.5), (38.3, 0.95), (56.1, 1.0))


def clash_share(music: Piece) -> float:
    """Return the share of time in which two chordal parts sound a semitone or a minor ninth apart."""
    instants = np.arange(0.1, music.sheet.end_beat, 0.25)
    clashing = np.zeros(len(instants), bool)
    parts = [part for part in music.parts if part.stem in {"pads", "harmony"}]
    for one, other in combinations(parts, 2):
        for a in one.notes:
            for b in other.notes:
                if abs(a.pitch - b.pitch) in {1, 13}:
                    begin, end = max(a.beat, b.beat), min(a.beat + a.length, b.beat + b.length)
                    clashing |= (instants >= begin) & (instants < end)
    return float(clashing.mean())


@pytest.mark.parametrize("style", ALL)
def test_chordal_parts_rarely_clash(style: str) -> None:
    assert np.mean([clash_share(compose_piece(style, seed, duration=60.0, cuts=CUTS)) for seed in range(4)]) < 0.06


@pytest.mark.parametrize("style", ALL)
def test_long_melody_tones_are_chord_tones(style: str) -> None:
    fits: list[bool] = []
    for seed in range(4):
        music = compose_piece(style, seed, duration=60.0, cuts=CUTS)
        for note in (note for part in music.parts if part.stem == "melody" for note in part.notes):
            if note.length >= 1:
                chords = [music.sheet.chord_at(beat) for beat in (note.beat + 0.1, note.beat + note.length - 0.15)]
                fits.append(all(note.pitch % 12 in chord.pitch_classes for chord in chords))
    assert all(fits)


@pytest.mark.parametrize("style", ALL)
def test_the_low_register_holds_few_tones(style: str) -> None:
    """Below F3 no third tone sounds for long, except in rock, whose guitars play there."""
    if style == "rock":
        return
    music = compose_piece(style, 1, duration=60.0, cuts=CUTS)
    instants = np.arange(0.1, music.sheet.end_beat, 0.25)
    low = [note for part in music.parts if not part.is_drums for note in part.notes if note.pitch < 53]
    count = sum(((instants >= n.beat) & (instants < n.beat + n.length)).astype(int) for n in low)
    assert np.mean(count > 2) < 0.25


@pytest.mark.parametrize("style", ALL)
def test_peak_to_loudness_ratio(style: str) -> None:
    """At −14 LUFS a limiter at −1 dBTP has next to nothing to do."""
    audio = render_piece(style, 1).audio
    assert 8.0 < true_peak(audio) - integrated_loudness(audio) < 14.0


def tone(levels: list[float]) -> np.ndarray:
    """Return stereo noise of 4 s at each of `levels`."""
    noise = np.random.default_rng(1).uniform(-1, 1, (2, 4 * RATE * len(levels)))
    return (noise * np.repeat(levels, 4 * RATE)).astype(np.float32)


def power(sound: np.ndarray) -> float:
    return float(10 * np.log10((sound.astype(float) ** 2).mean()))


def test_the_compressor_reduces_peaks_and_keeps_relative_levels() -> None:
    music = tone([0.02, 0.2])
    clicks = np.zeros_like(music)
    clicks[:, RATE // 2 :: RATE] = 1.0
    mix, stems = music + clicks, [music.copy(), clicks.copy()]
    compress(mix, stems, RATE)
    assert np.abs(sum(stems) - mix).max() < 1e-6, "the stems get the same gain"
    assert np.abs(mix).max() < 0.62, "a click 15 dB above the loud half is bent"
    assert np.abs(mix[:, : 2 * RATE]).max() < 0.15, "and further in the quiet half"
    soft, loud = mix[:, RATE + RATE : RATE * 2 + RATE // 3], mix[:, 5 * RATE : 5 * RATE + RATE // 3]
    assert power(loud) - power(soft) == pytest.approx(20.0, abs=1.0), "the distance between the halves stays"
    calm = tone([0.2])
    compress(calm, [], RATE)
    assert np.array_equal(calm, tone([0.2])), "what has no peaks is not touched"


@pytest.mark.parametrize("count", [1, 47, 48, 49, 49153])
def test_the_compressor_accepts_any_length(count: int) -> None:
    sound = np.full((2, count), 0.5, np.float32)
    compress(sound, [], RATE)
    assert np.abs(sound - 0.5).max() < 1e-6


@pytest.mark.parametrize(("style", "seed"), [("ambient", 5), ("acoustic folk", 2)])
def test_loudness_range_is_that_of_recordings(style: str, seed: int) -> None:
    """People's music for a game has 10 dB between its 10th and its 95th percentile, the median of 40 pieces."""
    samples = render_piece(style, seed, duration=40.0).audio.samples[:, : 36 * RATE]  # without the final chord
    blocks = np.square(samples.astype(float)).mean(0).reshape(-1, 2 * RATE // 5).mean(1)
    quiet, loud = np.percentile(10 * np.log10(blocks), [10, 95])
    assert loud - quiet < 13


def test_leveling_keeps_a_share_of_the_difference_between_sections() -> None:
    time = np.arange(40 * RATE) / RATE
    tone = np.tile(np.sin(2 * np.pi * 220 * time), (2, 1)).astype(np.float32)
    tone *= np.where(time < 20, 0.1, 0.8).astype(np.float32)
    stems = [0.25 * tone, 0.75 * tone]
    level_sections(tone, stems, RATE, 0.5)
    quiet, loud = (np.abs(tone[:, a * RATE : b * RATE]).max() for a, b in ((5, 15), (25, 35)))
    assert loud / quiet == pytest.approx(8**0.5, rel=0.02)
    np.testing.assert_allclose(sum(stems), tone, atol=1e-6)
    silence = np.zeros((2, RATE), np.float32)
    level_sections(silence, [], RATE, 0.5)
    assert not silence.any()


@pytest.mark.parametrize("style", ["cinematic", "orchestral", "waltz"])
def test_orchestras_are_no_brighter_than_from_a_seat_in_the_hall(style: str) -> None:
    """The octaves from 2 to 8 kHz hold 2 % of the power of people's orchestral music, in nine of ten at most 5 %."""
    samples = render_piece(style, 3).audio.samples.mean(0)
    power = np.abs(np.fft.rfft(samples)) ** 2
    frequency = np.fft.rfftfreq(len(samples), 1 / RATE)
    assert power[(frequency > 2000) & (frequency < 8000)].sum() < 0.05 * power.sum()


def test_lofi_has_vinyl_noise_and_others_do_not() -> None:
    crackle = render_piece("lo-fi", 1).stems["effects"].samples
    quiet = np.abs(crackle[:, : int(0.9 * SECONDS) * RATE]).reshape(2, -1, RATE // 2).max((0, 2))
    assert quiet.min() > 1e-3
    other = render_piece("funk", 1).stems["effects"].samples
    assert np.abs(other[:, : RATE // 2]).max() < 1e-6


def pitches(cents: float) -> Floats:
    """Return the frequencies, in cents around their mean, of a synthesizer tone under `cents` of wow."""
    music = compose_piece("lo-fi", 1, duration=8.0)
    sheet = replace(music.sheet, style=replace(music.sheet.style, wow_cents=cents))
    part = Part("square lead", "melody", 80, notes=[Note(0.0, sheet.end_beat, 69, 100)])
    _, stems = render_mix(
        sheet, [part], 8 * RATE, soundfont=DEFAULT_SOUNDFONT, sample_rate=RATE, reverb=0.0, stems=True,
        progress=lambda fraction: None,
    )  # fmt: skip
    frequencies = []
    for start in range(RATE, 5 * RATE, RATE // 4):
        sound = stems["melody"].mean(0)[start : start + RATE // 4] * np.hanning(RATE // 4)
        size = 1 << 19
        band = slice(int(420 * size / RATE), int(460 * size / RATE))
        frequencies.append((int(np.argmax(np.abs(np.fft.rfft(sound, size))[band])) + band.start) * RATE / size)
    return 1200 * np.log2(np.array(frequencies) / np.mean(frequencies))


def test_wow_modulates_the_pitch() -> None:
    assert np.ptp(pitches(0.0)) + 4 < np.ptp(pitches(7.0)) < 20


def test_a_riser_sweeps_up_and_stops_at_the_louder_section() -> None:
    sound = render_riser(2 * RATE, RATE)
    parts = np.split(sound[0], 4)
    loud = [power(part) for part in parts]
    assert loud == sorted(loud)
    centroids = [
        float((np.abs(np.fft.rfft(part)) ** 2 @ np.fft.rfftfreq(len(part))) / (np.abs(np.fft.rfft(part)) ** 2).sum())
        for part in parts
    ]
    assert centroids == sorted(centroids)
    music = compose_piece("electronic", 1)
    noises = NoiseEffects(music.sheet, RATE)
    whole = noises.render(0, 30 * RATE)
    bars, louder = music.sheet.plan.bars, [bar.start + bar.beats for bar in music.sheet.crescendo_bars()]
    assert louder
    assert {b.start for b in bars} >= set(louder)
    for beat in louder:
        sample = round(float(music.sheet.plan.tempo_map.beat_to_time(beat)) * RATE)
        assert np.abs(whole[:, sample - 200 : sample - 2]).max() > 0.01
        assert not whole[:, sample + 2 : sample + 2000].any()
    pieces = [noises.render(start, start + RATE) for start in range(0, 30 * RATE, RATE)]
    assert np.array_equal(np.concatenate(pieces, axis=1), whole), "the same in blocks of any size"


def test_folk_has_drums_only_when_tagged() -> None:
    assert not [part for part in compose_piece("acoustic folk", 1).parts if part.is_drums]
    tagged = compose_piece("acoustic folk", 1, Tags(instruments=["percussion"]))
    assert [part for part in tagged.parts if part.stem == "drums"]


def test_the_third_statement_of_a_theme_has_other_chords() -> None:
    changed = 0
    for seed in range(4):
        music = compose_piece("rock", seed, duration=300.0, cuts=())
        statements = {p.variant: p for p in music.sheet.plan.sections if p.name == "A" and p.last - p.first >= 4}
        symbols = {
            variant: [span.chord.symbol for span in music.sheet.spans_in_bars(p.first, p.first + 4)]
            for variant, p in statements.items()
        }
        assert symbols[0] == symbols[1]
        changed += symbols[2] != symbols[0]
    assert changed >= 3


def test_metadata_names_the_soundfont_and_its_license(tmp_path: Path) -> None:
    soundfont = Sketch("ambient").generate(video(2.0), Tags(), 1).metadata["soundfont"]
    digest = sha256(DEFAULT_SOUNDFONT.read_bytes()).hexdigest()
    assert (soundfont["file"], soundfont["sha256"]) == ("general.sf3", digest)
    assert soundfont["license"].startswith("MIT")
    other = tmp_path / "own.sf2"
    other.write_bytes(b"RIFF")
    assert provenance(other) == {"file": "own.sf2", "sha256": sha256(b"RIFF").hexdigest(), "license": None}


def test_threads_change_no_bit_of_the_dynamics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of the mix are worked on in any order; the last one is not whole."""
    rng = np.random.default_rng(0)
    mix = (rng.standard_normal((2, 200_077)) * np.linspace(0.01, 0.3, 200_077)).astype(np.float32)
    results = []
    for work in (effects.map_in_threads, map):
        monkeypatch.setattr(effects, "map_in_threads", work)
        loud, stem = mix.copy(), mix * np.float32(0.5)
        compress(loud, [stem], 48_000)
        level_sections(loud, [stem], 48_000, 0.5)
        results.append((loud, stem))
    assert all(map(np.array_equal, *results))
    assert not np.array_equal(results[0][0], mix)
