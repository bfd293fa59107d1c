"""Opening and reading of videos whose frames carry their number."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from tests.conftest import ffmpeg
from tests.robustness.corpus import resolution_change
from tests.robustness.media_makers import MediaMaker, read_number
from v2m.core.errors import InvalidInputError
from v2m.core.types import Video
from v2m.media import video
from v2m.media.ffmpeg import open_media


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> MediaMaker:
    return MediaMaker(tmp_path_factory.mktemp("numbered"))


def build_video(maker: MediaMaker, name: str, recipe: str) -> Path:
    path = maker.folder / name
    if not path.exists():
        maker.ffmpeg(recipe, path)
    return path


def source(clip: Video) -> video.FileFrameSource:
    assert isinstance(clip.source, video.FileFrameSource)
    return clip.source


def numbers_at(clip: Video, times: list[float]) -> list[int]:
    return [read_number(image) for image in clip.frames(times)]


def scan_numbers(clip: Video, fps: float) -> tuple[list[float], list[int]]:
    chunks = list(source(clip).scan(clip.width, fps))
    times = np.concatenate([times for times, _ in chunks]).tolist()
    return times, [read_number(image) for _, images in chunks for image in images]


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_frames_at_any_times_in_any_order(maker: MediaMaker, decoder: video.Decoder) -> None:
    """Also twice the same, just before and at a frame's first instant, before the video and after it."""
    clip = video.open(build_video(maker, "plain.mp4", "V X -g 30 O"), decoder=decoder)
    times = [3.0, 0.5, 0.5, -1.0, 99.0, 1.0333, 1.0334, 0.0]
    assert numbers_at(clip, times) == [90, 15, 15, 0, 119, 30, 31, 0]
    assert source(clip).decoder == decoder
    assert clip.frames([1.0], 100).shape == (1, 75, 100, 3)
    assert clip.frames([]).shape == (0, 240, 320, 3)


def test_span_times_count_from_its_start(maker: MediaMaker) -> None:
    clip = video.open(build_video(maker, "plain.mp4", "V X -g 30 O")).crop(1.0, 2.0)
    assert numbers_at(clip, [0.0, 0.5]) == [30, 45]


def test_scan_yields_every_frame_or_those_shown_on_the_grid(maker: MediaMaker) -> None:
    """Seven frames a second out of thirty: none is a rounded step from the last."""
    clip = video.open(build_video(maker, "plain.mp4", "V X -g 30 O"))
    assert scan_numbers(clip, 30)[1] == list(range(120))
    times, numbers = scan_numbers(clip, 7)
    assert times == [k / 7 for k in range(28)]
    assert numbers == [math.floor(30 * k / 7 + 1e-6) for k in range(28)]


def test_rate_rounded_by_the_container_counts_as_native(maker: MediaMaker) -> None:
    """Matroska's milliseconds make 30.003 frames a second of the first hundred."""
    clip = video.open(build_video(maker, "rounded.mkv", "V X -frames:v 100 O"))
    assert clip.fps > 30
    assert scan_numbers(clip, 30) == (clip.timestamps.tolist(), list(range(100)))


def test_variable_frame_rate_keeps_its_times(maker: MediaMaker) -> None:
    """A frame stays until the next one comes, five seconds later."""
    recipe = "V X -vf setpts='(N/30+5*gt(N\\,60))/TB' -enc_time_base 1:90000 -fps_mode vfr O"
    clip = video.open(build_video(maker, "gap.mp4", recipe))
    assert clip.timestamps[[60, 61]] == pytest.approx([2.0, 5 + 61 / 30], abs=1e-3)
    assert clip.duration == pytest.approx(9.0, abs=1e-3)
    assert numbers_at(clip, [1.9, 2.0, 4.0, 7.0, 7.04, 8.0]) == [57, 60, 60, 60, 61, 90]
    assert scan_numbers(clip, 2)[1] == [0, 15, 30, 45, *[60] * 11, 75, 90, 105]


@pytest.mark.parametrize("name", ["late.mkv", "late.ts"])
def test_times_count_from_the_first_frame_at_the_offset(maker: MediaMaker, name: str) -> None:
    clip = video.open(build_video(maker, name, "V A X -c:a aac -output_ts_offset 5 O"))
    assert clip.timestamps[0] == 0
    assert clip.offset == pytest.approx(5.0 if name.endswith("mkv") else 6.4, abs=0.05)
    assert clip.duration == pytest.approx(4.0, abs=0.002)
    assert numbers_at(clip, [0.0, 2.0]) == [0, 60]


def test_avi_frames_come_in_display_order(maker: MediaMaker) -> None:
    """AVI numbers packets in coding order, so B-frames would be out of order by its clock."""
    clip = video.open(build_video(maker, "bframes.avi", "V -c:v libx264 -preset medium -bf 3 O"))
    assert scan_numbers(clip, 30)[1] == list(range(120))
    assert numbers_at(clip, [1.0, 3.5]) == [30, 105]


def test_edit_list_that_hangs_decord_is_read_exactly(maker: MediaMaker) -> None:
    whole = build_video(maker, "long.mp4", "numbers:320x240:30:300 X -g 1000 O")
    path = build_video(maker, "cut.mp4", f"-ss 6 -i {whole.name} -c copy O")
    clip = video.open(path)
    assert numbers_at(clip, [0.0, 1.0, 3.9]) == [180, 210, 297]
    assert source(clip).decoder == "pyav"
    assert video.current_warnings(clip) == ()  # decord was not waited for


TURNS = {
    "-display_rotation:v:0 -90": 90,
    "-display_rotation:v:0 180": 180,
    "-display_rotation:v:0 90": 270,
    "-display_hflip:v:0": 0,
    "-display_vflip:v:0": 0,
    "-display_rotation:v:0 90 -display_hflip:v:0": 0,
    "-display_rotation:v:0 -90 -display_hflip:v:0": 0,
}


@pytest.mark.parametrize("turn", TURNS)
def test_frames_are_upright_as_ffmpeg_rotates_them(maker: MediaMaker, turn: str) -> None:
    plain = build_video(maker, "plain.mp4", "V X -g 30 O")
    path = build_video(maker, f"turned{list(TURNS).index(turn)}.mp4", f"{turn} -i {plain.name} -c copy O")
    clip = video.open(path)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", path, "-frames:v", "1"]
    done = subprocess.run([*command, "-pix_fmt", "rgb24", "-f", "rawvideo", "-"], check=True, capture_output=True)
    expected = np.frombuffer(done.stdout, np.uint8).reshape(clip.height, clip.width, 3)
    assert np.abs(clip.frames([0.0])[0].astype(int) - expected).mean() < 3
    assert clip.rotation == TURNS[turn]


def test_streams_are_described(maker: MediaMaker) -> None:
    recipe = "V A -i titles.srt X -map 0 -map 1 -map 2 -c:a aac -metadata:s:a:0 language=deu -c:s mov_text O"
    clip = video.open(build_video(maker, "streams.mp4", recipe))
    assert [(stream.kind, stream.codec) for stream in clip.streams] == [
        ("video", "h264"),
        ("audio", "aac"),
        ("subtitle", "mov_text"),
    ]
    sound = clip.audio_streams[0]
    assert (sound.channels, sound.sample_rate, sound.language) == (1, 44100, "deu")
    assert sound.duration == pytest.approx(4.0, abs=0.05)
    assert (clip.codec, clip.fps, clip.warnings) == ("h264", pytest.approx(30), ())


def test_stream_that_appears_midway_is_tolerated(maker: MediaMaker) -> None:
    """A tag of VP6 at the end of an FLV that holds another codec."""
    path = build_video(maker, "two.flv", "V A -c:v flv1 -c:a libmp3lame O")
    picture = b"\x14" + bytes(400)
    tag = b"\x09" + len(picture).to_bytes(3) + (4000).to_bytes(3) + bytes(4) + picture
    path.write_bytes(path.read_bytes() + tag + len(tag).to_bytes(4))
    assert scan_numbers(video.open(path), 30)[1] == list(range(120))


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (video.Limits(duration=3.9), "too_long"),
        (video.Limits(pixels=320 * 240 - 1), "too_large"),
        (video.Limits(frames=119), "too_many_frames"),
        (video.Limits(total_pixels=120 * 320 * 240 - 1), "too_large"),
    ],
)
@pytest.mark.parametrize("name", ["plain.mp4", "plain.ts"])
def test_limits_apply_with_and_without_a_header(
    maker: MediaMaker, limits: video.Limits, reason: str, name: str
) -> None:
    with pytest.raises(InvalidInputError) as refused:
        video.open(build_video(maker, name, "V X -g 30 O"), limits)
    assert refused.value.reason == reason


def test_video_at_its_limits_is_accepted(maker: MediaMaker) -> None:
    exact = video.Limits(duration=4, pixels=320 * 240, frames=120, total_pixels=120 * 320 * 240)
    assert video.open(build_video(maker, "plain.mp4", "V X -g 30 O"), exact).duration == pytest.approx(4)


def test_header_beyond_the_limits_is_refused_at_once(maker: MediaMaker) -> None:
    """A day at one frame a second, the packets of which are not read: they are not there."""
    part = build_video(maker, "part.mp4", "-f lavfi -i color=black:s=64x64:r=1:d=864 X O")
    path = build_video(maker, "day.mp4", f"-stream_loop 99 -i {part.name} -c copy -movflags faststart O")
    path.write_bytes(path.read_bytes().partition(b"mdat")[0] + b"mdat")
    with pytest.raises(InvalidInputError, match="86400 s"):
        video.open(path)


def zero_bytes(maker: MediaMaker, begin: float, end: float) -> Path:
    """The base file with zeros between two shares of its length."""
    data = maker.base()
    low, high = round(len(data) * begin), round(len(data) * end)
    data[low:high] = bytes(high - low)
    path = maker.folder / f"zeroed{low}.mp4"
    path.write_bytes(data)
    return path


def test_mostly_undecodable_video_is_refused_at_the_end_of_reading(maker: MediaMaker) -> None:
    clip = video.open(zero_bytes(maker, 0.2, 0.95))
    with pytest.raises(InvalidInputError, match="can hardly be decoded") as refused:
        scan_numbers(clip, 30)
    assert refused.value.reason == "undecodable"


def test_frames_that_grow_past_the_limit_are_not_decoded(maker: MediaMaker) -> None:
    """The header declares 120 frames of 320 × 240; 60 of 640 × 360 follow."""
    path = maker.folder / "growing.ts"
    resolution_change(maker, path)
    assert len(scan_numbers(video.open(path), 30)[0]) == 180
    clip = video.open(path, video.Limits(pixels=320 * 240))
    assert len(scan_numbers(clip, 30)[0]) == 120
    assert video.current_warnings(clip)[0].startswith("damaged: of 180 packets 60 cannot be decoded")


def test_frame_before_heavy_damage_is_read(maker: MediaMaker) -> None:
    clip = video.open(zero_bytes(maker, 0.12, 0.45), decoder="pyav")
    assert numbers_at(clip, [0.0, 0.03]) == [0, 0]


@pytest.mark.parametrize(("begin", "end"), [(0.5, 0.6), (0.12, 0.45)])
def test_damage_is_reported_once_it_is_read(maker: MediaMaker, begin: float, end: float) -> None:
    """Also where it takes most of the first group of pictures."""
    clip = video.open(zero_bytes(maker, begin, end))
    assert clip.warnings == ()
    assert len(scan_numbers(clip, 30)[0]) >= 60
    [warning] = video.current_warnings(clip)
    assert warning.startswith("damaged: of 120 packets ")


def test_visual_features_are_computed_once(maker: MediaMaker) -> None:
    clip = video.open(build_video(maker, "plain.mp4", "V X -g 30 O"))
    picture = clip.visual_features()
    assert len(picture.times) == 120
    assert clip.visual_features() is picture


def test_metadata_that_is_not_utf8_shows_its_loss(media: Path, tmp_path: Path) -> None:
    """Metadata is copied to outputs with ours behind it: a dropped byte would change a word without a trace."""
    path = tmp_path / "latin1.mp4"
    ffmpeg("-i", str(media / "cuts.mp4"), "-c", "copy", "-metadata", "comment=Cafe", str(path))
    data = path.read_bytes()
    assert data.count(b"Cafe") == 1
    path.write_bytes(data.replace(b"Cafe", b"Caf\xe9"))
    with open_media(path) as container:
        assert container.metadata["comment"] == "Caf\ufffd"
