"""Sources of an inpainting request: defaults, ranges and refused files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from v2m.core.errors import UsageError
from v2m.core.types import Audio, InpaintRequest, Video
from v2m.media import audio as sound_files
from v2m.media import video
from v2m.pipeline import inpaint_source
from v2m.pipeline.score import score_video


@pytest.fixture(scope="module")
def scored(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the clip, and what the default recipe made of it."""
    folder = tmp_path_factory.mktemp("scored")
    shutil.copy(media / "cuts.mp4", folder)
    score_video(folder / "cuts.mp4")
    return folder


@pytest.fixture
def folder(scored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scored, tmp_path / "scored"))


@pytest.fixture
def clip_in(folder: Path) -> Video:
    return video.open(folder / "cuts.mp4")


def music(path: Path, seconds: float) -> Path:
    sound_files.save(Audio(np.full((1, int(seconds * 8000)), 0.1, np.float32), 8000), path)
    return path


def test_default_source_is_the_output(folder: Path, clip_in: Video) -> None:
    out = folder / "cuts.v2m.mp4"
    assert inpaint_source.resolve_inpaint_source(InpaintRequest(1, 2), clip_in, clip_in, out) == InpaintRequest(
        1, 2, out
    )


def test_range_is_relative_to_the_video_not_to_the_span(folder: Path, clip_in: Video) -> None:
    span = clip_in.crop(1.0, 3.0)
    asked = InpaintRequest(1.5, 3.0, music(folder / "take.wav", 2.0))
    assert inpaint_source.resolve_inpaint_source(asked, clip_in, span, folder / "none.mp4") == InpaintRequest(
        0.5, 2.0, asked.source_path
    )


@pytest.mark.parametrize(("begin", "end"), [(3.0, 4.5), (0.5, 2.0), (0.2, 0.8)])
def test_range_outside_the_span_is_refused(folder: Path, clip_in: Video, begin: float, end: float) -> None:
    with pytest.raises(UsageError, match=r"lies outside of the span that is scored \(1 to 3.00 s\)"):
        inpaint_source.resolve_inpaint_source(
            InpaintRequest(begin, end), clip_in, clip_in.crop(1.0, 3.0), folder / "cuts.v2m.mp4"
        )


def test_missing_source_is_refused(folder: Path, clip_in: Video) -> None:
    with pytest.raises(UsageError, match=r"no earlier music .*none.mp4' to keep: give its file as `source`"):
        inpaint_source.resolve_inpaint_source(InpaintRequest(1, 2), clip_in, clip_in, folder / "none.mp4")


def test_too_short_source_is_refused(folder: Path, clip_in: Video) -> None:
    with pytest.raises(UsageError, match=r"holds 2.00 s of music, and 4.00 s are needed"):
        inpaint_source.resolve_inpaint_source(
            InpaintRequest(1, 2, music(folder / "short.wav", 2.0)), clip_in, clip_in, folder / "none.mp4"
        )


def test_video_source_needs_a_matching_sidecar_and_no_original_audio(folder: Path, clip_in: Video) -> None:
    out, beside = folder / "cuts.v2m.mp4", folder / "cuts.v2m.json"
    record = json.loads(beside.read_text())

    def refused(message: str) -> None:
        with pytest.raises(UsageError, match=message):
            inpaint_source.resolve_inpaint_source(InpaintRequest(1, 2), clip_in, clip_in, out)

    beside.write_text(json.dumps(record | {"mix": record["mix"] | {"original": "duck"}}))
    refused(r"mixed with the clip's own sound \(duck\): give its music as a WAV")
    beside.write_text(json.dumps(record | {"input": record["input"] | {"sha256": "0" * 64}}))
    refused("was made of another video")
    beside.write_text(json.dumps(record | {"range": {"start": 1.0, "end": 4.0}}))
    refused("has music from 1 to 4 s: give the same `start` and `end`")
    for text in ("{", "[" * 100_000):
        beside.write_text(text)
        assert inpaint_source.read_sidecar(out) is None
        refused("no sidecar 'cuts.v2m.json' of v2m says")
    beside.unlink()
    refused("no sidecar 'cuts.v2m.json' of v2m says")
