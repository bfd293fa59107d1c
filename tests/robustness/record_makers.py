"""Records that cameras and editors write into a file's tracks and beside them, and clips that hold them."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import av

from tests.conftest import FFMPEG, ffmpeg
from tests.media.audio_checks import tone
from v2m.media import video as videos
from v2m.mixing.mixer import MixConfig, MixReport, mix

PICTURE = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=1")
SOUND = ("-f", "lavfi", "-i", "sine=440:d=1")
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac")
HEVC = ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=error", "-c:a", "aac")
PRORES = ("-c:v", "prores_ks", "-c:a", "pcm_s16le")
TO_ENTRY = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


SPHERICAL = box(b"st3d", bytes(4) + b"\1") + box(
    b"sv3d",
    box(b"svhd", bytes(4) + b"camera\0") + box(b"proj", box(b"prhd", bytes(16)) + box(b"equi", bytes(20))),
)
DOLBY = box(b"dvvC", bytes([1, 0]) + struct.pack(">H", 8 << 9 | 5 << 3 | 1 << 2 | 1) + bytes([4 << 4]) + bytes(19))


def boxes_to(data: bytes, path: tuple[bytes, ...], start: int = 0, end: int | None = None) -> list[int]:
    """Return the places of the boxes on the way to the first box at `path`; empty where there is none."""
    end = len(data) if end is None else end
    while start + 8 <= end:
        size, kind = struct.unpack(">I4s", data[start : start + 8])
        if kind == path[0]:
            inner = start + (16 if kind == b"stsd" else 8)
            rest = [] if len(path) == 1 else boxes_to(data, path[1:], inner, start + size)
            if len(path) == 1 or rest:
                return [start, *rest]
        start += size
    return []


def read_entry(path: Path, entry: bytes) -> bytes:
    """Return the sample entry of that type in a file."""
    data = path.read_bytes()
    place = boxes_to(data, (*TO_ENTRY, entry))[-1]
    return data[place : place + int.from_bytes(data[place : place + 4], "big")]


def write_clip(path: Path, *arguments: str | Path, codec: tuple[str, ...] = H264) -> Path:
    ffmpeg(*PICTURE, *SOUND, "-map", "0", "-map", "1", *codec, *arguments, path)
    return path


def write_telemetry(path: Path, tag: bytes) -> Path:
    """Write a clip with a timecode, and two samples of data under a handler and a four-character code of a camera."""
    titles = path.with_suffix(".srt")
    titles.write_text("1\n00:00:00,000 --> 00:00:00,400\nGPS 1\n\n2\n00:00:00,400 --> 00:00:01,000\nGPS 2\n")
    inputs = (*PICTURE, *SOUND, "-i", titles, "-map", "0", "-map", "1", "-map", "2")
    ffmpeg(*inputs, *H264, "-c:s", "mov_text", "-timecode", "10:11:12:13", "-metadata:s:s:0", "handler_name=Rec", path)
    path.write_bytes(path.read_bytes().replace(b"tx3g", tag).replace(b"sbtl", b"meta"))
    return path


def write_unknown_track(folder: Path, position: int) -> Path:
    """Write a QuickTime file in which one of two audio tracks has a codec that FFmpeg has no decoder for."""
    codecs = ["-c:a:0", "aac", "-c:a:1", "aac", f"-c:a:{position}", "alac"]
    ffmpeg(*PICTURE, *SOUND, *SOUND, "-map", "0", "-map", "1", "-map", "2", *H264[:6], *codecs, folder / "in.mov")
    data = bytearray((folder / "in.mov").read_bytes())
    place = boxes_to(bytes(data), (*TO_ENTRY, b"alac"))[-1]
    data[place + 4 : place + 8] = b"apac"
    (folder / "in.mov").write_bytes(data)
    return folder / "in.mov"


def write_cover(path: Path) -> Path:
    picture = ("-f", "lavfi", "-i", "testsrc2=s=32x32")
    words = ("-frames:v:1", "1", "-c:v:1", "png", "-pix_fmt:v:1", "rgb24", "-disposition:v:1", "attached_pic")
    ffmpeg(*PICTURE, *SOUND, *picture, "-map", "0", "-map", "1", "-map", "2", *H264, *words, path)
    return path


def write_pictures_of_text(path: Path) -> None:
    """Write PGS subtitles: two empty screens."""

    def segment(time: int, kind: int, content: bytes) -> bytes:
        return b"PG" + struct.pack(">IIBH", time, 0, kind, len(content)) + content

    def screen(number: int, time: int) -> Iterator[bytes]:
        yield segment(time, 0x16, struct.pack(">HHBHBBBB", 64, 48, 16, number, 128, 0, 0, 0))
        yield segment(time, 0x17, b"\1\0" + struct.pack(">HHHH", 0, 0, 64, 48))
        yield segment(time, 0x80, b"")

    path.write_bytes(b"".join(part for number, time in enumerate((9000, 45_000)) for part in screen(number, time)))


def run_mix(path: Path, out: Path, track: int | None = None) -> MixReport:
    return mix(videos.open(path), tone(1), out, MixConfig("keep", track=track), {"comment": "generated"})


def describe(path: Path) -> str:
    return subprocess.run([FFMPEG, "-i", str(path)], capture_output=True, text=True, check=False).stderr


def decodes_alike(*paths: Path) -> bool:
    pictures: list[list[bytes]] = []
    for path in paths:
        with av.open(str(path)) as media:
            pictures.append([frame.to_ndarray().tobytes() for frame in media.decode(media.streams.video[0])])
    return all(frames == pictures[0] for frames in pictures)


XMP = box(b"uuid", bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + b"<x:xmpmeta/>")
NON_REAL_TIME = box(
    b"meta", bytes(4) + box(b"hdlr", bytes(8) + b"nrtm" + bytes(13)) + box(b"xml ", bytes(4) + b"<N/>\0")
)
PLACED = {  # boxes that cameras and editors write beside the tracks: where, and what
    "a drone's position (©xsp)": ((b"moov", b"udta"), box(b"\xa9xsp", b"\0\5\x15\xc7+0.10")),
    "Sony's metadata": ((b"moov",), NON_REAL_TIME),
    "XMP of the file": ((), XMP),
    "Canon's uuid": ((b"moov",), box(b"uuid", bytes(range(16)) + b"CNCV")),
    "user data of a track": ((b"moov", b"trak"), box(b"udta", box(b"name", b"Front") + box(b"tagc", b"public.main"))),
    "reference of a track": ((b"moov", b"trak"), box(b"tref", box(b"cdsc", struct.pack(">I", 2)))),
}


def add_at(path: Path, place: tuple[bytes, ...], boxes: bytes) -> Path:
    """Append boxes to the first box at `place`, or to the file, whose index comes last."""
    data = bytearray(path.read_bytes())
    around = boxes_to(bytes(data), place) if place else []
    end = around[-1] + int.from_bytes(data[around[-1] : around[-1] + 4], "big") if place else len(data)
    data[end:end] = boxes
    for start in around:
        data[start : start + 4] = struct.pack(">I", int.from_bytes(data[start : start + 4], "big") + len(boxes))
    path.write_bytes(data)
    return path


def add_boxes(path: Path, entry: bytes, boxes: bytes) -> Path:
    """Append boxes to a sample entry of a file whose index comes last."""
    return add_at(path, (*TO_ENTRY, entry), boxes)


def add_track_boxes(path: Path, around: tuple[bytes, ...], boxes: bytes) -> Path:
    """Append boxes to the box at `around` in the first track of a file whose index comes last."""
    return add_at(path, (b"moov", b"trak", *around), boxes)
