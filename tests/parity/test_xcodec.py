"""SoundStream as YuE published it, written out from its layout with plain operations, against the codec as loaded.

Consumes the published names and their weight norm directly; only HuBERT itself is transformers'.
B batch, C channels, N samples, T frames, D width.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv1d, conv_transpose1d, elu, pad
from transformers import HubertConfig, HubertModel, XcodecConfig, XcodecModel

from tests.fixtures.tiny.xcodec import PUBLISHED, write
from v2m.mappings.xcodec import from_transformers
from v2m.pretrained.codecs.xcodec import XCodec

CPU = torch.device("cpu")
TIE = 1e-5  # of a distance: two entries that are as near as that are told apart by rounding alone
STRIDES = (8, 5, 4, 2)


class SoundStream:
    def __init__(self, folder: Path) -> None:
        self.state: dict[str, Tensor] = torch.load(folder / "final_ckpt/ckpt_00360000.pth", weights_only=True)[
            "codec_model"
        ]
        self.hubert = HubertModel(
            HubertConfig(**json.loads((folder / "semantic_ckpts/hf_1_325000/config.json").read_text()))
        ).eval()
        prefix = "semantic_model."
        own = {key.removeprefix(prefix): value for key, value in self.state.items() if key.startswith(prefix)}
        self.hubert.load_state_dict(own)

    def normed(self, name: str) -> Tensor:
        v, g = self.state[f"{name}.weight_v"], self.state[f"{name}.weight_g"]
        rows = [g[i] * v[i] / v[i].square().sum().sqrt() for i in range(len(v))]
        return torch.stack(rows)

    def conv(self, x: Tensor, name: str, stride: int = 1, dilation: int = 1) -> Tensor:
        weight = self.normed(name)
        around = dilation * (weight.shape[2] - 1) // 2 if stride == 1 else -(-stride // 2)
        bias = self.state[f"{name}.bias"]
        return conv1d(x, weight, bias, stride=stride, padding=around, dilation=dilation)

    def snake(self, x: Tensor, name: str) -> Tensor:
        alpha = self.state[f"{name}.alpha"]
        return x + torch.sin(alpha * x) ** 2 / (alpha + 1e-9)

    def unit(self, x: Tensor, name: str, dilation: int) -> Tensor:
        y = self.conv(self.snake(x, f"{name}.block.0"), f"{name}.block.1", dilation=dilation)
        return x + self.conv(self.snake(y, f"{name}.block.2"), f"{name}.block.3")

    def acoustic(self, x: Tensor) -> Tensor:
        x = self.conv(x, "encoder.block.0")
        for n, stride in enumerate(STRIDES, 1):
            block = f"encoder.block.{n}.block"
            for k, dilation in enumerate((1, 3, 9)):
                x = self.unit(x, f"{block}.{k}", dilation)
            x = self.conv(self.snake(x, f"{block}.3"), f"{block}.4", stride=stride)
        return self.conv(self.snake(x, "encoder.block.5"), "encoder.block.6")

    def plain(self, x: Tensor, name: str) -> Tensor:
        weight = self.state[f"{name}.weight"]
        return conv1d(x, weight, self.state.get(f"{name}.bias"), padding=(weight.shape[2] - 1) // 2)

    def semantic(self, wave: Tensor) -> Tensor:
        states = self.hubert(pad(wave[:, 0], (160, 160)), output_hidden_states=True).hidden_states
        x = self.plain(torch.stack(states, 1).mean(1).transpose(1, 2), "encoder_semantic.conv.conv")
        for n in range(2):
            block = f"encoder_semantic.conv_blocks.{n}"
            for k in range(2):
                y = self.plain(elu(x), f"{block}.res_units.{k}.conv1.conv")
                x = x + self.plain(elu(y), f"{block}.res_units.{k}.conv2")
            x = self.plain(x, f"{block}.conv.conv")
        return x

    def linear(self, x: Tensor, name: str) -> Tensor:
        """(B, D, T) → (B, D', T)."""
        return (x.transpose(1, 2) @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]).transpose(1, 2)

    def book(self, k: int) -> Tensor:
        return self.state[f"quantizer.vq.layers.{k}._codebook.embed"]

    def encode(self, wave: Tensor, codebooks: int) -> tuple[Tensor, Tensor]:
        """The codes (B, K, T), and the frames (B, T) in which no codebook had a tie."""
        semantic, acoustic = self.semantic(wave), self.acoustic(wave)
        if acoustic.shape[2] != semantic.shape[2]:
            acoustic = self.acoustic(pad(wave, (160, 160)))
        rest = self.linear(torch.cat([acoustic, semantic], 1), "fc_prior").transpose(1, 2)  # (B, T, D)
        codes, decided = [], torch.ones(rest.shape[:2], dtype=torch.bool)
        for k in range(codebooks):
            distances = (rest[:, :, None] - self.book(k)).square().sum(-1)  # (B, T, 1024)
            codes.append(distances.argmin(-1))
            first, second = distances.topk(2, largest=False).values.unbind(-1)
            decided &= second - first > TIE * first
            rest = rest - self.book(k)[codes[-1]]
        return torch.stack(codes, 1), decided

    def embed(self, codes: Tensor) -> Tensor:
        return torch.stack([self.book(k)[codes[:, k]] for k in range(codes.shape[1])]).sum(0).transpose(1, 2)

    def decode(self, codes: Tensor) -> Tensor:
        x = self.conv(self.linear(self.embed(codes), "fc_post2"), "decoder_2.model.0")
        for n, stride in enumerate(STRIDES, 1):
            block = f"decoder_2.model.{n}.block"
            x = self.snake(x, f"{block}.0")
            weight, bias = self.normed(f"{block}.1"), self.state[f"{block}.1.bias"]
            extra = int(n == 2)
            x = conv_transpose1d(x, weight, bias, stride=stride, padding=-(-stride // 2), output_padding=extra)
            for k, dilation in enumerate((1, 3, 9)):
                x = self.unit(x, f"{block}.{k + 2}", dilation)
        return self.conv(self.snake(x, "decoder_2.model.5"), "decoder_2.model.6")


def same(found: Tensor, expected: tuple[Tensor, Tensor]) -> bool:
    """Whether all codes of all frames are equal, but for the very few frames with a tie."""
    codes, decided = expected
    assert decided.float().mean() > 0.95
    return found.shape == codes.shape and torch.equal(found.mT[decided], codes.mT[decided])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("xcodec"))


@pytest.fixture(scope="module")
def codec(folder: Path) -> XCodec:
    return XCodec.load(folder, CPU)


@pytest.fixture(scope="module")
def reference(folder: Path) -> SoundStream:
    return SoundStream(folder)


def noise(batch: int, samples: int) -> Tensor:
    random = torch.Generator().manual_seed(samples)
    swell = torch.linspace(0, 0.5, samples)
    return torch.randn(batch, 1, samples, generator=random) * swell


# whole frames; a rest too small for HuBERT; the smallest that it counts; a usual one; one that both halves count
@pytest.mark.parametrize("samples", [16000, 16079, 16080, 16200, 16315, 320])
@torch.inference_mode()
def test_codes_equal_the_published_codec(codec: XCodec, reference: SoundStream, samples: int) -> None:
    wave = noise(2, samples)
    assert same(codec.encode(wave, 8), reference.encode(wave, 8))


@torch.inference_mode()
def test_one_codebook_is_the_first_of_eight_and_of_twelve(codec: XCodec, reference: SoundStream) -> None:
    wave = noise(1, 9600)
    whole, decided = reference.encode(wave, 12)
    assert same(codec.encode(wave, 12), (whole, decided))
    assert same(codec.encode(wave, 1), (whole[:, :1], decided))
    assert len(whole.unique()) > 100, "the codes vary, so that being equal says something"


@pytest.mark.parametrize("codebooks", [1, 8])
@torch.inference_mode()
def test_audio_and_embeddings_equal_the_published_codec(codec: XCodec, reference: SoundStream, codebooks: int) -> None:
    codes = torch.randint(1024, (2, codebooks, 70), generator=torch.Generator().manual_seed(codebooks))
    expected = reference.decode(codes)
    assert expected.std() > 0.02
    assert torch.allclose(codec.decode(codes), expected, rtol=0, atol=1e-5)
    assert torch.allclose(codec.embed(codes), reference.embed(codes), rtol=0, atol=1e-5)


@pytest.mark.slow
@torch.inference_mode()
def test_published_size_loads_every_weight(tmp_path: Path) -> None:
    folder = write(tmp_path, sizes=PUBLISHED)
    codec, reference = XCodec.load(folder, CPU), SoundStream(folder)
    wave = noise(1, 16200)
    codes, decided = reference.encode(wave, 8)
    assert same(codec.encode(wave, 8), (codes, decided))
    assert torch.allclose(codec.decode(codes), reference.decode(codes), rtol=0, atol=1e-5)


@pytest.mark.slow
@torch.inference_mode()
def test_transformers_model_of_published_size_round_trips(tmp_path: Path) -> None:
    folder = write(tmp_path, sizes=PUBLISHED)
    torch.manual_seed(0)
    settings = json.loads((folder / "semantic_ckpts/hf_1_325000/config.json").read_text())
    bandwidths = [0.5, 1, 1.5, 2, 4, 6]
    model: Any = XcodecModel(XcodecConfig(target_bandwidths=bandwidths, semantic_model_config=settings)).eval()
    for quantizer in model.quantizer.quantizers:
        torch.nn.init.normal_(quantizer.codebook.embed)
    torch.save({"codec_model": from_transformers(model.state_dict())}, folder / "final_ckpt/ckpt_00360000.pth")
    codec, wave = XCodec.load(folder, CPU), noise(1, 16200)
    codes = model.encode(wave, 4).audio_codes
    assert (codec.encode(wave, 8) != codes).any(dim=1).sum() <= 1, "but for a tie"
    assert torch.allclose(codec.decode(codes), model.decode(codes).audio_values, rtol=0, atol=1e-5)
