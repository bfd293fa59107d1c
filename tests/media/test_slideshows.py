"""Pictures that stand still under sound: the music lasts as long as the sound."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ffmpeg
from tests.media.audio_checks import decode_track, tone
from v2m.core.errors import InvalidInputError
from v2m.media import video as videos
from v2m.media.ffmpeg import open_media
from v2m.media.mux import write_preview
from v2m.mixing.mixer import MixConfig, mix

SOUND_S = 6.0
SOUND = ("-f", "lavfi", "-i", f"sine=440:d={SOUND_S:g}:sample_rate=48000")
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac")
CODECS = {
    ".webm": ("-c:v", "libvpx-vp9", "-c:a", "libopus"),
    ".wmv": ("-c:v", "wmv2", "-c:a", "wmav2"),
    ".ogv": ("-c:v", "libtheora", "-c:a", "libvorbis"),
}


def write_slideshow(path: Path, times: tuple[float, ...], *options: str) -> Path:
    """Write a file whose pictures begin at `times`, the last one 0.04 s long, under six seconds of sound."""
    gaps = [later - earlier for earlier, later in pairwise(times)]
    source = f"testsrc2=s=64x48:r=25:d={0.04 * len(times)},setpts=N*{gaps[0] if gaps else 0}/TB"
    picture = ("-f", "lavfi", "-i", source)
    ffmpeg(*picture, *SOUND, "-fps_mode", "vfr", *CODECS.get(path.suffix, H264), *options, path)
    return path


def packets(path: Path) -> list[bytes]:
    with open_media(path) as media:
        return [bytes(packet) for packet in media.demux(media.streams.video[0]) if packet.size]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".avi", ".ts", ".flv", ".wmv", ".ogv"])
def test_single_picture_is_held_under_its_sound(suffix: str, tmp_path: Path) -> None:
    clip = videos.open(write_slideshow(tmp_path / f"in{suffix}", (0.0,)))
    assert clip.duration == pytest.approx(SOUND_S, abs=0.1)
    assert clip.warnings[0].startswith("one_frame: the video is a single frame, shown for ")
    report = mix(clip, tone(SOUND_S), tmp_path / f"out{suffix}", MixConfig("keep"))
    assert report.duration == pytest.approx(clip.duration, abs=1e-3)
    written = videos.open(tmp_path / f"out{suffix}")
    assert written.duration == pytest.approx(clip.duration, abs=0.1)
    assert packets(written.path) == packets(clip.path)
    samples, _ = decode_track(written.path)
    assert np.abs(samples[int(5.5 * 48_000) : int(5.8 * 48_000)]).max() > 0.05


@pytest.mark.parametrize(("times", "source"), [((0.0,), ".mp4"), ((0.0,), ".mkv"), ((0.0, 3.0), ".mp4")])
def test_last_picture_of_an_mp4_lasts_to_its_end(times: tuple[float, ...], source: str, tmp_path: Path) -> None:
    clip = videos.open(write_slideshow(tmp_path / f"in{source}", times))
    np.testing.assert_allclose(clip.timestamps, times, atol=2e-3)
    assert clip.duration == pytest.approx(SOUND_S, abs=0.1)
    mix(clip, tone(SOUND_S), tmp_path / "out.mp4")
    write_preview(clip, tmp_path / "preview.mp4")
    for name in ("out.mp4", "preview.mp4"):
        written = videos.open(tmp_path / name)
        np.testing.assert_allclose(written.timestamps, times, atol=2e-3)
        assert written.streams[0].duration == pytest.approx(clip.duration, abs=0.05)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_long_picture_in_the_middle_keeps_its_time(suffix: str, tmp_path: Path) -> None:
    clip = videos.open(write_slideshow(tmp_path / f"in{suffix}", (0.0, 2.4, 4.8)))
    np.testing.assert_allclose(clip.timestamps, (0.0, 2.4, 4.8), atol=2e-3)
    first, last = clip.frames([2.3, 5.9]).astype(int)
    np.testing.assert_array_equal(first, clip.frames([0.0])[0])
    np.testing.assert_array_equal(last, clip.frames([4.8])[0])
    mix(clip, tone(SOUND_S), tmp_path / f"out{suffix}")
    np.testing.assert_allclose(videos.open(tmp_path / f"out{suffix}").timestamps, clip.timestamps, atol=2e-3)


def test_moving_video_still_ends_with_its_pictures(tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=1", *SOUND, *H264, tmp_path / "in.mp4")
    assert videos.open(tmp_path / "in.mp4").duration == pytest.approx(1.0)


@pytest.mark.parametrize("suffix", [".mp3", ".m4a"])
def test_cover_of_music_is_no_video(suffix: str, tmp_path: Path) -> None:
    cover = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=0.04")
    words = ("-frames:v", "1", "-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-disposition:v:0", "attached_pic")
    ffmpeg(*SOUND, *cover, "-map", "0", "-map", "1", *words, tmp_path / f"in{suffix}")
    with pytest.raises(InvalidInputError) as refused:
        videos.open(tmp_path / f"in{suffix}")
    assert refused.value.reason == "no_video"
