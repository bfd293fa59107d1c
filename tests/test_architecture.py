"""Contracts between packages: who may import whom, and what the default recipe may load."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.fixtures.import_graph import PACKAGE, ROOT, cycles, module_graph, package_graph

# Each package of v2m/ and exactly the packages that its files import, lazy imports and type hints included.
MAY_IMPORT: dict[str, set[str]] = {
    "analysis": {"core"},
    "checkpoints": {"core", "mappings", "models", "pretrained"},
    "cli": {
        "checkpoints",
        "core",
        "data",
        "distributed",
        "evaluation",
        "media",
        "pipeline",
        "pretrained",
        "service",
        "taggers",
        "training",
        "webapp",
    },
    "core": set(),
    "data": {"analysis", "checkpoints", "core", "media", "models", "pretrained", "sketch", "taggers"},
    "distributed": {"core"},
    "evaluation": {"analysis", "core", "mappings", "media", "pretrained"},
    "generators": {"analysis", "checkpoints", "core", "mappings", "media", "models", "pretrained", "sketch"},
    "mappings": {"core"},
    "media": {"analysis", "core"},
    "mixing": {"analysis", "core", "media"},
    "models": {"core"},
    "pipeline": {"analysis", "core", "evaluation", "generators", "media", "mixing", "pretrained", "sketch", "taggers"},
    "pretrained": {"core", "mappings", "media", "models", "sketch"},
    "service": {"core", "media", "pipeline"},
    "sketch": {"analysis", "core"},
    "taggers": {"core", "mappings", "pretrained"},
    "training": {
        "analysis",
        "checkpoints",
        "core",
        "data",
        "evaluation",
        "generators",
        "media",
        "mixing",
        "models",
        "pipeline",
        "taggers",
    },
    "webapp": {"core", "pipeline"},
}


def test_each_package_imports_exactly_what_the_table_says() -> None:
    actual = {name: set(targets) for name, targets in package_graph().items()}
    assert actual == MAY_IMPORT


def test_no_package_and_no_module_is_in_an_import_cycle() -> None:
    assert cycles(package_graph()) == []
    assert cycles(module_graph()) == []


def test_import_cycle_is_detected() -> None:
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_no_loose_module_and_no_utils() -> None:
    assert {path.name for path in PACKAGE.iterdir() if path.is_file()} == {"__init__.py", "__main__.py", "py.typed"}
    assert not [path for path in PACKAGE.rglob("*.py") if path.stem in {"utils", "common", "helpers", "misc"}]


def test_nothing_imports_bench_and_bench_leaves_sys_path_alone() -> None:
    outside = [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py"), ROOT / "infer.py", ROOT / "train.py"]
    assert not [path for path in outside if re.search(r"^\s*(from|import) bench\b", path.read_text(), re.M)]
    assert not [path for path in (ROOT / "bench").rglob("*.py") if "sys.path" in path.read_text()]


def heavy_after(statement: str) -> Iterator[str]:
    code = (
        f"import sys; {statement}\n"
        "heavy = {'torch', 'transformers', 'lightning', 'matplotlib', 'wandb', 'scipy', 'librosa'} & set(sys.modules)\n"
        "sys.stdout.write(' '.join(sorted(heavy)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    yield from done.stdout.split()


@pytest.mark.parametrize(
    "statement", ["import v2m; v2m.score_video; v2m.Tags", "from v2m.cli.score import parse; parse(['clip.mp4'])"]
)
def test_api_and_command_line_import_no_heavy_library(statement: str) -> None:
    assert not list(heavy_after(statement))
