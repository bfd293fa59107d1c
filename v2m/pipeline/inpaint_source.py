"""Earlier music for a video, of which a part is to be written anew: where it is, and whether it can be kept."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from v2m.core.errors import UsageError
from v2m.core.timing import seconds_of
from v2m.core.types import InpaintRequest, Video
from v2m.media import audio
from v2m.media.video import VIDEO_SUFFIXES
from v2m.pipeline import sidecar

TRIED_RATE = 8000  # Hz at which music is read to see how long it is
SLACK = 0.1  # seconds by which it may be shorter than the video
TAKE = re.compile(r"(.+)\.seed(\d+)")  # the stem of a take that is not the best
CURE = "give its music as a WAV with --previous"


def found(asked: InpaintRequest, clip: Video, span: Video, out: Path) -> InpaintRequest:
    """`asked` in seconds of `span`, with the file, which has been read, and where the span begins in it.

    A sound file begins with the span, as takes that were kept do; a video's sound track with the video. Of videos, only
    outputs of v2m are taken, for this video and this span, in which the music replaced the clip's own sound.

    Args:
        asked: As the user gave it.
        clip: The whole video.
        span: What of it is scored.
        out: The output, which is the music to keep where no other is named.

    Raises:
        UsageError: The seconds lie outside of the span, or there is no music that can be kept.
    """
    low, high = span.start, span.start + span.duration
    if not low <= asked.start < asked.end <= high + 0.01:
        raise UsageError(
            f"--regenerate {asked.start:g}:{asked.end:g} lies outside of the {'span' if span is not clip else 'video'} "
            f"that is scored ({low:g} to {high:.2f} s)"
        )
    path = asked.source_path or out
    if not path.is_file():
        raise UsageError(f"there is no earlier music {str(path)!r} to keep: give --previous FILE")
    moving = path.suffix.lower() in VIDEO_SUFFIXES
    if moving:
        _check_output(path, clip, span)
    offset = span.start if moving else 0.0
    heard = audio.load(path, TRIED_RATE, offset + span.duration)
    lasts = seconds_of(len(heard), heard.sample_rate) - offset
    if lasts < span.duration - SLACK:
        raise UsageError(
            f"{str(path)!r} holds {lasts:.2f} s of music, and {span.duration:.2f} s are needed: it is another video's"
        )
    begin, end = asked.start - low, min(asked.end - low, span.duration)
    return replace(asked, start=begin, end=end, source_path=path, source_offset=offset, source_metadata=record_of(path))


def record_of(path: Path) -> dict[str, Any] | None:
    """What the sidecar of the run says that wrote `path`, or None; the seed in it is that of the take in `path`."""
    take = TAKE.fullmatch(path.stem)
    try:
        record = json.loads(path.with_name(f"{take[1] if take else path.stem}.json").read_text(encoding="utf-8"))
        return {**record, "seed": int(take[2])} if take else dict(record)
    except (OSError, ValueError, TypeError):
        return None


def _check_output(path: Path, clip: Video, span: Video) -> None:
    """Raises UsageError where a video is no output whose sound is nothing but music for this one."""
    beside = path.with_suffix(".json")
    try:
        record: dict[str, Any] = json.loads(beside.read_text(encoding="utf-8"))
        original, of, where = record["mix"]["original"], record["input"]["sha256"], record["span"]
        begins, ends = float(where["start"]), float(where["end"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"no sidecar {beside.name!r} of v2m says what the sound of {str(path)!r} is: {CURE}") from None
    if original != "replace" and clip.audio_streams:
        raise UsageError(f"the music in {str(path)!r} is mixed with the clip's own sound ({original}): {CURE}")
    if of != sidecar.digest(clip.path):
        raise UsageError(f"{str(path)!r} was made of another video: {CURE}")
    if abs(begins - span.start) > SLACK or abs(ends - span.start - span.duration) > SLACK:
        raise UsageError(f"{str(path)!r} has music from {begins:g} to {ends:g} s: give the same --start and --end")
