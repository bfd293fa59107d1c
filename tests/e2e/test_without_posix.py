"""What Windows lacks is not needed to score a video. (No Windows ran this: it is Linux with those names taken away.)"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures import without_posix

ROOT = Path(__file__).parents[2]


def run(folder: Path, *words: str | Path) -> tuple[subprocess.CompletedProcess[str], str]:
    """The finished Python, and the commands of all Pythons that took part."""
    site = folder / "site"
    site.mkdir()
    shutil.copy(without_posix.__file__, site / "sitecustomize.py")
    paths = os.pathsep.join([str(site), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths, "WITHOUT_POSIX": str(folder / "log")}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done, (folder / "log").read_text(encoding="utf-8")


def test_video_is_scored_without_posix_modules(clip: Path, tmp_path: Path) -> None:
    flags = ["--report", "--midi", "--stems", "--wav", "--markers", "otio"]
    done, log = run(tmp_path, "infer.py", clip, "-o", tmp_path / "out.mp4", *flags)
    assert done.returncode == 0, done.stderr
    assert "infer.py" in log
    assert "v2m.media.decoder_worker" in log
    assert {path.suffix for path in tmp_path.glob("out.*")} == {
        *(".mp4", ".json", ".png", ".mid", ".stems", ".wav", ".otio")
    }


@pytest.mark.parametrize(
    "line",
    [
        "import fcntl",
        "import os; os.fork",
        "import signal; signal.SIGKILL",
        "import select; select.poll",
        "import select; select.select([0], [], [], 0)",
        "import os; os.open('.', os.O_RDONLY)",
        "import os; os.fsync(os.open('README.md', os.O_RDONLY))",
    ],
)
def test_fixture_hides_posix_modules(line: str, tmp_path: Path) -> None:
    done, _ = run(tmp_path, "-c", line)
    assert done.returncode == 1
    assert "Error" in done.stderr


def test_no_module_imports_posix_modules_at_top_level() -> None:
    for path in (ROOT / "v2m").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not set(names) & set(without_posix.MODULES.split()), path
