"""Real files of every container: identical pictures, music in time, everything else kept."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from tests.conftest import ffmpeg, names
from tests.media.audio_checks import SAMPLE_RATE, click_time, clicks, decode_track, ebur128, tone
from v2m.core.errors import UsageError
from v2m.core.timing import ticks_to_seconds
from v2m.media import video as videos
from v2m.media.audio import save
from v2m.mixing.mixer import MixConfig, default_output, mix

PICTURE = ("-f", "lavfi", "-i", "testsrc2=s=160x120:r=25:d=2")
SOUND = ("-f", "lavfi", "-i", "sine=440:d=2:sample_rate=44100")
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-bf", "2", "-c:a", "aac")
VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus")
CLIPS: dict[str, tuple[str, ...]] = {
    "plain.mp4": (*PICTURE, *SOUND, *H264),
    "silent.mp4": (*PICTURE, *H264),
    "plain.mov": (*PICTURE, *SOUND, *H264),
    "flac.mkv": (*PICTURE, *SOUND, *H264, "-c:a", "flac"),
    "vp9.webm": (*PICTURE, *SOUND, *VP9),
    "mpeg4.avi": (*PICTURE, *SOUND, "-c:v", "mpeg4", "-c:a", "libmp3lame"),
    "h264.avi": (*PICTURE, *SOUND, *H264, "-c:a", "libmp3lame"),
    "h264.ts": (*PICTURE, *SOUND, *H264),
    "long_gop.ts": (*PICTURE, *SOUND, *H264, "-g", "20", "-sc_threshold", "0"),
    "h264.flv": (*PICTURE, *SOUND, *H264),
    "wmv2.wmv": (*PICTURE, *SOUND, "-c:v", "wmv2", "-c:a", "wmav2"),
    "mpeg2.mpg": (*PICTURE, *SOUND, "-c:v", "mpeg2video", "-c:a", "mp2"),
    "theora.ogv": (*PICTURE, *SOUND, "-c:v", "libtheora", "-c:a", "libvorbis"),
    "starts_at_5.mkv": (*PICTURE, *SOUND, *H264, "-output_ts_offset", "5"),
    "starts_at_5.ts": (*PICTURE, *SOUND, *H264, "-output_ts_offset", "5"),
    "wraps.ts": (*PICTURE, *SOUND, *H264, "-output_ts_offset", "95441"),
    "late_sound.mp4": (*PICTURE, "-itsoffset", "0.7", *SOUND, *H264),
    "late_picture.mp4": ("-itsoffset", "0.7", *PICTURE, *SOUND, "-map", "0", "-map", "1", *H264),
    "late_picture.mkv": ("-itsoffset", "0.7", *PICTURE, *SOUND, "-map", "0", "-map", "1", *H264),
    "long_sound.mp4": (*PICTURE, "-f", "lavfi", "-i", "sine=440:d=5", *H264),
    "short_sound.mp4": (*PICTURE, "-f", "lavfi", "-i", "sine=440:d=0.5", *H264),
    "h263.3gp": ("-f", "lavfi", "-i", "testsrc2=s=176x144:r=25:d=2", "-c:v", "h263"),
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for name, arguments in CLIPS.items():
        ffmpeg(*arguments, folder / name)
    ffmpeg("-ss", "0.5", "-i", folder / "plain.mp4", "-c", "copy", folder / "cut_off_key.mp4")
    ffmpeg("-display_rotation:v:0", "90", "-i", folder / "plain.mp4", "-c", "copy", folder / "rotated.mp4")
    data = (folder / "long_gop.ts").read_bytes()
    (folder / "between_keys.ts").write_bytes(data[len(data) // 4 // 188 * 188 :])
    joined = (folder / "h264.ts").read_bytes()
    (folder / "clock_restarts.ts").write_bytes(joined + joined)
    return folder


def video_packet_hashes(path: Path) -> list[str]:
    """A digest per video stream of its packets from the first key frame on."""
    with av.open(str(path)) as media:
        found = {stream.index: hashlib.sha256() for stream in media.streams.video if not int(stream.disposition) & 1024}
        shows: set[int] = set()
        for packet in media.demux(list(media.streams.video)):
            shows |= {packet.stream_index} if packet.is_keyframe else set()
            if packet.size and packet.stream_index in found and packet.stream_index in shows:
                found[packet.stream_index].update(bytes(packet))
    return [digest.hexdigest() for digest in found.values()]


def decode_luma(path: Path) -> np.ndarray:
    """Times of the pictures after the first one."""
    with av.open(str(path)) as media:
        times = [frame.time for frame in media.decode(media.streams.video[0])]
    return np.array(times) - times[0]


@pytest.mark.parametrize("name", [*CLIPS, "cut_off_key.mp4", "rotated.mp4", "clock_restarts.ts", "between_keys.ts"])
def test_video_packets_are_copied_and_the_music_is_in_time(name: str, clips: Path, tmp_path: Path) -> None:
    """In every container: equal video packets, a click of the music where it was put (±2 ms), sound that begins and
    ends with the pictures (± one codec frame)."""
    clip = videos.open(clips / name)
    music = clicks(clip.duration, [0.25, clip.duration - 0.4])
    music.samples[:, round((clip.duration - 0.6) * SAMPLE_RATE) :] *= 0.5
    out = tmp_path / default_output(clip).name
    report = mix(clip, music, out, MixConfig(lufs=None))
    assert video_packet_hashes(out) == video_packet_hashes(clip.path)
    timed = decode_luma(clip.path) if name == "h264.avi" else clip.timestamps  # AVI has no times of its own
    np.testing.assert_allclose(decode_luma(out), timed, atol=0.0011)
    samples, start = decode_track(out)
    half = len(samples) // 2
    assert click_time(samples[:half], start) == pytest.approx(0.25, abs=0.002)
    assert click_time(samples[half:], start + half / SAMPLE_RATE) == pytest.approx(clip.duration - 0.4, abs=0.002)
    frame = 1152 / SAMPLE_RATE
    assert abs(start) < (0.1 if name == "h264.avi" else frame)  # its pictures start late, and its sound cannot
    assert abs(start + len(samples) / SAMPLE_RATE - clip.duration) < frame + 0.001
    assert report.duration == pytest.approx(clip.duration, abs=1 / SAMPLE_RATE)
    assert names(tmp_path) == [out.name]


@pytest.mark.parametrize(
    "name",
    ["plain.mp4", "late_sound.mp4", "late_picture.mp4", "starts_at_5.ts", "long_sound.mp4", "wraps.ts", "flac.mkv"],
)
def test_original_audio_keeps_its_position(name: str, clips: Path, tmp_path: Path) -> None:
    """With keep, a click in the clip's own sound stays where it was against the pictures, in the mix and as a track."""
    source = tmp_path / f"own_{name}"
    save(clicks(2, [1.2]), tmp_path / "own.wav")
    own = (
        ("-itsoffset", "0.5", "-i", tmp_path / "own.wav") if name.startswith("late_s") else ("-i", tmp_path / "own.wav")
    )
    offset = ("-output_ts_offset", "95441") if name == "wraps.ts" else ()
    late = ("-itsoffset", "0.7") if name.startswith("late_p") else ()
    sound = ("-c:a", "flac") if name == "flac.mkv" else ()
    ffmpeg(*late, *PICTURE, *own, "-map", "0", "-map", "1", *H264, *sound, *offset, source)
    before, start = decode_track(source)
    truth = click_time(before, start)
    out = tmp_path / f"out_{name}"
    report = mix(videos.open(source), clicks(2, [0.3], 0.01), out, MixConfig("keep", music_gain=-60, lufs=None))
    assert report.num_audio_tracks == 2
    for track in (0, 1):
        assert click_time(*decode_track(out, track)) == pytest.approx(truth, abs=0.002)


def write_rich_clip(folder: Path, suffix: str) -> Path:
    """Two pictures, two languages, subtitles, chapters, tags, a cover, a font: what the container can hold of it."""
    (folder / "s.srt").write_text("1\n00:00:00,500 --> 00:00:01,500\nHello\n")
    chapter = "[CHAPTER]\nTIMEBASE=1/1000\nSTART={}\nEND={}\ntitle={}\n"
    tags = ";FFMETADATA1\ntitle=Holiday\ncomment=shot by Ann\n"
    (folder / "m.txt").write_text(tags + chapter.format(0, 1000, "One") + chapter.format(1000, 2000, "Two"))
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=32x32", "-frames:v", "1", folder / "cover.png")
    text = {".mkv": "srt", ".webm": "webvtt"}.get(suffix, "mov_text")
    inputs = [*PICTURE, *SOUND, "-f", "lavfi", "-i", "sine=880:d=2", "-i", folder / "s.srt", "-i", folder / "m.txt"]
    maps = ["-map", "0", "-map", "0", "-map", "1", "-map", "2", "-map", "3", "-map_metadata", "4", "-map_chapters", "4"]
    codecs = [*(VP9 if suffix == ".webm" else H264), "-c:s", text, "-metadata", "creation_time=2020-01-02T03:04:05Z"]
    codecs += ["-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=kor"]
    if suffix == ".mp4":
        inputs += ["-i", folder / "cover.png"]
        maps += ["-map", "5"]
        codecs += ["-c:v:2", "png", "-disposition:v:2", "attached_pic"]
    if suffix == ".mkv":
        (folder / "font.ttf").write_bytes(b"not really a font")
        for number, (name, kind) in enumerate(
            (("font.ttf", "application/x-truetype-font"), ("cover.png", "image/png"))
        ):
            codecs += ["-attach", folder / name, f"-metadata:s:t:{number}", f"mimetype={kind}"]
            codecs += [f"-metadata:s:t:{number}", f"filename={name}"]
    ffmpeg(*inputs, *maps, *codecs, folder / f"rich{suffix}")
    return folder / f"rich{suffix}"


def list_contents(path: Path) -> dict:
    with av.open(str(path)) as media:
        streams = list(media.streams)
        tags = {name.lower(): value for name, value in media.metadata.items()}
        return {
            "moving": sum(s.type == "video" and not int(s.disposition) & 1024 for s in streams),
            "covers": sum(s.type == "video" and bool(int(s.disposition) & 1024) for s in streams),
            "subtitles": sum(s.type == "subtitle" for s in streams),
            "fonts": [s.metadata.get("mimetype") for s in streams if s.type == "attachment"],
            "chapters": [
                (ticks_to_seconds(c["start"], c["time_base"]), c["metadata"]["title"]) for c in media.chapters()
            ],
            "title": tags.get("title"),
            "created": tags.get("creation_time"),
        }


def audio_languages(path: Path) -> list[tuple[str | None, bool]]:
    """Language of every audio track, and whether it is the default one."""
    with av.open(str(path)) as media:
        found = [(s.metadata.get("language"), bool(int(s.disposition) & 1)) for s in media.streams.audio]
    return [(None if language in {None, "und"} else language, default) for language, default in found]


def read_comment(path: Path) -> str:
    with av.open(str(path)) as media:
        return next(value for name, value in media.metadata.items() if name.lower() == "comment")


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
def test_other_streams_and_metadata_are_copied(suffix: str, tmp_path: Path) -> None:
    clip = videos.open(write_rich_clip(tmp_path, suffix))
    mark = {"comment": "The music was generated by v2m, recipe sketch."}
    ducked, replaced = tmp_path / f"duck{suffix}", tmp_path / f"replace{suffix}"
    mix(clip, tone(2), ducked, MixConfig("duck"), mark)
    report = mix(clip, tone(2), replaced, MixConfig("replace"), mark)
    before = list_contents(clip.path)
    assert before["moving"] == 2
    assert before["chapters"] == [(0, "One"), (1, "Two")]
    for out in (ducked, replaced):
        assert list_contents(out) == before
        assert video_packet_hashes(out) == video_packet_hashes(clip.path)
        assert read_comment(out) == "shot by Ann; The music was generated by v2m, recipe sketch."
    tracks = audio_languages(clip.path)
    assert audio_languages(ducked)[0] == (tracks[0][0], True)
    assert audio_languages(ducked)[1:] == [(language, False) for language, _ in tracks]
    assert audio_languages(replaced) == [(None, True)]
    assert report.warnings == ("tracks_left_out: 2 audio tracks of the clip are not in the result",)


def test_comment_is_not_repeated(clips: Path, tmp_path: Path) -> None:
    mark = {"comment": "generated"}
    mix(videos.open(clips / "plain.mp4"), tone(2), tmp_path / "once.mp4", metadata=mark)
    mix(videos.open(tmp_path / "once.mp4"), tone(2), tmp_path / "twice.mp4", metadata=mark)
    assert read_comment(tmp_path / "twice.mp4") == "generated"


def test_phone_metadata_is_kept(clips: Path, tmp_path: Path) -> None:
    make = {"com.apple.quicktime.make": "Apple", "com.apple.quicktime.location.ISO6709": "+35.0+139.0/"}
    words = [word for item in make.items() for word in ("-metadata", "=".join(item))]
    phone, flags = tmp_path / "phone.mov", ("-movflags", "use_metadata_tags")
    ffmpeg("-i", clips / "plain.mov", "-c", "copy", *words, *flags, phone)
    mix(videos.open(phone), tone(2), tmp_path / "out.mov", metadata={"comment": "generated"})
    with av.open(str(tmp_path / "out.mov")) as media:
        assert make.items() <= media.metadata.items()
    assert read_comment(tmp_path / "out.mov") == "generated"


def test_rotation_is_kept(clips: Path, tmp_path: Path) -> None:
    mix(videos.open(clips / "rotated.mp4"), tone(2), tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as media:
        assert next(media.decode(media.streams.video[0])).rotation == 90


@pytest.mark.parametrize(("name", "suffix"), [("h264.ts", ".mp4"), ("plain.mp4", ".ts"), ("plain.mov", ".mkv")])
def test_other_container_is_a_remux(name: str, suffix: str, clips: Path, tmp_path: Path) -> None:
    """MPEG-TS frames H.264 in another way and repeats its headers: the pictures stay the same to the bit."""
    out = tmp_path / f"out{suffix}"
    mix(videos.open(clips / name), clicks(2, [1.3]), out, MixConfig(lufs=None))
    pictures = []
    for path in (clips / name, out):
        with av.open(str(path)) as media:
            pictures.append([frame.to_ndarray() for frame in media.decode(media.streams.video[0])])
    np.testing.assert_array_equal(*pictures)
    assert click_time(*decode_track(out)) == pytest.approx(1.3, abs=0.002)


def test_unsupported_streams_give_one_line(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"plain\.mp4 cannot be written as \.webm \(.*\): give a \.mp4 output$"):
        mix(videos.open(clips / "plain.mp4"), tone(2), tmp_path / "out.webm")
    with pytest.raises(UsageError, match=r"plain\.mp4 cannot be written as \.ogv .*: give a \.mp4 output$") as raised:
        mix(videos.open(clips / "plain.mp4"), tone(2), tmp_path / "out.ogv")
    assert "\n" not in str(raised.value)
    with pytest.raises(UsageError, match=r"\.txt is not one of \.mp4"):
        mix(videos.open(clips / "plain.mp4"), tone(2), tmp_path / "out.txt")
    assert names(tmp_path) == []


def test_gif_becomes_an_mp4_with_a_warning(tmp_path: Path) -> None:
    gif = tmp_path / "odd.gif"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=51x41:r=10:d=1.5", gif)
    clip = videos.open(gif)
    out = default_output(clip)
    assert out.name == "odd.v2m.mp4"
    report = mix(clip, clicks(1.5, [1.0]), out, MixConfig(lufs=None))
    assert [warning.split(":")[0] for warning in report.warnings] == ["pictures_encoded"]
    np.testing.assert_allclose(decode_luma(out), decode_luma(gif), atol=0.001)
    assert click_time(*decode_track(out)) == pytest.approx(1.0, abs=0.002)
    with pytest.raises(UsageError, match=r"cannot be written as \.webm .*: give a \.mp4 output$"):
        mix(clip, tone(1.5), tmp_path / "out.webm")


def test_file_names_that_look_like_options(clips: Path, tmp_path: Path) -> None:
    for name in ("-y.mp4", "a:b.mp4", "it's 100%03d\n음악.mp4", "x" * 240 + ".mp4"):
        clip = videos.open(Path(shutil.copy(clips / "plain.mp4", tmp_path / name)))
        out = default_output(clip)
        mix(clip, tone(2), out)
        assert ebur128(out)[0] == pytest.approx(-14, abs=0.5)


@pytest.mark.parametrize(
    ("name", "result"),
    [("plain.mp4", "plain.v2m.mp4"), ("h264.ts", "h264.v2m.ts"), ("vp9.webm", "vp9.v2m.webm")],
)
def test_default_output_is_beside_the_clip(name: str, result: str, clips: Path, tmp_path: Path) -> None:
    assert default_output(videos.open(clips / name)) == clips / result
    disguised = Path(shutil.copy(clips / name, tmp_path / "disguised.dat"))
    expected = {".webm": ".mkv"}.get(Path(result).suffix, Path(result).suffix)
    assert default_output(videos.open(disguised)).name == f"disguised.v2m{expected}"
