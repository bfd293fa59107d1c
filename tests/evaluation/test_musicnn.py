"""musicnn's networks against the package's own, run by TensorFlow; its front end; where its weights are found."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.fixtures import installed
from tests.fixtures.tiny import tensorflow_checkpoint
from v2m.core import errors
from v2m.core.errors import DependencyError, UsageError
from v2m.core.types import Audio
from v2m.evaluation.embedders import build_embedders
from v2m.evaluation.embedders.musicnn import TAGS, MusicnnEmbedder, build_network, log_mel
from v2m.mappings.musicnn import to_tensorflow

# Of `chords(7.0)`: outputs of musicnn 0.1.0 with TensorFlow 2.15 and librosa 0.11. The package gives the penultimate
# layer of the first window alone, and repeats it for the others.
GOLDEN = Path(__file__).with_name("musicnn_tensorflow.npz")
CHORDS = (45, 60, 64), (41, 57, 65), (48, 55, 64), (43, 59, 67), (45, 57, 72), (50, 62, 65), (40, 56, 71)


def chords(seconds: float, rate: int = 16_000) -> Audio:
    """One plucked chord a second, each with a burst of noise, from formulas alone."""
    time = np.arange(round(seconds * rate)) / rate
    out = np.zeros(len(time))
    for number, pitches in enumerate(CHORDS):
        age = np.clip(time - number, 0, None)
        for pitch in pitches:
            hertz = 440 * 2 ** ((pitch - 69) / 12)
            tone = sum(np.sin(2 * np.pi * hertz * k * age) / k**1.5 for k in range(1, 8))
            out += (age > 0) * np.exp(-3 * age) * tone
        out += (age > 0) * np.exp(-40 * age) * np.sin((age * rate) ** 2)
    return Audio((out / 8).astype(np.float32)[None], rate)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of random weights in the package's layout."""
    folder = tmp_path_factory.mktemp("musicnn") / "MTT_musicnn"
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        state = {name: value for name, value in build_network().state_dict().items() if "num_batches" not in name}
    return tensorflow_checkpoint.write(folder, to_tensorflow(state))


@pytest.mark.skipif(
    importlib.util.find_spec("musicnn") is None, reason="the published weights come with the dependency group musicnn"
)
@pytest.mark.parametrize("network", TAGS)
def test_published_networks_match_tensorflow(network: str) -> None:
    golden, result = np.load(GOLDEN), MusicnnEmbedder(network).analyze(chords(7.0))
    assert result.tag_probs == pytest.approx(golden[f"{network}_tags"], abs=1e-4)
    assert result.mean_pool == pytest.approx(golden[f"{network}_mean_pool"], abs=1e-4)
    assert result.penultimate[:1] == pytest.approx(golden[f"{network}_penultimate"], abs=1e-4)
    assert np.abs(result.penultimate[1] - result.penultimate[0]).max() > 0.1
    assert result.max_pool.shape == (2, 753)
    assert "musicnn" not in sys.modules  # the package's code has not run


def test_log_mel_is_that_of_the_definition() -> None:
    """A frame of a loud sine written out: periodic Hann window, power, rounding to half precision."""
    tone = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000).astype(np.float32)
    frames = log_mel(tone)
    assert frames.shape == (1 + 16_000 // 256, 96)
    # slaney's mel scale is linear to 1 kHz, at 15 mel; the bands divide 0 to 8 kHz evenly
    edges = np.linspace(0, 15 + 27 * np.log(8) / np.log(6.4), 98)
    hertz = np.where(edges < 15, edges * 200 / 3, 1000 * 6.4 ** ((edges - 15) / 27))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    power = np.abs(np.fft.rfft(tone[20 * 256 - 256 : 20 * 256 + 256] * window)) ** 2
    bins = np.arange(257) * 16_000 / 512
    low, mid, high = hertz[:-2, None], hertz[1:-1, None], hertz[2:, None]
    filters = np.clip(np.minimum((bins - low) / (mid - low), (high - bins) / (high - mid)), 0, None) * 2 / (high - low)
    expected = np.log10(10_000 * (filters @ power).astype(np.float16).astype(np.float32) + 1)
    assert frames[20] == pytest.approx(expected, abs=1e-3)
    assert frames.max() > 6  # ten thousand times this is more than half precision holds


def test_short_pieces_are_repeated_and_windows_are_consecutive(weights: Path) -> None:
    embedder = MusicnnEmbedder(str(weights))
    assert embedder.name == "MTT_musicnn"
    assert embedder.embed_audio(Audio(np.zeros((2, 1), np.float32), 48_000)).embeddings.shape == (1, 200)
    whole = chords(7.0)
    result = embedder.analyze(whole)
    assert result.tag_probs.shape == (2, 50)
    frames = log_mel(whole.samples[0])
    with torch.inference_mode():
        logits = build_loaded(embedder)(torch.from_numpy(frames[187 : 2 * 187])[None])[0].sigmoid()
    assert result.tag_probs[1] == pytest.approx(logits[0].numpy(), abs=1e-5)
    short = log_mel(chords(1.0).samples[0])
    repeated = torch.from_numpy(np.concatenate([short] * 3)[:187])[None]
    with torch.inference_mode():
        expected = build_loaded(embedder)(repeated)[1]
    assert embedder.embed_audio(chords(1.0)).embeddings == pytest.approx(expected.numpy(), abs=1e-5)
    best = embedder.top_tags(whole, 4)
    assert list(best.values()) == sorted(result.tag_probs.mean(axis=0), reverse=True)[:4]
    assert set(best) <= set(TAGS["MTT_musicnn"].split(", "))


def build_loaded(embedder: MusicnnEmbedder) -> torch.nn.Module:
    with embedder._lazy_model.model() as model:
        return model.cpu()


def test_silent_piece_at_any_rate_has_finite_embeddings(weights: Path) -> None:
    for rate, count in ((8000, 100), (44_100, 44_100 * 4)):
        result = MusicnnEmbedder(str(weights)).embed_audio(Audio(np.zeros((1, count), np.float32), rate))
        assert np.isfinite(result.embeddings).all()


def test_missing_package_is_one_line_with_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DependencyError) as caught:
        build_embedders(["musicnn"])
    assert errors.INSTALL_MUSICNN in str(caught.value)
    [group] = installed.GROUPS["musicnn"]
    assert "--group musicnn`" in errors.INSTALL_MUSICNN
    assert f"pip install --no-deps {group}`" in errors.INSTALL_MUSICNN


def test_other_sources_are_refused(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(UsageError, match="MTT_musicnn and MSD_musicnn, not 'MTT_vgg'"):
        build_embedders(["musicnn=MTT_vgg"])
    with pytest.raises(UsageError, match="there is no folder"):
        build_embedders([f"musicnn={tmp_path}/MTT_musicnn"])
    broken = tmp_path / "MSD_musicnn"
    state = {"dense/bias": torch.full((200,), float("nan")), "dense_1/bias": torch.zeros(50)}
    tensorflow_checkpoint.write(broken, state)
    with pytest.raises(DependencyError, match="infinite or no numbers"):
        MusicnnEmbedder(str(broken)).embed_audio(chords(1.0))
    tensorflow_checkpoint.write(broken, {"dense_1/bias": torch.zeros(50)})
    with pytest.raises(DependencyError, match=r"not the weights of MSD_musicnn: \d+ missing"):
        MusicnnEmbedder(str(broken)).embed_audio(chords(1.0))
