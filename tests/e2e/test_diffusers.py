"""The recipes acestep and stableaudio as a person types them, on tiny pipelines and a real clip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import pytest

from tests.conftest import ffmpeg, names
from tests.fixtures.packets import packet_digest
from tests.fixtures.tiny import pipelines as tiny
from v2m.cli.score import main


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipelines")
    tiny.write_ace_step(folder / "acestep")
    tiny.write_stable_audio(folder / "stableaudio")
    return folder


def score(clip: Path, models: Path, recipe: str, *flags: str) -> dict[str, Any]:
    model = ["--recipe", recipe, "--generator.model", str(models / recipe), "--generator.steps", "2"]
    assert main([str(clip), *model, "--quiet", "--overwrite", *flags]) == 0
    return json.loads(clip.with_name("cuts.v2m.json").read_text())


@pytest.fixture
def nothing_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A license is shown once in a process: as if none had been."""
    monkeypatch.setattr("v2m.pretrained.weights._announced", set())


@pytest.mark.usefixtures("nothing_shown")
@pytest.mark.parametrize(("recipe", "license"), [("acestep", "mit"), ("stableaudio", "stable-audio-community")])
def test_output_has_the_length_of_the_clip_and_records_weights_and_license(
    clip: Path, models: Path, capsys: pytest.CaptureFixture[str], recipe: str, license: str
) -> None:
    record = score(clip, models, recipe, "--tags.tempo", "96")
    said = capsys.readouterr().err.splitlines()
    assert f"weights {models / recipe}; license: {license}" in said
    out = clip.with_name("cuts.v2m.mp4")
    assert packet_digest(out) == packet_digest(clip)
    with av.open(str(out)) as container:
        stream = container.streams.audio[0]
        length = sum(frame.samples for frame in container.decode(stream)) / stream.rate
    assert length == pytest.approx(record["input"]["seconds"], abs=0.025)
    [used] = record["weights"]
    assert used["license"] == license
    assert len(used["sha256"]["transformer/diffusion_pytorch_model.safetensors"]) == 64
    music = record["music"]
    assert ("96 bpm" in music["prompt"]) == (recipe == "stableaudio")
    assert music.get("bpm") == (96 if recipe == "acestep" else None)
    assert "piano" in music["prompt"] or record["tags"]["instruments"][0] in music["prompt"]


def test_melody_is_accepted_and_candidates_are_kept(clip: Path, models: Path) -> None:
    tune = clip.with_name("tune.wav")
    ffmpeg("-f", "lavfi", "-i", "sine=220:d=2", tune)
    record = score(clip, models, "stableaudio", "--end", "0.8", "--melody", str(tune), "--candidates", "2")
    assert record["music"]["melody"] == str(tune)
    assert len(record["candidates"]) == 2
    assert len([name for name in names(clip.parent) if name.endswith(".wav")]) == 2  # the tune, and the other take


@pytest.mark.parametrize(
    "wrong",
    [
        ("stableaudio", ["--reference", "data/examples/bunny_wakes.mp4"], 2, "follows no style"),
        ("acestep", ["--melody", "README.md"], 2, "cannot be read as sound"),
        ("acestep", ["--stems"], 2, "cannot do --stems"),
        ("acestep", ["--generator.steps", "0"], 2, "steps 0 must lie between 1 and 1000"),
        ("acestep", ["--generator.meter", "5"], 2, "meter"),
        ("acestep", ["--generator.device", "tpu"], 2, "device 'tpu' is none of this machine's"),
        ("stableaudio", ["--generator.model", "no/such/folder/at/all"], 2, "there is no folder"),
        ("stableaudio", ["--generator.model", "tests"], 4, "lacks model_index.json"),
    ],
    ids=lambda wrong: "_".join(wrong[1]),
)
def test_unsupported_options_are_one_line_and_write_nothing(
    clip: Path, models: Path, capsys: pytest.CaptureFixture[str], wrong: tuple[str, list[str], int, str]
) -> None:
    recipe, flags, code, told = wrong
    root = Path(__file__).parents[2]
    flags = [str(root / word) if (root / word).exists() else word for word in flags]
    words = [str(clip), "--recipe", recipe, "--generator.model", str(models / recipe), *flags]
    assert main(words) == code
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("infer.py: ")]
    assert len(said) == 1, said
    assert told in said[0]
    assert names(clip.parent) == ["cuts.mp4"]
