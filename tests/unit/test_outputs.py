"""Files appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from v2m.errors import UsageError
from v2m.outputs import Outputs
from v2m.score import Extras
from v2m.types import Video


def planned(folder: Path, clip: Video, *, overwrite: bool = False, **extras: bool) -> Outputs:
    return Outputs.plan(clip, folder / "clip.v2m.mp4", Extras(**extras), overwrite)  # type: ignore[arg-type]


@pytest.fixture
def clip(tmp_path: Path) -> Video:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"x")
    import numpy as np

    return Video(path, "mp4", "h264", 16, 9, 0, 25.0, 1.0, np.zeros(1), 0.0, ())


def test_what_a_block_writes_arrives_under_its_names(tmp_path: Path, clip: Video) -> None:
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
def test_a_block_that_fails_leaves_nothing(tmp_path: Path, clip: Video, error: type[BaseException]) -> None:
    def fail_halfway() -> None:
        with planned(tmp_path, clip).staged() as staged:
            staged.video.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        fail_halfway()
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_file_beside_the_video_is_not_overwritten_unasked(tmp_path: Path, clip: Video) -> None:
    (tmp_path / "clip.v2m.mid").write_bytes(b"mine")
    assert planned(tmp_path, clip).midi.exists()
    with pytest.raises(UsageError, match=r"clip\.v2m\.mid exists already"):
        planned(tmp_path, clip, midi=True)
    with planned(tmp_path, clip, midi=True, overwrite=True).staged() as staged:
        staged.midi.write_bytes(b"new")
    assert (tmp_path / "clip.v2m.mid").read_bytes() == b"new"


def test_what_a_killed_run_left_is_swept_and_a_living_one_s_is_not(tmp_path: Path, clip: Video) -> None:
    dead, alive = tmp_path / ".v2m-999999999-abc", tmp_path / ".v2m-1-abc"
    dead.mkdir()
    alive.mkdir()
    with planned(tmp_path, clip).staged() as staged:
        staged.video.write_bytes(b"video")
    assert not dead.exists()
    assert alive.exists()
