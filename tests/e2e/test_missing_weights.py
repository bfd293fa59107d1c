"""Weights that are not on this machine, without a network: one line that says what, how much and where to put it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import names
from v2m.cli.score import main


@pytest.mark.parametrize(
    ("recipe", "repository", "size"),
    [("musicgen", "facebook/musicgen-small", ""), ("v2b", "m-a-p/YuE-s1-7B-anneal-en-cot", "12.4 GB")],
)
def test_missing_weights_name_repository_size_and_folder(  # noqa: PLR0917 - a row, and where it is tried
    recipe: str,
    repository: str,
    size: str,
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("V2M_CHECKPOINTS", str(tmp_path / "none"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert main([str(clip), "--recipe", recipe]) == 4
    (said,) = capsys.readouterr().err.splitlines()
    for words in (repository, size, str(tmp_path / "none" / Path(repository).name)):
        assert words in said
    assert names(clip.parent) == ["cuts.mp4"]
