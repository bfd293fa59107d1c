"""Inventory of a media file: the streams and records that a copy can lose, by name; not their packets."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from v2m.core.types import UNKNOWN_CODEC
from v2m.media.ffmpeg import describe_media, is_still_item, open_media
from v2m.media.iso_bmff import C2PA, KEYS, read_entries, read_file_boxes, read_tracks

if TYPE_CHECKING:
    from av.stream import Stream

# Lines of ffmpeg's description: the four-character code of a stream, and its side data.
STREAM_LINE = re.compile(r"  Stream #0:(\d+)\S*: \w+: .*?(?:\((\S{4}) / 0x[0-9A-Fa-f]{8}\)|$)")
SIDE_DATA_LINE = re.compile(r" {8}([A-Za-z][\w :-]*?)(?:(?:: |, | \()(.*))?$")
IGNORED_SIDE_DATA = {"cpb", "paramchange"}  # sizes of the encoder's buffers
SIDE_DATA_NAMES = {"displaymatrix": "rotation", "DOVI configuration record": "Dolby Vision configuration"}
BOX_NAMES = {  # of the same record as side data
    f"uuid {C2PA.hex()[:8]}": "C2PA signature",
    **dict.fromkeys(("dvcC", "dvvC", "dvwC"), "Dolby Vision configuration"),
    **{"st3d": "stereo3d", "sv3d": "spherical", "clli": "Content Light Level Metadata"},
    **{"mdcv": "Mastering Display Metadata", "SmDm": "Mastering Display Metadata"},
}
SPHERICAL_V1 = bytes.fromhex(
    "ffcc8263f8554a938814587a02521fdd"
)  # the type of a uuid box, in Google's Spherical Video RFC
DOLBY_VISION_CODES = {"dvh1", "dvhe", "dva1", "dvav", "dav1"}
TECHNICAL_TAG = re.compile(  # that a muxer sets
    "major_brand|minor_version|compatible_brands|encoder|handler_name|vendor_id|duration|language|rotate|mimetype|"
    "filename|stereo_mode|alpha_mode|source_id|timecode|reel_name|_statistics.*|bps.*|number_of_.*"
)
FILE_TAGS = {"timecode": "timecode", "reel_name": "reel name"}  # of one track in some containers, of a file in others

# FFmpeg's names of QuickTime's languages, where they are not those of ISO 639-2/T.
MACINTOSH_LANGUAGES = {
    **{"bod": "tib", "cym": "wel", "deu": "ger", "ell": "gre", "eus": "baq", "hye": "arm", "isl": "ice", "kat": "geo"},
    **{"mkd": "mac", "msa": "may", "mya": "bur", "nld": "dut", "sqi": "alb", "swe": "sve", "zho": "chi"},
}


@dataclass(frozen=True)
class StreamRecords:
    """A stream without its packets."""

    index: int
    kind: str  # video, cover, still, alpha, audio, subtitle, data, timecode, chapters, attachment
    codec: str
    tag: str  # four-character code, "" where there is none
    label: str  # for warnings
    is_text: bool  # of subtitles
    records: Mapping[str, str]  # values by name, "" where only the name is compared

    def lost_records(self, copy: StreamRecords) -> list[str]:
        """Return the names of what `copy` lacks or says differently."""
        others = [(name, value, copy.records.get(name)) for name, value in self.records.items()]
        names = [name for name, value, other in others if other is None or (value and other and value != other)]
        return [*names, *({self.tag} & DOLBY_VISION_CODES - {copy.tag})]


@dataclass(frozen=True)
class Inventory:
    """The streams of a file, and the records of the whole file."""

    streams: tuple[StreamRecords, ...]
    records: Mapping[str, str]
    num_chapters: int

    def of_kind(self, kind: str) -> list[StreamRecords]:
        return [stream for stream in self.streams if stream.kind == kind]


def take_inventory(path: Path) -> Inventory:
    """Read a file's headers. Raises av.error.FFmpegError where it is no media file."""
    entries = read_entries(path)
    boxes = defaultdict(dict, {e.track_id: {_box_name(box): "" for box in e.children} for e in entries})
    boxes[0] = {**boxes[0], **{_box_name(name): "" for name in read_file_boxes(path) if name != KEYS}}
    for track in read_tracks(path):
        boxes[track.track_id] |= {_track_box_name(*key, data): "" for key, data in track.children.items()}
    alpha = {entry.track_id for entry in entries if entry.handler == "auxv"}
    codes, side_data = _parse_description(describe_media(path))
    with open_media(path) as media:
        records, streams, num_chapters = {**boxes[0], **_set_tags(media.metadata)}, [], len(media.chapters())
        for stream in media.streams:
            tags, code = {key.lower(): value for key, value in stream.metadata.items()}, codes.get(stream.index, "")
            if "name" in tags:  # as FFmpeg reads a title from MP4
                tags["title"] = tags.pop("name")
            records |= {name: tags[key] for key, name in FILE_TAGS.items() if tags.get(key)}
            kind = _stream_kind(stream, code, num_chapters, stream.id in alpha)
            codec = stream.codec_context and stream.codec_context.codec
            values = {**boxes[stream.id], **side_data[stream.index], **_stream_values(stream), **_set_tags(tags)}
            values.pop("tag creation_time", None)  # the file has one
            codec_name = codec.canonical_name if codec else UNKNOWN_CODEC
            words = (code or codec_name) if kind == "data" or not codec else codec_name
            name = tags.get("title") or (tags.get("handler_name") if kind == "data" else tags.get("filename"))
            streams.append(
                StreamRecords(
                    stream.index, kind, codec_name, code, name if kind == "attachment" and name else
                    f"{words} ({name})" if name else words, bool(codec and kind == "subtitle" and codec.text_sub),
                    values if kind != "timecode" else {},
                )
            )  # fmt: skip
    return Inventory(tuple(streams), records, num_chapters)


def pair_streams(source: Inventory, output: Inventory, kept: Sequence[int]) -> Iterator[tuple[StreamRecords, ...]]:
    """Yield (input, output) of the `kept` streams; the music is the output's first audio stream."""
    for kind in ("video", "cover", "audio", "subtitle", "data", "attachment"):
        copied = [stream for stream in source.of_kind(kind) if stream.index in kept]
        yield from zip(copied, output.of_kind(kind)[kind == "audio" :], strict=False)


def _box_name(kind: str) -> str:
    return BOX_NAMES.get(kind, f"{kind} box")


def _track_box_name(container: str, kind: str, data: bytes) -> str:
    if data[8:24] == SPHERICAL_V1:
        return "spherical"
    return f"{container}/{kind} box" if container else f"{kind} box"


def _stream_kind(stream: Stream, code: str, num_chapters: int, is_alpha: bool) -> str:
    from av.stream import Disposition

    if stream.type == "data":
        return "timecode" if code == "tmcd" else "chapters" if code == "text" and num_chapters else "data"
    if stream.type != "video":
        return stream.type
    if is_still_item(stream):
        return "still"
    return "cover" if stream.disposition & Disposition.attached_pic else "alpha" if is_alpha else "video"


def _stream_values(stream: Stream) -> dict[str, str]:
    from av.stream import Disposition
    from av.video.stream import VideoStream

    flags = [flag for flag in Disposition if stream.disposition & flag and flag.name not in {"default", "attached_pic"}]
    values = {f"disposition {flag.name}": "" for flag in flags}
    language = stream.language if stream.language and stream.language != "und" else ""
    values |= {"language": MACINTOSH_LANGUAGES.get(language, language)} if language else {}
    if isinstance(stream, VideoStream) and stream.codec_context and not stream.disposition & Disposition.attached_pic:
        context, ratio = stream.codec_context, stream.sample_aspect_ratio
        color = (context.color_primaries, context.color_trc, context.colorspace)
        values |= {"color": " ".join(str(int(value)) for value in color)} if set(color) != {2} else {}  # unspecified
        tags = {key.lower(): value for key, value in stream.metadata.items()}
        values |= {"alpha channel": ""} if tags.get("alpha_mode") == "1" else {}  # of Matroska, beside the pictures
        values |= {"sample aspect ratio": str(ratio)} if ratio and ratio != 1 else {}
        values |= {"field order": str(int(context.field_order))} if context.field_order > 1 else {}  # interlaced
    return values


def _set_tags(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the names of the tags that no muxer sets; a copy may join or round their values."""
    names = sorted(key.lower() for key, value in metadata.items() if value.strip())
    return {f"tag {name}": "" for name in names if not TECHNICAL_TAG.fullmatch(name)}


def _parse_description(text: str) -> tuple[dict[int, str], dict[int, dict[str, str]]]:
    """Return the four-character code of each stream, and its side data by name."""
    codes: dict[int, str] = {}
    side_data: dict[int, dict[str, str]] = defaultdict(dict)
    index, inside = -1, False
    for line in text.splitlines():
        if match := STREAM_LINE.match(line):
            index = int(match[1])
            codes[index] = match[2] or ""
        inside = line.strip() == "Side data:" or (inside and line.startswith(" " * 8))
        match = SIDE_DATA_LINE.match(line) if inside else None
        if match and match[1] not in IGNORED_SIDE_DATA:
            side_data[index][SIDE_DATA_NAMES.get(match[1], match[1])] = (match[2] or "").strip()
    return codes, side_data
