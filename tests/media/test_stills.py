"""Animated images: WebP, AVIF, GIF, APNG, JPEG XL; still ones are refused."""

from __future__ import annotations

import errno
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import names
from tests.media.audio_checks import decode_track, tone
from v2m.core.errors import InvalidInputError
from v2m.data.sources import discover_videos
from v2m.media import video as videos
from v2m.media.decoder_process import DecoderProcess
from v2m.media.inventory import take_inventory
from v2m.media.mux import write_preview
from v2m.media.video import DEFAULT_LIMITS, Limits
from v2m.media.webp import read_animation
from v2m.mixing.mixer import default_output, mix
from v2m.pipeline.batch import find_videos

DURATIONS = (100, 400, 100, 1000, 100, 300)  # ms
STARTS = [0.0, 0.1, 0.5, 0.6, 1.6, 1.7]
SIZE = (96, 64)


def draw_frames(*, alpha: bool = False, count: int = len(DURATIONS)) -> list[Image.Image]:
    """Draw frames in plain colors, the red of frame n 40 n, whose upper half is white and transparent with `alpha`."""
    frames = []
    for number in range(count):
        pixels = np.full((SIZE[1], SIZE[0], 4), (40 * number, 100, 0, 255), np.uint8)
        if alpha:
            pixels[: SIZE[1] // 2] = (255, 255, 255, 0)
        frames.append(Image.fromarray(pixels if alpha else pixels[..., :3]))
    return frames


def write_animation(path: Path, *, alpha: bool = False, durations: tuple[int, ...] = DURATIONS) -> Path:
    first, *others = draw_frames(alpha=alpha, count=len(durations))
    options: dict[str, Any] = {"lossless": True} if path.suffix == ".webp" else {}
    first.save(path, save_all=True, append_images=others, duration=list(durations), loop=0, **options)
    return path


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the temporary files of this test alone: other tests write into the system's at the same time."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def test_animated_webp_is_read_without_loss_at_its_times(tmp_path: Path) -> None:
    clip = videos.open(write_animation(tmp_path / "in.webp"))
    assert (clip.container, clip.codec, clip.warnings) == ("webp", "webp", ())
    assert (clip.width, clip.height, clip.duration) == (*SIZE, 2.0)
    np.testing.assert_allclose(clip.timestamps, STARTS)
    images = clip.frames([1.55, 0.05, 1.99])
    for image, number in zip(images, (3, 0, 5), strict=True):
        np.testing.assert_array_equal(image, np.asarray(draw_frames()[number]))


def test_transparent_webp_is_shown_on_black(tmp_path: Path) -> None:
    clip = videos.open(write_animation(tmp_path / "in.webp", alpha=True))
    [image] = clip.frames([0.7])
    assert image[: SIZE[1] // 2].max() == 0
    assert (image[SIZE[1] // 2 :] == (120, 100, 0)).all()
    assert clip.warnings == ("records_lost: transparency of the file is not read",)


def test_scored_webp_is_an_mp4_that_lasts_as_long(tmp_path: Path, temporary: Path) -> None:
    """Its last picture keeps its duration; the copy of its frames is gone with the video."""
    clip = videos.open(write_animation(tmp_path / "in.webp"))
    assert names(temporary) != []
    out = default_output(clip)
    report = mix(clip, tone(2), out)
    assert out.name == "in.v2m.mp4"
    assert report.warnings == ("pictures_encoded: webp holds no sound, so the pictures were encoded as H.264",)
    written = videos.open(out)
    np.testing.assert_allclose(written.timestamps, STARTS, atol=1e-3)
    assert written.duration == pytest.approx(2.0, abs=1e-3)
    assert [round(image[0, 0, 0] / 40) for image in written.frames(STARTS)] == list(range(6))
    write_preview(clip, tmp_path / "preview.mp4")
    assert videos.open(tmp_path / "preview.mp4").duration == pytest.approx(2.0, abs=1e-3)
    del clip
    assert names(temporary) == []


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(pixels=96 * 64 - 1), "too_large"),
        (Limits(total_pixels=6 * 96 * 64 - 1), "too_large"),
        (Limits(duration=1.9), "too_long"),
        (Limits(frames=5), "too_many_frames"),
        (Limits(frames=2), "too_many_frames"),
    ],
)
def test_limits_hold_for_animated_webp(limits: Limits, reason: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError) as refused:
        videos.open(write_animation(tmp_path / "in.webp"), limits)
    assert refused.value.reason == reason


def test_webp_frame_without_a_duration_lasts_a_tenth_of_a_second(tmp_path: Path) -> None:
    animation = read_animation(write_animation(tmp_path / "in.webp", durations=(0, 10, 20)), 100)
    assert animation is not None
    assert animation.frame_ticks == (100, 100, 20)


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_broken_webp_is_refused(keep: float, tmp_path: Path, temporary: Path) -> None:
    data = write_animation(tmp_path / "in.webp").read_bytes()
    path = tmp_path / "broken.webp"
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(InvalidInputError, match="is a damaged animated WebP") as refused:
        videos.open(path)
    assert refused.value.reason == "undecodable"
    del refused
    assert names(temporary) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_full_disk_is_no_fault_of_the_webp(tmp_path: Path) -> None:
    request = {"task": "convert", "path": str(write_animation(tmp_path / "in.webp")), "out": "/dev/full"}
    with pytest.raises(OSError, match="No space left") as failed:
        list(DecoderProcess(DEFAULT_LIMITS.memory).request(request | {"limits": asdict(DEFAULT_LIMITS)}, 60))
    assert failed.value.errno == errno.ENOSPC


@pytest.mark.parametrize("name", ["one.webp", "one.avif", "one.gif", "one.png", "one.apng"])
def test_still_image_is_refused(name: str, tmp_path: Path) -> None:
    apng = {"format": "PNG", "save_all": True, "default_image": True}
    options: dict[str, Any] = apng if name.endswith("apng") else {}
    draw_frames()[0].save(tmp_path / name, **options)
    with pytest.raises(InvalidInputError, match="is a still image") as refused:
        videos.open(tmp_path / name)
    assert refused.value.reason == "image"


@pytest.mark.parametrize("name", ["in.gif", "in.png"])
def test_transparency_of_gif_and_apng_is_named_where_a_picture_has_any(name: str, tmp_path: Path) -> None:
    """GIF's own use of it, for what a picture leaves of the one before, is none."""
    clip = videos.open(write_animation(tmp_path / name))
    clip.visual_features()
    assert videos.current_warnings(clip) == ()
    clip = videos.open(write_animation(tmp_path / name, alpha=True))
    clip.visual_features()
    assert videos.current_warnings(clip) == ("records_lost: transparency of the file is not read",)


def test_folder_takes_animated_images_and_leaves_still_ones(tmp_path: Path) -> None:
    """And leaves a camera's preview, which shows what the video beside it shows, and what is no file."""
    expected = [write_animation(tmp_path / f"moving{suffix}") for suffix in (".AVIF", ".png", ".webp")]
    for suffix in (".avif", ".png", ".webp"):
        draw_frames()[0].save(tmp_path / f"still{suffix}")
    for name in ("a.mp4", "a.LRV", ".hidden.png", "a.v2m.mp4"):
        (tmp_path / name).write_bytes(expected[1].read_bytes())
    (tmp_path / "folder.webp").mkdir()
    os.mkfifo(tmp_path / "pipe.webp")
    assert find_videos([tmp_path]) == sorted([tmp_path / "a.mp4", *expected])
    assert [source.video for source in discover_videos([tmp_path])] == find_videos([tmp_path])
    assert find_videos([tmp_path / "still.png"]) == [tmp_path / "still.png"]


@pytest.mark.parametrize(("target", "alpha"), [(".mp4", False), (".mp4", True), (".mkv", True)])
def test_sequence_of_an_animated_avif_is_read_and_copied(target: str, alpha: bool, tmp_path: Path) -> None:
    """Not its still item, and not its transparency, which are named."""
    clip = videos.open(write_animation(tmp_path / "in.avif", alpha=alpha))
    np.testing.assert_allclose(clip.timestamps, STARTS)
    assert clip.duration == 2.0
    assert [round(image[-1, 0, 0] / 40) for image in clip.frames(STARTS)] == list(range(6))
    assert default_output(clip).suffix == ".mp4"
    report = mix(clip, tone(2), tmp_path / f"out{target}")
    muxer = {".mp4": "mp4", ".mkv": "matroska"}[target]
    stills = "av1 (Color), av1 (Alpha)" if alpha else "av1 (Color)"
    left = [f"stills_left_out: {muxer} does not hold {stills}"]
    left += [f"transparency_left_out: {muxer} does not hold av1"] if alpha else []
    assert report.warnings == tuple(left)
    written = videos.open(tmp_path / f"out{target}")
    assert [stream.kind for stream in take_inventory(written.path).streams] == ["video", "audio"]
    np.testing.assert_allclose(written.timestamps, STARTS, atol=1e-3)
    assert decode_track(written.path)[0].any()


def test_animated_jpeg_xl_is_named_with_a_cure(tmp_path: Path) -> None:
    """The header of a codestream of 8 × 8 pixels with an animation."""
    (tmp_path / "in.jxl").write_bytes(bytes.fromhex("ff0a410401c809") + bytes(64))
    with pytest.raises(InvalidInputError, match="is an animated JPEG XL; convert it to APNG") as refused:
        videos.open(tmp_path / "in.jxl")
    assert refused.value.reason == "container"
