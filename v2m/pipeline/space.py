"""Estimates of the least room that a job takes, before its work and before its files are written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from v2m.core.disk_space import check_space
from v2m.core.timing import seconds_to_samples
from v2m.core.types import Soundtrack, Stream, Video
from v2m.generators.base import GeneratorBase
from v2m.media.mux import needs_reencode
from v2m.media.stream_plan import StreamPlan
from v2m.mixing.mixdown import SAMPLE_RATE
from v2m.pipeline.recipes import Recipe
from v2m.pipeline.result import Extras

FRAME_BYTES = 8  # of stereo in float32


def check_before_work(
    clip: Video,
    section: Video,
    generator: GeneratorBase,
    *,
    plan: StreamPlan,
    recipe: Recipe,
    extras: Extras,
    folder: Path,
    is_signed: bool = False,
) -> None:
    """Raise DiskFullError where the job cannot fit, whatever music is written."""
    music, with_stems = (generator.audio_bytes(section.duration, stems=stems) for stems in (False, True))
    parts = with_stems - music if extras.stems else 0
    outputs = _video_bytes(clip, plan, is_signed) + parts + music * (recipe.candidates - 1 + extras.wav)
    check_space((music + parts) * recipe.candidates + _mix_bytes(clip, section), outputs, folder)


def check_before_writing(
    clip: Video,
    section: Video,
    ranked: Sequence[Soundtrack],
    *,
    plan: StreamPlan,
    extras: Extras,
    folder: Path,
    is_signed: bool = False,
) -> None:
    """Raise DiskFullError where the music, the best first, finds no room for its mix and its files."""
    best, *others = ranked
    written = [*(best.stems.values() if extras.stems else ()), *([best.audio] if extras.wav else ())]
    written += [other.audio for other in others]
    outputs = _video_bytes(clip, plan, is_signed) + sum(4 * audio.samples.size for audio in written)
    check_space(_mix_bytes(clip, section), outputs, folder)


def _video_bytes(clip: Video, plan: StreamPlan, is_signed: bool) -> int:
    """Return the least room for the video: its signed copy is written beside it."""
    return _copy_bytes(clip, plan) * (2 if is_signed else 1)


def _copy_bytes(clip: Video, plan: StreamPlan) -> int:
    """Return the least size of the output: of pictures that are copied, with the sound that is kept."""
    if needs_reencode(clip):
        return 0
    kept = {stream.index for stream in plan.streams}
    left_out = (stream for stream in clip.audio_streams if stream.index not in kept)
    return max(0, clip.path.stat().st_size - sum(_most_bytes(stream, clip) for stream in left_out))


def _most_bytes(stream: Stream, clip: Video) -> int:
    """Return the size of a track as sound of 32 bits; of the whole file where that is not known."""
    if not stream.channels or not stream.sample_rate:
        return clip.path.stat().st_size
    seconds = max(stream.duration or 0.0, clip.duration)
    return 4 * stream.channels * seconds_to_samples(seconds, stream.sample_rate)


def _mix_bytes(clip: Video, section: Video) -> int:
    """Return the bytes of the music in the mix and of the mix as read back from the file."""
    durations = (section.duration, clip.duration)
    return sum(FRAME_BYTES * seconds_to_samples(duration, SAMPLE_RATE) for duration in durations)
