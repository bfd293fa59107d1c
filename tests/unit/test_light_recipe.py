"""A wrong command with the recipe of large models is told at once: nothing heavy is imported before work begins."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (["--help"], 0),
        (["--generator.section", "40", "README.md"], 2),
        (["README.md"], 3),  # which is no video
    ],
)
def test_the_recipe_of_large_models_is_read_without_the_libraries_that_run_them(flags: list[str], code: int) -> None:
    script = (
        "import sys; from v2m.cli import main\n"
        "try: code = main(['--recipe', 'v2b', *sys.argv[1:]])\n"
        "except SystemExit as end: code = end.code\n"
        "heavy = {'torch', 'transformers', 'scipy', 'huggingface_hub'} & set(sys.modules)\n"
        "sys.stdout.write(f'\\n{code} {sorted(heavy)}')"
    )
    done = subprocess.run([sys.executable, "-c", script, *flags], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == f"{code} []", done.stderr
