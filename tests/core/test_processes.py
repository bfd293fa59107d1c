"""Processes that end with their parent."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

DEADLINE_S = 60.0
PARENT = """
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from os import getpid
from pathlib import Path
from v2m.core.processes import exit_with_parent

def work():
    Path(sys.argv[1]).write_text(str(getpid()))
    time.sleep(600)

if __name__ == "__main__":
    ProcessPoolExecutor(1, get_context("spawn"), exit_with_parent).submit(work).result()
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc")
def test_a_worker_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    script, pid = tmp_path / "parent.py", tmp_path / "pid"
    script.write_text(PARENT)
    with subprocess.Popen([sys.executable, str(script), str(pid)]) as parent:
        wait(lambda: pid.is_file() and bool(pid.read_text()))
        parent.kill()
    worker = Path("/proc", pid.read_text())
    wait(lambda: not worker.exists())
    assert parent.returncode < 0
    assert not worker.exists()


def wait(is_reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)
