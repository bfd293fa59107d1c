"""Embedders with tiny random checkpoints in the published layouts, against transformers or their definition."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ASTForAudioClassification, ClapFeatureExtractor, ClapModel, RobertaTokenizer

from tests.fixtures.tiny import embedders as tiny_embedders
from v2m.core.errors import DependencyError, UsageError
from v2m.core.types import Audio
from v2m.evaluation import embedders
from v2m.evaluation.embedders import Embedder, split_windows, window_times
from v2m.evaluation.embedders.ast import AstEmbedder
from v2m.evaluation.embedders.clap import ClapEmbedder
from v2m.evaluation.embedders.pe_av import PeAvEmbedder
from v2m.evaluation.embedders.vggish import VggishEmbedder, _log_mel, _mel_filters
from v2m.media import video


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embedders")
    for name, make in (("clap", tiny_embedders.clap), ("ast", tiny_embedders.ast), ("pe-av", tiny_embedders.pe_av)):
        make(folder / name)
    tiny_embedders.clap(folder / "fused", fused=True)
    return folder


def noise(seconds: float, rate: int = 48_000, seed: int = 0) -> Audio:
    samples = np.random.default_rng(seed).normal(size=(2, round(seconds * rate))) * 0.1
    return Audio(samples.astype(np.float32), rate)


@pytest.mark.parametrize(("count", "expected"), [(5, [5]), (10, [10]), (14, [10]), (15, [10, 10]), (31, [10, 10, 10])])
def test_windows_are_consecutive_and_include_a_last_half(count: int, expected: list[int]) -> None:
    samples = np.arange(count, dtype=np.float32)
    found = split_windows(samples, 10)
    assert [len(each) for each in found] == expected
    assert found[0][0] == 0
    if count == 15:
        assert found[-1].tolist() == samples[-10:].tolist()
    assert len(window_times(count, 10)) == len(found)
    assert window_times(count, 10)[-1][1] == pytest.approx(min(count, count if count == 15 else 10 * len(expected)))


def test_empty_audio_is_one_sample_of_silence() -> None:
    assert [each.tolist() for each in split_windows(np.zeros(0, np.float32), 10)] == [[0.0]]


def test_clap_matches_transformers(weights: Path) -> None:
    audio, texts = noise(17), ["calm ambient music", "loud rock with drums"]
    found = ClapEmbedder(str(weights / "clap"))
    assert isinstance(found, Embedder)
    assert (found.embeds_text, found.embeds_video) == (True, False)
    model: Any = ClapModel.from_pretrained(weights / "clap").eval()
    prepared = ClapFeatureExtractor.from_pretrained(weights / "clap")
    sound = audio.samples.mean(axis=0)
    pieces = [sound[:480_000], sound[-480_000:]]
    given = prepared(pieces, sampling_rate=48_000, return_tensors="pt")
    words = RobertaTokenizer.from_pretrained(weights / "clap")(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = model.get_audio_features(**given).pooler_output.numpy()
        read = model.get_text_features(**{k: words[k] for k in ("input_ids", "attention_mask")}).pooler_output.numpy()
    assert found.embed_audio(audio).embeddings == pytest.approx(expected, abs=1e-5)
    assert found.embed_text(texts) == pytest.approx(read, abs=1e-5)
    assert found.embed_text(["drums " * 400]).shape == (1, 12)  # cut to what it has room for


def test_fused_clap_is_deterministic(weights: Path) -> None:
    """The fused model's feature extractor marks a random window of a batch as longer."""
    audio = noise(17)
    one, two = (ClapEmbedder(str(weights / "fused")).embed_audio(audio).embeddings for _ in range(2))
    assert (one == two).all()
    assert one.shape == (2, 12)


def test_clap_loads_checkpoints_with_and_without_position_buffers(weights: Path, tmp_path: Path) -> None:
    shutil.copytree(weights / "clap", tmp_path / "clap")
    state = load_file(tmp_path / "clap" / "model.safetensors")
    kept = {name: value for name, value in state.items() if "position_ids" not in name and "token_type_ids" not in name}
    assert len(kept) < len(state)
    save_file(kept, tmp_path / "clap" / "model.safetensors", {"format": "pt"})
    texts = ["calm"]
    assert ClapEmbedder(str(tmp_path / "clap")).embed_text(texts) == pytest.approx(
        ClapEmbedder(str(weights / "clap")).embed_text(texts), abs=1e-6
    )


def test_ast_matches_transformers_and_accepts_any_length(weights: Path) -> None:
    found, audio = AstEmbedder(str(weights / "ast")), noise(1.0, 16_000)
    heard = found.embed_audio(audio)
    assert heard.class_probs is not None
    model = ASTForAudioClassification.from_pretrained(weights / "ast").eval()
    from transformers import ASTFeatureExtractor

    prepared = ASTFeatureExtractor.from_pretrained(weights / "ast")
    given = prepared(audio.samples.mean(axis=0), sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**given).logits.softmax(dim=-1).numpy()
    assert heard.class_probs == pytest.approx(expected, abs=1e-5)
    assert heard.class_probs.sum(axis=1) == pytest.approx(1)
    assert found.embed_audio(Audio(np.zeros((1, 3), np.float32), 16_000)).embeddings.shape == (1, 16)


def test_pe_av_matches_the_joint_model(weights: Path, media: Path) -> None:
    found, clip = PeAvEmbedder(str(weights / "pe-av")), video.open(media / "cuts.mp4")
    audio = noise(clip.duration)
    with found._lazy_model.model() as (model, prepared, shown):
        times = np.linspace(0, clip.duration - 1 / clip.fps, 16).tolist()
        pixels = torch.as_tensor(clip.frames(times)).permute(0, 3, 1, 2)
        seen = shown([pixels], do_sample_frames=False, return_tensors="pt")["pixel_values_videos"]
        given = prepared(audio.samples.mean(axis=0), sampling_rate=48_000, return_tensors="pt")["input_values"]
        with torch.inference_mode():
            both = model(input_values=given, pixel_values_videos=seen)
    assert seen.shape[1:] == (16, 3, tiny_embedders.SIDE, tiny_embedders.SIDE)
    assert found.embed_audio(audio).embeddings == pytest.approx(both.audio_embeds.numpy(), abs=1e-5)
    assert found.embed_video(clip) == pytest.approx(both.video_embeds.numpy(), abs=0.02)  # which reads smaller frames


def test_pe_av_keeps_weights_and_rebuilt_buffers_when_loaded(tmp_path: Path, monkeypatch: Any) -> None:
    """The file has no rotary buffers, and tied weights once."""
    made: list[Any] = []
    save = tiny_embedders._save
    monkeypatch.setattr(tiny_embedders, "_save", lambda model, folder: (made.append(model), save(model, folder)))
    found = PeAvEmbedder(str(tiny_embedders.pe_av(tmp_path / "pe-av", seed=3)))
    with found._lazy_model.model() as (model, _, _):
        for kept in ("state_dict", "named_buffers"):
            first, second = (dict(getattr(each, kept)()) for each in (made[0], model))
            assert first.keys() <= second.keys()
            assert not [name for name in first if not torch.equal(first[name], second[name])]


def test_vggish_matches_its_definition_and_loads_published_weights(tmp_path: Path) -> None:
    """The log-mel against its definition written out, for a frame; the network against its layers one by one."""
    sound = noise(2.0, 16_000).samples[0].astype(np.float64)
    found = _log_mel(sound, _mel_filters())
    assert found.shape == (1 + (32_000 - 400) // 160, 64)
    window = [0.5 - 0.5 * np.cos(2 * np.pi * n / 400) for n in range(400)]
    magnitudes = np.abs(np.fft.rfft(sound[320:720] * window, 512))
    mel = [1127 * np.log(1 + k * 16_000 / 512 / 700) for k in range(257)]
    edges = np.linspace(1127 * np.log(1 + 125 / 700), 1127 * np.log(1 + 7500 / 700), 66)
    bands = []
    for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
        sides = [((m - low) / (middle - low), (high - m) / (high - middle)) for m in mel]
        bands.append(sum(max(0.0, min(pair)) * x for pair, x in zip(sides, magnitudes, strict=True)))
    assert found[2] == pytest.approx(np.log(np.array(bands) + 0.01), abs=1e-6)

    tiny_embedders.vggish(tmp_path / "vggish")
    model = VggishEmbedder(str(tmp_path / "vggish"))
    heard = model.embed_audio(noise(2.0, 16_000)).embeddings
    assert heard.shape == (2, 128)
    assert (heard < 0).any()  # before the last activation
    state = torch.load(tmp_path / "vggish" / "vggish-10086976.pth", weights_only=True)
    assert list(state)[:3] == ["features.0.weight", "features.0.bias", "features.3.weight"]
    frames = _log_mel(noise(2.0, 16_000).samples.mean(axis=0), _mel_filters())[:96]
    x = torch.as_tensor(frames, dtype=torch.float32)[None, None]
    for k, pooled in zip((0, 3, 6, 8, 11, 13), (1, 1, 0, 1, 0, 1), strict=True):
        x = torch.conv2d(x, state[f"features.{k}.weight"], state[f"features.{k}.bias"], padding=1).relu()
        x = torch.max_pool2d(x, 2) if pooled else x
    x = x.transpose(1, 3).transpose(1, 2).reshape(1, -1)
    for k in (0, 2, 4):
        x = x @ state[f"embeddings.{k}.weight"].T + state[f"embeddings.{k}.bias"]
        x = x.relu() if k < 4 else x
    assert heard[:1] == pytest.approx(x.numpy(), abs=1e-5)


@pytest.mark.parametrize(
    ("asked", "kind", "said"),
    [
        ("nonsense", UsageError, "give clap, ast, pe-av, musicnn, vggish, imagebind"),
        ("no.such.Thing", UsageError, "there is no module 'no.such'"),
        ("json.Nothing", UsageError, "'json' has no class 'Nothing'"),
        ("json.JSONDecoder", UsageError, "must have a name and a method embed_audio"),
        ("fractions.Fraction=a,b", UsageError, "cannot be made so"),
        ("clap=/nowhere", UsageError, "there is no folder '/nowhere'"),
        ("clap=owner/name", DependencyError, "weights owner/name cannot be fetched: HF_HUB_OFFLINE is set"),
        ("ast=.", DependencyError, "'.' lacks config.json"),
        ("vggish=/nowhere", UsageError, "VGGish's weights are not in '/nowhere'"),
        ("vggish", DependencyError, "put vggish-10086976.pth of torchvggish's release v0.1 into"),
        ("imagebind", DependencyError, "ImageBind needs its package"),
    ],
)
def test_unavailable_embedders_give_one_line_before_any_work(
    asked: str, kind: type[Exception], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("V2M_CHECKPOINTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind) as caught:
        embedders.build_embedders([asked])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_model_and_broken_weights_are_reported(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(DependencyError, match="is no audio classifier"):
        AstEmbedder(str(weights / "clap")).embed_audio(noise(1))
    shutil.copytree(weights / "ast", tmp_path / "ast")
    path = tmp_path / "ast" / "model.safetensors"
    state = load_file(path)
    state["classifier.dense.weight"] = state["classifier.dense.weight"] * float("nan")
    save_file(state, path, {"format": "pt"})
    with pytest.raises(DependencyError, match="what are no numbers"):
        AstEmbedder(str(tmp_path / "ast")).embed_audio(noise(1))
    (tmp_path / "ast" / "preprocessor_config.json").write_text("{")
    with pytest.raises(DependencyError, match="does not say what the audio classifier takes"):
        AstEmbedder(str(tmp_path / "ast")).embed_audio(noise(1))


def test_custom_embedder_gets_the_source_behind_the_equals_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own:
        def __init__(self, source: str = "usual") -> None:
            self.name = source

        def embed_audio(self, audio: Audio) -> Any: ...

    module = types.ModuleType("somewhere")
    module.Own = Own  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "somewhere", module)
    assert [each.name for each in embedders.build_embedders(["somewhere.Own", "somewhere.Own=other"])] == [
        "usual",
        "other",
    ]
    with pytest.raises(UsageError, match="two embeddings are named usual"):
        embedders.build_embedders(["somewhere.Own", "somewhere.Own=usual"])


def test_license_is_announced_before_work(
    weights: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    embedders.build_embedders([f"ast={weights / 'ast'}"])
    assert "license: bsd-3-clause" in capsys.readouterr().err
    assert json.loads((weights / "ast" / "config.json").read_text())["model_type"] == "audio-spectrogram-transformer"


def test_imagebind_package_is_imported_without_its_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imagebind/models").mkdir(parents=True)
    (tmp_path / "imagebind/__init__.py").write_text("raise RuntimeError('read')\n")
    (tmp_path / "imagebind/models/imagebind_model.py").write_text("import nothing_of_the_kind\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "imagebind", None)  # so that it is gone again afterwards
    monkeypatch.delitem(sys.modules, "imagebind")
    with pytest.raises(DependencyError, match="ImageBind's package needs nothing_of_the_kind, too"):
        embedders.build_embedders(["imagebind"])
