"""Recipes of large models are parsed and checked before any heavy import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("recipe", "flags", "code"),
    [
        ("v2b", ["--help"], 0),
        ("v2b", ["--generator.max_section", "40", "README.md"], 2),
        ("v2b", ["README.md"], 3),  # which is no video
        ("musicgen", ["--generator.stride", "40", "README.md"], 2),
        ("musicgen", ["README.md"], 3),
        ("sonique-llm", ["README.md"], 3),
    ],
)
def test_recipes_of_large_models_import_no_heavy_package_before_work(recipe: str, flags: list[str], code: int) -> None:
    script = (
        "import sys; from v2m.cli.score import main\n"
        "try: code = main(['--recipe', *sys.argv[1:]])\n"
        "except SystemExit as end: code = end.code\n"
        "heavy = {'torch', 'transformers', 'scipy', 'huggingface_hub'} & set(sys.modules)\n"
        "sys.stdout.write(f'\\n{code} {sorted(heavy)}')"
    )
    words = [sys.executable, "-c", script, recipe, *flags]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == f"{code} []", done.stderr
