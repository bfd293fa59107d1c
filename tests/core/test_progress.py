"""Progress bars on terminals of any size, and captured warnings."""

from __future__ import annotations

import fcntl
import logging
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from v2m.core.progress import capture_warnings, tqdm_progress

ROOT = Path(__file__).parents[2]
STAGE = "from v2m.core.progress import tqdm_progress\nwith tqdm_progress('Cooking') as progress:\n    progress(0.5)\n"


@pytest.mark.parametrize("size", [(24, 100), (0, 0)])
def test_terminal_shows_a_moving_bar(size: tuple[int, int]) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    subprocess.run([sys.executable, "-c", STAGE], cwd=ROOT, stderr=slave, check=True)
    os.close(slave)
    output = os.read(master, 1 << 16).decode()
    os.close(master)
    assert "Cooking" in output
    assert "100% |████████████████████████|" in output


def test_log_file_gets_one_line_per_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with tqdm_progress("Cooking") as progress:
        for step in range(5):
            progress(step / 5)
    assert capsys.readouterr().err.startswith("Cooking")
    with tqdm_progress("Cooking"):
        pass
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_capture_warnings_collects_distinct_lines_in_order() -> None:
    logger = logging.getLogger("v2m.generators.some")
    with capture_warnings() as messages:
        logger.warning("%s is\n  slow", "this")
        logging.getLogger("v2m").error("broken")
        logger.warning("this is slow")
        logger.info("of no interest")
        logging.getLogger("elsewhere").warning("of others")
    assert messages == ["this is slow", "broken"]


def test_capture_warnings_stops_at_the_end_of_the_block_also_after_an_error() -> None:
    before, lists = list(logging.getLogger("v2m").handlers), []

    def fail() -> None:
        with capture_warnings() as messages:
            lists.append(messages)
            raise ValueError("any")

    with pytest.raises(ValueError, match="any"):
        fail()
    logging.getLogger("v2m.some").warning("late")
    assert lists == [[]]
    assert logging.getLogger("v2m").handlers == before


def test_nested_capture_warnings_both_collect() -> None:
    logger = logging.getLogger("v2m.some")
    with capture_warnings() as outer:
        logger.warning("one")
        with capture_warnings() as inner:
            logger.warning("two")
    assert (outer, inner) == (["one", "two"], ["two"])
