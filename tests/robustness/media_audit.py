"""Audit of a copy of a media file: what of the input it lacks, by readers that v2m does not use.

Streams, tags and chapters come from PyAV, side data from ffmpeg's description, boxes of MP4 and QuickTime from a walk
of all levels. A fact has a place (the file, a stream) and a name; that a copy lacks it is a loss.
"""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
from av.stream import Disposition

from tests.conftest import FFMPEG

# Boxes without a version before what they hold. Behind the fields of a sample entry there are boxes too.
PLAIN = {"moov", "trak", "mdia", "minf", "stbl", "udta", "gmhd"}
ENTRY_FIELDS = {"vide": 86, "soun": 36}
# What every muxer writes anew: places and times of samples, decoder configurations, and what PyAV gives as tags,
# dispositions, languages, sizes and colors, which are compared as such.
DERIVED = {
    *("ftyp", "free", "skip", "wide", "mdat", "mvhd", "iods", "mvex", "moof", "mfra", "sidx", "styp", "edts", "dinf"),
    *("tkhd", "mdhd", "hdlr", "vmhd", "smhd", "nmhd", "sthd", "gmin", "stts", "ctts", "cslg", "stsc", "stsz", "stz2"),
    *("stco", "co64", "stss", "sdtp", "sgpd", "sbgp", "avcC", "hvcC", "av1C", "vpcC", "esds", "wave", "chan", "btrt"),
    *("pasp", "colr", "fiel", "gama", "dac3", "dOps", "dfLa", "alac", "pcmC", "ilst", "keys", "text", "tcmi", "tmcd"),
    *("subs", "saiz", "saio", "elng", "loci", "ftab", "load", "tapt", "name"),
}
TAG_ATOMS = {
    "©" + name for name in ("nam", "cmt", "too", "ART", "alb", "day", "gen", "mak", "mod", "swr", "xyz", "cpy", "des")
}
SAME_LANGUAGE = {"ger": "deu", "fre": "fra", "dut": "nld", "chi": "zho"}  # two codes of ISO 639-2
SAME_RECORD = {  # boxes, and what ffmpeg calls the same in another container
    **{"st3d": "stereo3d", "sv3d": "spherical", "dvcC": "DOVI", "dvvC": "DOVI", "clli": "Content Light Level Metadata"},
    **{"mdcv": "Mastering Display Metadata"},
}
C2PA = "d8fec3d61b0e483c92975828877ec481"
TECHNICAL_TAGS = re.compile(
    "encoder|major_brand|minor_version|compatible_brands|duration|vendor_id|_statistics.*|bps.*|number_of_.*|language"
    "|rotate|stereo_mode|timecode|title|handler_name|creation_time"
)
SIDE_DATA = re.compile(r"([A-Za-z][\w :-]*?)(?:(?:: |, | \()(.*))?$")


@dataclass(frozen=True)
class Loss:
    """A fact of the input that its copy lacks; `words` are those that name it."""

    place: str
    name: str
    words: tuple[str, ...]

    def is_named(self, warnings: str) -> bool:
        return any(word.lower() in warnings.lower() for word in self.words)


@dataclass
class StreamFacts:
    kind: str
    codec: str
    label: str  # language and title
    facts: dict[str, str] = field(default_factory=dict)


@dataclass
class FileFacts:
    streams: list[StreamFacts]
    facts: dict[str, str]

    def of_kind(self, kind: str) -> list[StreamFacts]:
        return [stream for stream in self.streams if stream.kind == kind]


WARNING_OF_KIND = {
    **{"video": "pictures_left_out", "cover": "covers_left_out", "audio": "tracks_left_out", "data": "data_left_out"},
    **{"subtitle": "subtitles_", "attachment": "attachments_left_out"},
}


def find_losses(source: Path, copy: Path, keeps_audio: bool = True) -> list[Loss]:
    """Return what `copy` lacks of `source`; its first audio stream is new."""
    before, after = read_facts(source), read_facts(copy)
    losses = [
        Loss("file", name, _words(name)) for name, value in before.facts.items() if not _holds(after.facts, name, value)
    ]
    for kind, warning in WARNING_OF_KIND.items():
        if kind == "audio" and not keeps_audio:
            continue
        free = after.of_kind(kind)[kind == "audio" :]
        for number, stream in enumerate(before.of_kind(kind), 1):
            place = f"{kind} {number}"
            match = next((other for other in free if _key(other) == _key(stream)), next(iter(free), None))
            if match is None:
                losses.append(Loss(place, f"stream {stream.codec}", (warning,)))
                continue
            free.remove(match)
            if match.codec != stream.codec:
                losses.append(Loss(place, f"codec {stream.codec}", (warning,)))
            if match.label != stream.label and stream.label:
                losses.append(Loss(place, f"label {stream.label}", ("language", "title")))
            lost = [name for name, value in stream.facts.items() if not _holds(match.facts, name, value)]
            losses += [Loss(place, name, _words(name)) for name in lost]
    return losses


def read_facts(path: Path) -> FileFacts:
    boxes, side_data = dict(_walk_file(path)), _read_side_data(path)
    of_track: dict[int, dict[str, str]] = {}
    facts: dict[str, str] = {}
    for (track, name), value in boxes.items():
        of_track.setdefault(track, {})[name] = value
    facts |= of_track.get(0, {})
    streams = []
    with av.open(str(path)) as media:
        facts |= {f"tag {key}": value for key, value in _tags(media.metadata).items()}
        zero = float((media.streams.video[0].start_time or 0) * (media.streams.video[0].time_base or 0))
        for number, chapter in enumerate(media.chapters(), 1):
            start = float(chapter["start"] * (chapter["time_base"] or 0))
            facts[f"chapter {number}"] = f"{abs(start - zero):.1f} {chapter['metadata'].get('title', '')}"
        everything = (media.metadata, *(stream.metadata for stream in media.streams))
        timecodes = [value for tags in everything for key, value in tags.items() if key.lower() == "timecode"]
        facts |= {"tag timecode": timecodes[0]} if timecodes else {}
        for stream in media.streams:
            tags = {key.lower(): value for key, value in stream.metadata.items()}
            tags |= {"title": tags.pop("name")} if "name" in tags else {}  # of MP4
            codec = stream.codec_context.codec.canonical_name if stream.codec_context else "unknown"
            kind = "cover" if stream.type == "video" and stream.disposition & Disposition.attached_pic else stream.type
            extra = side_data.get(stream.index, {})
            code = extra.pop("code", "")
            if kind == "data":
                kind, codec = ("timecode" if code == "tmcd" else kind), code
            if kind == "data" and code == "text" and media.chapters():
                continue
            flags = [flag.name for flag in Disposition if stream.disposition & flag and flag.name != "attached_pic"]
            own = {f"disposition {name}": "" for name in flags if name != "default" or kind == "subtitle"}
            own |= {f"side data {name}": value for name, value in extra.items()}
            if kind != "timecode":
                own |= {f"tag {key}": value for key, value in _tags(tags).items()}
                own |= of_track.get(stream.id, {}) if boxes else {}
            language = stream.language if stream.language and stream.language != "und" else ""
            language = SAME_LANGUAGE.get(language, language)
            streams.append(StreamFacts(kind, codec, f"{language} {tags.get('title', '')}".strip(), own))
    return FileFacts(streams, facts)


def _key(stream: StreamFacts) -> tuple[str, str]:
    return stream.codec, stream.label


def _tags(metadata: dict[str, str]) -> dict[str, str]:
    found = {key.lower(): value for key, value in metadata.items() if value.strip()}
    return {key: value for key, value in found.items() if key == "title" or not TECHNICAL_TAGS.fullmatch(key)}


def _holds(facts: dict[str, str], name: str, value: str) -> bool:
    record = SAME_RECORD.get(name.rpartition("/")[2])
    if record and any(other.startswith(f"side data {record}") for other in facts):
        return True
    if name not in facts and name.lower() not in facts:
        return False
    other = facts.get(name, facts.get(name.lower(), ""))
    return value in other or name.startswith("tag creation")


def _words(name: str) -> tuple[str, ...]:
    kind, _, rest = name.partition(" ")
    if kind == "box":
        box = rest.rpartition("/")[2]
        return (f"{box} box", SAME_RECORD.get(box, box), "Dolby Vision" if box.startswith("dv") else box)
    if kind == "side":
        return (rest.removeprefix("data "), "rotation" if "displaymatrix" in rest else rest, "Dolby Vision")
    if "alpha_mode" in name:
        return ("alpha channel",)
    return ("chapters",) if kind == "chapter" else (name, rest.replace("_", " "))


def _read_side_data(path: Path) -> dict[int, dict[str, str]]:
    """Return for each stream its side data by name, and its four-character code as `code`."""
    text = subprocess.run([FFMPEG, "-hide_banner", "-i", f"file:{path}"], capture_output=True, check=False).stderr
    found: dict[int, dict[str, str]] = {}
    index, inside = -1, False
    for line in text.decode("utf-8", "replace").splitlines():
        if match := re.match(r"  Stream #0:(\d+)", line):
            index, inside = int(match[1]), False
            code = re.search(r"\((\S{4}) / 0x", line)
            found[index] = {"code": code[1] if code else ""}
        elif line.strip() == "Side data:":
            inside = True
        elif inside and line.startswith(" " * 8) and (match := SIDE_DATA.match(line.strip())):
            if match[1] not in {"cpb", "paramchange"}:
                found[index][match[1]] = (match[2] or "").strip()
        elif not line.startswith(" " * 6):
            inside = False
    return found


def _walk_file(path: Path) -> Iterator[tuple[tuple[int, str], str]]:
    """Yield ((track id or 0, name), content in hexadecimal) of the boxes of an ISO base media file."""
    data = path.read_bytes()
    if data[4:8] not in {b"ftyp", b"moov", b"wide", b"mdat", b"free", b"skip"}:
        return
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind == "moov":
            for child, low, high in _boxes(data, start + 8, end):
                if child == "trak":
                    track = _track_id(data, low + 8, high)
                    handler = _handler(data, low + 8, high)
                    yield from (((track, name), value) for name, value in _walk(data, low + 8, high, handler, "trak"))
                else:
                    yield from (((0, name), value) for name, value in _walk(data, low, high, "", "moov"))
        elif kind not in DERIVED:
            yield (0, f"box {kind}"), data[start + 8 : end].hex()


def _walk(data: bytes, low: int, high: int, handler: str, path: str) -> Iterator[tuple[str, str]]:
    for kind, start, end in _boxes(data, low, high):
        place = f"{path}/{kind}"
        if kind in DERIVED or kind in TAG_ATOMS:
            continue
        if kind in PLAIN:
            yield from _walk(data, start + 8, end, handler, place)
        elif kind == "stsd":
            entry = start + 16
            size = int.from_bytes(data[entry : entry + 4], "big")
            fields = ENTRY_FIELDS.get(handler)
            if handler == "soun" and data[entry + 16 : entry + 18] == b"\0\1":
                fields = 52
            if fields is not None:
                yield from _walk(data, entry + fields, entry + size, handler, "stsd")
        elif kind == "tref":
            types = [child for child, _, _ in _boxes(data, start + 8, end)]
            yield from ((f"box {place}/{child}", "") for child in types if child not in {"tmcd", "chap"})
        elif kind == "meta" and _is_tag_list(data[start:end]):
            continue
        else:
            yield f"box {place}", data[start + 8 : end].hex()


def _is_tag_list(box: bytes) -> bool:
    return b"mdirappl" in box[:64] or b"mdta" in box[:64]


def _boxes(data: bytes, low: int, high: int) -> Iterator[tuple[str, int, int]]:
    while low + 8 <= high:
        size, kind = struct.unpack(">I4s", data[low : low + 8])
        size = int.from_bytes(data[low + 8 : low + 16], "big") if size == 1 else size or high - low
        if size < 8 or low + size > high:
            return
        yield kind.decode("latin-1"), low, low + size
        low += size


def _track_id(data: bytes, low: int, high: int) -> int:
    start = next(start for kind, start, _ in _boxes(data, low, high) if kind == "tkhd")
    place = start + (28 if data[start + 8] == 1 else 20)
    return int.from_bytes(data[place : place + 4], "big")


def _handler(data: bytes, low: int, high: int) -> str:
    for kind, start, end in _boxes(data, low, high):
        if kind == "mdia":
            return next(
                data[s + 16 : s + 20].decode("latin-1") for k, s, _ in _boxes(data, start + 8, end) if k == "hdlr"
            )
    return ""


def silent_losses(losses: Sequence[Loss], *places: str) -> list[Loss]:
    """Return the losses that are not named in each of the texts."""
    return [loss for loss in losses if not all(loss.is_named(text) for text in places)]
