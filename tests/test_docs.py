"""Documents of the repository: commands parse, Python compiles, names, flags, files and links exist."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import pytest
import yaml

import v2m
from tests.conftest import EXAMPLE
from tests.fixtures.certificates import make_signer
from tests.fixtures.import_graph import package_graph
from v2m.cli import score
from v2m.core import errors

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted((ROOT / "docs").rglob("*.md"))
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("[bcd]*/*.md"), *ROOT.glob("docs/*/*.md"), ROOT / "data/examples/README.md"]
)
GUIDES = sorted({*PAGES, *(path for path in DOCUMENTS if path.name != "CHANGELOG.md" and "bench" not in path.parts)})
RECIPES = sorted((ROOT / "configs" / "infer").glob("*.yaml"))
TRAINING_CONFIGS = sorted(ROOT.glob("configs/[dst]*/*.yaml"))
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
MAX_README_BYTES = 7000
# Options of other programs that the documents name.
FOREIGN_OPTIONS = {
    "--all-extras", "--all-groups", "--group", "--extra", "--with", "--local-dir", "--help", "--version", "--strict",
    "--no-smoothing", "--inexact", "--read-only", "--tmpfs", "--project", "--head", "--generate",
}  # fmt: skip


class Command(NamedTuple):
    """A command line of v2m in a document."""

    document: Path
    program: str  # "score", "train", "evaluate", …
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}: {self.program} {' '.join(self.arguments)}"


def blocks(document: Path, language: str | None = None) -> list[str]:
    """The code blocks of a document; all that are not text or data, or those of one language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)
    return [code for name, code in found if name == language or (language is None and name in {"", "bash", "sh"})]


def inline_code(document: Path) -> list[str]:
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)


def parse_line(document: Path, line: str) -> Command | None:
    """The command of v2m in a line of a shell, if there is one; what uv, a comment or a variable adds is left out."""
    words = shlex.split(line.replace("\\\n", " "), comments=True)
    while words and re.fullmatch(r"[A-Z0-9_]+=.*", words[0]):
        words.pop(0)
    if "&&" in words:
        words = words[words.index("&&") + 1 :]
    if words[:2] == ["uv", "run"]:
        words = words[2:]
        while words and words[0].startswith("--"):
            words = words[2 if words[0] in {"--extra", "--group", "--with"} else 1 :]
    if words[:3] == ["python", "-m", "v2m"]:
        words = ["v2m", *words[3:]]
    programs = {"infer.py": ["score"], "train.py": ["train"]}
    if words and words[0] in programs:
        words = ["v2m", *programs[words[0]], *words[1:]]
    if words[:1] != ["v2m"] or len(words) == 1 or "COMMAND" in words:
        return None
    from v2m.cli.main import COMMANDS

    program, rest = (words[1], words[2:]) if words[1] in COMMANDS else ("score", words[1:])
    return Command(document, program, tuple(rest))


def commands_of(document: Path) -> Iterator[Command]:
    lines = [line for block in blocks(document) for line in re.sub(r"\\\n\s*", " ", block).splitlines()]
    lines += [code for code in inline_code(document) if re.match(r"(uv run|pip install uv|v2m [a-z.]+\.mp4)", code)]
    yield from filter(None, (parse_line(document, line) for line in lines if line.strip()))


def commands_of_comments(file: Path) -> Iterator[Command]:
    """Commands in the head of a YAML file or in a module's docstring."""
    lines = re.sub(r"\\\n[#\s]*", " ", file.read_text()).splitlines()
    shown = (re.match(r"#?\s*(uv run (?:infer|train|v2m|python -m v2m).*)", line) for line in lines)
    yield from filter(None, (parse_line(file, re.split(r"\s{3,}\S", m[1])[0]) for m in shown if m is not None))


COMMANDS = [command for document in GUIDES for command in commands_of(document)]
COMMANDS += [command for file in (*TRAINING_CONFIGS, *EXAMPLES) for command in commands_of_comments(file)]


class ParsedError(Exception):
    """Ends a Lightning command after its options were parsed."""


def lightning_parser(module: str, name: str) -> Callable[[list[str]], None]:
    kind: Any = getattr(importlib.import_module(module), name)

    class Parsed(kind):
        def before_instantiate_classes(self) -> None:
            raise ParsedError

    def parse(words: list[str]) -> None:
        with pytest.raises(ParsedError):
            Parsed(words)

    return parse


def parser_of(program: str) -> Callable[[list[str]], object]:
    if program == "score":
        return score.parse
    if program in {"train", "tag"}:
        return lightning_parser(f"v2m.cli.{program}", f"{program.capitalize()}CLI")
    return importlib.import_module(f"v2m.cli.{program}").build_parser().parse_args


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the documents' commands name; `my_music` holds the classes of docs/extending.md."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "data").symlink_to(ROOT / "data")
    for name in ("tune.wav", "clip.mp4", "clip.v2m.wav"):
        (tmp_path / name).touch()
    make_signer(tmp_path)  # chain.pem, key.pem
    (tmp_path / "song.txt").write_text("[verse]\nla la\n")
    (tmp_path / "my.yaml").write_text((ROOT / "configs/infer/sketch.yaml").read_text())
    plugins = [code for code in blocks(ROOT / "docs/extending.md", "python") if "class " in code]
    (tmp_path / "my_music.py").write_text("\n".join(plugins))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_music", raising=False)
    monkeypatch.setenv("V2M_PASSWORD", "secret")
    return tmp_path


def test_documents_show_commands_of_every_program() -> None:
    from v2m.cli import main

    assert {command.program for command in COMMANDS} == set(main.COMMANDS)
    assert len(COMMANDS) > 80


@pytest.mark.parametrize(
    "document", [*GUIDES, *TRAINING_CONFIGS, *EXAMPLES], ids=lambda path: str(path.relative_to(ROOT))
)
def test_commands_of_a_document_parse(document: Path, workplace: Path) -> None:
    problems = []
    for command in (command for command in COMMANDS if command.document == document):
        try:
            parser_of(command.program)(list(command.arguments))
        except SystemExit as end:  # after --help
            problems += [f"{command} ends with {end.code}"] if end.code else []
        except ValueError as error:
            problems.append(f"{command}: {error}")
    assert not problems


def test_a_command_with_a_wrong_option_is_found(workplace: Path) -> None:
    for line in ("uv run infer.py clip.mp4 --tag.genres jazz", "uv run --extra models v2m evaluate a/ --embeding clap"):
        command = parse_line(ROOT / "README.md", line)
        assert command is not None
        with pytest.raises(errors.UsageError):
            parser_of(command.program)(list(command.arguments))


def known_options() -> set[str]:
    """Options of all commands: those of the parsers, and those of the classes that recipes and configs name."""
    programs = ("score", "prepare", "app", "serve", "mcp", "convert", "evaluate", "synthesize")
    static: list[Any] = [importlib.import_module(f"v2m.cli.{program}").build_parser() for program in programs]
    static += training_parsers()
    options = {option for parser in static for action in parser._actions for option in action.option_strings}
    for path in [*sorted(class_paths(*RECIPES)), "v2m.taggers.language_model.LanguageModel"]:
        for prefix in ("--generator", "--tagger"):
            options |= set(class_options(imported(path), prefix))
    for module, name in (("v2m.cli.tag", "LitTagger"), ("v2m.training.module", "LitMusicLM")):
        options |= set(class_options(imported(f"{module}.{name}"), "--model"))
    return options | {"--ckpt_path", "--generator.NAME", "--tagger.NAME"}


def training_parsers() -> list[Any]:
    """The parsers of `train.py`'s subcommands."""
    from v2m.cli.train import TrainCLI

    parsers: list[Any] = []

    class Parsed(TrainCLI):
        def before_instantiate_classes(self) -> None:
            parsers.extend(self._subcommand_parsers.values())
            raise ParsedError

    with pytest.raises(ParsedError):
        Parsed(["fit", "--config", "configs/train/tiny.yaml"])
    return parsers


def class_options(kind: Any, prefix: str) -> Iterator[str]:
    """The options of a class's `__init__`, those of its dataclasses included."""
    hints = get_type_hints(kind.__init__)
    for name in signature(kind).parameters:
        yield f"{prefix}.{name}"
        for part in (hints.get(name), *get_args(hints.get(name))):
            if is_dataclass(part):
                yield from (f"{prefix}.{name}.{field.name}" for field in fields(part))


def imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def class_paths(*files: Path) -> set[str]:
    """Class paths of v2m in YAML."""
    return {path for file in files for path in re.findall(r"class_path: (v2m\.[\w.]+)", file.read_text())}


def test_options_in_running_text_exist(workplace: Path) -> None:
    known, unknown = known_options(), set()
    prefixes = {option.rpartition(".")[0] for option in known}
    for document in GUIDES:
        for code in inline_code(document):
            for option in re.findall(r"(?<![\w./-])(--[a-z][\w.-]*[\w*])", code):
                plain = option.removesuffix(".*").removesuffix(".NAME")
                if plain not in known | prefixes | FOREIGN_OPTIONS:
                    unknown.add(f"{document.name}: {option}")
    assert not unknown


@pytest.mark.parametrize(
    "document", [*GUIDES, *RECIPES, *TRAINING_CONFIGS], ids=lambda path: str(path.relative_to(ROOT))
)
def test_class_paths_of_yaml_exist(document: Path, workplace: Path) -> None:
    snippets = [document.read_text()] if document.suffix == ".yaml" else blocks(document, "yaml")
    for snippet in snippets:
        yaml.safe_load(snippet)
        for path in re.findall(r"class_path: ([\w.]+)", snippet):
            assert isinstance(imported(path), type), path


@pytest.mark.parametrize("document", GUIDES, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_of_a_document_compiles_and_names_what_exists(document: Path, workplace: Path) -> None:
    for code in blocks(document, "python"):
        tree = ast.parse(code, str(document))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert not [alias.name for alias in node.names if not hasattr(module, alias.name)], node.module
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "v2m":
                assert hasattr(v2m, node.attr), f"v2m.{node.attr}"


@pytest.mark.parametrize("document", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_of_the_api_reference_exist(document: Path) -> None:
    for path in re.findall(r"^::: ([\w.]+)$", document.read_text(), re.MULTILINE):
        try:
            assert importlib.import_module(path)
        except ModuleNotFoundError:
            assert imported(path) is not None


def test_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clip.mp4").write_bytes(EXAMPLE.read_bytes())
    monkeypatch.chdir(tmp_path)
    [code] = blocks(ROOT / "README.md", "python")
    exec(code, {})
    assert Path("clip.v2m.mp4").is_file()


def test_python_of_the_python_page_runs(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip.rename(clip.with_name("clip.mp4"))
    monkeypatch.chdir(clip.parent)
    for code in blocks(ROOT / "docs/python.md", "python"):
        exec(code, {})
    assert Path("clip.v2m.mp4").is_file()


def test_plugins_of_the_extending_page_work(workplace: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from v2m.cli.score import main

    clip.rename(clip.with_name("clip.mp4"))
    given = ["--generator", "my_music.Beep", "--generator.frequency", "330", "--tagger", "my_music.Weather"]
    assert main(["clip.mp4", *given]) == 0
    tests = [code for code in blocks(ROOT / "docs/extending.md", "python") if "class " not in code]
    for code in tests:
        exec(code, {})
    assert tests
    embedder = imported("my_music.Loudness")()
    from v2m.core.types import Audio

    silence = Audio(importlib.import_module("numpy").zeros((2, 96_000), "float32"), 48_000)
    assert embedder.embed_audio(silence).embeddings.shape == (2, 2)


def heading_ids(page: Path) -> set[str]:
    """Anchors of a page's headings, as MkDocs and GitHub make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_images_and_paths_of_a_document_exist(document: Path) -> None:
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"(?:src|poster|href)=\"([^\"]+)\"", text)
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        if anchor:
            assert anchor in heading_ids(target), link
    paths = re.findall(r"`((?:v2m|tests|bench|configs|data|docs|examples)/[a-z0-9_./]+)`", text)
    places = (ROOT, document.parent)
    assert not [path for path in paths if not any((place / path).exists() for place in places) and ".v2m." not in path]


def test_every_page_is_in_the_navigation() -> None:
    named = re.findall(r": ([\w/.-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(str(page.relative_to(ROOT / "docs")) for page in PAGES)


def test_readme_is_short() -> None:
    assert len(README.encode()) <= MAX_README_BYTES


def test_readme_shows_every_recipe() -> None:
    assert not [recipe.stem for recipe in RECIPES if not re.search(rf"\b{recipe.stem}\b", README)]


def test_continuous_check_runs_the_two_commands_of_the_readme_word_for_word() -> None:
    first, second = re.findall(r"^\d\. `(.*)`$", README, re.MULTILINE)
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    assert [line for line in script if "pip install" in line or "pytest" in line] == ["pip install uv", second, first]
    assert script[-1] == first
    request = score.parse(shlex.split(first.partition("infer.py ")[2]))
    assert (ROOT / request.videos[0]).is_file()


def test_package_table_of_the_architecture_page_lists_every_package_in_import_order() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    table = text.partition("| package | holds |")[2].partition("\n\n")[0]
    packages = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    graph = package_graph()
    assert sorted(packages) == sorted(graph)
    place = {name: number for number, name in enumerate(packages)}
    assert not [(name, other) for name, others in graph.items() for other in others if place[other] <= place[name]]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_opens_with_the_command_that_runs_it_and_parses(recipe: Path) -> None:
    first = recipe.read_text().splitlines()[0]
    assert first.startswith("# uv run infer.py ")
    request = score.parse(shlex.split(first.removeprefix("# uv run infer.py ")))
    assert request.recipe.name == recipe.stem
    assert f"`infer/{recipe.name}`" in (ROOT / "configs" / "README.md").read_text()


def test_exit_codes_of_the_help_and_of_the_documents_are_those_of_the_code() -> None:
    codes = {value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)}
    assert {int(code) for code in re.findall(r"(?<!\w)(\d+) [a-z]", score.EXIT_CODES)} == codes
    page = (ROOT / "docs/cli.md").read_text()
    shown = re.search(r"^\| code \| meaning \|\n.*?\n\n", page, re.MULTILINE | re.DOTALL)
    assert shown is not None
    assert {int(code) for code in re.findall(r"(?:^\||,) (\d+)", shown.group(), re.MULTILINE)} == codes


def test_citation_names_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == v2m.__version__
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


def test_make_names_files_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    scripts = re.findall(r"(?:bench|data)/\S+\.\w+", makefile)
    assert scripts
    assert not [script for script in scripts if not (ROOT / script).is_file()]
    for targets in re.findall(r"make ([a-z ]+)", (ROOT / "CONTRIBUTING.md").read_text()):
        assert set(targets.split()) <= set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))


def test_table_of_terms_names_files_and_functions_that_exist() -> None:
    text = (ROOT / "docs/architecture.md").read_text().partition("## Where to find it")[2].partition("\n## ")[0]
    rows = [line.split("|")[2:4] for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 15
    for files, names in rows:
        source = "".join((ROOT / file).read_text() for file in re.findall(r"`([^`]+)`", files))
        assert source
        for name in re.findall(r"`([^`]+)`", names):
            assert re.search(rf"^\s*(def|class) {name}\b", source, re.M), name
