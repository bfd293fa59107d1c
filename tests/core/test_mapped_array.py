"""Arrays in temporary files: they keep their values, and their pages leave memory."""

from __future__ import annotations

import gc
import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from v2m.core import mapped_array
from v2m.core.audio_ops import apply_gain

pytestmark = pytest.mark.skipif(
    not hasattr(mmap, "MADV_DONTNEED") or not hasattr(os, "posix_fallocate"),
    reason="arrays stay in memory where the system cannot release pages of a file",
)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="resident memory is read from Linux's /proc")
def test_released_pages_leave_memory_and_keep_their_values() -> None:
    before = resident_bytes()
    array = mapped_array.zeros((2, 1 << 24))
    for part in mapped_array.chunks(1 << 24):
        array[:, part] = part.start
    assert resident_bytes() - before < array.nbytes / 2
    assert array[:, 0].tolist() == [0, 0]
    assert array[1, -1] == (1 << 24) - mapped_array.CHUNK


def test_chunks_cover_every_sample_once() -> None:
    assert [(part.start, part.stop) for part in mapped_array.chunks(7, 3)] == [(0, 3), (3, 6), (6, 7)]
    assert list(mapped_array.chunks(0)) == []


def test_last_gain_holds_beyond_the_curve_in_every_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped_array, "CHUNK", 64)
    samples = np.ones((2, 300), np.float32)
    apply_gain(samples, np.array([0.5, 0.25]))
    assert samples[:, 48:].tolist() == np.full((2, 252), 0.25).tolist()


def test_array_stays_in_memory_where_the_disk_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mapped_array, "MIN_BYTES", 1)
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    array = mapped_array.zeros((2, 5))
    array += 1
    assert array.sum() == 10


def test_file_of_an_array_is_gone_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped_array, "MIN_BYTES", 1)
    monkeypatch.setattr(mapped_array.tempfile, "tempdir", str(tmp_path))
    array = mapped_array.zeros((2, 1000))
    assert not list(tmp_path.iterdir())
    number = len(mapped_array._mappings)
    del array
    gc.collect()
    assert len(mapped_array._mappings) == number - 1
