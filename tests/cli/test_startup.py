"""Imports and help texts that load only the standard library and v2m."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "statement",
    [
        "import v2m",
        "from v2m.cli.main import main; main(['--help'])",
        "from v2m.cli.main import main; main(['--version'])",
    ],
)
def test_startup_imports_only_the_standard_library(statement: str) -> None:
    code = (
        f"import sys; before = set(sys.modules); {statement}\n"
        "loaded = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "sys.stdout.write('\\n' + ' '.join(sorted(loaded - sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "v2m"
