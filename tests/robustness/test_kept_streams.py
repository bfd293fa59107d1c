"""Every stream, record and tag of an input: in the output, or named by a warning; found before the music is written."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from tests.conftest import ffmpeg, names
from tests.media.audio_checks import decode_track, tone
from tests.robustness.record_makers import (
    DOLBY,
    H264,
    HEVC,
    PICTURE,
    PRORES,
    SOUND,
    SPHERICAL,
    add_boxes,
    add_track_boxes,
    box,
    boxes_to,
    decodes_alike,
    describe,
    read_entry,
    run_mix,
    write_clip,
    write_cover,
    write_pictures_of_text,
    write_telemetry,
    write_unknown_track,
)
from v2m.core.errors import UsageError
from v2m.core.timing import ticks_to_seconds
from v2m.core.types import Soundtrack
from v2m.media import video as videos
from v2m.media.audio import load, original_audio
from v2m.media.inventory import take_inventory
from v2m.mixing.mixer import MixConfig, mix
from v2m.pipeline.score import score_video

SPATIAL = box(b"vexu", box(b"eyes", box(b"stri", bytes(4) + b"\3"))) + box(b"hfov", struct.pack(">I", 63_400))


def data_packets(path: Path) -> list[tuple[float, bytes]]:
    with av.open(str(path)) as media:
        track = next(stream for stream in media.streams if stream.type == "data")
        packets = [packet for packet in media.demux(track) if packet.size]
        return [(ticks_to_seconds(packet.pts or 0, packet.time_base), bytes(packet)) for packet in packets]


@pytest.mark.parametrize("target", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("source", [".mp4", ".mov"])
def test_spherical_video_stays_spherical(source: str, target: str, tmp_path: Path) -> None:
    clip = add_boxes(write_clip(tmp_path / f"in{source}"), b"avc1", SPHERICAL)
    report = run_mix(clip, tmp_path / f"out{target}")
    assert report.warnings == ()
    dump = describe(tmp_path / f"out{target}")
    assert "stereo3d: top and bottom" in dump
    assert "spherical: equirectangular" in dump
    assert decodes_alike(clip, tmp_path / f"out{target}")


@pytest.mark.parametrize("target", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("source", [".mp4", ".mov"])
def test_dolby_vision_stays_dolby_vision(source: str, target: str, tmp_path: Path) -> None:
    clip = add_boxes(write_clip(tmp_path / f"in{source}", "-tag:v", "hvc1", codec=HEVC), b"hvc1", DOLBY)
    report = run_mix(clip, tmp_path / f"out{target}")
    assert report.warnings == ()
    assert "DOVI configuration record: version: 1.0, profile: 8, level: 5" in describe(tmp_path / f"out{target}")
    if target != ".mkv":
        assert DOLBY[8:13] in read_entry(tmp_path / f"out{target}", b"hvc1")
    assert decodes_alike(clip, tmp_path / f"out{target}")


@pytest.mark.parametrize("target", [".mp4", ".mov"])
def test_boxes_that_ffmpeg_does_not_know_are_kept(target: str, tmp_path: Path) -> None:
    """The pictures and the sound stay readable: the chunks that the index points at move with its growth."""
    clip = add_boxes(write_clip(tmp_path / "in.mov"), b"avc1", SPATIAL)
    report = run_mix(clip, tmp_path / f"out{target}")
    assert report.warnings == ()
    assert SPATIAL in read_entry(tmp_path / f"out{target}", b"avc1")
    assert decodes_alike(clip, tmp_path / f"out{target}")
    original, copy = decode_track(clip), decode_track(tmp_path / f"out{target}", 1)
    np.testing.assert_array_equal(original[0][:40_000], copy[0][:40_000])


@pytest.mark.parametrize(
    ("target", "lost"), [(".mp4", ()), (".mov", ()), (".mkv", ("©xsp box", "HMMT box", "FIRM box"))]
)
def test_user_data_of_a_camera_is_kept_or_named(target: str, lost: tuple[str, ...], tmp_path: Path) -> None:
    """GoPro writes the highlights (HMMT) and the firmware (FIRM) into the file's user data, DJI the speed (©xsp)."""
    clip = write_clip(tmp_path / "in.mp4")
    data = bytearray(clip.read_bytes())
    moov, udta = boxes_to(bytes(data), (b"moov", b"udta"))
    extra = (
        box(b"\xa9xsp", b"\0\5\x15\xc7+0.10")
        + box(b"HMMT", struct.pack(">II", 1, 400))
        + box(b"FIRM", b"HD8.01.02.50.00")
    )
    data[udta + 8 : udta + 8] = extra
    for place in (moov, udta):
        data[place : place + 4] = struct.pack(">I", int.from_bytes(data[place : place + 4], "big") + len(extra))
    clip.write_bytes(data)
    report = run_mix(clip, tmp_path / f"out{target}")
    assert report.warnings == tuple(
        [f"records_lost: matroska does not hold {', '.join(lost)} of the file"] * bool(lost)
    )
    assert (extra in (tmp_path / f"out{target}").read_bytes()) == (not lost)


APERTURE = box(b"tapt", box(b"clef", bytes(4) + struct.pack(">II", 64 << 16, 48 << 16)))
EXTENDED_LANGUAGE = box(b"elng", bytes(4) + b"de-AT\0")
CAMERA = box(b"udta", box(b"LENS", b"wide"))
SPHERICAL_V1 = box(
    b"uuid",
    bytes.fromhex("ffcc8263f8554a938814587a02521fdd")
    + b'<rdf:SphericalVideo xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
    b'xmlns:GSpherical="http://ns.google.com/videos/1.0/spherical/"><GSpherical:Spherical>true</GSpherical:Spherical>'
    b"<GSpherical:Stitched>true</GSpherical:Stitched>"
    b"<GSpherical:StitchingSoftware>camera</GSpherical:StitchingSoftware>"
    b"<GSpherical:ProjectionType>equirectangular</GSpherical:ProjectionType></rdf:SphericalVideo>",
)


@pytest.mark.parametrize("target", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize(
    ("around", "boxes", "name"),
    [
        ((), APERTURE, "tapt box"),
        ((), CAMERA, "udta/LENS box"),
        ((b"mdia",), EXTENDED_LANGUAGE, "mdia/elng box"),
        ((), box(b"uuid", bytes(range(16)) + b"own"), "uuid box"),
    ],
)
def test_boxes_of_a_track_are_kept_or_named(
    around: tuple[bytes, ...], boxes: bytes, name: str, target: str, tmp_path: Path
) -> None:
    clip = add_track_boxes(write_clip(tmp_path / "in.mov"), around, boxes)
    out = tmp_path / f"out{target}"
    report = run_mix(clip, out)
    if target == ".mkv":
        assert report.warnings == (f"records_lost: matroska does not hold {name} of video track 1",)
        return
    assert report.warnings == ()
    data = out.read_bytes()
    [*_, track] = boxes_to(data, (b"moov", b"trak"))
    assert boxes in data[track : track + int.from_bytes(data[track : track + 4], "big")]
    assert decodes_alike(clip, out)
    np.testing.assert_array_equal(decode_track(clip)[0][:40_000], decode_track(out, 1)[0][:40_000])


@pytest.mark.parametrize("target", [".mp4", ".mov", ".mkv"])
def test_spherical_video_of_the_first_version_stays_spherical(target: str, tmp_path: Path) -> None:
    clip = add_track_boxes(write_clip(tmp_path / "in.mp4"), (), SPHERICAL_V1)
    assert run_mix(clip, tmp_path / f"out{target}").warnings == ()
    assert "spherical: equirectangular" in describe(tmp_path / f"out{target}")
    assert (SPHERICAL_V1 in (tmp_path / f"out{target}").read_bytes()) == (target != ".mkv")


@pytest.mark.parametrize("target", [".mp4", ".mov", ".mkv"])
def test_reference_among_tracks_is_kept_with_their_new_numbers(target: str, tmp_path: Path) -> None:
    """The music becomes the second track, so that the sound of the clip becomes the third."""
    references = box(b"tref", box(b"sync", struct.pack(">I", 2)) + box(b"scpt", struct.pack(">I", 9)))
    clip = add_track_boxes(write_clip(tmp_path / "in.mov"), (), references)
    report = run_mix(clip, tmp_path / f"out{target}")
    lost, muxer = ("tref/sync box, tref/scpt box", "matroska") if target == ".mkv" else ("tref/scpt box", target[1:])
    assert report.warnings == (f"records_lost: {muxer} does not hold {lost} of video track 1",)
    kept = box(b"tref", box(b"sync", struct.pack(">I", 3)))
    assert (kept in (tmp_path / f"out{target}").read_bytes()) == (target != ".mkv")


@pytest.mark.parametrize(
    ("boxes", "target", "lost"),
    [
        (SPATIAL, ".mkv", "matroska does not hold vexu box, hfov box of video track 1"),
        (SPHERICAL, ".ts", "mpegts does not hold stereo3d, spherical of video track 1"),
    ],
)
def test_record_that_the_container_cannot_hold_is_named(boxes: bytes, target: str, lost: str, tmp_path: Path) -> None:
    clip = add_boxes(write_clip(tmp_path / "in.mp4"), b"avc1", boxes)
    assert f"records_lost: {lost}" in run_mix(clip, tmp_path / f"out{target}").warnings


def test_dolby_vision_of_matroska_is_kept_in_mp4_and_named_for_mov(tmp_path: Path) -> None:
    source = add_boxes(write_clip(tmp_path / "in.mp4", "-tag:v", "hvc1", codec=HEVC), b"hvc1", DOLBY)
    ffmpeg("-i", source, "-c", "copy", tmp_path / "in.mkv")
    assert run_mix(tmp_path / "in.mkv", tmp_path / "out.mp4").warnings == ()
    assert "DOVI configuration record" in describe(tmp_path / "out.mp4")
    lost = "records_lost: mov does not hold Dolby Vision configuration of video track 1"
    assert run_mix(tmp_path / "in.mkv", tmp_path / "out.mov").warnings == (lost,)


@pytest.mark.parametrize("target", [".mp4", ".mov", ".mkv", ".ts"])
@pytest.mark.parametrize("tag", [b"gpmd", b"djmd", b"rtmd", b"mebx"])
def test_data_tracks_are_kept_or_named(tag: bytes, target: str, tmp_path: Path) -> None:
    clip = write_telemetry(tmp_path / "in.mp4", tag)
    report = run_mix(clip, tmp_path / f"out{target}")
    if target in {".mkv", ".ts"}:
        muxer = {".mkv": "matroska", ".ts": "mpegts"}[target]
        assert f"data_left_out: {muxer} does not hold {tag.decode()} (Rec)" in report.warnings
        return
    assert report.warnings == ()
    assert data_packets(tmp_path / f"out{target}") == data_packets(clip)
    if tag != b"gpmd":
        assert read_entry(tmp_path / f"out{target}", tag) == read_entry(clip, tag)
    assert "timecode        : 10:11:12:13" in describe(tmp_path / f"out{target}")


@pytest.mark.parametrize(("target", "lost"), [(".mp4", ()), (".mov", ()), (".mkv", ("reel name",))])
def test_reel_name_of_the_timecode_is_kept_or_named(target: str, lost: tuple[str, ...], tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "in.mov", "-timecode", "10:11:12:13", "-metadata:s:v", "reel_name=REEL7")
    report = run_mix(clip, tmp_path / f"out{target}")
    assert report.warnings == tuple(f"records_lost: matroska does not hold {name} of the file" for name in lost)
    dump = describe(tmp_path / f"out{target}")
    assert re.search("TIMECODE +: 10:11:12:13", dump, re.IGNORECASE)
    assert ("REEL7" in dump) == (not lost)


@pytest.mark.parametrize("source", ["in.mkv", "in.ts", "hev1.mp4"])
@pytest.mark.parametrize("target", [".mp4", ".mov"])
def test_hevc_gets_the_code_that_apple_plays(source: str, target: str, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / source, codec=HEVC)
    run_mix(clip, tmp_path / f"out{target}")
    assert read_entry(tmp_path / f"out{target}", b"hvc1")
    assert decodes_alike(clip, tmp_path / f"out{target}")


def test_hevc_whose_parameter_sets_change_keeps_the_code_that_allows_it(tmp_path: Path) -> None:
    parts = []
    for start, size in enumerate(("64x48", "96x64")):
        picture = ("-f", "lavfi", "-i", f"testsrc2=s={size}:r=25:d=1")
        ffmpeg(*picture, *SOUND, *HEVC, "-output_ts_offset", str(start), tmp_path / "part.ts")
        parts.append((tmp_path / "part.ts").read_bytes())
    (tmp_path / "in.ts").write_bytes(b"".join(parts))
    mix(videos.open(tmp_path / "in.ts"), tone(2), tmp_path / "out.mp4")
    assert read_entry(tmp_path / "out.mp4", b"hev1")


@pytest.mark.parametrize("target", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("position", [0, 1])
def test_audio_track_of_an_unknown_codec_does_not_end_the_job(position: int, target: str, tmp_path: Path) -> None:
    """The other track is mixed; where the container cannot hold the unknown one, a warning names it."""
    clip = write_unknown_track(tmp_path, position)
    report = run_mix(clip, tmp_path / f"out{target}")
    assert report.original_loudness is not None
    if target == ".mov":
        assert (report.num_audio_tracks, report.warnings) == (3, ())
    else:
        assert report.num_audio_tracks == 2
        assert report.warnings == ("tracks_left_out: 1 audio tracks of the clip are not in the result (apac)",)
    with pytest.raises(UsageError, match=rf"`mix.track` {position + 1}: this audio track cannot be decoded"):
        run_mix(clip, tmp_path / f"other{target}", track=position + 1)


def test_only_audio_track_of_an_unknown_codec_is_left_out_of_the_mix(tmp_path: Path) -> None:
    ffmpeg(*PICTURE, *SOUND, *H264[:6], "-c:a", "alac", tmp_path / "in.mov")
    path = tmp_path / "in.mov"
    path.write_bytes(path.read_bytes().replace(b"alac", b"apac"))
    report = run_mix(path, tmp_path / "out.mov")
    assert "original_sound_left_out: no audio track of the clip can be decoded" in report.warnings
    assert report.original_loudness is None


@pytest.fixture
def two_tracks(tmp_path: Path) -> Path:
    """A clip whose second audio track, of 880 Hz and in Korean, is the default one; the first has 220 Hz."""
    sounds = [word for pitch in (220, 880) for word in ("-f", "lavfi", "-i", f"sine={pitch}:d=1:sample_rate=48000")]
    maps = ("-map", "0", "-map", "1", "-map", "2", "-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=kor")
    flags = ("-disposition:a:0", "0", "-disposition:a:1", "default")
    ffmpeg(*PICTURE, *sounds, *maps, *H264, *flags, tmp_path / "in.mkv")
    return tmp_path / "in.mkv"


def pitch_of(samples: np.ndarray, rate: int = 48_000) -> float:
    spectrum = np.abs(np.fft.rfft(samples[:rate]))
    return float(np.argmax(spectrum) * rate / len(samples[:rate]))


@pytest.mark.parametrize(("track", "pitch", "language"), [(None, 880, "kor"), (1, 220, "eng"), (2, 880, "kor")])
def test_default_audio_track_is_mixed_unless_another_is_chosen(
    track: int | None, pitch: float, language: str, two_tracks: Path, tmp_path: Path
) -> None:
    clip = videos.open(two_tracks)
    silence = tone(1, level=1e-4)
    mix(clip, silence, tmp_path / "out.mkv", MixConfig("keep", music_gain=-60, track=track))
    samples, _ = decode_track(tmp_path / "out.mkv")
    assert pitch_of(samples) == pytest.approx(pitch, abs=20)
    with av.open(str(tmp_path / "out.mkv")) as media:
        assert [stream.language for stream in media.streams.audio] == [language, "eng", "kor"]


def test_default_audio_track_is_the_one_that_is_measured_and_learned_from(two_tracks: Path) -> None:
    """`v2m prepare`, `v2m evaluate` and a video as reference read by the same rule."""
    from v2m.evaluation.per_clip import video_audio

    clip = videos.open(two_tracks)
    for sound in (original_audio(clip, 48_000)[0], load(two_tracks, 48_000, 1.0), video_audio(clip)):
        assert pitch_of(sound.samples[0]) == pytest.approx(880, abs=20)


@pytest.mark.parametrize("track", [0, 3])
def test_audio_track_that_is_not_there_is_refused_before_the_work(track: int, two_tracks: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"`mix.track` {track}: the video has 2 audio tracks, counted from 1"):
        score_video(two_tracks, tmp_path / "out.mkv", generator=Unwanted(), mix=MixConfig("keep", track=track))


class Unwanted:
    """A generator that must not be reached."""

    def generate(self, *_: object, **__: object) -> Soundtrack:
        pytest.fail("the music was written before the output was found to be impossible")


@pytest.mark.parametrize(("target", "muxer"), [(".mp4", "mp4"), (".mov", "mov"), (".mkv", None)])
def test_subtitles_that_are_pictures_are_left_out_of_mp4(target: str, muxer: str | None, tmp_path: Path) -> None:
    write_pictures_of_text(tmp_path / "p.sup")
    inputs = (*PICTURE, *SOUND, "-i", tmp_path / "p.sup", "-map", "0", "-map", "1", "-map", "2")
    ffmpeg(*inputs, *H264, "-c:s", "copy", tmp_path / "in.mkv")
    report = run_mix(tmp_path / "in.mkv", tmp_path / f"out{target}")
    left = () if muxer is None else (f"subtitles_left_out: {muxer} does not hold hdmv_pgs_subtitle",)
    assert report.warnings == left
    assert len(take_inventory(tmp_path / f"out{target}").of_kind("subtitle")) == (muxer is None)


def test_subtitles_attachments_and_flags_are_kept_or_named(tmp_path: Path) -> None:
    (tmp_path / "s.srt").write_text("1\n00:00:00,100 --> 00:00:00,900\nHello\n")
    (tmp_path / "font.ttf").write_bytes(b"not really a font")
    inputs = (*PICTURE, *SOUND, "-i", tmp_path / "s.srt", "-map", "0", "-map", "1", "-map", "2", "-c:s", "ass")
    font = ("-attach", tmp_path / "font.ttf", "-metadata:s:t:0", "mimetype=application/x-truetype-font")
    ffmpeg(*inputs, *font, "-disposition:s:0", "forced", *H264, tmp_path / "in.mkv")
    assert run_mix(tmp_path / "in.mkv", tmp_path / "out.mkv").warnings == ()
    assert set(run_mix(tmp_path / "in.mkv", tmp_path / "out.mov").warnings) == {
        "attachments_left_out: mov does not hold font.ttf",
        "records_lost: mov does not hold disposition forced of subtitle track 1",
        "subtitles_converted: ass became mov_text",
    }


@pytest.mark.parametrize(("target", "kept"), [(".mp4", 1), (".mkv", 1), (".mov", 1), (".ts", 0)])
def test_cover_is_kept_or_named(target: str, kept: int, tmp_path: Path) -> None:
    report = run_mix(write_cover(tmp_path / "in.mp4"), tmp_path / f"out{target}")
    assert len(take_inventory(tmp_path / f"out{target}").of_kind("cover")) == kept
    assert any(warning.startswith("covers_left_out: ") for warning in report.warnings) == (not kept)
    assert decodes_alike(tmp_path / "in.mp4", tmp_path / f"out{target}")


@pytest.mark.parametrize("tags", [(), ("-metadata", "com.apple.quicktime.make=A")])
@pytest.mark.parametrize("target", [".mp4", ".mov"])
def test_cover_is_the_same_picture_beside_tags_of_any_kind(target: str, tags: tuple[str, ...], tmp_path: Path) -> None:
    """Tags of a phone lie in a list of another kind than covers."""
    cover, out = tmp_path / "cover.png", tmp_path / f"out{target}"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=32x32:d=0.04", "-pix_fmt", "rgb24", cover)
    attached = ("-attach", cover, "-metadata:s:t", "mimetype=image/png", "-metadata:s:t", "filename=cover.png")
    clip = write_clip(tmp_path / "in.mkv", *attached, "-metadata", "title=T", *tags)
    assert run_mix(clip, out).warnings == ()
    [index] = [stream.index for stream in take_inventory(out).of_kind("cover")]
    with av.open(str(out)) as media:
        assert bytes(next(media.demux(media.streams[index]))) == cover.read_bytes()
        assert media.metadata["title"] == "T"
        assert any(name.lower() == "com.apple.quicktime.make" for name in media.metadata) == bool(tags)
    assert decodes_alike(clip, out)


@pytest.mark.parametrize(
    ("codec", "source", "target", "cure"),
    [
        (PRORES, "in.mov", ".mp4", ".mov"),
        (PRORES, "in.mov", ".ts", ".mov"),  # which ffmpeg writes as a stream that nothing reads
        (H264, "in.mp4", ".webm", ".mp4"),
        (HEVC, "in.mkv", ".avi", ".mkv"),
        (("-c:v", "wmv2", "-c:a", "wmav2"), "in.wmv", ".mp4", ".wmv"),
    ],
)
def test_container_that_cannot_hold_the_pictures_is_refused_before_the_work(
    codec: tuple[str, ...], source: str, target: str, cure: str, tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / source, codec=codec)
    words = rf"{source} cannot be written as {target} \(.+\): give a {cure} output$"
    with pytest.raises(UsageError, match=words):
        score_video(clip, tmp_path / f"out{target}", generator=Unwanted())
    assert names(tmp_path) == [source]
    assert run_mix(clip, tmp_path / f"out{cure}").num_audio_tracks == 2


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data.replace(b"stco", b"xxxx")])
def test_damaged_index_is_read_without_an_error(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    from v2m.media.iso_bmff import read_entries, read_tracks

    clip = write_clip(tmp_path / "in.mov", "-movflags", "+faststart")
    clip.write_bytes(damage(clip.read_bytes()))
    assert isinstance(read_entries(clip), list)
    assert isinstance(read_tracks(clip), list)


def test_empty_track_header_is_read_without_an_error(tmp_path: Path) -> None:
    from v2m.media.iso_bmff import read_entries, read_tracks

    (tmp_path / "in.mov").write_bytes(box(b"moov", box(b"trak", box(b"tkhd", b""))))
    assert read_entries(tmp_path / "in.mov") == []
    assert [track.track_id for track in read_tracks(tmp_path / "in.mov")] == [0]
