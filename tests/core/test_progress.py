"""A bar per stage is seen, whatever the terminal says of its size."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from v2m.core.progress import tqdm_progress

ROOT = Path(__file__).parents[2]
STAGE = "from v2m.core.progress import tqdm_progress\nwith tqdm_progress('Cooking') as progress:\n    progress(0.5)\n"


@pytest.mark.parametrize("size", [(24, 100), (0, 0)])
def test_a_terminal_shows_the_bar_moving(size: tuple[int, int]) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    subprocess.run([sys.executable, "-c", STAGE], cwd=ROOT, stderr=slave, check=True)
    os.close(slave)
    shown = os.read(master, 1 << 16).decode()
    os.close(master)
    assert "Cooking" in shown
    assert "100% |████████████████████████|" in shown


def test_a_file_gets_one_line_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with tqdm_progress("Cooking") as progress:
        for step in range(5):
            progress(step / 5)
    assert capsys.readouterr().err.startswith("Cooking")
    with tqdm_progress("Cooking"):
        pass
    assert len(capsys.readouterr().err.splitlines()) == 1
