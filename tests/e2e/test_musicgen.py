"""The recipe musicgen as a person types it, on tiny checkpoints in each layout and a real clip."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.conftest import ffmpeg, names
from tests.fixtures.packets import packet_digest
from tests.fixtures.tiny import demucs, encodec, t5
from tests.fixtures.tiny import musicgen as tiny
from v2m.checkpoints import V2M
from v2m.cli.score import main

WINDOWS = ("--generator.window", "2", "--generator.stride", "1")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`transformers`, `v2m` made from it, `audiocraft` with what it names, and `melody`, of stereo too."""
    folder = tmp_path_factory.mktemp("weights")
    tiny.write_transformers(folder / "transformers")
    V2M.from_pretrained(str(folder / "transformers")).save_pretrained(folder / "v2m")
    tiny.write_audiocraft(folder / "audiocraft")
    t5.write(folder / "named" / "t5-base")
    encodec.write(folder / "named" / "encodec_32khz")
    tiny.write_transformers(folder / "melody", melody=True, stereo=True)
    return folder


def score(clip: Path, model: Path, *flags: str) -> dict[str, Any]:
    words = [str(clip), "--recipe", "musicgen", "--generator.model", str(model), "--quiet", "--overwrite", *flags]
    assert main(words) == 0
    return json.loads(clip.with_name("cuts.v2m.json").read_text())


def heard(path: Path) -> tuple[np.ndarray, float]:
    """The music's samples (C, N) and its seconds."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        frames = [frame.to_ndarray() for frame in container.decode(stream)]
        return np.concatenate(frames, axis=1), sum(frame.shape[1] for frame in frames) / stream.rate


@pytest.fixture(scope="module")
def scored(media: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    clip = Path(shutil.copy(media / "cuts.mp4", tmp_path_factory.mktemp("scored")))
    return clip, score(clip, weights / "transformers", *WINDOWS, "--seed", "4")


def test_video_packets_are_identical_and_audio_has_the_video_length(scored: tuple[Path, dict[str, Any]]) -> None:
    clip, record = scored
    out = clip.with_name("cuts.v2m.mp4")
    assert packet_digest(out) == packet_digest(clip)
    samples, seconds = heard(out)
    assert seconds == pytest.approx(record["input"]["seconds"], abs=0.025)
    assert np.sqrt((samples**2).mean()) > 1e-3


def test_sidecar_records_prompt_and_weights(scored: tuple[Path, dict[str, Any]], weights: Path) -> None:
    _, record = scored
    music, tags = record["music"], record["tags"]
    assert record["recipe"] == "musicgen"
    assert all(word in music["prompt"] for word in (*tags["genres"], *tags["instruments"], *tags["moods"]))
    assert f"{round(tags['tempo'])} bpm" in music["prompt"]
    assert music["windows"] == [[0, 2], [1, 3], [2, 4]]
    assert music["device"] == "cpu"
    [used] = record["weights"]
    assert (used["name"], used["license"]) == (str(weights / "transformers"), "cc-by-nc-4.0")
    assert len(used["sha256"]["model.safetensors"]) == 64
    assert record["warnings"] == []


def test_same_seed_gives_the_same_bytes_in_both_checkpoint_layouts(
    clip: Path, weights: Path, scored: tuple[Path, dict[str, Any]]
) -> None:
    wanted, _ = heard(scored[0].with_name("cuts.v2m.mp4"))
    score(clip, weights / "v2m", *WINDOWS, "--seed", "4")
    np.testing.assert_array_equal(heard(clip.with_name("cuts.v2m.mp4"))[0], wanted)
    score(clip, weights / "v2m", *WINDOWS, "--seed", "5")
    assert not np.array_equal(heard(clip.with_name("cuts.v2m.mp4"))[0], wanted)


def test_audiocraft_layout_loads_text_encoder_and_codec_by_their_names(
    clip: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("V2M_CHECKPOINTS", str(weights / "named"))
    record = score(clip, weights / "audiocraft", "--end", "0.5")
    assert [Path(each["folder"]).name for each in record["weights"]] == ["audiocraft", "t5-base", "encodec_32khz"]
    assert heard(clip.with_name("cuts.v2m.mp4"))[0].any()


def test_melody_is_followed_in_stereo(clip: Path, weights: Path) -> None:
    tune = clip.with_name("tune.wav")
    ffmpeg("-f", "lavfi", "-i", "sine=220:d=2", tune)
    music = []
    for flags in ([], ["--melody", str(tune)]):
        record = score(clip, weights / "melody", "--end", "0.8", "--low-memory", *flags)
        music.append(heard(clip.with_name("cuts.v2m.mp4"))[0])
        assert record["music"]["precision"] == "int8"
    assert record["music"]["melody"] == str(tune)
    assert len(record["settings"]["melody_sha256"]) == 64
    assert not np.array_equal(music[0], music[1])
    assert not np.allclose(music[1][0], music[1][1], atol=1e-3)


def test_melody_is_separated_from_drums_and_bass_when_demucs_is_available(
    clip: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A separator in place is listed among the weights; the tiny one changes the melody."""
    tune = clip.with_name("tune.wav")
    ffmpeg("-f", "lavfi", "-i", "anoisesrc=d=2:a=0.3:c=pink", tune)
    monkeypatch.setenv("V2M_CHECKPOINTS", str(tmp_path))
    music = []
    for told in ("the whole sound", "vocals and other, separated by adefossez/HTDemucs"):
        record = score(clip, weights / "melody", "--end", "0.8", "--melody", str(tune))
        assert record["music"]["melody_source"] == told
        music.append(heard(clip.with_name("cuts.v2m.mp4"))[0])
        demucs.write_pickled(tmp_path / "HTDemucs")
    used = record["weights"][-1]
    assert (used["name"], used["license"]) == ("adefossez/HTDemucs", "MIT")
    assert not np.array_equal(*music)
    assert score(clip, weights / "melody", "--end", "0.8")["music"]["melody_source"] is None


def test_candidates_of_one_loaded_model_differ_and_the_best_is_used(clip: Path, weights: Path) -> None:
    record = score(clip, weights / "transformers", "--end", "0.6", "--candidates", "2")
    assert len(record["candidates"]) == 2
    assert len([name for name in names(clip.parent) if name.endswith(".wav")]) == 1
