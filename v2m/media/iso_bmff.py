"""Records in ISO base media files (MP4, QuickTime) that FFmpeg does not copy: reading and restoring.

Sources: ISO/IEC 14496-12 and 14496-14; Apple, QuickTime File Format.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from v2m.core.atomic import publish, temporary_sibling

COVER_TYPES = {"jpeg": 13, "png": 14, "bmp": 27}  # of iTunes' tags
MAX_MOOV_BYTES = 1 << 28
HEADERS = {"moov": 8, "trak": 8, "mdia": 8, "minf": 8, "stbl": 8, "stsd": 16}  # bytes before the boxes inside
ENTRY_HEADER = 16  # bytes of a sample entry of any kind; the last two are the index of a data reference
ENTRY_FIELDS = {"vide": 86, "soun": 36}  # bytes before its boxes
QUICKTIME_FIELDS = {1: 52, 2: 72}  # of sound, by version
# Boxes that every muxer writes by itself, in its own form.
MUXER_BOXES = {
    *("avcC", "hvcC", "vvcC", "av1C", "vpcC", "d263", "jp2h", "glbl", "colr", "pasp", "fiel", "gama", "btrt", "bitr"),
    *("esds", "dac3", "dec3", "dOps", "dfLa", "alac", "damr", "wave", "chan", "pcmC", "frma", "meta", "loci"),
}
READ_USER_DATA = {  # that FFmpeg reads as tags
    *("©ART", "©alb", "©aut", "©chp", "©cmt", "©com", "©cpy", "©day", "©dir", "©dis", "©ed1", "©enc", "©fmt", "©gen"),
    *("©grp", "©hst", "©inf", "©lyr", "©mak", "©mod", "©nam", "©ope", "©prd", "©prf", "©req", "©src", "©st3", "©swr"),
    *("©des", "©too", "©trk", "©url", "©wrn", "©wrt", "©xyz"),
}
# Boxes of a track by the box around them, "" for the track itself; those that every muxer writes by itself.
TRACK_BOXES = {
    "": {"tkhd", "edts", "mdia", "tref", "udta", "free", "skip"},
    "mdia": {"mdhd", "hdlr", "minf"},
    "tref": {"chap", "tmcd", "hint"},
    "udta": {"meta", "name", "kind"},
}


MAX_FILE_BOX_BYTES = 1 << 24
C2PA = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")  # a signature of the file's bytes, void in every copy
KEYS = "keys"  # of a phone, which FFmpeg reads as tags but writes without their types


@dataclass(frozen=True)
class Track:
    """The boxes of a track outside of its sample table but those of `TRACK_BOXES`."""

    track_id: int
    place: int  # in moov
    containers: Mapping[str, int]  # places in moov of the boxes that can hold others
    children: Mapping[tuple[str, str], bytes]  # by the box around them, "" for the track itself, and their own type


@dataclass(frozen=True)
class Entry:
    """The first sample entry of a track, or the user data (udta) of the file, whose `track_id` is 0."""

    track_id: int
    handler: str  # vide, soun, meta, tmcd …, or udta
    kind: str  # avc1, hvc1, mp4a …, or udta
    data: bytes
    around: tuple[int, ...]  # places in moov of the boxes around it, and its own
    children: Mapping[str, bytes]  # boxes in it but `MUXER_BOXES`, by their four-character code


def read_entries(path: Path) -> list[Entry]:
    """Return the entries of all tracks and of the file; none where it is no ISO base media file."""
    _, moov = _read_moov(path)
    entries, track_id, handler, first = [], 0, "", False
    for kind, start, end, around in _walk(moov, 0, len(moov)):
        parent = moov[around[-1] + 4 : around[-1] + 8] if around else b""
        if kind == "tkhd":
            place = start + (28 if moov[start + 8 : start + 9] == b"\1" else 20)
            track_id, first = int.from_bytes(moov[place : place + 4], "big"), True
        elif kind == "hdlr" and parent == b"mdia":
            handler = moov[start + 16 : start + 20].decode("latin-1")
        elif (parent == b"stsd" and first) or (kind == "udta" and parent == b"moov"):
            first, data, owner = False, moov[start:end], (0, kind) if kind == "udta" else (track_id, handler)
            entries.append(Entry(*owner, kind, data, (*around, start), _children(owner[1], data)))
    return entries


def read_tracks(path: Path) -> list[Track]:
    """Return the tracks of a file; none where it is no ISO base media file."""
    _, moov = _read_moov(path)
    return [_parse_track(moov, start, end) for kind, start, end, _ in _walk(moov, 0, len(moov)) if kind == "trak"]


def _parse_track(moov: bytes, start: int, end: int) -> Track:
    containers, track_id = {"": start}, 0
    children: dict[tuple[str, str], bytes] = defaultdict(bytes)
    for kind, low, high in _boxes(moov, start + 8, end):
        if kind == "tkhd":
            place = low + (28 if moov[low + 8 : low + 9] == b"\1" else 20)
            track_id = int.from_bytes(moov[place : place + 4], "big")
        if kind in TRACK_BOXES:
            containers[kind] = low
            for inner, first, last in _boxes(moov, low + 8, high):
                if inner not in TRACK_BOXES[kind] and inner[0] != "©":
                    children[kind, inner] += moov[first:last]
        elif kind not in TRACK_BOXES[""]:
            children["", kind] += moov[low:high]
    return Track(track_id, start, containers, children)


def restore_tracks(path: Path, source: Path, track_ids: Mapping[int, int]) -> None:
    """Write into `path` the boxes of tracks of `source` that it lacks.

    `track_ids` maps ids of the input to those of the output. References to other tracks are left out.
    """
    originals = {track.track_id: track for track in read_tracks(source)}
    copies = {track.track_id: track for track in read_tracks(path)}
    start, moov = _read_moov(path)
    edits: list[tuple[int, bytes, tuple[int, ...]]] = []
    for old, new in track_ids.items():
        if old in originals and new in copies:
            edits += _track_edits(originals[old], copies[new], track_ids, moov)
    edited = bytearray(moov)
    # From the end on; of two at one place the outer one first, so that the inner one comes before it.
    for place, data, around in sorted(edits, key=lambda edit: (edit[0], -len(edit[2])), reverse=True):
        _insert(edited, place, data, (0, *around))
    _write_moov(path, start, moov, edited)


def _track_edits(
    source: Track, output: Track, track_ids: Mapping[int, int], moov: bytes
) -> Iterator[tuple[int, bytes, tuple[int, ...]]]:
    """Yield insertions into moov: the place, the data, the places of the boxes around it but moov."""
    groups: dict[str, bytes] = defaultdict(bytes)
    for (container, kind), data in source.children.items():
        if (container, kind) not in output.children:
            groups[container] += _map_references(data, track_ids) if container == "tref" else data
    for container, data in groups.items():
        if not data:
            continue
        around = tuple(dict.fromkeys((output.place, output.containers.get(container, output.place))))
        end = around[-1] + int.from_bytes(moov[around[-1] : around[-1] + 4], "big")
        yield end, data if container in output.containers else _box(container, data), around


def _map_references(box: bytes, track_ids: Mapping[int, int]) -> bytes:
    """Return a box of references with the ids of the output; b"" where it lacks all of the tracks."""
    ids = [int.from_bytes(box[place : place + 4], "big") for place in range(8, len(box) - 3, 4)]
    mapped = [track_ids[track_id].to_bytes(4, "big") for track_id in ids if track_id in track_ids]
    return _box(box[4:8].decode("latin-1"), b"".join(mapped)) if mapped else b""


def add_covers(path: Path, covers: Sequence[tuple[str, bytes]]) -> None:
    """Write covers, as format and file, into the tags of `path`; only those of `COVER_TYPES`."""
    pictures = [
        _box("data", COVER_TYPES[kind].to_bytes(4, "big") + bytes(4) + data)
        for kind, data in covers
        if kind in COVER_TYPES
    ]
    start, moov = _read_moov(path)
    if not pictures or not moov:
        return
    handler = _box("hdlr", bytes(8) + b"mdirappl" + bytes(9))
    meta = _box("meta", bytes(4) + handler + _box("ilst", _box("covr", b"".join(pictures))))
    udta = next(((low, high) for kind, low, high in _boxes(moov, 8, len(moov)) if kind == "udta"), None)
    place, around, data = (len(moov), (0,), _box("udta", meta)) if udta is None else (udta[1], (0, udta[0]), meta)
    edited = bytearray(moov)
    _insert(edited, place, data, around)
    _write_moov(path, start, moov, edited)


def _box(kind: str, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind.encode("latin-1") + content


def _insert(edited: bytearray, place: int, data: bytes, around: Sequence[int]) -> None:
    """Insert boxes, and make those at the places `around` larger."""
    edited[place:place] = data
    for box in around:
        size = int.from_bytes(edited[box : box + 4], "big") + len(data)
        edited[box : box + 4] = size.to_bytes(4, "big")


def restore_entries(path: Path, pairs: Sequence[tuple[Entry, Entry]]) -> None:
    """Write into `path` what its entries lack of those of the input, as pairs (input, output).

    Boxes are added to entries of pictures and sound and to user data; entries of other data are replaced.
    """
    start, moov = _read_moov(path)
    edited = bytearray(moov)
    for source, output in sorted(pairs, key=lambda pair: pair[1].around, reverse=True):
        data = _restored(source, output)
        edited[output.around[-1] : output.around[-1] + len(output.data)] = data
        for box in output.around if source.handler in {*ENTRY_FIELDS, "udta"} else output.around[:-1]:
            size = int.from_bytes(edited[box : box + 4], "big") + len(data) - len(output.data)
            edited[box : box + 4] = size.to_bytes(4, "big")
    _write_moov(path, start, moov, edited)


def read_file_boxes(path: Path) -> dict[str, tuple[bool, bytes]]:
    """Return boxes of metadata beside the tracks, by name: whether they lie in moov, and their bytes."""
    boxes: dict[str, tuple[bool, bytes]] = {}
    _, moov = _read_moov(path)
    with path.open("rb") as file:
        for kind, start, size in _top_level(file, path.stat().st_size) if moov else ():
            if kind in {"uuid", "meta"} and size <= MAX_FILE_BOX_BYTES:
                file.seek(start)
                data = file.read(size)
                boxes |= dict.fromkeys(_file_box_name(kind, data), (False, data))
    for kind, start, end in _boxes(moov, 8, len(moov)):
        boxes |= dict.fromkeys(_file_box_name(kind, moov[start:end]), (True, moov[start:end]))
    return boxes


def _file_box_name(kind: str, data: bytes) -> list[str]:
    if kind == "uuid":
        return [f"uuid {data[8:12].hex()}"]
    place = data.find(b"hdlr", 0, 24) + 12
    handler = data[place : place + 4]
    if kind != "meta" or handler in {b"mdir", b"pict"}:  # tags; items of a still picture at places of this file
        return []
    # A comment among the keys would hide the output's own; those of Apple are written by FFmpeg.
    is_copied = b"comment" not in data and b"com.apple." not in data
    return [kind] if handler != b"mdta" else [KEYS] * is_copied


def restore_file_boxes(path: Path, source: Path) -> None:
    """Write into `path` the boxes of metadata of `source` that it lacks, except for signatures."""
    present = read_file_boxes(path)
    missing = [box for name, box in read_file_boxes(source).items() if name not in present and box[1][8:24] != C2PA]
    start, moov = _read_moov(path)
    edited = bytearray(moov)
    _insert(edited, len(moov), b"".join(data for is_in_moov, data in missing if is_in_moov), (0,))
    _write_moov(path, start, moov, edited)
    if tail := b"".join(data for is_in_moov, data in missing if not is_in_moov):
        with path.open("ab") as file:
            file.write(tail)


def _write_moov(path: Path, start: int, moov: bytes, edited: bytearray) -> None:
    """Write `edited` in the place of the moov box at `start`, with the chunk offsets behind it moved."""
    if edited == moov or not _shift_chunks(edited, start, len(edited) - len(moov)):
        return
    with temporary_sibling(path) as temporary:
        with path.open("rb") as old, temporary.open("wb") as new:
            new.write(old.read(start) + edited)
            old.seek(start + len(moov))
            shutil.copyfileobj(old, new, 1 << 20)
        publish(temporary, path)


def _read_moov(path: Path) -> tuple[int, bytes]:
    """Return the place of the moov box and its bytes, none where there is no such box."""
    with path.open("rb") as file:
        for kind, start, size in _top_level(file, path.stat().st_size):
            if kind == "moov" and size <= MAX_MOOV_BYTES:
                file.seek(start)
                return start, file.read(size)
    return 0, b""


def _top_level(file: BinaryIO, length: int) -> Iterator[tuple[str, int, int]]:
    """Yield type, start and size of the boxes of a file; the last may be cut off."""
    position = 0
    while position + 8 <= length:
        file.seek(position)
        header = file.read(16)
        size = int.from_bytes(header[:4], "big")
        size = int.from_bytes(header[8:], "big") if size == 1 else size
        yield header[4:8].decode("latin-1"), position, size
        if size < 8:  # 0: to the end of the file
            return
        position += size


def _boxes(data: bytes | bytearray, start: int, end: int) -> Iterator[tuple[str, int, int]]:
    """Yield type, start and end of the boxes side by side in a range."""
    while start + 8 <= end:
        size, kind = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8].decode("latin-1")
        if size < 8 or start + size > end:
            return
        yield kind, start, start + size
        start += size


def _walk(
    data: bytes | bytearray, start: int, end: int, around: tuple[int, ...] = ()
) -> Iterator[tuple[str, int, int, tuple[int, ...]]]:
    """Yield type, start, end and the places of the boxes around it of each box, depth first."""
    for kind, low, high in _boxes(data, start, end):
        yield kind, low, high, around
        if kind in HEADERS:
            yield from _walk(data, low + HEADERS[kind], high, (*around, low))


def _children(handler: str, data: bytes) -> dict[str, bytes]:
    version = int.from_bytes(data[ENTRY_HEADER : ENTRY_HEADER + 2], "big")
    fields = {**ENTRY_FIELDS, "udta": 8}.get(handler, len(data))
    for first in (QUICKTIME_FIELDS.get(version, fields) if handler == "soun" else fields, fields):
        boxes = [(kind, low, high) for kind, low, high, around in _walk(data, first, len(data)) if not around]
        if boxes and len(data) - boxes[-1][2] < 8:  # QuickTime may end the list with four zero bytes
            return {kind: data[low:high] for kind, low, high in boxes if kind not in MUXER_BOXES | READ_USER_DATA}
    return {}


def _restored(source: Entry, output: Entry) -> bytes:
    """Return the output's entry with what it lacks."""
    if source.handler not in {*ENTRY_FIELDS, "udta"}:
        return source.data[: ENTRY_HEADER - 2] + b"\0\1" + source.data[ENTRY_HEADER:]  # the one data reference
    version = slice(ENTRY_HEADER, ENTRY_HEADER + 2)
    if source.handler == "soun" and source.data[version] != output.data[version]:
        return output.data
    return output.data + b"".join(box for kind, box in source.children.items() if kind not in output.children)


def _shift_chunks(moov: bytearray, start: int, shift: int) -> bool:
    """Move the chunk offsets behind the moov box; return whether they still fit into their fields."""
    for kind, low, high, _ in list(_walk(moov, 0, len(moov))):
        if kind in {"stco", "co64"}:
            dtype = ">u4" if kind == "stco" else ">u8"
            count = min(int.from_bytes(moov[low + 12 : low + 16], "big"), (high - low - 16) // np.dtype(dtype).itemsize)
            table = np.frombuffer(moov, dtype, count, low + 16).astype(np.int64)
            table[table > start] += shift
            if kind == "stco" and count and table.max() >= 1 << 32:
                return False
            moov[low + 16 : low + 16 + table.size * np.dtype(dtype).itemsize] = table.astype(dtype).tobytes()
    return True
