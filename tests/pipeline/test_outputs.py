"""Output files are written completely or not at all."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from v2m.core.errors import UsageError
from v2m.core.types import Video
from v2m.pipeline.outputs import Outputs
from v2m.pipeline.result import Extras


def planned(folder: Path, clip: Video, *, overwrite: bool = False, **extras: bool) -> Outputs:
    return Outputs.plan(clip, folder / "clip.v2m.mp4", Extras(**extras), overwrite)  # type: ignore[arg-type]


@pytest.fixture
def clip(tmp_path: Path) -> Video:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"x")
    return Video(path, "mp4", "h264", 16, 9, 0, 25.0, 1.0, np.zeros(1), 0.0, ())


def test_staged_files_are_moved_to_their_final_names(tmp_path: Path, clip: Video) -> None:
    outputs = planned(tmp_path, clip, stems=True)
    with outputs.staged() as staged:
        staged.video.write_bytes(b"video")
        staged.stem("drums").write_bytes(b"drums")
        staged.sidecar.write_text("{}")
        assert not outputs.video.exists()
    assert outputs.video.read_bytes() == b"video"
    assert (tmp_path / "clip.v2m.stems" / "drums.wav").read_bytes() == b"drums"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "clip.mp4", "clip.v2m.json", "clip.v2m.mp4", "clip.v2m.stems",
    ]  # fmt: skip


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, SystemExit])
def test_failed_block_leaves_no_files(tmp_path: Path, clip: Video, error: type[BaseException]) -> None:
    def fail_halfway() -> None:
        with planned(tmp_path, clip).staged() as staged:
            staged.video.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        fail_halfway()
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_existing_file_beside_the_video_is_overwritten_only_on_request(tmp_path: Path, clip: Video) -> None:
    (tmp_path / "clip.v2m.mid").write_bytes(b"mine")
    assert planned(tmp_path, clip).midi.exists()
    with pytest.raises(UsageError, match=r"clip\.v2m\.mid exists already"):
        planned(tmp_path, clip, midi=True)
    with planned(tmp_path, clip, midi=True, overwrite=True).staged() as staged:
        staged.midi.write_bytes(b"new")
    assert (tmp_path / "clip.v2m.mid").read_bytes() == b"new"


def test_stale_staging_folders_are_removed_and_those_in_use_are_kept(tmp_path: Path, clip: Video) -> None:
    here = platform.node()
    dead, alive = tmp_path / f".v2m-999999999@{here}-abc", tmp_path / f".v2m-1@{here}-abc"
    elsewhere = tmp_path / ".v2m-999999999@another-machine-abc"  # which may share this folder
    for left in (dead, alive, elsewhere):
        left.mkdir()
    with planned(tmp_path, clip).staged() as staged:
        staged.video.write_bytes(b"video")
    assert not dead.exists()
    assert alive.exists()
    assert elsewhere.exists()


def test_existing_take_is_not_overwritten(tmp_path: Path, clip: Video) -> None:
    (tmp_path / "clip.v2m.seed4.wav").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"clip\.v2m\.seed4\.wav exists already"):
        Outputs.plan(clip, tmp_path / "clip.v2m.mp4", Extras(), False, range(3, 6))


def test_file_written_by_another_run_meanwhile_is_kept(tmp_path: Path, clip: Video) -> None:
    def write_late() -> None:
        with planned(tmp_path, clip).staged() as staged:
            staged.video.write_bytes(b"second")
            (tmp_path / "clip.v2m.mp4").write_bytes(b"first")

    with pytest.raises(UsageError, match=r"clip\.v2m\.mp4 exists already"):
        write_late()
    assert (tmp_path / "clip.v2m.mp4").read_bytes() == b"first"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("link", [False, True])
def test_output_beside_the_video_cannot_be_the_input(tmp_path: Path, clip: Video, link: bool) -> None:
    source = clip.path.rename(tmp_path / "clip.png")  # an animated one
    if link:
        (tmp_path / "other.png").symlink_to(source)
    out = tmp_path / ("other.mp4" if link else "clip.mp4")
    with pytest.raises(UsageError, match=r"\.png is the input itself"):
        Outputs.plan(replace(clip, path=source), out, Extras(report=True), True)
    assert source.read_bytes() == b"x"


def test_folder_in_place_of_a_file_is_refused(tmp_path: Path, clip: Video) -> None:
    (tmp_path / "clip.v2m.json").mkdir()
    with pytest.raises(UsageError, match=r"clip\.v2m\.json is a folder"):
        planned(tmp_path, clip, overwrite=True)


@pytest.mark.parametrize("link", [False, True])
def test_new_stems_replace_old_stems_and_no_other_files(tmp_path: Path, clip: Video, link: bool) -> None:
    stems = tmp_path / "clip.v2m.stems"
    folder = tmp_path / "elsewhere" if link else stems
    folder.mkdir()
    if link:
        stems.symlink_to(folder)
    for name in ("old.wav", "drums.wav", "notes.txt"):
        (folder / name).write_bytes(b"before")
    with planned(tmp_path, clip, stems=True, overwrite=True).staged() as staged:
        staged.stem("drums").write_bytes(b"new")
    assert sorted(path.name for path in stems.iterdir()) == ["drums.wav", "notes.txt"]
    assert (stems / "drums.wav").read_bytes() == b"new"


def test_file_in_place_of_the_stems_folder_is_refused(tmp_path: Path, clip: Video) -> None:
    (tmp_path / "clip.v2m.stems").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"clip\.v2m\.stems is no folder"):
        planned(tmp_path, clip, stems=True, overwrite=True)


@pytest.mark.parametrize(("name", "words"), [("o", "no suffix"), ("o.mp3", "mp3 is not one of")])
def test_unsupported_container_is_refused(tmp_path: Path, clip: Video, name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Outputs.plan(clip, tmp_path / name, Extras(), False)
