"""The recipe magnet as a person types it, on a tiny checkpoint in audiocraft's layout and a real clip."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import names
from tests.fixtures.packets import packet_digest
from tests.fixtures.tiny import encodec, t5
from tests.fixtures.tiny import musicgen as tiny
from v2m.cli.score import main
from v2m.core.errors import INSTALL_AUDIOCRAFT
from v2m.media import audio

STEPS = ("--generator.sampling.decoding_steps", "[4, 2, 2, 2]")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    tiny.write_magnet(folder / "magnet-small-30secs", tiny.magnet_config(), with_codec=False)
    t5.write(folder / "t5-base")
    encodec.write(folder / "encodec_32khz")
    return folder


@pytest.fixture
def checkpoints(weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("V2M_CHECKPOINTS", str(weights))
    return weights


def score(clip: Path, *flags: str) -> tuple[dict[str, Any], np.ndarray]:
    """The sidecar, and the music (C, N) of every whole second."""
    assert main([str(clip), "--recipe", "magnet", "--quiet", "--overwrite", "--wav", *STEPS, *flags]) == 0
    record = json.loads(clip.with_name("cuts.v2m.json").read_text())
    return record, audio.load(clip.with_name("cuts.v2m.wav"), 32000, record["input"]["seconds"]).samples


def refuse(capsys: pytest.CaptureFixture[str], clip: Path, *flags: str) -> tuple[int, str]:
    code = main([str(clip), "--recipe", "magnet", *flags])
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("infer.py: ")]
    assert [name for name in names(clip.parent) if ".v2m." in name] == []
    return code, line


def test_clip_longer_than_a_window_gets_music_and_a_sidecar(clip: Path, checkpoints: Path) -> None:
    record, music = score(clip, "--seed", "4")
    assert packet_digest(clip.with_name("cuts.v2m.mp4")) == packet_digest(clip)
    assert record["recipe"] == "magnet"
    assert [Path(info["folder"]).name for info in record["weights"]] == [
        "magnet-small-30secs", "t5-base", "encodec_32khz",
    ]  # fmt: skip
    assert record["weights"][0]["license"] == "cc-by-nc-4.0"
    assert record["music"]["windows"] == [[0, 1.98], [1.2, 3.18], [2.02, 4]]
    assert record["music"]["window_seeds"][0] == 4
    assert record["warnings"] == []
    assert all(np.abs(second).max() > 1e-3 for second in np.array_split(music, 4, axis=1))


def test_output_depends_on_seed_prompt_and_negative_prompt(clip: Path, checkpoints: Path) -> None:
    short = ("--end", "0.8", "--tags.genres", "jazz")
    _, music = score(clip, *short)
    np.testing.assert_array_equal(score(clip, *short)[1], music)
    for flags in (["--seed", "5"], ["--tags.genres", "rock"], ["--tags.negative", "drums"]):
        assert not np.array_equal(score(clip, *short, *flags)[1], music), flags


def test_without_audiocraft_the_line_that_installs_it_is_shown(
    clip: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "audiocraft", None)
    code, line = refuse(capsys, clip)
    assert code == 4
    assert line.endswith(INSTALL_AUDIOCRAFT)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--generator.sampling.decoding_steps", "[4, 2]"], "[4, 2] must be 4 numbers, one for each codebook"),
        (["--generator.sampling.decoding_steps", "[4, 2, 0, 2]"], "decoding_steps 0 must be 1 to 1000"),
        (["--generator.stride", "1.8"], "stride 1.8 s must lie between 0.5 and 1.48"),
        (["--generator.sampling.top_k", "20"], "top_k has no effect unless top_p is 1"),
        (["--melody", "README.md"], "melody"),
    ],
)
def test_option_that_does_not_suit_the_model_is_refused(
    clip: Path, checkpoints: Path, capsys: pytest.CaptureFixture[str], flags: list[str], told: str
) -> None:
    code, line = refuse(capsys, clip, *flags)
    assert code == 2
    assert told in line


def sound_effects(settings: dict[str, Any]) -> None:
    settings["solver"] = "audio_magnet"


def musicgen(settings: dict[str, Any]) -> None:
    settings["lm_model"] = "transformer_lm"


def other_size(settings: dict[str, Any]) -> None:
    settings["transformer_lm"]["num_layers"] += 1


def unknown_setting(settings: dict[str, Any]) -> None:
    settings["transformer_lm"]["wide"] = True


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (sound_effects, (2, "makes sound effects, no music")),
        (musicgen, (2, "is no MAGNeT (its lm_model is 'transformer_lm')")),
        (other_size, (4, "these are not the weights of the MAGNeT")),
        (unknown_setting, (4, "audiocraft makes no MAGNeT of the settings")),
    ],
)
def test_other_model_is_one_line(
    clip: Path, checkpoints: Path, capsys: pytest.CaptureFixture[str], spoil: Any, told: tuple[int, str]
) -> None:
    settings = tiny.magnet_config()
    folder = tiny.write_magnet(clip.parent / "model", settings, with_codec=False)
    spoil(settings)
    package = torch.load(folder / "state_dict.bin")
    torch.save(package | {"xp.cfg": json.dumps(settings)}, folder / "state_dict.bin")
    code, line = refuse(capsys, clip, "--generator.model", str(folder))
    assert code == told[0], line
    assert told[1] in line
