"""Decoding to audio: the crossover, gain matching, and exact output lengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchaudio.functional import resample

from tests.fixtures.tiny.xcodec import write
from v2m.core.timing import codec_frames, hop_length
from v2m.generators.yue.audio import BLOCK_SAMPLES, GAIN_RANGE, VOCODER_FILES, combine_bands, load_vocoders, render
from v2m.pretrained.codecs.vocos import Vocos
from v2m.pretrained.codecs.xcodec import XCodec

CPU = torch.device("cpu")
RATE = 44100
TIMES = torch.arange(RATE) / RATE  # one second: each whole frequency is a bin of its own


def sine(frequency: float, amplitude: float = 1.0, phase: float = 0.0) -> Tensor:
    return (amplitude * torch.cos(2 * torch.pi * frequency * TIMES.double() + phase)).float()


def phasor(wave: Tensor, frequency: float) -> complex:
    """Amplitude and phase of a cosine."""
    inner = wave[4410:39690].double()  # 0.8 s, whole periods of multiples of 5 Hz
    turning = torch.exp(-2j * torch.pi * frequency * TIMES[4410:39690].double())
    return complex(2 * (inner * turning).mean())


def noise(samples: int, seed: int = 0) -> Tensor:
    return 0.3 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def codec(folder: Path) -> XCodec:
    return XCodec.load(folder, CPU)


@pytest.fixture(scope="module")
def decoders(folder: Path) -> dict[str, Vocos]:
    return load_vocoders(folder, VOCODER_FILES, CPU)


def codes(frames: int, seed: int = 0) -> Tensor:
    return torch.randint(1024, (8, frames), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("samples", [100, 5000, 3 * BLOCK_SAMPLES + 11])
def test_combining_equal_inputs_returns_the_input(samples: int) -> None:
    wave = noise(samples) + 0.1
    assert (combine_bands(wave, wave) - wave).abs().max() <= 1e-6


def test_low_band_comes_from_the_codec_and_high_band_from_vocos() -> None:
    low = sine(1000, 0.4, phase=0.5) + sine(9000, 0.4)
    high = sine(1000, 0.2, phase=2.0) + sine(9000, 0.1, phase=1.0)
    joined = combine_bands(low, high)
    assert abs(phasor(joined, 1000) - 0.2 * np.exp(0.5j)) < 1e-4, "the codec's phase at Vocos' level"
    assert abs(phasor(joined, 9000) - 0.1 * np.exp(1.0j)) < 1e-4, "Vocos alone"


def test_equal_bands_keep_their_level_across_the_crossover() -> None:
    for frequency in (5000, 5300, 5500, 5700, 6000):
        wave = sine(frequency, 0.5)
        assert abs(phasor(combine_bands(wave, wave), frequency) - 0.5) < 1e-5


def test_each_band_contributes_half_at_the_crossover() -> None:
    base = sine(500, 0.5)
    joined = combine_bands(base + sine(5500, 0.01), base)
    assert abs(phasor(joined, 5500)) == pytest.approx(0.005, rel=0.02)


def test_dc_offset_comes_from_the_codec_only() -> None:
    loud = (0.4**2 + 2 * 0.2**2) ** 0.5  # of a sine as strong as one of 0.4 with an offset of 0.2
    assert phasor(combine_bands(sine(1000, 0.4) + 0.2, sine(1000, loud)), 0).real / 2 == pytest.approx(0.2, abs=1e-4)
    assert abs(phasor(combine_bands(sine(1000, loud), sine(1000, 0.4) + 0.2), 0)) / 2 < 1e-4


def test_crossover_filter_has_no_delay() -> None:
    click = torch.zeros(4000)
    click[1234] = 1.0
    assert int(combine_bands(click, torch.zeros(4000)).abs().argmax()) == 1234
    assert int(combine_bands(torch.zeros(4000), click).abs().argmax()) == 1234


def test_crossover_filter_is_continuous_across_blocks() -> None:
    clicks = torch.zeros(2 * BLOCK_SAMPLES + 777)
    places = [3000, BLOCK_SAMPLES - 1, BLOCK_SAMPLES, BLOCK_SAMPLES + 100, 2 * BLOCK_SAMPLES - 60]
    shapes = []
    for place in places:
        one = clicks.clone()
        one[place] = 1.0
        shapes.append(combine_bands(torch.zeros_like(one), one)[place - 200 : place + 200])
    for shape in shapes[1:]:
        assert (shape - shapes[0]).abs().max() < 1e-6


def test_silent_bands_give_finite_output() -> None:
    wave, nothing = sine(1000, 0.4) + sine(9000, 0.2), torch.zeros(RATE)
    assert torch.equal(combine_bands(nothing, nothing), nothing)
    only_high = combine_bands(nothing, wave)
    assert abs(phasor(only_high, 9000) - 0.2) < 1e-4
    assert abs(phasor(only_high, 1000)) < 1e-4
    only_low = combine_bands(wave, nothing)
    assert abs(phasor(only_low, 1000) - GAIN_RANGE[0] * 0.4) < 1e-4
    assert abs(phasor(only_low, 9000)) < 1e-4


@pytest.mark.parametrize(("level", "gain"), [(0.001, GAIN_RANGE[1]), (0.25, 2.0), (1.0, 0.5), (4.0, GAIN_RANGE[0])])
def test_gain_matching_is_clamped(level: float, gain: float) -> None:
    joined = combine_bands(sine(1000, level), sine(1000, 0.5, phase=1.0))
    assert abs(phasor(joined, 1000)) == pytest.approx(level * gain, rel=1e-3)


@pytest.mark.parametrize("samples", [1, 882 * 30 - 1, 882 * 30])
def test_stems_have_the_requested_length(codec: XCodec, decoders: dict[str, Vocos], samples: int) -> None:
    stems = render({"vocals": codes(30), "instrumental": codes(30, 1)}, codec, decoders, samples)
    assert list(stems) == ["vocals", "instrumental"]
    for wave in stems.values():
        assert wave.shape == (1, samples)
        assert wave.dtype == np.float32


def test_too_few_codes_raise_an_assertion_error(codec: XCodec, decoders: dict[str, Vocos]) -> None:
    with pytest.raises(AssertionError, match="shorter than"):
        render({"vocals": codes(30)}, codec, decoders, 882 * 30 + 1)


def test_only_requested_stems_are_rendered_with_their_own_vocoder(folder: Path, codec: XCodec) -> None:
    assert VOCODER_FILES == {"vocals": "decoders/decoder_131000.pth", "instrumental": "decoders/decoder_151000.pth"}
    both = load_vocoders(folder, VOCODER_FILES, CPU)
    alone = load_vocoders(folder, ["instrumental"], CPU)
    assert list(alone) == ["instrumental"]
    sung, played = (codec.decode(codes(30, k)[None])[0, 0] for k in (0, 1))
    stems = render({"instrumental": codes(30, 1)}, codec, alone, 882 * 30)
    assert list(stems) == ["instrumental"]
    stems |= render({"vocals": codes(30, 0)}, codec, both, 882 * 30)
    for name, k, narrow in (("vocals", 0, sung), ("instrumental", 1, played)):
        wide = Vocos.load(folder, VOCODER_FILES[name], CPU).decode(codec.embed(codes(30, k)[None]))[0, 0]
        low = resample(narrow, 16000, RATE, lowpass_filter_width=32)
        expected = combine_bands(low, wide).numpy()
        assert np.abs(expected).max() < 1.0
        np.testing.assert_allclose(stems[name][0], expected, atol=1e-6)


def test_clipping_mix_is_normalized_with_one_gain_for_all_stems(
    codec: XCodec, folder: Path, decoders: dict[str, Vocos]
) -> None:
    loud = load_vocoders(folder, VOCODER_FILES, CPU)
    for decoder in loud.values():
        bias = decoder.head.out.bias
        bias[:1765] += 4.0
    given = {"vocals": codes(40), "instrumental": codes(40, 1)}
    stems = render(given, codec, loud, 882 * 40)
    assert np.abs(stems["vocals"] + stems["instrumental"]).max() == pytest.approx(1.0, abs=1e-6)
    ratios = []
    for name, item in given.items():
        low = resample(codec.decode(item[None])[0, 0], 16000, RATE, lowpass_filter_width=32)
        whole = combine_bands(low, loud[name].decode(codec.embed(item[None]))[0, 0]).numpy()
        ratio = float(np.dot(stems[name][0], whole) / np.dot(whole, whole))
        np.testing.assert_allclose(stems[name][0], ratio * whole, atol=1e-5)
        ratios.append(ratio)
    assert ratios[0] == pytest.approx(ratios[1], rel=1e-5)
    assert ratios[0] < 0.9
    quiet = render(given, codec, decoders, 882 * 40)
    assert np.abs(quiet["vocals"] + quiet["instrumental"]).max() < 0.9, "and a quiet one is left as it is"


def test_codec_frames_round_up_and_hop_length_is_exact() -> None:
    assert [codec_frames(s, 50) for s in (0.0, 0.01, 0.02, 0.021, 30.0, 0.1 + 0.2)] == [0, 1, 1, 2, 1500, 15]
    assert (hop_length(RATE, 50), hop_length(16000, 50)) == (882, 320)
    with pytest.raises(AssertionError, match="no multiple"):
        hop_length(22050, 32)
