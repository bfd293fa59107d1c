"""Licenses by name: those of the hub are read off the card, and no weights are fetched for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pretrained.hub_server import serving
from v2m.pretrained.licenses import PUBLISHED, model_license, published_license

ROOT = Path(__file__).parents[2]
FILES = {"config.json": b"{}", "model.safetensors": bytes(100), "README.md": b"---\nlicense: apache-2.0\n---\n# Tiny"}
CLIENT = "import sys; from v2m.pretrained.licenses import model_license; print(*map(model_license, sys.argv[1:]))"


def test_license_of_an_unknown_repository_is_that_of_its_card_on_the_hub(tmp_path: Path) -> None:
    with serving(FILES) as hub:
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "V2M_CHECKPOINTS": str(tmp_path)}
        names = ["owner/tiny", "owner/missing", "facebook/musicgen-small"]
        done = subprocess.run(
            [sys.executable, "-c", CLIENT, *names],
            cwd=ROOT, env={**os.environ, **settings}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.stdout.split() == ["apache-2.0", "None", "cc-by-nc-4.0"], done.stderr
        assert not hub.transfers()
        assert not [path for _, path, _ in hub.requests if "musicgen" in path]


@pytest.mark.parametrize("name", ["Facebook/MusicGen-Large", "facebook/musicgen-stereo-melody@main"])
def test_published_license_is_known_in_any_case_and_at_any_revision(name: str) -> None:
    assert published_license(name) == "cc-by-nc-4.0"


def test_published_names_are_in_lower_case() -> None:
    assert [name for name in PUBLISHED if name != name.lower()] == []


def test_file_is_judged_by_its_folder(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: isc\n---\n")
    (tmp_path / "tokenizer.model").touch()
    assert model_license(str(tmp_path / "tokenizer.model")) == "isc"
