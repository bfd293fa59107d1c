"""AudioSeal's watermark: its networks are read without its loader, and what they add reaches the file.

Networks of random weights neither hide nor find anything: what is tested is loading, rates, channels, bits and blocks.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from audioseal.libs.moshi.utils.compile import no_compile
from audioseal.loader import AudioSeal

from tests.fixtures.tiny.audioseal import write_audioseal
from v2m.core.errors import DependencyError
from v2m.core.types import Audio, Controls, Tags
from v2m.generators.sketch import Sketch
from v2m.pipeline.score import score_video
from v2m.pretrained import watermark
from v2m.pretrained.watermark import MESSAGE, Watermark, WatermarkReport, fetch


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    write_audioseal(folder / "audioseal")
    return folder


@pytest.fixture(autouse=True)
def _no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compilation takes a minute, and fails where there is no C++ compiler."""

    def refuse(*_: object) -> None:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", refuse)


@pytest.fixture
def loaded(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> Watermark:
    monkeypatch.setenv("V2M_CHECKPOINTS", str(checkpoints))
    return Watermark.load(fetch(), "cpu")


def noise(seconds: float, rate: int, channels: int = 1) -> Audio:
    samples = np.random.default_rng(0).normal(0, 0.1, (channels, round(seconds * rate))).astype(np.float32)
    return Audio(samples, rate)


def test_networks_are_those_that_audioseal_itself_loads(
    loaded: Watermark, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 16 kHz in mono nothing is resampled: the mark is audioseal's own, sample for sample."""
    folder = checkpoints / "audioseal"
    monkeypatch.setattr(
        "audioseal.loader.load_model_checkpoint",
        lambda path: torch.load(path, weights_only=True) | {"xp.cfg": _card(Path(path))},
    )
    reference = AudioSeal.load_generator(str(folder / "generator_base.pth"), nbits=16).eval()
    audio = noise(1, 16_000)
    bits = torch.tensor([[MESSAGE >> place & 1 for place in reversed(range(16))]])
    with torch.inference_mode(), no_compile():
        mark = reference.get_watermark(torch.from_numpy(audio.samples[None]), message=bits)[0]
    assert np.abs(mark.numpy()).max() > 0
    added = loaded.embed(audio).samples - audio.samples
    assert np.allclose(added, mark.numpy(), atol=1e-6)


def _card(path: Path) -> dict[str, object]:
    import yaml

    return yaml.safe_load(path.with_suffix(".yaml").read_text())


def test_message_changes_what_is_added(loaded: Watermark) -> None:
    audio = noise(0.5, 16_000)
    assert not np.array_equal(loaded.embed(audio, 0x0000).samples, loaded.embed(audio, 0xFFFF).samples)


def test_stereo_at_48_khz_gets_one_mark_in_both_channels_and_keeps_its_length(loaded: Watermark) -> None:
    audio = noise(1.01, 48_000, channels=2)
    marked = loaded.embed(audio)
    assert (marked.sample_rate, marked.samples.shape) == (48_000, audio.samples.shape)
    left, right = marked.samples - audio.samples
    assert np.abs(left).max() > 0
    assert np.allclose(left, right, atol=1e-6)


def test_long_sound_is_read_in_blocks(loaded: Watermark, monkeypatch: pytest.MonkeyPatch) -> None:
    audio = noise(1, 16_000)
    monkeypatch.setattr(watermark, "BLOCK_SAMPLES", 4_000)
    marked = loaded.embed(audio)
    first = loaded.embed(Audio(audio.samples[:, :4_000], 16_000))
    assert np.allclose(marked.samples[:, :4_000], first.samples, atol=1e-6)
    report = loaded.detect(audio)
    assert 0 <= report.share <= 1
    assert 0 <= report.message < 1 << 16


@pytest.mark.parametrize(("share", "message", "own"), [(0.9, MESSAGE, True), (0.4, MESSAGE, False), (0.9, 0, False)])
def test_mark_is_own_by_share_and_message(share: float, message: int, own: bool) -> None:
    assert WatermarkReport(share, message).is_own == own


def test_missing_weights_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("V2M_CHECKPOINTS", str(tmp_path))
    with pytest.raises(DependencyError, match="weights facebook/audioseal cannot be fetched: HF_HUB_OFFLINE is set"):
        fetch()


@pytest.mark.parametrize("content", [{"model": {"x.weight": torch.zeros(1)}}, {"model": {"x": 1}}])
def test_other_networks_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object) -> None:
    folder = write_audioseal(tmp_path / "audioseal")
    torch.save(content, folder / "generator_base.pth")
    monkeypatch.setenv("V2M_CHECKPOINTS", str(tmp_path))
    with pytest.raises(DependencyError, match=r"generator_base\.pth"):
        Watermark.load(fetch(), "cpu")


def test_code_in_a_checkpoint_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Code:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("run",)

    folder = write_audioseal(tmp_path / "audioseal")
    (folder / "detector_base.pth").write_bytes(pickle.dumps({"model": Code()}))
    monkeypatch.setenv("V2M_CHECKPOINTS", str(tmp_path))
    with pytest.raises(DependencyError):
        Watermark.load(fetch(), "cpu")


@pytest.mark.parametrize("state", ["missing package", "broken weights"])
def test_watermark_that_cannot_be_loaded_is_reported_before_any_other_work(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    class Unused(Sketch):
        def prepare(self, tags: Tags, controls: Controls) -> None:
            raise AssertionError("work was begun")

    folder = write_audioseal(tmp_path / "checkpoints" / "audioseal")
    monkeypatch.setenv("V2M_CHECKPOINTS", str(folder.parent))
    if state == "broken weights":
        (folder / "generator_base.pth").write_bytes(b"broken")
    else:
        monkeypatch.setattr("v2m.core.errors.find_spec", lambda _: None)
    with pytest.raises((DependencyError, ModuleNotFoundError), match=r"generator_base|No module named 'audioseal'"):
        score_video(clip, generator=Unused(), watermark=True)


def test_mark_is_looked_for_in_the_scored_section(
    clip: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def detect(_: Watermark, audio: Audio) -> WatermarkReport:
        lengths.append(len(audio))
        return WatermarkReport(1.0, MESSAGE)

    lengths: list[int] = []
    monkeypatch.setenv("V2M_CHECKPOINTS", str(checkpoints))
    monkeypatch.setattr(Watermark, "detect", detect)
    record = score_video(clip, start=0.5, end=1.25, watermark=True).record
    assert lengths == [12_000]
    assert record["watermark"]["found"]["is_own"] is True


def test_scored_video_has_the_mark_and_the_sidecar_says_what_was_found(
    clip: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("V2M_CHECKPOINTS", str(checkpoints))
    plain = score_video(clip, clip.with_name("plain.mp4"), end=1)
    marked = score_video(clip, clip.with_name("marked.mp4"), end=1, watermark=True, commercial_safe=True)
    assert plain.record["watermark"] is None
    record = json.loads(marked.path.with_suffix(".json").read_text())["watermark"]
    assert (record["weights"], record["message"], record["license"]) == ("facebook/audioseal", "5632", "mit")
    assert set(record["found"]) == {"share", "message", "is_own"}
    assert plain.record["output"]["sha256"] != marked.record["output"]["sha256"]
    assert marked.record["licenses"][-1]["role"] == "watermark"
