"""Vocos decoders against a float64 reference: sums of cosines, frames added one by one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from tests.fixtures.tiny.xcodec import write
from v2m.core.errors import DependencyError
from v2m.generators.yue.audio import VOCODER_FILES
from v2m.pretrained.codecs import vocos
from v2m.pretrained.codecs.vocos import MARGIN_FRAMES, Vocos

CPU = torch.device("cpu")
VOCALS = VOCODER_FILES["vocals"]
WIDTH = 40  # of an embedding in the tiny bundle
STEP = 40
LONG = 2 * STEP + 3 * MARGIN_FRAMES + 7  # frames: chunks at the ends and between them, the last one short


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("vocos"))


@pytest.fixture(scope="module")
def decoder(folder: Path) -> Vocos:
    return Vocos.load(folder, VOCALS, CPU)


def embeddings(frames: int, batch: int = 1) -> Tensor:
    return torch.randn(batch, WIDTH, frames, generator=torch.Generator().manual_seed(frames))


def reference_decode(state: dict[str, Tensor], x: Tensor) -> np.ndarray:
    """(D, T) → (T · 882,) in float64."""
    weights = {key: value.double().numpy() for key, value in state.items()}

    def convolved(x: np.ndarray, name: str) -> np.ndarray:
        kernel, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        padded = np.pad(x, ((0, 0), (3, 3)))
        windows = np.stack([padded[:, t : t + 7] for t in range(x.shape[1])])  # (T, C, 7)
        if kernel.shape[1] == 1:  # each channel by itself
            return np.einsum("tck,ck->ct", windows, kernel[:, 0]) + bias[:, None]
        return np.einsum("tck,ock->ot", windows, kernel) + bias[:, None]

    def normalized(x: np.ndarray, name: str) -> np.ndarray:
        y = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-6)
        return y * weights[f"{name}.weight"][:, None] + weights[f"{name}.bias"][:, None]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"][:, None]

    y = normalized(convolved(x.double().numpy(), "backbone.embed"), "backbone.norm")
    for n in range(2):
        block = f"backbone.convnext.{n}"
        inner = linear(normalized(convolved(y, f"{block}.dwconv"), f"{block}.norm"), f"{block}.pwconv1")
        activated = inner * 0.5 * (1 + torch.erf(torch.from_numpy(inner) / 2**0.5).numpy())
        y = y + weights[f"{block}.gamma"][:, None] * linear(activated, f"{block}.pwconv2")
    out = linear(normalized(y, "backbone.final_layer_norm"), "head.out")
    return _overlap_add(out, weights["head.istft.window"])


def _overlap_add(out: np.ndarray, window: np.ndarray) -> np.ndarray:
    size, hop, frames = 3528, 882, out.shape[1]
    bins = size // 2 + 1
    magnitude, phase = np.minimum(np.exp(out[:bins]), 100.0), out[bins:]
    angles = 2 * np.pi * np.outer(np.arange(bins), np.arange(size)) / size
    cosines, sines = np.cos(angles), np.sin(angles)
    twice = np.where((np.arange(bins) == 0) | (np.arange(bins) == size // 2), 1.0, 2.0)[:, None]
    wave, power = np.zeros((frames - 1) * hop + size), np.zeros((frames - 1) * hop + size)
    for t in range(frames):
        a, b = (twice[:, 0] * magnitude[:, t] * f(phase[:, t]) for f in (np.cos, np.sin))
        frame = (a @ cosines - b @ sines) / size
        wave[t * hop : t * hop + size] += frame * window
        power[t * hop : t * hop + size] += window**2
    cut = (size - hop) // 2
    return wave[cut : cut + frames * hop] / power[cut : cut + frames * hop]


@pytest.mark.parametrize("name", VOCODER_FILES.values())
@pytest.mark.parametrize("frames", [1, 9])
def test_decode_matches_a_float64_reference(folder: Path, name: str, frames: int) -> None:
    x = embeddings(frames, batch=2)
    result = Vocos.load(folder, name, CPU).decode(x)
    assert result.shape == (2, 1, frames * 882)
    state = torch.load(folder / name, weights_only=True)
    for row in range(2):
        expected = reference_decode(state, x[row])
        assert expected.std() > 0.005
        np.testing.assert_allclose(result[row, 0].numpy(), expected, rtol=0, atol=1e-6)


def test_magnitudes_are_clipped_at_100(folder: Path, tmp_path: Path) -> None:
    state = torch.load(write(tmp_path) / VOCALS, weights_only=True)
    state["head.out.bias"][:1765] += 5
    torch.save(state, tmp_path / VOCALS)
    x = embeddings(3)
    result = Vocos.load(tmp_path, VOCALS, CPU).decode(x)[0, 0].numpy()
    expected = reference_decode(state, x[0])
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_chunked_decode_matches_one_pass(decoder: Vocos, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("v2m.pretrained.codecs.vocos.CHUNK_FRAMES", STEP)
    x = embeddings(LONG)
    reference, result = decoder(x), decoder.decode(x)
    assert result.shape == (1, 1, LONG * 882)
    assert (result - reference).abs().max() <= 1e-5


def test_receptive_field_is_within_the_margin(folder: Path) -> None:
    reach = 9 * 3 + (3528 - 882) / 2 / 882
    assert reach <= MARGIN_FRAMES
    decoder = Vocos.load(folder, VOCALS, CPU)
    one = embeddings(4 * MARGIN_FRAMES)
    other = one.clone()
    other[..., 2 * MARGIN_FRAMES] += 1
    changed_frames = (decoder(one) != decoder(other))[0, 0].nonzero() / 882 - 2 * MARGIN_FRAMES
    own = 3 * 3 + (3528 - 882) / 2 / 882  # two blocks in the tiny one
    assert -own <= changed_frames.min() < -own + 1
    assert own < changed_frames.max() < own + 1


def _weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    state = torch.load(folder / VOCALS, weights_only=True)
    change(state)
    torch.save(state, folder / VOCALS)


def _head(folder: Path, **changes: object) -> None:
    config = yaml.safe_load((folder / vocos.CONFIG).read_text())
    config["head"]["init_args"] |= changes
    (folder / vocos.CONFIG).write_text(yaml.safe_dump(config))


INVALID: dict[str, tuple[Callable[[Path], object], str]] = {
    "no decoder": (lambda f: (f / VOCALS).unlink(), f"lacks {VOCALS}"),
    "no settings": (lambda f: (f / vocos.CONFIG).unlink(), f"lacks {vocos.CONFIG}"),
    "settings without a head": (lambda f: (f / vocos.CONFIG).write_text("backbone: {}"), "'head'"),
    "settings of another kind": (lambda f: (f / vocos.CONFIG).write_text("head: 3"), "no Vocos decoder"),
    "other padding": (lambda f: _head(f, padding="center"), "'center'"),
    "hop that is none": (lambda f: _head(f, hop_length=0), "hop 0"),
    "no window": (lambda f: _weights(f, lambda s: s.pop("head.istft.window")), "head.istft.window"),
    "a weight missing": (lambda f: _weights(f, lambda s: s.pop("backbone.norm.bias")), "backbone.norm.bias"),
    "a weight too many": (lambda f: _weights(f, lambda s: s.update(extra=torch.zeros(1))), "extra"),
    "another shape": (lambda f: _weights(f, lambda s: s.update({"head.out.bias": torch.zeros(3)})), "head.out.bias"),
    "truncated": (
        lambda f: (f / VOCALS).write_bytes((f / VOCALS).read_bytes()[:9999]),
        "decoder_131000.pth",
    ),
    "a whole checkpoint": (lambda f: torch.save({"state": {}}, f / VOCALS), "no plain state dict"),
}


@pytest.mark.parametrize("kind", INVALID)
def test_invalid_decoder_is_reported_in_one_line(kind: str, tmp_path: Path) -> None:
    corrupt, message = INVALID[kind]
    corrupt(write(tmp_path))
    with pytest.raises(DependencyError) as caught:
        Vocos.load(tmp_path, VOCALS, CPU)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
