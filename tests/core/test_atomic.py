"""Files are written completely or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from v2m.core import atomic
from v2m.core.atomic import TEMPORARY_GLOB, atomic_write, claim, name_outputs, temporary_sibling

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


def made_of(out: Path, video: Path, size: int = 0) -> None:
    out.write_text(json.dumps({"input": {"file": str(video), "bytes": size}}))


def named(*videos: Path, folder: Path | None = None) -> list[str]:
    return [path.name for path in name_outputs({video: folder or video.parent for video in videos}).values()]


def test_output_names_differ_and_do_not_depend_on_the_order(tmp_path: Path) -> None:
    clip, twin, upper, other = (tmp_path / name for name in ("clip.mp4", "clip.mov", "CLIP.MP4", "other.mp4"))
    for path in (clip, twin, upper, other):
        path.write_text("")
    assert named(clip, other) == ["clip.v2m", "other.v2m"]
    assert named(clip, twin, other) == ["clip.mp4.v2m", "clip.mov.v2m", "other.v2m"]
    assert named(twin, clip) == ["clip.mov.v2m", "clip.mp4.v2m"]
    *three, last = named(clip, upper, twin, other)
    assert [name.split("-")[0] for name in three] == ["clip.mp4", "CLIP.MP4", "clip.mov.v2m"]
    assert last == "other.v2m"
    elsewhere = tmp_path / "sub" / "clip.mp4"
    assert len({*named(clip, elsewhere, folder=tmp_path)}) == 2
    assert named(clip, elsewhere) == ["clip.v2m", "clip.v2m"], "which lie in different folders"


def test_output_name_stays_while_its_sidecar_names_the_video(tmp_path: Path) -> None:
    clip, twin, gone = (tmp_path / name for name in ("clip.mp4", "clip.mov", "gone.mp4"))
    for path in (clip, twin):
        path.write_text(path.name)
    made_of(tmp_path / "clip.v2m.json", clip)
    assert named(clip, twin) == ["clip.v2m", "clip.mov.v2m"]
    assert named(twin) == ["clip.mov.v2m"], "the other name is another video's"
    made_of(tmp_path / "clip.v2m.json", gone)
    assert named(twin) == ["clip.v2m"], "of a video that is gone"
    made_of(tmp_path / "clip.v2m.json", tmp_path / "moved" / "clip.mov")
    assert named(clip, twin) == ["clip.mp4.v2m", "clip.v2m"]
    (tmp_path / "clip.v2m.json").write_text("[]")
    assert named(clip) == ["clip.v2m"]


def test_claim_is_exclusive_and_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / f"{'ä' * 120}.v2m"
    with claim(out) as first, claim(out) as second, claim(tmp_path / "other.v2m") as other:
        assert (first, second, other) == (True, False, True)
        assert len(list(tmp_path.glob(TEMPORARY_GLOB))) == 2
    assert list(tmp_path.iterdir()) == []
    with claim(out) as again:
        assert again
    with claim(tmp_path / "missing" / "clip.v2m") as anywhere:
        assert anywhere


def test_claim_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = "import os, signal, sys; from pathlib import Path; from v2m.core.atomic import claim\n"
    code += "with claim(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run([sys.executable, "-c", code, tmp_path / "clip.v2m"], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with claim(tmp_path / "clip.v2m") as is_free:
        assert is_free
    assert list(tmp_path.iterdir()) == []


def test_locked_file_that_its_last_holder_removed_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def lock_late(file: IO[str]) -> None:
        calls.append(file)
        if len(calls) == 1:
            Path(file.name).unlink()

    monkeypatch.setattr(atomic, "lock", lock_late)
    with claim(tmp_path / "clip.v2m") as is_free:
        assert is_free
        assert [Path(file.name).exists() for file in calls] == [True, True]
        assert [file.closed for file in calls] == [True, False]
