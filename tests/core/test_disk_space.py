"""Room for a job: what surely does not fit is refused with what is needed and free, and nothing else is."""

from __future__ import annotations

import math
import shutil
import tempfile
from pathlib import Path

import pytest

from v2m.core import disk_space
from v2m.core.errors import DiskFullError

GB = 10**9


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A disk with 3 GB free of temporary files, and 2 GB of memory."""
    (tmp_path / "meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable: 1500000 kB\nSwapFree: 500000 kB\n")
    monkeypatch.setattr(disk_space, "MEMORY_FILE", tmp_path / "meminfo")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9 * GB, 6 * GB, 3 * GB))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(("arrays", "outputs"), [(5 * GB, 0), (2 * GB, 3 * GB), (4 * GB, GB)])
def test_disk_and_memory_together_take_what_fits(room: Path, arrays: int, outputs: int) -> None:
    """And a tenth of a GB more does not."""
    disk_space.check_space(arrays, outputs, room)
    with pytest.raises(DiskFullError, match="the sound in the work takes"):
        disk_space.check_space(arrays + GB // 10, outputs, room)


@pytest.mark.parametrize(
    ("arrays", "outputs", "message"),
    [
        (
            6 * GB,
            0,
            "the sound in the work takes 6.0 GB or more, and 3.0 GB are free there and 2.0 GB in memory: ",
        ),
        (
            3 * GB,
            3 * GB,
            "the sound in the work takes 3.0 GB or more and the files to write 3.0 GB, and 3.0 GB ",
        ),
        (0, 4 * GB, "the files to write take 4.0 GB or more, and 3.0 GB are free: free some room there, give another"),
    ],
)
def test_what_does_not_fit_is_refused(room: Path, arrays: int, outputs: int, message: str) -> None:
    with pytest.raises(DiskFullError) as raised:
        disk_space.check_space(arrays, outputs, room)
    assert str(raised.value).startswith(f"{str(room)!r}: {message}")


def test_unknown_room_refuses_nothing(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_space, "MEMORY_FILE", room / "gone")
    assert disk_space.available_memory() == math.inf
    disk_space.check_space(100 * GB)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 0))
    disk_space.check_space(0, 100 * GB, room)
