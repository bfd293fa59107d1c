"""Files are written completely or not at all."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from v2m.core.atomic import TEMPORARY_GLOB, atomic_write, temporary_sibling

ROOT = Path(__file__).parents[2]


def test_atomic_write_replaces_the_file_at_the_end_and_makes_folders(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    with atomic_write(path) as file:
        file.write(b"1")
        assert not path.exists()
    with atomic_write(path) as file:
        file.write(b"2")
        file.flush()
        assert path.read_bytes() == b"1"
    assert path.read_bytes() == b"2"
    assert list(path.parent.iterdir()) == [path]


def test_atomic_write_leaves_the_old_file_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    with pytest.raises(TypeError), atomic_write(path) as file:
        file.write("no bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_temporary_names_are_matched_by_the_glob_and_ignored_by_git(tmp_path: Path) -> None:
    with temporary_sibling(tmp_path / "clip.mp4") as temporary:
        assert list(tmp_path.glob(TEMPORARY_GLOB)) == [temporary]
        assert temporary.suffix == ".mp4"
        command = ["git", "check-ignore", "--no-index", temporary.name, ".v2m-1@host-abc"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert len(done.stdout.split()) == 2
