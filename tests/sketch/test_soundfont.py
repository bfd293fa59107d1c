"""SoundFont files: reading, cutting, modulators, and parity with the synthesizer's own reader."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import _v2m_tinysoundfont as tinysoundfont  # pyright: ignore[reportMissingImports]
import numpy as np
import pytest
import soundfile

from v2m.core.errors import UsageError
from v2m.sketch.perform import soundfont as sf
from v2m.sketch.perform.soundfont import DRUM_BANK, Region, Sample, SoundFont, encode_soundfont, resolve_modulators
from v2m.sketch.perform.synthesizer import SoundFontSynth, cut_soundfont, measure_program

RATE = 48000
VELOCITY, KEY = 2, 3  # modulator sources
NEGATIVE, CONCAVE = 0x100, 0x400


def tone(frequency: float, seconds: float = 0.5) -> np.ndarray:
    return (12000 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * RATE)) / RATE)).astype(np.int16)


def sample(frequency: float, root: int = 69) -> Sample:
    return Sample(f"tone {frequency:g}", tone(frequency), (2400, 4800), RATE, root, 0)


def write(path: Path, presets: Mapping[tuple[int, int], list[Region]], samples: Mapping[int, Sample]) -> SoundFont:
    path.write_bytes(encode_soundfont({key: ("preset", regions) for key, regions in presets.items()}, samples))
    return SoundFont(path)


def play(data: Any, key: int = 69, velocity: int = 127, program: int = 0) -> np.ndarray:
    """Render 0.3 s of one note by TinySoundFont, mono."""
    synth = tinysoundfont.Synth(samplerate=RATE)
    synth.program_select(0, synth.sfload(data), 0, program)
    synth.noteon(0, key, velocity)
    return np.frombuffer(synth.generate_simple(int(0.3 * RATE)), np.float32).reshape(-1, 2).mean(1)


def level(sound: np.ndarray) -> float:
    return float(20 * np.log10(np.abs(sound[4800:]).max() + 1e-9))


def layered_file(path: Path) -> Path:
    """Write a file with global zones in preset and instrument, and preset zones of other ranges."""
    tables = {
        b"phdr": [(b"layers", 0, 0, 0, (0, 0, 0)), (b"EOP", 0, 0, 3, (0, 0, 0))],
        b"pbag": [(0, 0), (2, 0), (4, 0), (6, 0)],
        b"pgen": [(52, 20), (17, 100), (43, 60 | 72 << 8), (41, 0), (51, 12), (41, 0), (0, 0)],
        b"pmod": [(0, 0, 0, 0, 0)],
        b"inst": [(b"tones", 0), (b"EOI", 3)],
        b"ibag": [(0, 0), (2, 0), (5, 0), (7, 0)],
        b"igen": [(54, 1), (38, 1200), (43, 0 | 69 << 8), (52, 5), (53, 0), (43, 65 | 127 << 8), (53, 1), (0, 0)],
        b"imod": [(0, 0, 0, 0, 0)],
        b"shdr": [
            (b"low", 0, 24000, 2400, 4800, RATE, 69, 0, 0, 1),
            (b"high", 24046, 48046, 26446, 28846, RATE, 81, 0, 0, 1),
            (b"EOS", 0, 0, 0, 0, 0, 0, 0, 0, 0),
        ],
    }
    pause = np.zeros(46, np.int16)
    audio = np.concatenate([tone(440), pause, tone(880), pause]).tobytes()
    records = b"".join(sf._chunk(n, np.array(rows, sf._RECORDS[n]).tobytes()) for n, rows in tables.items())
    body = sf._chunk(b"LIST", b"INFO" + sf._chunk(b"ifil", b"\2\0\1\0"))
    body += sf._chunk(b"LIST", b"sdta" + sf._chunk(b"smpl", audio)) + sf._chunk(b"LIST", b"pdta" + records)
    path.write_bytes(sf._chunk(b"RIFF", b"sfbk" + body))
    return path


@pytest.mark.parametrize("key", [55, 62, 67, 72, 90])
def test_a_cut_file_sounds_as_the_whole_file(tmp_path: Path, key: int) -> None:
    """Zones are merged as the synthesizer's own reader merges them, but for a band's common attenuation."""
    path = layered_file(tmp_path / "whole.sf2")
    cut = cut_soundfont(SoundFont(path), {(0, 0): [(key, 127)]})
    ours, theirs = play(cut, key), play(str(path), key)
    assert np.abs(theirs).max() > 0.05
    assert level(ours) == pytest.approx(level(theirs), abs=0.4)
    scale = float(ours @ theirs) / float(ours @ ours)
    np.testing.assert_allclose(scale * ours, theirs, atol=1e-4)


def test_only_what_the_notes_need_is_cut_out(tmp_path: Path) -> None:
    regions = [Region(0, keys=(0, 59)), Region(1, keys=(60, 127)), Region(2, (60, 127), velocities=(0, 50))]
    samples = {0: sample(440), 1: sample(550), 2: sample(660)}
    whole = write(tmp_path / "whole.sf2", {(0, 0): regions, (0, 5): [Region(0)]}, samples)
    (tmp_path / "cut.sf2").write_bytes(cut_soundfont(whole, {(0, 0): [(72, 100)]}))
    cut = SoundFont(tmp_path / "cut.sf2")
    assert list(cut.presets) == [(0, 0)]
    (region,) = cut.regions((0, 0))
    np.testing.assert_array_equal(cut.sample(region.sample).data, samples[1].data)


def test_vorbis_samples_are_read(tmp_path: Path) -> None:
    stream = BytesIO()
    soundfile.write(stream, tone(440), RATE, format="OGG", subtype="VORBIS")
    coded = Sample("tone", stream.getvalue(), (2400, 4800), RATE, 69, -3)
    bank = write(tmp_path / "bank.sf3", {(0, 0): [Region(0)], (0, 9): [Region(1)]}, {0: coded, 1: coded})
    for index in (0, 1):
        decoded = bank.sample(index)
        assert (decoded.loop, decoded.rate, decoded.root, decoded.correction) == ((2400, 4800), RATE, 69, -3)
        assert np.corrcoef(decoded.data[:20000], tone(440)[:20000])[0, 1] > 0.99
    assert (tmp_path / "bank.sf3").stat().st_size < tone(440).nbytes


def test_a_written_file_is_read_as_it_was(tmp_path: Path) -> None:
    modulators = {sf.VELOCITY_TO_ATTENUATION: 700, (NEGATIVE | VELOCITY, 8, 0, 0): -2400}
    region = Region(0, (40, 50), (3, 90), {8: 9000, 17: -500, 54: 1, 58: 45}, modulators)
    (found,) = write(tmp_path / "bank.sf2", {(0, 3): [region]}, {0: sample(440)}).regions((0, 3))
    assert (found.keys, found.velocities, found.generators) == (region.keys, region.velocities, region.generators)
    assert found.modulators == modulators


@pytest.mark.parametrize(
    ("key", "velocity", "cutoff"), [(60, 127, 13500), (60, 1, 13500 - 2381), (127, 127, 13500 + 1000)]
)
def test_modulators_add_to_their_generators(key: int, velocity: int, cutoff: int) -> None:
    """Velocity closes a filter linearly; a bipolar key source is nearly 0 in the middle of the keyboard."""
    modulators = {(NEGATIVE | VELOCITY, 8, 0, 0): -2400, (0x200 | KEY, 8, 0, 0): 1000}
    resolved = resolve_modulators(Region(0, modulators=modulators), key, velocity)
    assert resolved.generators[8] == pytest.approx(cutoff, abs=60)
    assert not resolved.modulators


@pytest.mark.parametrize(("amount", "expected_db"), [(960, 24.08), (480, 12.04)])
def test_velocity_attenuates_by_the_banks_own_curve(tmp_path: Path, amount: int, expected_db: float) -> None:
    """Concave: amount 960 is the square of the velocity, 480 the velocity itself."""
    region = Region(0, generators={54: 1}, modulators={sf.VELOCITY_TO_ATTENUATION: amount})
    bank = write(tmp_path / "bank.sf2", {(0, 0): [region]}, {0: sample(440)})
    levels = []
    for velocity in (123, 27):  # in the middle of their bands
        data = cut_soundfont(bank, {(0, 0): [(69, velocity)]})
        levels.append(level(play(data, velocity=velocity)))
    assert levels[0] - levels[1] == pytest.approx(expected_db * np.log2(123 / 27) / 2, abs=0.6)


def test_attenuation_counts_as_on_the_hardware(tmp_path: Path) -> None:
    """100 centibels of a zone are 4 dB; those of a modulator 10 dB."""
    loud, soft, modulated = (
        write(tmp_path / f"{i}.sf2", {(0, 0): [region]}, {0: sample(440)})
        for i, region in enumerate(
            [
                Region(0, generators={54: 1, 48: 100}),
                Region(0, generators={54: 1, 48: 200}),
                Region(0, generators={54: 1, 48: 100}, modulators={(VELOCITY, 48, 0, 0): 100}),
            ]
        )
    )
    levels = [level(play(cut_soundfont(bank, {(0, 0): [(69, 127)]}))) for bank in (loud, soft, modulated)]
    assert levels[0] - levels[1] == pytest.approx(4.0, abs=0.1)
    assert levels[0] - levels[2] == pytest.approx(9.9, abs=0.4)


def test_a_missing_preset_is_replaced_by_the_nearest(tmp_path: Path) -> None:
    presets = {
        (bank, program): [Region(0)] for bank, program in [(0, 0), (0, 40), (0, 46), (8, 48), (128, 0), (128, 25)]
    }
    bank = write(tmp_path / "bank.sf2", presets, {0: sample(440)})
    wanted = [(0, 40), (0, 2), (0, 43), (0, 45), (0, 49), (DRUM_BANK, 25), (DRUM_BANK, 40)]
    expected = [(0, 40), (0, 0), (0, 40), (0, 46), (8, 48), (DRUM_BANK, 25), (DRUM_BANK, 0)]
    assert [bank.find_preset(*key) for key in wanted] == expected
    synth = SoundFontSynth(bank, RATE, {(0, 43): [(60, 80)], (DRUM_BANK, 40): [(36, 80)]})
    for channel, (program, drums) in enumerate([(43, False), (40, True)]):
        synth.select_program(channel, program, drums)
        synth.synth.noteon(channel, 36 if drums else 60, 80)
        assert np.abs(synth.render(4800)).max() > 0.01
    assert measure_program(bank, RATE, 43, False)[0] > -60


def test_notes_without_a_sample_are_silent(tmp_path: Path) -> None:
    bank = write(tmp_path / "bank.sf2", {(0, 0): [Region(0, keys=(40, 50))]}, {0: sample(440)})
    synth = SoundFontSynth(bank, RATE, {(0, 0): [(60, 80)]})
    synth.select_program(0, 0, False)
    synth.synth.noteon(0, 60, 80)
    assert not synth.render(4800).any()


def test_chunks_of_odd_size_are_read_without_a_pad_byte(tmp_path: Path) -> None:
    """As in MuseScore_General_Lite.sf3."""
    data = encode_soundfont({(0, 0): ("preset", [Region(0)])}, {0: sample(440.0)})
    at = data.index(b"smpl")
    size = int.from_bytes(data[at + 4 : at + 8], "little")
    for pad in (b"", b"\0"):
        sizes = [(size + extra + len(pad)).to_bytes(4, "little") for extra in (13, 1 - len(pad))]
        odd = data[: at - 8] + sizes[0] + b"sdtasmpl" + sizes[1] + data[at + 8 : at + 8 + size] + b"\1" + pad
        path = tmp_path / f"{len(pad)}.sf2"
        path.write_bytes(odd + data[at + 8 + size + size % 2 :])
        assert len(SoundFont(path).sample(0).data) == len(sample(440.0).data)


@pytest.mark.parametrize("damage", ["empty", "text", "header", "half"])
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = layered_file(tmp_path / "bank.sf2")
    whole = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "text": b"not a bank", "header": whole[:12], "half": whole[: len(whole) // 2]}[damage]
    )
    with pytest.raises(UsageError, match=r"bank\.sf2"):
        SoundFont(path)
