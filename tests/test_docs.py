"""What the documents say is so: commands parse, files exist, examples run."""

from __future__ import annotations

import re
import shlex
from itertools import takewhile
from pathlib import Path

import pytest

from v2m.core import errors
from v2m.pipeline import arguments

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("[bcdt]*/*.md"), ROOT / "data" / "examples" / "README.md"])
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.partition(" # ")[0].strip().removeprefix("uv run infer.py ")
    for _, block in BLOCKS
    for line in block.splitlines()
    if line.startswith("uv run infer.py ")
]
RECIPES = sorted((ROOT / "configs" / "infer").glob("*.yaml"))


def parsed(command: str) -> arguments.Arguments | None:
    """The request, or None where the command only prints."""
    try:
        return arguments.parse(shlex.split(command))
    except SystemExit:  # wrong usage raises UsageError
        return None


def test_the_readme_shows_commands() -> None:
    assert len(COMMANDS) > 5
    assert any("-o" in command for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_parses(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in re.findall(r"\w+\.(?:txt|wav)", command):
        (tmp_path / name).write_text("[verse]\nla la\n")
    monkeypatch.chdir(tmp_path)
    request = parsed(command)
    assert request is None or str(request.videos[0]).startswith("clip")


def test_the_continuous_check_runs_the_two_commands_on_top_of_the_readme_word_for_word() -> None:
    first, second = re.findall(r"^\d\. `(.*)`$", README, re.MULTILINE)
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [line for line in script if "pip install" in line or "pytest" in line] == ["pip install uv", second, first]
    assert script[-1] == first
    request = parsed(first.partition("infer.py ")[2])
    assert request is not None
    assert (ROOT / request.videos[0]).is_file()


def test_the_map_of_the_readme_names_what_exists() -> None:
    [lines] = [block.splitlines() for _, block in BLOCKS if "infer.py   " in block]
    named = [
        ("v2m/" if line[:1] == " " else "") + word
        for line in lines
        for word in takewhile(re.compile(r"[\w/]+(\.py|/)").fullmatch, line.split()[: None if line[:1] == " " else 1])
    ]
    assert len(named) > 15
    assert not [name for name in named if not (ROOT / name).exists()]
    rooms = {path.name + "/" * path.is_dir() for path in (ROOT / "v2m").glob("[a-z]*") if path.name != "configs"}
    assert rooms - {"py.typed"} == {name.removeprefix("v2m/") for name in named if name.startswith("v2m/")} - {""}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_path_or_link_in_a_document_leads_somewhere(document: Path) -> None:
    text = document.read_text()
    links = [link for link in re.findall(r"\]\(([^)#:]+)\)", text) if not (document.parent / link).exists()]
    paths = re.findall(r"`((?:v2m|tests|bench|configs|data)/[a-z0-9_./]+)`", text)
    assert not links
    places = (ROOT, document.parent)
    assert not [path for path in paths if not any((each / path).exists() for each in places) and ".v2m." not in path]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_opens_with_the_command_that_runs_it_and_parses(recipe: Path) -> None:
    first = recipe.read_text().splitlines()[0]
    assert first.startswith("# uv run infer.py ")
    request = parsed(first.removeprefix("# uv run infer.py "))
    assert request is not None
    assert request.recipe == recipe.stem
    assert f"`infer/{recipe.name}`" in (ROOT / "configs" / "README.md").read_text()


def test_the_exit_codes_of_the_help_and_of_the_readme_are_those_there_are() -> None:
    codes = {value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)}
    assert {int(code) for code in re.findall(r"(?<!\w)(\d+) [a-z]", arguments.EXIT_CODES)} == codes
    shown = re.search(r"^\| code \| meaning \|\n.*?\n\n", README, re.MULTILINE | re.DOTALL)
    assert shown is not None
    assert {int(code) for code in re.findall(r"(?:^\||,) (\d+)", shown.group(), re.MULTILINE)} <= codes


def test_the_python_of_the_readme_runs(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [code] = [block for kind, block in BLOCKS if kind == "python"]
    clip.rename(clip.with_name("clip.mp4"))
    monkeypatch.chdir(clip.parent)
    names: dict[str, object] = {}
    exec(code, names)
    assert Path("clip.v2m.mp4").is_file()


def test_make_names_files_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    scripts = re.findall(r"(?:bench|data)/\S+\.\w+", makefile)
    assert scripts
    assert not [script for script in scripts if not (ROOT / script).is_file()]
    for target in re.findall(r"`make ([a-z ]+)`", (ROOT / "CONTRIBUTING.md").read_text()):
        assert set(target.split()) <= set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
