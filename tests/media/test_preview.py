"""Previews: small copies with the same pictures at the same times."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import EXAMPLE
from v2m.media import video
from v2m.media.ffmpeg import FFmpegError
from v2m.media.mux import MAX_PREVIEW_HEIGHT, write_preview


def test_preview_is_small_silent_and_of_the_same_duration(tmp_path: Path) -> None:
    whole = video.open(EXAMPLE)
    part = whole.crop(0.0, 3.0)
    write_preview(part, tmp_path / "small.mp4")
    made = video.open(tmp_path / "small.mp4")
    assert made.height == min(MAX_PREVIEW_HEIGHT, whole.height)
    assert abs(made.width / made.height - whole.width / whole.height) < 0.02
    assert [stream.kind for stream in made.streams] == ["video"]
    assert made.duration == pytest.approx(3.0, abs=1 / whole.fps)
    one, two = (item.frames([0.5, 2.5], 64).astype(int) for item in (part, made))
    assert np.abs(one - two).mean() < 8 < np.abs(one[0] - two[1]).mean()


def test_failed_preview_leaves_no_file(tmp_path: Path) -> None:
    whole = video.open(EXAMPLE)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no film")
    from dataclasses import replace

    with pytest.raises(FFmpegError):
        write_preview(replace(whole, path=broken), tmp_path / "small.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.mp4"]
