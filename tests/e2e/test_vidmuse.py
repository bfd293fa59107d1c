"""The recipe vidmuse as a person types it, on VidMuse's own two files and a real clip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import names
from tests.fixtures.packets import packet_digest
from tests.fixtures.tiny import encodec
from tests.fixtures.tiny import musicgen as tiny
from v2m.checkpoints import V2M
from v2m.cli.score import main

WINDOWS = ("--generator.window", "2", "--generator.stride", "1")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`VidMuse` and the codec that it names, `own` made from it, and a `musicgen`."""
    folder = tmp_path_factory.mktemp("weights")
    tiny.write_vidmuse(folder / "VidMuse")
    encodec.write(folder / "encodec_32khz")
    V2M.from_pretrained(str(folder / "VidMuse")).save_pretrained(folder / "own")
    tiny.write_transformers(folder / "musicgen")
    return folder


@pytest.fixture(autouse=True)
def _(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V2M_CHECKPOINTS", str(weights))


def score(clip: Path, *flags: str) -> dict[str, Any]:
    assert main([str(clip), "--recipe", "vidmuse", "--quiet", "--overwrite", "--seed", "4", *WINDOWS, *flags]) == 0
    return json.loads(clip.with_name("cuts.v2m.json").read_text())


def test_published_files_in_checkpoints_give_music_of_the_video_length(clip: Path, weights: Path) -> None:
    record = score(clip)
    music = record["music"]
    assert packet_digest(clip.with_name("cuts.v2m.mp4")) == packet_digest(clip)
    assert music["windows"] == [[0, 2], [1, 3], [2, 4]]
    assert (music["prompt"], music["visual_input"]["fps"], music["visual_input"]["pooling"]) == ("", 2, "all")
    assert [each["name"] for each in record["weights"]] == ["Zeyue7/VidMuse", "facebook/encodec_32khz"]
    assert {"state_dict.bin"} <= record["weights"][0]["sha256"].keys()
    written = clip.with_name("cuts.v2m.mp4").read_bytes()
    again = score(clip, "--generator.model", str(weights / "own"))
    assert again["music"]["windows"] == music["windows"]
    assert len(clip.with_name("cuts.v2m.mp4").read_bytes()) == pytest.approx(len(written), rel=0.01)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--generator.model", "musicgen"], (2, "has no visual conditioner: give it to the recipe musicgen")),
        (["--generator.model", "no/such/folder/at/all"], (2, "there is no folder 'no/such/folder/at/all'")),
        (["--generator.window", "40"], (2, "window 40 s is longer than the 30 s")),
        (["--generator.stride", "30"], (2, "stride 30 s must lie between 0.5 and 29.5")),
        (["--generator.sampling.video_cfg_scale", "-1"], (2, "video_cfg_scale -1 must be 0 or more")),
        (["--generator.device", "tpu"], (2, "device 'tpu' is none of this machine's")),
        (["--melody", "README.md"], (2, "melody")),
        (["--stems"], (2, "cannot do --stems")),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else None,
)
def test_invalid_checkpoints_are_one_line(
    clip: Path, weights: Path, capsys: pytest.CaptureFixture[str], flags: list[str], told: tuple[int, str]
) -> None:
    flags = [str(weights / word) if (weights / word).is_dir() else word for word in flags]
    found = main([str(clip), "--recipe", "vidmuse", *flags])
    said = capsys.readouterr().err.splitlines()
    assert (found, len(said)) == (told[0], 1), said
    assert told[1] in said[0]
    assert names(clip.parent) == ["cuts.mp4"]
