"""X-Codec: chunked processing, silence, and invalid bundles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from tests.fixtures.tiny.xcodec import write
from v2m.core.errors import DependencyError
from v2m.core.types import CodecSpec
from v2m.pretrained.codecs import xcodec
from v2m.pretrained.codecs.base import apply_chunked
from v2m.pretrained.codecs.xcodec import MARGIN_FRAMES, XCodec

CPU = torch.device("cpu")
CODES = (0, 1024)
STEP = 40
LONG = 2 * STEP + 3 * MARGIN_FRAMES + 7  # frames: chunks at the ends and between them, the last one short


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> XCodec:
    return XCodec.load(write(tmp_path_factory.mktemp("xcodec")), CPU)


def codes(frames: int, codebooks: int = 8) -> Tensor:
    return torch.randint(*CODES, (1, codebooks, frames), generator=torch.Generator().manual_seed(frames))


def noise(samples: int) -> Tensor:
    return 0.2 * torch.randn(1, 1, samples, generator=torch.Generator().manual_seed(samples))


def test_spec_and_hop_length(codec: XCodec) -> None:
    assert codec.spec == CodecSpec(16000, 50, 12, 1024, 1)
    assert codec.hop_length == 320


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("v2m.pretrained.codecs.xcodec.CHUNK_FRAMES", STEP)


@pytest.mark.usefixtures("small_chunks")
@torch.inference_mode()
def test_chunked_decode_matches_one_pass(codec: XCodec) -> None:
    long = codes(LONG)
    reference = codec.model.decode(long).audio_values
    result = codec.decode(long)
    assert result.shape == (1, 1, LONG * 320)
    assert (result - reference).abs().max() <= 1e-5


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("rest", [0, 60, 200, 315])
@torch.inference_mode()
def test_chunked_encode_matches_one_pass(codec: XCodec, rest: int) -> None:
    wave = noise(LONG * 320 + rest)
    result, reference = codec.encode(wave), codec.model.encode(wave, 4).audio_codes
    assert result.shape == reference.shape
    differing = (result != reference).any(dim=1).sum()
    assert differing <= 1, "rounding may change one frame where two entries are equally near"


@torch.inference_mode()
def test_receptive_field_of_the_decoder_is_within_the_margin(codec: XCodec) -> None:
    one = codes(4 * MARGIN_FRAMES)
    other = one.clone()
    other[..., 2 * MARGIN_FRAMES] = (other[..., 2 * MARGIN_FRAMES] + 1) % 1024
    changed_frames = (codec.decode(one) != codec.decode(other))[0, 0].nonzero() / 320 - 2 * MARGIN_FRAMES
    assert -MARGIN_FRAMES < changed_frames.min() < 0 < changed_frames.max() < MARGIN_FRAMES + 1


@torch.inference_mode()
def test_receptive_field_of_the_acoustic_encoder_is_within_the_margin(codec: XCodec) -> None:
    one = noise(4 * MARGIN_FRAMES * 320)
    other = one.clone()
    other[..., 2 * MARGIN_FRAMES * 320 : (2 * MARGIN_FRAMES + 1) * 320] += 0.5
    encoder = codec.model.acoustic_encoder
    changed_frames = (encoder(one) != encoder(other))[0].any(0).nonzero() - 2 * MARGIN_FRAMES
    assert -MARGIN_FRAMES < changed_frames.min() < 0 < changed_frames.max() < MARGIN_FRAMES


def test_apply_chunked_joins_chunks_of_any_length() -> None:
    for total in (1, 9, 10, 14, 15, 23, 40, 41):
        x = torch.arange(3 * total - 2).float()  # the last frame is incomplete
        joined = apply_chunked(lambda chunk: chunk.repeat_interleave(2), x, step=5, margin=2, in_stride=3, out_stride=6)
        assert torch.equal(joined, x.repeat_interleave(2)), total


def test_silence_codes_are_those_of_steady_zeros(codec: XCodec) -> None:
    silence = codec.silence_codes(8)
    steady = codec.encode(torch.zeros(1, 1, 16000 * 3))[0, :, 50:100]
    assert silence.dtype == torch.int64
    assert torch.equal(silence[:, None].expand_as(steady), steady)
    assert torch.equal(codec.silence_codes(1), silence[:1])


def test_encoding_is_deterministic(codec: XCodec) -> None:
    wave = noise(9600)
    assert torch.equal(codec.encode(wave), codec.encode(wave))


def test_invalid_codes_and_shapes_raise_assertion_errors(codec: XCodec) -> None:
    with pytest.raises(AssertionError, match="no such code"):
        codec.decode(codes(4) + 1024)
    with pytest.raises(AssertionError, match="codebooks"):
        codec.embed(codes(4, codebooks=13))
    with pytest.raises(AssertionError, match="less than a frame"):
        codec.encode(noise(300))


class Code:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (Path.touch, (Path("ran"),))


def _rewrite_checkpoint(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    path = folder / xcodec.CHECKPOINT
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint["codec_model"])
    torch.save(checkpoint, path)


def _hostile(folder: Path) -> None:
    torch.save({"codec_model": Code()}, folder / xcodec.CHECKPOINT)


def _truncated(folder: Path) -> None:
    path = folder / xcodec.CHECKPOINT
    path.write_bytes(path.read_bytes()[:100000])


def _without_codec(folder: Path) -> None:
    torch.save({"generator": {}}, folder / xcodec.CHECKPOINT)


def _generator(folder: Path, **changes: object) -> None:
    path = folder / xcodec.CONFIG
    config = yaml.safe_load(path.read_text())
    config["generator"]["config"] |= changes
    path.write_text(yaml.safe_dump(config))


INVALID: dict[str, tuple[Callable[[Path], object], str]] = {
    "hostile": (_hostile, "refused"),
    "truncated": (_truncated, "ckpt_00360000.pth"),
    "without the codec": (_without_codec, "no 'codec_model'"),
    "a weight missing": (lambda f: _rewrite_checkpoint(f, lambda s: s.pop("fc_prior.bias")), "fc.bias"),
    "a weight too many": (lambda f: _rewrite_checkpoint(f, lambda s: s.update(extra=torch.zeros(1))), "'extra'"),
    "a weight of another shape": (
        lambda f: _rewrite_checkpoint(f, lambda s: s.update({"fc_post1.bias": torch.zeros(3)})),
        "fc1.bias",
    ),
    "another codec's ratios": (lambda f: _generator(f, ratios=[8, 8, 4, 2]), "ratios"),
    "fewer codebooks": (lambda f: _generator(f, target_bandwidths=[0.5, 4]), "quantizers.8"),
    "bandwidths that are words": (lambda f: _generator(f, target_bandwidths=["x"]), "settings"),
    "settings of nothing": (lambda f: (f / xcodec.CONFIG).write_text("generator: 3"), "generator.config"),
    "settings that are no YAML": (lambda f: (f / xcodec.CONFIG).write_text("a: [1"), "not YAML"),
    "settings that are a list": (lambda f: (f / xcodec.CONFIG).write_text("- 1"), "no settings"),
    "HuBERT's settings broken": (lambda f: (f / xcodec.SEMANTIC_CONFIG).write_text("{"), "config.json"),
    "HuBERT's settings odd": (
        lambda f: (f / xcodec.SEMANTIC_CONFIG).write_text('{"hidden_size": "a"}'),
        "settings",
    ),
}


@pytest.mark.parametrize("kind", INVALID)
def test_invalid_bundle_is_reported_in_one_line(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    corrupt, message = INVALID[kind]
    corrupt(write(tmp_path))
    with pytest.raises(DependencyError) as caught:
        XCodec.load(tmp_path, CPU)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", [xcodec.CONFIG, xcodec.CHECKPOINT, xcodec.SEMANTIC_CONFIG])
def test_missing_file_is_named(name: str, tmp_path: Path) -> None:
    (write(tmp_path) / name).unlink()
    with pytest.raises(DependencyError, match=f"lacks {name}"):
        XCodec.load(tmp_path, CPU)


def test_folder_without_a_codec_is_refused_with_the_expected_repository(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DependencyError, match="m-a-p/xcodec_mini_infer"):
            XCodec.load(folder, CPU)
