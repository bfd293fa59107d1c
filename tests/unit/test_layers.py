"""Imports point one way, and the default recipe stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "v2m"
LAYERS = (
    ("types", "interfaces", "timing", "errors", "command"),
    ("models", "io", "convert", "metrics"),
    ("frozen", "checkpoint", "taggers", "generators", "data"),
    # everything else in v2m/
)


def layer(module: str) -> int:
    room = module.split(".")[1] if "." in module and not module.endswith(".__main__") else ""  # a command is on top
    return next((rank for rank, rooms in enumerate(LAYERS) if room in rooms), len(LAYERS))


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.startswith("v2m.")}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


FILES = sorted(set(PACKAGE.rglob("*.py")) - {PACKAGE / "__init__.py"})  # whose lazy public names point everywhere


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_a_file_imports_only_its_own_layer_and_those_below(path: Path) -> None:
    own = layer(module_name(path))
    above = {name for name in imported(path) if layer(name) > own}
    assert not above, f"{module_name(path)} reaches up to {sorted(above)}"


def test_no_room_is_named_like_a_drawer() -> None:
    assert not [path for path in PACKAGE.rglob("*.py") if path.stem in {"utils", "common", "helpers", "misc"}]


def test_importing_v2m_and_reading_the_command_line_load_no_heavy_library() -> None:
    code = (
        "import sys; import v2m; from v2m.cli import parse; parse(['clip.mp4'])\n"
        "heavy = {'torch', 'transformers', 'lightning', 'matplotlib', 'wandb', 'scipy'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_eight_packages_import_together() -> None:
    names = "torch, lightning, audiocraft, transformers, decord, wandb, webdataset, encodec"
    code = f"import {names}; from audiocraft.models import lm; print(lm.LMModel.__name__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("LMModel"), done.stderr
