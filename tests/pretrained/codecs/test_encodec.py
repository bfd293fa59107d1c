"""EnCodec: chunked processing, stereo interleaving, layouts of weights, and invalid files."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from encodec.model import EncodecModel as Package
from torch import Tensor

from tests.fixtures.tiny import encodec as tiny
from v2m.core.errors import DependencyError, UsageError
from v2m.core.protocols import Codec
from v2m.core.types import CodecSpec
from v2m.mappings.encodec import from_transformers
from v2m.pretrained.codecs import encodec
from v2m.pretrained.codecs.base import MARGIN_FRAMES, OVERLAP_FRAMES, EnCodec, InterleavedStereoCodec
from v2m.pretrained.safe_load import read_state_dict

CPU = torch.device("cpu")
STEP = 20
LONG = 2 * STEP + 3 * MARGIN_FRAMES + 7  # frames: chunks at the ends and between them, the last one short


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> EnCodec:
    return encodec.load_encodec(tiny.write(tmp_path_factory.mktemp("encodec")), CPU)


def noise(samples: int, channels: int = 1) -> Tensor:
    return 0.2 * torch.randn(1, channels, samples, generator=torch.Generator().manual_seed(samples))


def codes(frames: int) -> Tensor:
    return torch.randint(0, tiny.CODEBOOK_SIZE, (1, 4, frames), generator=torch.Generator().manual_seed(frames))


def test_spec_and_hop_length(codec: EnCodec) -> None:
    assert codec.spec == CodecSpec(32000, 50, 4, 64, 1)
    assert codec.hop_length == 640
    assert isinstance(codec, Codec)
    stereo = InterleavedStereoCodec(codec)
    assert isinstance(stereo, Codec)
    assert stereo.spec == CodecSpec(32000, 50, 8, 64, 2)


@pytest.mark.parametrize("rest", [0, 1, 200, 639])
def test_chunked_encode_and_decode_match_one_pass(codec: EnCodec, monkeypatch: pytest.MonkeyPatch, rest: int) -> None:
    wave, long = noise(LONG * 640 + rest), codes(LONG)
    reference_codes, reference_audio = codec.encode(wave), codec.decode(long)
    chunks: list[int] = []
    split = encodec.EnCodec._apply_chunked

    def apply_counted(self: EnCodec, apply: Callable[[Tensor], Tensor], x: Tensor, **lengths: int) -> Tensor:
        def apply_and_count(chunk: Tensor) -> Tensor:
            chunks.append(chunk.shape[-1])
            return apply(chunk)

        return split(self, apply_and_count, x, **lengths)

    monkeypatch.setattr("v2m.pretrained.codecs.base.CHUNK_FRAMES", STEP)
    monkeypatch.setattr("v2m.pretrained.codecs.base.EnCodec._apply_chunked", apply_counted)
    encoded, decoded = codec.encode(wave), codec.decode(long)
    assert len(chunks) > 6, "the input was split"
    assert encoded.shape == reference_codes.shape == (1, 4, LONG + (rest > 0))
    assert torch.equal(encoded, reference_codes)
    assert decoded.shape == (1, 1, LONG * 640)
    assert (decoded - reference_audio).abs().max() <= 1e-5


@torch.inference_mode()
def test_receptive_field_of_convolutions_is_within_the_margin(codec: EnCodec) -> None:
    from v2m.pretrained.codecs.base import _split_at_lstm

    far, _ = _split_at_lstm(codec._modules.encoder, 0)
    one = noise(4 * MARGIN_FRAMES * 640)
    other = one.clone()
    other[..., 2 * MARGIN_FRAMES * 640 : (2 * MARGIN_FRAMES + 1) * 640] += 0.5
    changed_frames = (far(one) != far(other))[0].any(0).nonzero() - 2 * MARGIN_FRAMES
    assert -MARGIN_FRAMES < changed_frames.min() < 0 < changed_frames.max() < MARGIN_FRAMES
    _, far = _split_at_lstm(codec._modules.decoder, 1)
    states = torch.randn(1, 64, 4 * MARGIN_FRAMES)
    others = states.clone()
    others[..., 2 * MARGIN_FRAMES] += 1
    changed_frames = (far(states) != far(others))[0, 0].nonzero() / 640 - 2 * MARGIN_FRAMES
    assert -MARGIN_FRAMES < changed_frames.min() < 0 < changed_frames.max() < MARGIN_FRAMES + 1


def test_lstm_state_lasts_beyond_the_margin(codec: EnCodec) -> None:
    """Ensure that the LSTM has an effect that chunking could lose."""
    one, other = codes(3 * MARGIN_FRAMES), codes(3 * MARGIN_FRAMES)
    other[..., 0] = (other[..., 0] + 7) % tiny.CODEBOOK_SIZE
    later = (codec.decode(one) - codec.decode(other))[..., 2 * MARGIN_FRAMES * 640 :]
    assert later.abs().max() > 1e-6


def test_interleaved_stereo_codec_codes_channels_independently(codec: EnCodec) -> None:
    stereo, wave = InterleavedStereoCodec(codec), noise(6400, channels=2)
    encoded = stereo.encode(wave)
    assert torch.equal(encoded[:, 0::2], codec.encode(wave[:, :1]))
    assert torch.equal(encoded[:, 1::2], codec.encode(wave[:, 1:]))
    decoded = stereo.decode(encoded)
    torch.testing.assert_close(decoded[:, 1:], codec.decode(encoded[:, 1::2]), rtol=0, atol=1e-5)
    assert (decoded[:, 1:] - decoded[:, :1]).abs().max() > 0.05


def test_invalid_codes_and_shapes_raise_assertion_errors(codec: EnCodec) -> None:
    with pytest.raises(AssertionError, match="no such code"):
        codec.decode(codes(4) + tiny.CODEBOOK_SIZE)
    with pytest.raises(AssertionError, match="no such code"):
        codec.decode(codes(4) - tiny.CODEBOOK_SIZE)
    with pytest.raises(AssertionError, match="5 of 4 codebooks"):
        codec.decode(torch.zeros(1, 5, 3, dtype=torch.long))
    with pytest.raises(AssertionError, match="1 channels, not 2"):
        codec.encode(noise(640, channels=2))
    with pytest.raises(AssertionError, match="no sound"):
        codec.encode(torch.zeros(1, 1, 0))
    with pytest.raises(AssertionError, match="expected"):
        codec.decode(codes(3)[0])
    with pytest.raises(AssertionError, match="7 codebooks"):
        InterleavedStereoCodec(codec).decode(torch.zeros(1, 7, 3, dtype=torch.long))


def test_chunk_model_covers_any_length_without_gap_or_overlap() -> None:
    """`facebook/encodec_48khz` in transformers' layout, narrower: a second at a time, of 15 frames here."""
    settings = tiny.make_config(
        sample_rate=4800,
        upsampling_ratios=[8, 5, 4, 2],
        norm_type="time_group_norm",
        use_conv_shortcut=True,
        normalize=True,
        chunk_length_s=1.0,
        overlap=0.01,
        audio_channels=2,
        target_bandwidths=[15 * 6 * 4 / 1000],
    )
    model: Any = tiny.make_model(settings)
    codec = encodec.load_encodec(Path("given"), CPU, config=settings.to_dict(), state=model.state_dict())
    assert codec.spec == CodecSpec(4800, 15, 4, 64, 2)
    for frames in (1, 14, 15, 16, 17, 28, 29, 40, 41):
        wave = noise(frames * 320 - 100, channels=2)
        encoded, scales = codec.encode_scaled(wave)
        assert encoded.shape == (1, 4, frames)
        chunks = codec._chunks(frames)
        assert scales.shape == (1, len(chunks))
        assert codec.decode(encoded, scales).shape == (1, 2, frames * 320)
        assert all(end - start == 15 for start, _, end in chunks) or frames < 15
        joins = [start + skip for start, skip, _ in chunks]
        assert joins == [0, *(end - OVERLAP_FRAMES for _, _, end in chunks[:-1])]
        assert chunks[-1][2] == frames
    one = model.encode(noise(4800, channels=2), return_dict=True)
    assert torch.equal(codec.encode(noise(4800, channels=2)), one.audio_codes[0])


@pytest.mark.parametrize(("name", "channels", "frames"), [("encodec_24khz", 1, 75), ("encodec_48khz", 2, 150)])
def test_encodec_package_weights_are_loaded_by_file_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, channels: int, frames: int
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(0)
        make = Package.encodec_model_24khz if channels == 1 else Package.encodec_model_48khz
        reference = make(pretrained=False)
    path = tmp_path / "hub" / "checkpoints" / f"{name}-01234567.th"
    path.parent.mkdir(parents=True)
    torch.save(reference.state_dict(), path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    reference.set_target_bandwidth(6.0)
    wave = noise(2000, channels=channels)
    with torch.inference_mode():
        ((expected, _),) = reference.encode(wave)
    for place in (path, path.parent, Path(name)):
        codec = encodec.load_encodec(place, CPU, bandwidth=6.0)
        assert codec.spec == CodecSpec(320 * frames, frames, expected.shape[1], 1024, channels)
    assert torch.equal(codec.encode(wave), expected)
    with pytest.raises(UsageError, match="6, 12, 24 kbit/s, not 7"):
        encodec.load_encodec(path, CPU, bandwidth=7)
    other = {"encodec_24khz": "encodec_48khz", "encodec_48khz": "encodec_24khz"}[name]
    with pytest.raises(DependencyError, match=f"not the weights of {other}"):
        encodec.load_encodec(path.rename(path.with_name(f"{other}-01234567.th")), CPU)
    with pytest.raises(DependencyError, match=f"'{name}' is not in .*download"):
        encodec.load_encodec(Path(name), CPU)


def test_audiocraft_file_may_refer_to_another_codec(tmp_path: Path) -> None:
    named = tiny.write(tmp_path / "codec", seed=5)
    tiny.write_audiocraft_codec_name(tmp_path / "m" / encodec.AUDIOCRAFT_FILE, str(named))
    wave = noise(3200)
    assert torch.equal(
        encodec.load_encodec(tmp_path / "m", CPU).encode(wave), encodec.load_encodec(named, CPU).encode(wave)
    )


def test_unsupported_bandwidth_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"offers 1\.2 kbit/s, not 6"):
        encodec.load_encodec(tiny.write(tmp_path), CPU, bandwidth=6)


def _state(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    from safetensors.torch import save_file

    state = {key: value.clone() for key, value in read_state_dict(folder).items()}
    change(state)
    save_file(state, folder / "model.safetensors")


def _config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _audiocraft(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    state = from_transformers(read_state_dict(folder))
    for path in folder.iterdir():
        path.unlink()
    checkpoint = {"best_state": state, "xp.cfg": tiny.audiocraft_config()}
    change(checkpoint)
    if isinstance(checkpoint.get("xp.cfg"), dict):
        checkpoint["xp.cfg"] = yaml.safe_dump(checkpoint["xp.cfg"])
    torch.save(checkpoint, folder / encodec.AUDIOCRAFT_FILE)


class Code:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (Path.touch, (Path("ran"),))


BIAS = "decoder.layers.0.conv.bias"
INVALID: dict[str, tuple[Callable[[Path], object], str]] = {
    "another family": (lambda f: _config(f, model_type="llama"), "model_type 'llama', not 'encodec'"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "holds no weights"),
    "truncated": (lambda f: (f / "model.safetensors").write_bytes(b"0" * 99), "truncated"),
    "nothing": (lambda f: [path.unlink() for path in f.iterdir()], "holds no codec"),
    "a weight missing": (lambda f: _state(f, lambda s: s.pop(BIAS)), BIAS),
    "a weight too many": (lambda f: _state(f, lambda s: s.update(extra=torch.zeros(1))), "extra"),
    "another shape": (lambda f: _state(f, lambda s: s.update({BIAS: torch.zeros(3)})), BIAS),
    "no numbers": (lambda f: _state(f, lambda s: s[BIAS].fill_(torch.nan)), BIAS),
    "entries that are no power of 2": (lambda f: _config(f, codebook_size=65), "power of 2"),
    "fewer codebooks than weights": (lambda f: _config(f, target_bandwidths=[0.6]), "quantizer.layers.2"),
    "no whole frames": (lambda f: _config(f, sampling_rate=32001, target_bandwidths=[1.224]), "32001 Hz"),
    "hostile": (lambda f: _audiocraft(f, lambda h: h.update(best_state=Code())), "refused"),
    "another codec's name": (lambda f: _audiocraft(f, lambda h: h.update(pretrained="dac_44khz")), "dac_44khz"),
    "a language model": (lambda f: _audiocraft(f, lambda h: h["xp.cfg"].pop("compression_model")), "not an EnCodec"),
    "without settings": (lambda f: _audiocraft(f, lambda h: h.pop("xp.cfg")), "no xp.cfg"),
    "settings that are no YAML": (lambda f: _audiocraft(f, lambda h: h.update({"xp.cfg": "a: [1"})), "not YAML"),
    "an unknown weight": (
        lambda f: _audiocraft(f, lambda h: h["best_state"].update(odd=torch.zeros(1))),
        "it has no 'odd'",
    ),
    "entries that contradict": (
        lambda f: _audiocraft(f, lambda h: h["xp.cfg"]["rvq"].update(bins=128)),
        "settings of 4 codebooks of 128 entries go with weights of 4 codebooks of 64 entries",
    ),
}


@pytest.mark.parametrize("kind", INVALID)
def test_invalid_codec_files_are_reported_in_one_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    corrupt, message = INVALID[kind]
    folder = tiny.write(tmp_path / "codec")
    corrupt(folder)
    with pytest.raises(DependencyError) as caught:
        encodec.load_encodec(folder, CPU)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()
