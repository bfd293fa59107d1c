"""132 good, unusual, damaged and hostile media files, with their expected verdicts."""

from __future__ import annotations

import os
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.robustness.media_makers import (
    OK,
    WARNED,
    X265,
    ExpectedFrames,
    MakeFile,
    MediaCase,
    MediaMaker,
    constant_rate,
    content_case,
    edit_case,
    encode_case,
    repeat_case,
    transcode_then,
)

ALL_FRAMES = constant_rate(range(120), 30)


def first_half(data: bytes | bytearray) -> bytes | bytearray:
    return data[: len(data) // 2]


def resolution_change(maker: MediaMaker, out: Path) -> None:
    parts = [out.with_suffix(f".{n}") for n in range(2)]
    for part, source in zip(parts, ("V", "numbers:640x360:30:60"), strict=True):
        maker.ffmpeg(f"{source} X -g 30 -f mpegts O", part)
    out.write_bytes(b"".join(part.read_bytes() for part in parts))


def late_edit_list(maker: MediaMaker, out: Path) -> None:
    whole = out.with_suffix(".whole.mp4")
    maker.ffmpeg("numbers:320x240:30:300 X -g 1000 O", whole)
    maker.ffmpeg(f"-ss 6 -i {whole.name} -c copy O", out)


def flip_bits(data: bytearray) -> bytearray:
    rng = random.Random(1)
    for _ in range(200):
        data[rng.randrange(len(data) // 5, len(data) * 7 // 10)] = rng.randrange(256)
    return data


def zero_block(data: bytearray) -> bytearray:
    begin, length = len(data) * 4 // 10, len(data) // 10
    data[begin : begin + length] = bytes(length)
    return data


def patch(box: bytes, offset: int, new: bytes, after: bytes = b"") -> Callable[[bytearray], bytearray]:
    """Replace the bytes at `offset` from the first `box` (that follows `after`)."""

    def edit(data: bytearray) -> bytearray:
        at = data.find(box, data.find(after)) + offset
        data[at : at + len(new)] = new
        return data

    return edit


def write_zip(_: MediaMaker, out: Path) -> None:
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("a", "b")


def write_playlist(text: str) -> MakeFile:
    """A playlist that names the base file, which must not be opened through it."""

    def make(maker: MediaMaker, out: Path) -> None:
        maker.base()
        out.write_text(text.replace("BASE", str(maker.folder / "base.mp4")))

    return make


def write_unreadable(maker: MediaMaker, out: Path) -> None:
    out.write_bytes(maker.base())
    out.chmod(0)


def gif_header(side: int, frames: int) -> bytes:
    """A GIF with a huge canvas and `frames` pictures of one pixel."""
    picture = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    delay = b"\x21\xf9\x04\0\x0a\0\0\0"
    header = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return header + (delay + picture) * frames + b"\x3b"


CONTAINERS = (
    encode_case("a01_h264_aac.mp4", OK, "V A X -c:a aac O"),
    encode_case("a02_h264_noaudio.mp4", OK, "V X O"),
    encode_case("a03_hevc_opengop.mp4", OK, f"V {X265}:open-gop=1 -g 30 O"),
    encode_case("a04_hevc_closedgop.mp4", OK, f"V {X265}:no-open-gop=1 O"),
    encode_case("a05_av1_opus.mp4", OK, "V A -c:v libaom-av1 -cpu-used 8 -c:a libopus O"),
    encode_case("a06_vp9_opus.webm", OK, "V A -c:v libvpx-vp9 -deadline realtime -cpu-used 8 -c:a libopus O"),
    encode_case("a07_vp8_vorbis.webm", OK, "V A -c:v libvpx -b:v 1M -deadline realtime -cpu-used 8 -c:a libvorbis O"),
    encode_case("a08_h264.mkv", OK, "V A X -c:a flac O"),
    encode_case("a09_prores.mov", OK, "V A -c:v prores_ks -c:a pcm_s16le O"),
    encode_case("a10_mjpeg.avi", OK, "V A -c:v mjpeg -c:a pcm_s16le O"),
    encode_case("a11_mpeg4.avi", OK, "V A -c:v mpeg4 -c:a libmp3lame -avoid_negative_ts disabled O"),
    encode_case("a12_wmv2.wmv", OK, "V A -c:v wmv2 -c:a wmav2 O"),
    encode_case("a13_flv1.flv", OK, "V A -c:v flv1 -c:a libmp3lame O"),
    encode_case("a14_h264.ts", OK, "V A X -c:a aac O"),
    encode_case("a15_mpeg2.mpg", OK, "V A -c:v mpeg2video -c:a mp2 O"),
    encode_case("a16_theora.ogv", OK, "V A -c:v libtheora -c:a libvorbis O"),
    encode_case("a17_h263.3gp", OK, "numbers:352x288:30:120 -c:v h263 O"),
    encode_case("a18_anim.gif", OK, "numbers:160x120:10:30 O"),
    encode_case("a19_anim.apng", OK, "numbers:160x120:10:20 -plays 0 -f apng O"),
    encode_case("a20_fragmented.mp4", OK, "V A X -c:a aac -movflags frag_keyframe+empty_moov+delay_moov O"),
    encode_case("a21_mxf.mxf", OK, "V -c:v mpeg2video O"),
    encode_case("a22_dv.dv", "container", "-f lavfi -i testsrc2=s=720x576:r=25:d=2 -pix_fmt yuv420p -c:v dvvideo O"),
    encode_case("a23_raw.h264", "container", "V X -f h264 O"),
    encode_case("a24_y4m.y4m", "container", "numbers:160x120:10:10 O"),
)


def undo_with(back: Callable) -> ExpectedFrames:
    return constant_rate(range(120), 30, undo=back)


GEOMETRY = (
    encode_case("b01_rot90.mp4", OK, "-display_rotation:v:0 -90 B O", undo_with(np.rot90)),
    encode_case("b02_rot180.mp4", OK, "-display_rotation:v:0 180 B O", undo_with(lambda image: image[::-1, ::-1])),
    encode_case("b03_hflip_matrix.mp4", OK, "-display_hflip:v:0 B O", undo_with(np.fliplr)),
    encode_case("b04_rot45_matrix.mp4", OK, "-display_rotation:v:0 45 B O"),  # shown unturned
    encode_case("b05_odd_321x241.mp4", OK, "numbers:321x241:30:60 -c:v libx264 -preset ultrafast -pix_fmt yuv444p O"),
    encode_case("b06_sar2.mp4", OK, "V X -vf setsar=2/1 O"),
    encode_case("b07_10bit.mp4", OK, "V -c:v libx264 -preset ultrafast -pix_fmt yuv420p10le O"),
    encode_case("b08_422_10.mov", OK, "V -c:v prores_ks -profile:v 3 O"),
    encode_case("b09_444.mp4", OK, "V -c:v libx264 -preset ultrafast -pix_fmt yuv444p O"),
    encode_case(
        "b10_hdr10_pq.mp4",
        OK,
        f"V {X265} -pix_fmt yuv420p10le -color_primaries bt2020 -color_trc smpte2084 -colorspace bt2020nc O",
    ),
    encode_case("b11_gray.mp4", OK, "V -c:v libx264 -preset ultrafast -pix_fmt gray O"),
    encode_case("b12_alpha.webm", OK, "V -c:v libvpx-vp9 -pix_fmt yuva420p -deadline realtime -cpu-used 8 O"),
    encode_case("b13_alpha4444.mov", OK, "V -c:v prores_ks -profile:v 4444 -pix_fmt yuva444p10le O"),
    encode_case("b14_interlaced.mp4", OK, "V X -flags +ildct+ilme O"),
    encode_case("b15_tiny16.mp4", OK, "numbers:16x16:30:60 X -qp 5 O"),
    encode_case("b16_2x2.mp4", OK, "-f lavfi -i color=red:s=2x2:r=30:d=1 X O"),
    encode_case("b17_wide_4096x64.mp4", OK, "numbers:4096x64:10:10 X O"),
    encode_case("b18_8k.mp4", OK, "-f lavfi -i color=red:s=8192x4320:r=5:d=0.4 X O"),
    encode_case("b19_15k.mp4", "too_large", "-f lavfi -i color=red:s=15360x8640:r=5:d=0.2 X O"),
    MediaCase(
        "b20_reschange.ts",
        OK,
        resolution_change,
        ExpectedFrames([*range(120), *range(60)], [n / 30 for n in range(180)]),
    ),
)
FINE_TIMEBASE = "-enc_time_base 1:90000 -video_track_timescale 90000 -fps_mode vfr"
TIMING = (
    encode_case(
        "c01_vfr.mp4",
        OK,
        f"V X -vf settb=1/90000,setpts='(N/30+0.1*mod(N\\,7)/30)/TB' {FINE_TIMEBASE} O",
        ExpectedFrames(range(120), [(n + 0.1 * (n % 7)) / 30 for n in range(120)]),
    ),
    encode_case(
        "c02_gap5s.mp4",
        OK,
        f"V X -vf settb=1/90000,setpts='(N/30+5*gt(N\\,60))/TB' {FINE_TIMEBASE} O",
        ExpectedFrames(range(120), [n / 30 + 5 * (n > 60) for n in range(120)]),
    ),
    encode_case("c03_editlist.mp4", OK, "-ss 1.5 B O", constant_rate(range(45, 120), 30)),
    MediaCase("c04_editlist_hang.mp4", OK, late_edit_list, constant_rate(range(180, 300), 30)),
    encode_case("c05_startoffset.mkv", OK, "V A X -c:a aac -output_ts_offset 5 O"),
    encode_case("c06_startoffset.ts", OK, "V A X -c:a aac -output_ts_offset 5 O"),
    encode_case("c07_tswrap.ts", OK, "V A X -c:a aac -output_ts_offset 95440 O"),
    MediaCase(
        "c08_midgop.ts",
        WARNED,
        transcode_then("V X -g 60 -f mpegts O", ".whole", lambda data: data[len(data) // 4 // 188 * 188 :]),
        constant_rate(range(60, 120), 30),
    ),
    encode_case("c09_fps1.mp4", OK, "numbers:320x240:1:8 X O"),
    encode_case("c10_fps240.mp4", OK, "numbers:320x240:240:240 X O"),
    encode_case("c11_2997.mp4", OK, "numbers:320x240:30000/1001:120 X O"),
    encode_case("c12_1frame.mp4", WARNED, "numbers:320x240:30:1 X O"),
    encode_case("c13_2frames.mp4", WARNED, "numbers:320x240:30:2 X O"),
    repeat_case("c14_24h_1fps.mp4", "too_long", "-f lavfi -i color=black:s=64x64:r=1:d=864 X O", 100),
    repeat_case("c15_600k_frames.mp4", "too_many_frames", "-f lavfi -i color=black:s=32x32:r=1000:d=1 X O", 600),
    encode_case("c16_longgop.mp4", OK, "V X -g 1000 O"),
    encode_case(
        "c17_opengop_bframes.mp4",
        OK,
        "V -c:v libx264 -preset medium -g 30 -x264-params open-gop=1:bframes=5:b-adapt=0:scenecut=0 O",
    ),
    encode_case("c18_audio_longer.mp4", OK, "V -f lavfi -i sine=440:d=9 X -c:a aac O"),
    encode_case("c19_audio_shorter.mp4", OK, "V -f lavfi -i sine=440:d=1 X -c:a aac O"),
    encode_case("c20_audio_delay.mp4", OK, "V -itsoffset 1.5 A X -c:a aac O"),
    encode_case("c21_black.mp4", OK, "-f lavfi -i color=black:s=320x240:r=30:d=4 X O"),
)
ENCRYPTION = "-encryption_key 76a6c65c5ea762046bd749a2e632ccbb -encryption_kid a7e61c373e219033c21091fa607bf3b8"
COVER = "-f lavfi -i testsrc2=r=25:d=0.04 -map 0 -map 1 -c:a aac -c:v mjpeg -frames:v 1 -disposition:v:0 attached_pic"
SUBTITLED = "-i BASE -i titles.srt -i chapters.txt -map 0 -map 1 -map_metadata 2 -map_chapters 2 -c:v copy -c:a copy"
STREAMS = (
    encode_case("d01_audio_only.mp4", "no_video", "A -c:a aac O"),
    encode_case("d02_audio_only.mp3", "no_video", "A -c:a libmp3lame O"),
    encode_case("d03_coverart.m4a", "no_video", f"A {COVER} O"),
    encode_case("d04_two_video.mp4", OK, "-i BASE -i BASE -map 0:v -map 1:v -map 0:a -c copy O"),
    encode_case("d05_two_audio.mp4", OK, "V A -f lavfi -i sine=880:d=4 -map 0 -map 1 -map 2 X -c:a aac O"),
    encode_case("d06_51_audio.mp4", OK, "V -f lavfi -i anoisesrc=d=4:a=0.1 -map 0 -map 1 X -c:a aac -ac 6 O"),
    encode_case("d07_mono8k.mp4", OK, "V -f lavfi -i sine=440:d=4:sample_rate=8000 X -c:a aac O"),
    encode_case("d08_silent_audio.mp4", OK, "V -f lavfi -i anullsrc=d=4 X -c:a aac -shortest O"),
    encode_case("d09_192k_float.mkv", OK, "V -f lavfi -i sine=440:d=4:sample_rate=192000 X -c:a pcm_f32le O"),
    encode_case("d10_subs_chapters.mkv", OK, f"{SUBTITLED} -c:s srt O"),
    encode_case("d11_movtext_chapters.mp4", OK, f"{SUBTITLED} -c:s mov_text O"),
    encode_case(
        "d12_attached_font.mkv", OK, "B -attach titles.srt -metadata:s:t mimetype=application/x-truetype-font O"
    ),
    encode_case("d13_huge_metadata.mp4", OK, "B -metadata LONG O"),
    encode_case("d14_encrypted.mp4", "undecodable", f"B -encryption_scheme cenc-aes-ctr {ENCRYPTION} O"),
    encode_case("d15_data_track.mov", OK, "B -timecode 01:00:00:00 O"),
)
HTML = b"<!DOCTYPE html><html>Quota exceeded</html>"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
DAMAGED = (
    content_case("e01_zero.mp4", "empty", b""),
    content_case("e02_text.mp4", "not_media", b"hello\n" * 50),
    content_case("e03_random.mp4", "not_media", random.Random(0).randbytes(200_000)),
    MediaCase("e04_png_as.mp4", "image", transcode_then("-f lavfi -i testsrc2=d=0.04 -frames:v 1 O", ".png", bytes)),
    MediaCase("e05_mp3_as.mp4", "no_video", transcode_then("A -c:a libmp3lame O", ".mp3", bytes)),
    edit_case("e06_trunc_moovend.mp4", "not_media", first_half),
    MediaCase(
        "e07_trunc_faststart50.mp4", WARNED, transcode_then("B -movflags +faststart O", ".mp4", first_half), ALL_FRAMES
    ),
    edit_case("e08_trunc_header.mp4", "not_media", lambda data: data[:64]),
    MediaCase("e09_trunc.mkv", WARNED, transcode_then("B O", ".mkv", first_half), ALL_FRAMES),
    edit_case("e10_zeroblock.mp4", WARNED, zero_block),
    edit_case("e11_flip200.mp4", WARNED, flip_bits),
    edit_case("e12_stsz_huge.mp4", "not_media", patch(b"stsz", 12, b"\x7f\xff\xff\xff")),
    edit_case("e13_stts_zero.mp4", "not_media", patch(b"stts", 8, bytes(4))),
    edit_case("e14_wh_zero.mp4", OK, patch(b"avc1", 28, bytes(4), after=b"stsd"), ALL_FRAMES),
    edit_case("e15_wrong_codec_tag.mp4", "undecodable", patch(b"avc1", 0, b"hvc1", after=b"stsd")),
    edit_case("e16_unknown_codec.mp4", "codec", patch(b"avc1", 0, b"zzzz", after=b"stsd")),
    edit_case("e17_concat_two_files.mp4", OK, lambda data: data + data, ALL_FRAMES),
    edit_case("e18_trailing_garbage.mp4", OK, lambda data: data + random.Random(0).randbytes(5000), ALL_FRAMES),
    content_case("e19_html_download.mp4", "not_media", HTML),
    content_case("e20_lfs_pointer.mp4", "not_media", LFS),
    MediaCase("e21_zip_as.mp4", "not_media", write_zip),
)
HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10.0,\nfile://BASE\n#EXT-X-ENDLIST\n"
M3U = b"#EXTM3U\n#EXTINF:10.0,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n"  # too little to be HLS
DASH = "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011' type='static'><Period/></MPD>"
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"
HOSTILE = (
    MediaCase("f01_hls_local.mp4", "playlist", write_playlist(HLS)),
    MediaCase("f02_hls_local.m3u8", "playlist", write_playlist(HLS)),
    content_case("f03_hls_http.mp4", "not_media", M3U),
    MediaCase("f04_ffconcat.mp4", "playlist", write_playlist("ffconcat version 1.0\nfile BASE\n")),
    MediaCase("f05_dash.mpd", "playlist", write_playlist(DASH)),
    content_case("f06_gifbomb.gif", "too_large", gif_header(16000, 500)),
    content_case("f07_gif65500.gif", "too_large", gif_header(65500, 1)),
    MediaCase("f08_fifo.mp4", "not_regular", lambda _, out: os.mkfifo(out)),
    MediaCase("f09_dir.mp4", "not_regular", lambda _, out: out.mkdir()),
    MediaCase("f10_dangling_symlink.mp4", "missing", lambda _, out: out.symlink_to("/nonexistent")),
    MediaCase("f11_symlink_devzero.mp4", "not_regular", lambda _, out: out.symlink_to("/dev/zero")),
    MediaCase("f12_noperm.mp4", "permission", write_unreadable),
    MediaCase("f13_sdp.mp4", "playlist", write_playlist(SDP)),
)
FILE_NAMES: tuple[str | bytes, ...] = (
    *("-y.mp4", "a:b.mp4", "http:x.mp4", "concat:a|b.mp4", "pipe:0.mp4", "img%03d.mp4", "sp ace.mp4", "qu'ote\".mp4"),
    *("nl\nx.mp4", "음악🎵.mp4", "$(touch pwn).mp4", "glob*[1].mp4", "a" * 240 + ".mp4", b"inv\xff\xfe.mp4", "noext"),
    *("UPPER.MP4", ".hidden.mp4", "back\\slash.mp4"),
)
NAME_CASES = tuple(
    MediaCase(name, OK, lambda maker, out: out.write_bytes(maker.base()), ALL_FRAMES) for name in FILE_NAMES
)

CASES = (*CONTAINERS, *GEOMETRY, *TIMING, *STREAMS, *DAMAGED, *HOSTILE, *NAME_CASES)
