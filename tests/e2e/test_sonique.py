"""The recipe sonique from the command line, on a tiny checkpoint and a real clip."""

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
from tests.fixtures.tiny import chat, videollama
from tests.fixtures.tiny import sonique as tiny
from v2m.cli.score import main
from v2m.media import audio as sound_files

TAGS = ("--tags.genres", "rock", "--tags.instruments", "guitar,drums", "--tags.moods", "calm", "--tags.tempo", "140")
FLAGS = (*TAGS, "--tags.key", "D major", "--generator.overlap", "0.3", "--generator.sampling.steps", "4")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("weights") / "sonique")


def score(clip: Path, weights: Path, *flags: str) -> dict[str, Any]:
    """Tags that are complete: the recipe's tagger is not asked."""
    words = [str(clip), "--recipe", "sonique", "--generator.model", str(weights), "--quiet", "--overwrite", *FLAGS]
    assert main([*words, *flags]) == 0
    return json.loads(clip.with_name("cuts.v2m.json").read_text())


def heard(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray() for frame in container.decode(container.streams.audio[0])], axis=1)


@pytest.fixture(scope="module")
def scored(media: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    clip = Path(shutil.copy(media / "cuts.mp4", tmp_path_factory.mktemp("scored")))
    return clip, score(clip, weights, "--tags.negative", "noise", "--seed", "4")


def test_video_packets_are_identical_and_audio_has_the_video_length(scored: tuple[Path, dict[str, Any]]) -> None:
    clip, record = scored
    out = clip.with_name("cuts.v2m.mp4")
    assert packet_digest(out) == packet_digest(clip)
    samples = heard(out)
    assert samples.shape[1] / record["mix"]["sample_rate"] == pytest.approx(record["input"]["seconds"], abs=0.025)
    assert np.sqrt((samples**2).mean()) > 1e-3


def test_sidecar_records_prompt_and_weights(scored: tuple[Path, dict[str, Any]], weights: Path) -> None:
    _, record = scored
    music = record["music"]
    assert (music["prompt"], music["negative_prompt"]) == ("guitar, drums, rock, calm, d major, 140 bpm", "noise")
    assert (music["sampler"], music["steps"], music["sigmas"], music["cfg_scale"]) == ("dpmpp-2m-sde", 4, [50, 0.03], 6)
    assert (music["windows"][0], music["windows"][-1][1]) == ([0, 1.024], pytest.approx(4, abs=0.02))
    assert len(music["window_seeds"]) == len(music["windows"]) == 6
    model, clap = record["weights"]
    assert (model["folder"], clap["name"], clap["license"]) == (str(weights), "CLAP (text branch)", "CC0-1.0")
    assert model["license"].startswith("MIT")
    assert len(model["sha256"]["ckpts/stable_ep=220.ckpt"]) == len(clap["sha256"]["clap.ckpt"]) == 64
    assert record["warnings"] == []


def test_same_seed_gives_the_same_bytes_with_low_memory(
    clip: Path, weights: Path, scored: tuple[Path, dict[str, Any]]
) -> None:
    wanted = heard(scored[0].with_name("cuts.v2m.mp4"))
    score(clip, weights, "--tags.negative", "noise", "--seed", "4", "--low-memory")
    np.testing.assert_array_equal(heard(clip.with_name("cuts.v2m.mp4")), wanted)


def test_kept_candidate_is_inpainted(clip: Path, weights: Path) -> None:
    score(clip, weights, "--candidates", "2", "--seed", "1")
    [take] = [name for name in names(clip.parent) if name.endswith(".wav")]
    kept = sound_files.load(clip.with_name(take), tiny.SAMPLE_RATE, 4.0).samples
    shutil.copy(clip.with_name(take), clip.with_name("kept.wav"))
    flags = ["--inpaint", "1.5:2.5", "--inpaint-source", str(clip.with_name("kept.wav")), "--seed", "9"]
    record = score(clip, weights, *flags, "--candidates", "2")
    made = sound_files.load(clip.with_name(f"cuts.v2m.seed{19 - record['seed']}.wav"), tiny.SAMPLE_RATE, 4.0).samples
    low, high = (round(second * tiny.SAMPLE_RATE) for second in (1.5, 2.5))
    np.testing.assert_array_equal(made[:, :low], kept[:, :low])
    np.testing.assert_array_equal(made[:, high:], kept[:, high:])
    assert np.abs(made - kept)[:, low:high].mean() > 0.02
    assert record["music"]["inpainted"] == [1.5, 2.5]
    assert len(record["settings"]["inpaint_source_sha256"]) == 64


def test_output_itself_is_inpainted(scored: tuple[Path, dict[str, Any]], weights: Path, tmp_path: Path) -> None:
    clip = shutil.copytree(scored[0].parent, tmp_path / "scored") / scored[0].name  # which others look at
    before = heard(clip.with_name("cuts.v2m.mp4"))
    record = score(clip, weights, "--inpaint", "1:2", "--seed", "5", "--mix.fade_out", "0")
    after, rate = heard(clip.with_name("cuts.v2m.mp4")), record["mix"]["sample_rate"]
    assert record["music"]["inpaint_source"] == str(clip.with_name("cuts.v2m.mp4"))
    gain = float((after[0, : rate // 2] * before[0, : rate // 2]).sum() / (before[0, : rate // 2] ** 2).sum())
    likeness = [
        np.corrcoef(before[0, low:high], after[0, low:high])[0, 1]
        for low, high in ((0, rate), (rate, 2 * rate), (2 * rate, 4 * rate))
    ]
    assert gain == pytest.approx(1, abs=0.3)
    assert min(likeness[0], likeness[2]) > 0.98
    assert likeness[1] < 0.9


def test_melody_is_followed(clip: Path, weights: Path) -> None:
    tune = clip.with_name("tune.wav")
    ffmpeg("-f", "lavfi", "-i", "sine=220:d=1.2", tune)
    record = score(clip, weights, "--end", "1.5", "--melody", str(tune), "--generator.melody_strength", "0.7")
    assert record["music"]["melody"] == str(tune)
    assert record["music"]["sigmas"] == pytest.approx([50 * (0.03 / 50) ** 0.7, 0.03])
    assert len(record["settings"]["melody_sha256"]) == 64


def test_chat_model_turns_the_captioners_text_into_tags(clip: Path, weights: Path, tmp_path: Path) -> None:
    chat.write(tmp_path / "chat")
    videollama.make_native(tmp_path / "eyes", answer="A kite flies over a hill.")
    flags = ["--tagger.model", str(tmp_path / "chat"), "--tagger.captioner_model", str(tmp_path / "eyes")]
    flags += ["--tags.instruments", "HARP,banjo", *FLAGS[10:]]
    assert main([str(clip), "--recipe", "sonique-llm", "--generator.model", str(weights), "--quiet", *flags]) == 0
    record = json.loads(clip.with_name("cuts.v2m.json").read_text())
    assert record["tags"]["caption"] == "A kite flies over a hill."
    assert record["tags"]["instruments"] == ["HARP", "banjo", "piano"]  # those given first, none of them twice
    assert record["tags"]["tempo"] == 72
    assert len(record["weights"]) == 4
