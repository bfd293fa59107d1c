"""Writing of `NAME.tags.json` for a video, on a rank of a trainer or in a process of an engine."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial

import torch

from v2m.core import errors
from v2m.core.atomic import atomic_write
from v2m.core.engine import Engine
from v2m.core.errors import UsageError
from v2m.core.lazy_model import choose_device
from v2m.core.protocols import Tagger
from v2m.core.types import Tags
from v2m.data import sources
from v2m.data.video_jobs import VideoJob
from v2m.media import video
from v2m.media.video import Limits
from v2m.pipeline.batch import VideoResult, attempt
from v2m.taggers.base import TaggerBase, as_tagger

TAG_FIELDS = {field.name for field in fields(Tags)}


@dataclass(frozen=True)
class VideoTagger:
    """Writes the tags of one video; a failure is its result."""

    tagger: Tagger
    limits: Limits
    overwrite: bool
    device: torch.device

    def __call__(self, job: VideoJob) -> VideoResult:
        return attempt(job.video, lambda: self._tag(job))

    def _tag(self, job: VideoJob) -> tuple[str, str]:
        """Write the tags of a video; return the status and the detail of its result."""
        if job.duplicate_of is not None:
            raise UsageError(f"its tags would have the name of {job.duplicate_of!r}'s: rename one of the two")
        path = job.folder / f"{job.video.stem}{sources.TAGS_SUFFIX}"
        existing = sources.read_tags(path) if path.is_file() else {}
        if existing.keys() >= TAG_FIELDS and not self.overwrite:
            return "unchanged", ""
        known = existing if job.tags is None else sources.read_tags(job.tags)
        hints = Tags() if known.keys() >= TAG_FIELDS else Tags(**known)
        clip = video.open(job.video, self.limits)
        with torch.autocast(self.device.type, enabled=False):
            tags = self.tagger.tag(clip, hints).overridden_by(hints)
        with atomic_write(path) as file:
            file.write(json.dumps(tags.to_dict(), indent=2).encode() + b"\n")
        return "done", path.name


def tag_videos(
    jobs: Sequence[VideoJob], tagger: Tagger, limits: Limits, overwrite: bool, engine: Engine
) -> Iterator[VideoResult]:
    """Write the tags of each video in the engine's processes; yield results as they end."""
    yield from engine.map(partial(_load_video_tagger, tagger, limits, overwrite), jobs, _lost_result)


def _load_video_tagger(tagger: Tagger, limits: Limits, overwrite: bool) -> VideoTagger:
    device = choose_device()
    return VideoTagger(ready_tagger(tagger, device), limits, overwrite, device)


def _lost_result(job: VideoJob, reason: str) -> VideoResult:
    return VideoResult(job.video, "failed", f"out of memory: {reason}", errors.MEMORY)


def ready_tagger(plugin: Tagger, device: torch.device) -> TaggerBase:
    """Return the tagger with its weights fetched, on this rank's device if any suits it."""
    tagger = as_tagger(plugin)
    if tagger.device == "auto":
        tagger.set_device(str(device) if device.type == "cuda" else device.type)  # as `choose_device` takes it
    tagger.prepare()
    return tagger
