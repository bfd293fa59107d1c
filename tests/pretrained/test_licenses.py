"""Licenses by name: those of the hub are read off the card, and no weights are fetched for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pretrained.hub_server import serving
from v2m.pretrained import hub
from v2m.pretrained.hub import RemoteRepo
from v2m.pretrained.licenses import PUBLISHED, ask_hub, model_component, model_license, published_license

ROOT = Path(__file__).parents[2]
FILES = {"config.json": b"{}", "model.safetensors": bytes(100), "README.md": b"---\nlicense: apache-2.0\n---\n# Tiny"}
CLIENT = """
import sys
from v2m.pretrained.licenses import ask_hub, model_component
for name in sys.argv[1:]:
    component = ask_hub(model_component("codec", name, "codec"))
    print(component.license or component.missing)
"""


def test_license_of_an_unknown_repository_is_that_of_its_card_on_the_hub(tmp_path: Path) -> None:
    with serving(FILES) as hub:
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "V2M_CHECKPOINTS": str(tmp_path)}
        names = ["owner/tiny", "owner/missing", "facebook/musicgen-small"]
        done = subprocess.run(
            [sys.executable, "-c", CLIENT, *names],
            cwd=ROOT, env={**os.environ, **settings}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        tiny, missing, musicgen = done.stdout.splitlines()
        assert (tiny, musicgen) == ("apache-2.0", "cc-by-nc-4.0"), done.stderr
        assert missing.startswith("not known: the hub could not be asked")
        assert "has no such repository" in missing
        assert not hub.transfers()
        assert not [path for _, path, _ in hub.requests if "musicgen" in path]


@pytest.mark.parametrize("name", ["Facebook/MusicGen-Large", "facebook/musicgen-stereo-melody@main"])
def test_published_license_is_known_in_any_case_and_at_any_revision(name: str) -> None:
    assert published_license(name) == "cc-by-nc-4.0"


@pytest.mark.parametrize("name", ["ACE-Step/ACE-Step-v1-3.5B", "ACE-Step/acestep-captioner"])
def test_other_models_of_a_known_owner_are_not_known(name: str) -> None:
    assert published_license("ACE-Step/acestep-v15-xl-turbo-diffusers") == "mit"
    assert published_license(name) is None


@pytest.mark.parametrize("card", [None, "isc"])
def test_cached_snapshot_without_a_card_is_asked_for_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, card: str | None
) -> None:
    monkeypatch.setenv("V2M_CHECKPOINTS", str(tmp_path / "checkpoints"))
    if card is not None:
        (tmp_path / "README.md").write_text(f"---\nlicense: {card}\n---\n")
    remote = RemoteRepo("owner/model", "main", "0" * 40, {}, {"license": "mit"})
    monkeypatch.setattr(hub, "find_cached", lambda *_: (tmp_path, []))
    monkeypatch.setattr(hub, "list_files", lambda *_: remote)
    assert ask_hub(model_component("codec", "owner/model", "codec")).license == (card or "mit")


def test_published_names_are_in_lower_case() -> None:
    assert [name for name in PUBLISHED if name != name.lower()] == []


def test_file_is_judged_by_its_folder(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: isc\n---\n")
    (tmp_path / "tokenizer.model").touch()
    assert model_license(str(tmp_path / "tokenizer.model")) == "isc"
