"""`v2m prepare --commercial-safe`: encoders, codec and tagger are judged before anything is fetched or read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from v2m.cli.prepare import main
from v2m.core.errors import USAGE, LicenseError
from v2m.data.config import PrepareConfig
from v2m.data.prepare import check_licenses
from v2m.taggers.heuristic import HeuristicTagger
from v2m.taggers.language_model import LanguageModel

BUILT_IN = PrepareConfig(
    vision_encoder="v2m-frame-statistics-1", text_encoder="v2m-hashed-words-1", codec="v2m-score-1"
)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("V2M_CHECKPOINTS", str(tmp_path / "checkpoints"))


def test_models_without_weights_and_published_ones_that_allow_it_are_accepted() -> None:
    check_licenses(BUILT_IN, HeuristicTagger())
    accepted = replace(BUILT_IN, text_encoder="google-t5/t5-base", vocals="remove")
    check_licenses(accepted, HeuristicTagger())
    with pytest.raises(LicenseError) as caught:
        check_licenses(replace(accepted, codec="facebook/encodec_32khz"), HeuristicTagger())
    assert "t5-base" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "name"), [("codec", "facebook/encodec_32khz"), ("vision_encoder", "openai/clip-vit-base-patch32")]
)
def test_models_that_forbid_it_or_state_nothing_are_refused(option: str, name: str) -> None:
    with pytest.raises(LicenseError, match=name):
        check_licenses(replace(BUILT_IN, **{option: name}), HeuristicTagger())


def test_tagger_is_judged() -> None:
    with pytest.raises(LicenseError, match=r"Qwen/Qwen1\.5-14B-Chat"):
        check_licenses(BUILT_IN, LanguageModel(HeuristicTagger(), model="qwen-14b"))


def test_command_names_the_option_before_it_looks_for_videos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "missing"), str(tmp_path / "out"), "--commercial-safe"]) == USAGE
    error = capsys.readouterr().err
    assert "--commercial-safe refuses" in error
    assert "give another --codec" in error
