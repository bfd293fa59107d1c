"""Boxes that cameras and editors write beside the tracks of a file, and how to put them there."""

from __future__ import annotations

import struct
from pathlib import Path

from tests.robustness.test_kept_streams import box, boxes_to

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
