"""Codecs and the text encoder against the libraries they come from, on the same random weights."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from encodec.model import EncodecModel as Package
from encodec.modules.seanet import SEANetDecoder, SEANetEncoder
from encodec.quantization.vq import ResidualVectorQuantizer
from torch import Tensor
from transformers import EncodecModel, T5EncoderModel, T5Tokenizer

from tests.fixtures.tiny import encodec as tiny
from tests.fixtures.tiny import t5 as tiny_t5
from v2m.mappings import encodec as convert
from v2m.pretrained.codecs import encodec
from v2m.pretrained.codecs.base import DEFAULT_RMS, EnCodec, InterleavedStereoCodec
from v2m.pretrained.text import T5TextEncoder

CPU = torch.device("cpu")
TOLERANCE = 1e-5


def noise(samples: int, channels: int = 1, batch: int = 2, seed: int = 0) -> Tensor:
    """Noise whose loudness differs from one sound to the next."""
    wave = torch.randn(batch, channels, samples, generator=torch.Generator().manual_seed(seed))
    return wave * torch.tensor([0.2, 0.05, 0.4])[:batch, None, None]


def agree(codec: EnCodec, wave: Tensor, codes: Tensor, sound: Tensor) -> None:
    """Encoding gives `codes`, decoding these gives `sound`, and both are more than one value."""
    found = codec.encode(wave)
    assert torch.equal(found, codes)
    assert all(len(found[:, k].unique()) > 4 for k in range(found.shape[1]))
    heard = codec.decode(codes)
    assert heard.shape == (*wave.shape[:2], codes.shape[2] * codec.hop_length)
    assert sound.std() > 0.01
    assert (heard - sound[..., : heard.shape[2]]).abs().max() <= TOLERANCE


@pytest.mark.parametrize("samples", [32000, 9999, 641, 100])
@torch.inference_mode()
def test_encodec_32khz_equals_transformers(tmp_path: Path, samples: int) -> None:
    reference: Any = EncodecModel.from_pretrained(tiny.write(tmp_path))
    wave = noise(samples)
    codes = reference.encode(wave, bandwidth=1.2).audio_codes[0]
    codec, sound = encodec.load_encodec(tmp_path, CPU), reference.decode(codes[None], [None]).audio_values
    assert torch.equal(codec.encode(wave), codes)
    assert (codec.decode(codes) - sound).abs().max() <= TOLERANCE


@torch.inference_mode()
def test_causal_encodec_equals_transformers_at_every_bandwidth(tmp_path: Path) -> None:
    """As `facebook/encodec_24khz` is."""
    settings = tiny.make_config(
        sample_rate=24000,
        upsampling_ratios=[8, 5, 4, 2],
        use_causal_conv=True,
        use_conv_shortcut=True,
        target_bandwidths=[0.9, 1.8, 3.6],
    )
    reference: Any = tiny.make_model(settings)
    wave = noise(12000)
    for bandwidth, codebooks in ((0.9, 2), (1.8, 4), (None, 8)):
        codes = reference.encode(wave, bandwidth=bandwidth or 3.6).audio_codes[0]
        codec = encodec.load_encodec(
            tmp_path, CPU, config=settings.to_dict(), state=reference.state_dict(), bandwidth=bandwidth
        )
        assert codec.spec.num_codebooks == codes.shape[1] == codebooks
        agree(codec, wave, codes, reference.decode(codes[None], [None]).audio_values)


@pytest.mark.parametrize(
    "sizes",
    [{}, {"true_skip": False, "n_residual_layers": 2}, {"causal": True}, {"norm": "time_group_norm"}, {"channels": 2}],
    ids=str,
)
@torch.inference_mode()
def test_converted_audiocraft_model_is_equal(tmp_path: Path, sizes: dict[str, Any]) -> None:
    path = tiny.write_audiocraft_codec(tmp_path / encodec.AUDIOCRAFT_FILE, **sizes)
    reference = tiny.audiocraft_model(tiny.audiocraft_config(**sizes))
    wave = noise(16000, channels=sizes.get("channels", 1))
    codes, scale = reference.encode(wave)
    assert scale is None
    agree(encodec.load_encodec(path.parent, CPU), wave, codes, reference.decode(codes))


@torch.inference_mode()
def test_converted_transformers_model_equals_audiocraft() -> None:
    settings = tiny.make_config(pad_mode="constant", num_residual_layers=2, use_conv_shortcut=True)
    mine: Any = tiny.make_model(settings, seed=3)
    theirs = tiny.audiocraft_model(convert.config_from_transformers(settings.to_dict()))
    theirs.load_state_dict(convert.from_transformers(mine.state_dict()))
    wave = noise(16000)
    codes = theirs.encode(wave)[0]
    assert torch.equal(codes, mine.encode(wave, bandwidth=1.2).audio_codes[0])
    sound = mine.decode(codes[None], [None]).audio_values
    assert (theirs.decode(codes) - sound).abs().max() <= TOLERANCE


@torch.inference_mode()
def test_renormalized_audio_equals_audiocraft_including_scale(tmp_path: Path) -> None:
    settings = tiny.audiocraft_config()
    settings["encodec"]["renormalize"] = True
    reference = tiny.audiocraft_model(settings)
    state = convert.to_transformers(reference.state_dict())
    codec = encodec.load_encodec(tmp_path, CPU, config=convert.config_to_transformers(settings), state=state)
    wave = noise(16000)
    codes, scale = reference.encode(wave)
    found, scales = codec.encode_scaled(wave)
    assert torch.equal(found, codes)
    torch.testing.assert_close(scales, scale)
    assert (codec.decode(codes, scales) - reference.decode(codes, scale)).abs().max() <= TOLERANCE
    level = torch.full((2, 1), DEFAULT_RMS)
    torch.testing.assert_close(codec.decode(codes), codec.decode(codes, level))


@torch.inference_mode()
def test_stereo_interleaving_equals_audiocraft(tmp_path: Path) -> None:
    from audiocraft.models.encodec import InterleaveStereoCompressionModel

    path = tiny.write_audiocraft_codec(tmp_path / encodec.AUDIOCRAFT_FILE)
    reference = InterleaveStereoCompressionModel(tiny.audiocraft_model(tiny.audiocraft_config()))
    codec, wave = InterleavedStereoCodec(encodec.load_encodec(path.parent, CPU)), noise(16000, channels=2, batch=3)
    codes = reference.encode(wave)[0]
    assert codec.spec.channels == 2
    assert codec.spec.num_codebooks == codes.shape[1] == 8
    assert torch.equal(codec.encode(wave), codes)
    assert (codec.decode(codes) - reference.decode(codes)).abs().max() <= TOLERANCE


def package(*, chunked: bool) -> Any:
    """The package's classes as its 24 and 48 kHz models are built, narrower."""
    shape: Any = {"channels": 1 + chunked, "norm": "time_group_norm" if chunked else "weight_norm"}
    shape |= {"causal": not chunked, "n_filters": 4, "dimension": 16}
    with torch.random.fork_rng([]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(0)
        encoder, decoder = SEANetEncoder(**shape), SEANetDecoder(**shape)
        rate = 48000 if chunked else 24000
        bits = 6 * rate // 320 / 1000  # of a codebook with 64 entries, in thousands a second
        quantizer = ResidualVectorQuantizer(dimension=16, n_q=8, bins=64)
        chunks: Any = {"normalize": True, "segment": 1.0} if chunked else {}
        model = Package(encoder, decoder, quantizer, [2 * bits, 4 * bits], rate, shape["channels"], **chunks).eval()
        tiny.randomize(encoder, decoder, quantizer.vq.layers, shape["channels"])
    return model


@pytest.mark.parametrize("chunked", [False, True], ids=["24 kHz", "48 kHz"])
@torch.inference_mode()
def test_encodec_package_gives_equal_codes_and_audio(*, chunked: bool) -> None:
    reference = package(chunked=chunked)
    bandwidth = reference.target_bandwidths[0]
    codec = encodec.wrap_package_model(reference, bandwidth, "tiny")
    reference.set_target_bandwidth(bandwidth)
    wave = noise(33333, channels=reference.channels)
    ((codes, scale),) = reference.encode(wave)
    sound = reference.decode([(codes, scale)])
    found, scales = codec.encode_scaled(wave)
    assert codec.spec.num_codebooks == codes.shape[1] == 2
    assert torch.equal(found, codes)
    assert (codec.decode(codes, scales) - sound).abs().max() <= TOLERANCE
    assert torch.allclose(scales, torch.ones(2, 1) if scale is None else scale)


@torch.inference_mode()
def test_encodec_package_agrees_on_every_second_of_longer_audio() -> None:
    """Each chunk by itself is the package's; what stands between two is a fade of a hundredth of a second or so."""
    reference = package(chunked=True)
    codec = encodec.wrap_package_model(reference, None, "tiny")
    wave = noise(48000 * 5 // 2, channels=2)
    starts = [0, 47360, 72000]  # two frames before the end of the one before; a second before the end of all
    single = [reference._encode_frame(wave[..., start : start + 48000]) for start in starts]
    codes, scales = codec.encode_scaled(wave)
    assert codes.shape[2] == 375
    kept = [single[0][0][..., :148], single[1][0][..., :148], single[2][0][..., 71:]]
    assert torch.equal(codes, torch.cat(kept, dim=2))
    assert torch.allclose(scales, torch.cat([scale for _, scale in single], dim=1))
    sound = codec.decode(codes, scales)
    assert sound.shape == wave.shape
    first, second, last = (reference._decode_frame(chunk) for chunk in _chunks(codes, scales))
    assert (sound[..., 48000:94720] - second[..., 640:47360]).abs().max() <= TOLERANCE
    assert (sound[..., :47360] - first[..., :47360]).abs().max() <= TOLERANCE
    assert (sound[..., 95360:] - last[..., 95360 - 72000 :]).abs().max() <= TOLERANCE


def _chunks(codes: Tensor, scales: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(codes[..., start : start + 150], scales[:, [n]]) for n, start in enumerate((0, 148, 225))]


@torch.inference_mode()
def test_t5_equals_transformers_and_batch_equals_rows(tmp_path: Path) -> None:
    tiny_t5.write(tmp_path)
    reference: Any = T5EncoderModel.from_pretrained(tmp_path)
    words: Any = T5Tokenizer.from_pretrained(tmp_path, local_files_only=True)
    texts = ["A calm ambient piece, 96 bpm", "funk", "Dark cinematic strings and a solo flute in D minor"]
    encoder = T5TextEncoder.load(tmp_path, CPU)
    tokens, mask, _ = encoder.encode(texts)
    assert tokens.shape == (*mask.shape, encoder.dim)
    for row, text in enumerate(texts):
        alone = reference(**words(text, return_tensors="pt")).last_hidden_state[0]
        assert mask[row].tolist() == [True] * len(alone) + [False] * (mask.shape[1] - len(alone))
        assert (tokens[row, : len(alone)] - alone).abs().max() <= TOLERANCE
        assert not tokens[row, len(alone) :].any()
        torch.testing.assert_close(encoder.encode([text]).tokens[0], alone, rtol=0, atol=TOLERANCE)
