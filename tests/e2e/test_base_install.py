"""With the base install alone the default recipe gives all its outputs; anything else says which extra it needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.installed import ROOT, base_environment
from v2m.pipeline.recipes import list_recipes

RECIPES = sorted(set(list_recipes()) - {"sketch"})


@pytest.fixture
def python(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """Environment variables of a Python with the base install, and a folder to work in."""
    folder = tmp_path / "site"
    folder.mkdir()
    return base_environment(folder), tmp_path


def run(environment: dict[str, str], *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def cured(done: subprocess.CompletedProcess[str], extra: str) -> bool:
    """Whether the command ended in one line that installs the extra."""
    end = done.stderr.strip().splitlines()[-1]
    cure = f"install it with `uv sync --inexact --extra {extra}` or `pip install 'v2m[{extra}]'`"
    return done.returncode == 4 and end.endswith(cure) and "Traceback" not in done.stderr


def test_default_recipe_writes_every_output_without_extras(python: tuple[dict[str, str], Path], clip: Path) -> None:
    environment, folder = python
    flags = ["--report", "--midi", "--stems", "--wav", "--markers", "otio", "--candidates", "2"]
    done = run(environment, "infer.py", clip, "-o", folder / "out.mp4", "--quiet", *flags)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in folder.iterdir()}
    assert {"out.mp4", "out.json", "out.png", "out.mid", "out.wav", "out.otio", "out.stems"} <= names
    again = run(environment, "infer.py", clip, "-o", folder / "out.mp4", "--overwrite", "--inpaint", "1:2")
    assert again.returncode == 0, again.stderr
    measured = run(environment, "-m", "v2m", "evaluate", folder / "out.mp4")
    assert measured.returncode == 0, measured.stderr


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_with_missing_extra_prints_install_command(
    python: tuple[dict[str, str], Path], clip: Path, recipe: str
) -> None:
    done = run(python[0], "infer.py", clip, "--recipe", recipe)
    assert cured(done, "models"), done.stderr
    assert sorted(path.name for path in clip.parent.iterdir()) == ["cuts.mp4", "site"]


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (["train.py", "fit", "--config", "configs/train/tiny.yaml"], "train"),
        (["-m", "v2m", "tag"], "train"),
        (["-m", "v2m", "app", "--port", "0"], "app"),
        (["-m", "v2m", "mcp"], "mcp"),
        (["-m", "v2m", "prepare", "{clip}", "{folder}/data"], "train"),
        (["-m", "v2m", "evaluate", "{clip}", "--embedding", "clap"], "models"),
        (["-m", "v2m", "convert", "{clip}", "{folder}/model"], "models"),
    ],
    ids=lambda words: " ".join(words[:3]) if isinstance(words, list) else words,
)
def test_command_with_missing_extra_prints_install_command(
    python: tuple[dict[str, str], Path], clip: Path, words: list[str], extra: str
) -> None:
    done = run(python[0], *(word.format(clip=clip, folder=python[1]) for word in words))
    assert cured(done, extra), done.stderr
