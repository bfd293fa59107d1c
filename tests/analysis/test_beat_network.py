"""BeatNet's front end and network: the published sizes, PyTorch's layers, blocks, sample rates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.analysis.bars import bars
from v2m.analysis import beat_network
from v2m.analysis.beat_network import beat_activations, filterbank, load_weights
from v2m.core.types import Audio

BEATS = np.arange(0.3, 5.8, 0.5)


def music(rate: int = 22050) -> Audio:
    return bars(BEATS, np.arange(len(BEATS)) % 4 == 0, 6.0, rate)


def features(audio: Audio) -> np.ndarray:
    return np.concatenate(list(beat_network._features(audio)))


def test_front_end_has_the_sizes_that_the_networks_were_trained_with() -> None:
    assert filterbank().shape == (705, 136)
    np.testing.assert_allclose(filterbank().sum(axis=0), 1, rtol=1e-5)
    assert features(music()).shape == (300, 272)
    assert load_weights()["linear0.weight"].shape == (2, 150, 262)


def test_features_are_log_magnitudes_of_the_bands_and_their_rises() -> None:
    audio = music()
    mono, frame = np.pad(audio.samples.mean(axis=0), 705), 41
    spectra = [np.abs(np.fft.fft(mono[441 * k : 441 * k + 1411] * np.hanning(1411)))[:705] for k in (frame - 1, frame)]
    before, after = (np.log10(1 + spectrum @ filterbank()) for spectrum in spectra)
    expected = np.concatenate([after, np.maximum(after - before, 0)])
    np.testing.assert_allclose(features(audio)[frame], expected, atol=2e-5)
    assert not features(audio)[0, 136:].any()


def test_network_equals_the_layers_of_pytorch() -> None:
    x = torch.from_numpy(features(music()))[:, None]
    expected = []
    for model in range(2):
        weights = {name: torch.from_numpy(array[model]) for name, array in load_weights().items()}
        conv, dense, out = nn.Conv1d(1, 2, 10), nn.Linear(262, 150), nn.Linear(150, 3)
        lstm = nn.LSTM(150, 150, num_layers=2, batch_first=True)
        for name, module in {"conv1": conv, "linear0": dense, "lstm": lstm, "linear": out}.items():
            prefix = f"{name}."
            module.load_state_dict({k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)})
        with torch.no_grad():
            pooled = nn.functional.max_pool1d(conv(x).relu(), 2).flatten(1)
            expected.append(out(lstm(dense(pooled)[None])[0])[0].softmax(dim=-1)[:, :2].numpy())
    np.testing.assert_allclose(beat_activations(music()), np.mean(expected, axis=0), atol=1e-5)


def test_blocks_do_not_change_the_activations(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = beat_activations(music())
    monkeypatch.setattr(beat_network, "BLOCK", 37)
    np.testing.assert_allclose(beat_activations(music()), whole, atol=1e-5)


@pytest.mark.parametrize("rate", [32000, 44100, 48000])
def test_every_sample_rate_gives_the_same_activations(rate: int) -> None:
    t = np.arange(6 * rate) / rate
    burst = sum(np.sin(2 * np.pi * hertz * t) for hertz in (110, 220, 1500, 5000)) * np.exp(-20 * (t % 0.5))
    t = np.arange(6 * 22050) / 22050
    reference = sum(np.sin(2 * np.pi * hertz * t) for hertz in (110, 220, 1500, 5000)) * np.exp(-20 * (t % 0.5))
    measured = beat_activations(Audio(0.1 * burst[None].astype(np.float32), rate))
    expected = beat_activations(Audio(0.1 * reference[None].astype(np.float32), 22050))
    assert measured.shape == expected.shape
    assert np.abs(measured - expected).mean() < 0.02
