"""Music to keep when a part of it is inpainted: where it is, and whether it can be kept."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from v2m.core.errors import UsageError
from v2m.core.timing import samples_to_seconds
from v2m.core.types import InpaintRequest, Video
from v2m.media import audio
from v2m.media.video import VIDEO_SUFFIXES
from v2m.pipeline import sidecar

PROBE_RATE = 8000  # Hz at which music is decoded to measure its length
TOLERANCE_S = 0.1  # by which it may be shorter than the video
CANDIDATE = re.compile(r"(.+)\.seed(\d+)")  # the stem of a candidate that is not the best
CURE = "give its music as a WAV as `source`"


def resolve_inpaint_source(request: InpaintRequest, clip: Video, section: Video, out: Path) -> InpaintRequest:
    """Return `request` in seconds of `section`, with the checked file and the section's place in it.

    A sound file begins with the section, as other candidates do; a video's sound track with the video. Of videos,
    only outputs of v2m are taken, for this video and this section, in which the music replaced the clip's own sound.
    `section` is what is scored of `clip`; `out` is the music to keep where no other is named.
    """
    low, high = section.start, section.start + section.duration
    if not low <= request.start < request.end <= high + 0.01:
        scope = "video" if section is clip else "span"
        problem = f"`inpaint` {request.start:g}:{request.end:g} lies outside of the {scope} that is scored"
        raise UsageError(f"{problem} ({low:g} to {high:.2f} s)")
    path = request.source_path or out
    if not path.is_file():
        raise UsageError(f"there is no earlier music {str(path)!r} to keep: give its file as `source`")
    is_video = path.suffix.lower() in VIDEO_SUFFIXES
    if is_video:
        _check_output(path, clip, section)
    offset = section.start if is_video else 0.0
    music = audio.load(path, PROBE_RATE, offset + section.duration)
    duration = samples_to_seconds(len(music), music.sample_rate) - offset
    if duration < section.duration - TOLERANCE_S:
        needed = f"{section.duration:.2f} s are needed: it is another video's"
        raise UsageError(f"{str(path)!r} holds {duration:.2f} s of music, and {needed}")
    start, end, record = request.start - low, min(request.end - low, section.duration), read_sidecar(path)
    return replace(request, start=start, end=end, source_path=path, source_offset=offset, source_metadata=record)


def sidecar_of(path: Path) -> Path:
    """Return the place of the sidecar of the run that wrote `path`: all candidates have that of the best."""
    match = CANDIDATE.fullmatch(path.stem)
    return path.with_name(f"{match[1] if match else path.stem}.json")


def read_sidecar(path: Path) -> dict[str, Any] | None:
    """Return the sidecar of the run that wrote `path`, or None; its seed is that of the music in `path`."""
    match = CANDIDATE.fullmatch(path.stem)
    try:
        record = json.loads(sidecar_of(path).read_text(encoding="utf-8"))
        return {**record, "seed": int(match[2])} if match else dict(record)
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _check_output(path: Path, clip: Video, section: Video) -> None:
    """Raise UsageError where a video is no output whose sound is nothing but music for this one."""
    record_path = path.with_suffix(".json")
    try:
        record: dict[str, Any] = json.loads(record_path.read_text(encoding="utf-8"))
        original, input_sha256, span = record["mix"]["original"], record["input"]["sha256"], record["range"]
        start, end = float(span["start"]), float(span["end"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        problem = f"no sidecar {record_path.name!r} of v2m says what the sound of {str(path)!r} is"
        raise UsageError(f"{problem}: {CURE}") from None
    if original != "replace" and clip.audio_streams:
        raise UsageError(f"the music in {str(path)!r} is mixed with the clip's own sound ({original}): {CURE}")
    if input_sha256 != sidecar.sha256_file(clip.path):
        raise UsageError(f"{str(path)!r} was made of another video: {CURE}")
    if max(abs(start - section.start), abs(end - section.start - section.duration)) > TOLERANCE_S:
        raise UsageError(f"{str(path)!r} has music from {start:g} to {end:g} s: give the same `start` and `end`")
