"""`--generator.decoder multiband` as a person types it, for MusicGen's and VidMuse's codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import names
from tests.fixtures.tiny import encodec, multiband
from tests.fixtures.tiny import musicgen as tiny
from v2m.cli.score import main
from v2m.core.errors import INSTALL_AUDIOCRAFT
from v2m.media import audio

SHORT = ("--end", "0.6", "--quiet", "--overwrite", "--wav")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    tiny.write_transformers(folder / "musicgen", stereo=True)
    tiny.write_vidmuse(folder / "vidmuse")
    encodec.write(folder / "encodec_32khz")
    multiband.write(folder / "multiband-diffusion")
    return folder


def score(clip: Path, recipe: str, model: Path, *flags: str) -> tuple[dict[str, Any], np.ndarray]:
    assert main([str(clip), "--recipe", recipe, "--generator.model", str(model), *SHORT, *flags]) == 0
    record = json.loads(clip.with_name("cuts.v2m.json").read_text())
    return record, audio.load(clip.with_name("cuts.v2m.wav"), 32000, 0.6).samples


@pytest.mark.parametrize("recipe", ["musicgen", "vidmuse"])
def test_same_codes_are_decoded_by_diffusion(
    clip: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    monkeypatch.setenv("V2M_CHECKPOINTS", str(weights))
    _, plain = score(clip, recipe, weights / recipe)
    record, music = score(clip, recipe, weights / recipe, "--generator.decoder", "multiband")
    np.testing.assert_array_equal(score(clip, recipe, weights / recipe, "--generator.decoder", "multiband")[1], music)
    assert music.shape == plain.shape
    assert np.abs(music).max() > 1e-3
    assert not np.allclose(music, plain, atol=1e-2)
    used = record["weights"][-1]
    assert (used["name"], used["license"]) == ("facebook/multiband-diffusion", "cc-by-nc-4.0")
    assert len(used["sha256"][multiband.FILE]) == 64
    assert record["settings"]["generator"]["init_args"]["decoder"] == "multiband"


def test_without_audiocraft_the_line_that_installs_it_is_shown(
    clip: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "audiocraft", None)
    flags = ("--recipe", "musicgen", "--generator.model", str(weights / "musicgen"))
    assert main([str(clip), *flags, "--generator.decoder", "multiband"]) == 4
    assert capsys.readouterr().err.splitlines()[-1].endswith(INSTALL_AUDIOCRAFT)
    assert names(clip.parent) == ["cuts.mp4"]
