"""S-KEY's front end and network: its filters, PyTorch's layers, transposition, short audio, sample rates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from v2m.analysis import key_network
from v2m.analysis.key_network import _constant_q, _forward, key_probabilities, load_weights
from v2m.core.types import Audio

RATE = 22050
SONG = ((9, 0, 4), (5, 9, 0), (0, 4, 7), (7, 11, 2)) * 2  # A minor, F, C, G


def song(shift: int = 0, rate: int = RATE, chords: int = len(SONG)) -> Audio:
    t = np.arange(rate) / rate
    parts = []
    for chord in SONG[:chords]:
        hertz = [440 * 2 ** ((octave + (note + shift) % 12 - 69) / 12) for note in chord for octave in (48, 60)]
        parts.append(sum(np.sin(2 * np.pi * f * k * t) / k for f in hertz for k in range(1, 6)) * np.exp(-t))
    return Audio(0.05 * np.concatenate(parts)[None].astype(np.float32), rate)


@pytest.mark.parametrize("midi", [33, 57, 83, 100])
def test_filter_of_a_tone_is_that_of_a_hann_window(midi: int) -> None:
    t = np.arange(3 * RATE) / RATE
    levels = []
    for cents in (0, 50):
        tone = np.sin(2 * np.pi * 440 * 2 ** ((midi + cents / 100 - 69) / 12) * t)
        levels.append(_constant_q(Audio(tone[None].astype(np.float32), RATE))[len(t) * 43 // RATE // 2])
    assert levels[0].argmax() == midi - 21
    # 50 cents are half a bin of a window of Q periods, where a Hann window's response is 1.42 dB down.
    assert levels[0][midi - 21] - levels[1][midi - 21] == pytest.approx(1.42, abs=0.3)


def reference(spectrum: np.ndarray) -> np.ndarray:
    """The published layers in PyTorch: (2, 12) logits from A major and B minor on."""
    weights = {name: torch.from_numpy(array) for name, array in load_weights().items()}

    def load(module: nn.Module, prefix: str) -> nn.Module:
        part = {k[len(prefix) + 1 :]: v for k, v in weights.items() if k.startswith(f"{prefix}.")}
        module.load_state_dict(part, strict=False)
        return module.eval()

    x = torch.from_numpy(spectrum.T)[None, None]  # (1, C, F, T)
    with torch.no_grad():
        for layer in range(7):
            name = f"time_downsampling_blocks.{layer}.conv"
            conv = load(nn.Conv2d(x.shape[1], len(weights[f"{name}.bias"]), (1, 2), stride=(1, 2)), name)
            x = functional.gelu(conv(functional.layer_norm(x, x.shape[1:])))
            name = f"convnext_blocks.{layer}"
            channels, size = x.shape[1], weights[f"{name}.dwconv.weight"].shape[-1]
            conv = nn.Conv2d(channels, channels, size, padding=size // 2, groups=channels, padding_mode="replicate")
            y = load(conv, f"{name}.dwconv")(x)
            y = functional.layer_norm(y, y.shape[1:]).permute(0, 2, 3, 1)
            y = functional.gelu(load(nn.Linear(channels, 4 * channels), f"{name}.pwconv1")(y))
            y = load(nn.Linear(4 * channels, channels), f"{name}.pwconv2")(y)
            x = x + (weights[f"{name}.gamma"] * y).permute(0, 3, 1, 2)
        x = x.unflatten(2, (7, 12)).mean(dim=2).mean(dim=-1, keepdim=True)  # octaves, then time
        x = load(nn.Conv2d(3, 2, 1), "classifier")(x)
        return load(nn.BatchNorm2d(2, affine=False), "batch_norm")(x)[0, ..., 0].numpy()


def test_network_equals_the_layers_of_pytorch() -> None:
    spectrum = _constant_q(song())
    major, minor = reference(spectrum)
    expected = np.stack([np.roll(major, -3), np.roll(minor, -1)])  # C is the 4th after A, the 2nd after B
    np.testing.assert_allclose(_forward(spectrum, load_weights()), expected, atol=0.02)


@pytest.mark.parametrize("shift", [0, 5])
def test_most_probable_key_moves_with_the_music(shift: int) -> None:
    probabilities = key_probabilities(song(shift))
    assert probabilities.shape == (2, 12)
    assert probabilities.sum() == pytest.approx(1)
    assert probabilities.argmax() in {shift % 12, 12 + (9 + shift) % 12}  # C major or its relative, A minor


def test_every_sample_rate_gives_the_same_probabilities() -> None:
    expected = key_probabilities(song())
    for rate in (32000, 48000):
        np.testing.assert_allclose(key_probabilities(song(rate=rate)), expected, atol=0.02)


def test_audio_shorter_than_the_network_has_probabilities() -> None:
    for audio in (song(chords=1), Audio(np.zeros((1, 1), np.float32), RATE)):
        assert np.isfinite(key_probabilities(audio)).all()


def test_probabilities_of_long_music_are_those_of_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A passage in another key counts by its length; the whole at once would not give the parts' mean."""
    monkeypatch.setattr(key_network, "SEGMENT_S", 8.0)
    first, second = song(), song(1)
    both = Audio(np.concatenate([first.samples, second.samples], axis=1), RATE)
    logs = [np.log(key_probabilities(part)) for part in (first, second)]
    expected = np.exp(np.mean(logs, axis=0))
    np.testing.assert_allclose(key_probabilities(both), expected / expected.sum(), atol=0.02)
