"""The tagger alone, for a corpus on as many devices and nodes as there are: `v2m tag` (see `--help`).

What it writes is what `v2m prepare` reads as known tags.
"""

from __future__ import annotations

import json
import time
import traceback
from dataclasses import fields

import lightning
import torch

from v2m.core import errors
from v2m.core.atomic import atomic_write
from v2m.core.errors import UsageError
from v2m.core.protocols import Tagger
from v2m.core.types import Tags
from v2m.data import sources
from v2m.data.predict_data import VideoJob
from v2m.media import video
from v2m.media.video import Limits
from v2m.pipeline.batch import VideoResult
from v2m.taggers.heuristic import Palette
from v2m.training.predict import place_tagger

TAG_FIELDS = {field.name for field in fields(Tags)}


class LitTagger(lightning.LightningModule):
    """A tagger, which is frozen and no part of this module: it has no weights, and no checkpoint.

    `NAME.tags.json` is written for each video. One that is there and says everything is left alone; what one of a
    person's hand says wins, and the tagger fills in the rest.

    Args:
        tagger: Says what music would fit a video; None measures the picture.
        limits: What input to accept.
        overwrite: Whether tags that are there are made anew.
    """

    def __init__(self, tagger: Tagger | None = None, *, limits: Limits | None = None, overwrite: bool = False) -> None:
        super().__init__()
        self._tagger_ref = (
            tagger or Palette(),
        )  # in a tuple, a tagger that is a module does not become a part of this one
        self.limits, self.overwrite = limits or Limits(), overwrite

    @property
    def tagger(self) -> Tagger:
        return self._tagger_ref[0]

    def on_predict_start(self) -> None:
        """Raises DependencyError where the tagger's weights are."""
        place_tagger(self.tagger, self.device)

    def predict_step(self, batch: list[VideoJob], _: int) -> list[VideoResult]:
        """Result of each video. An error of one video does not stop the others."""
        return [self._tag_safely(job) for job in batch]

    def on_predict_end(self) -> None:
        if release := getattr(self.tagger, "release", None):
            release()

    def _tag_safely(self, job: VideoJob) -> VideoResult:
        begun = time.perf_counter()
        status, detail, code, trace = "done", "", errors.OK, ""
        try:
            status, detail = self._tag(job)
        except Exception as error:
            status, detail, code = "failed", errors.format_error(error), errors.exit_code(error)
            trace = "".join(traceback.format_exception(error))
        return VideoResult(job.video, status, detail, code, time.perf_counter() - begun, trace)

    def _tag(self, job: VideoJob) -> tuple[str, str]:
        if job.duplicate_of is not None:
            raise UsageError(f"its tags would have the name of {job.duplicate_of!r}'s: rename one of the two")
        path = job.folder / f"{job.video.stem}{sources.TAGS_SUFFIX}"
        made = sources.read_tags(path) if path.is_file() else {}
        if made.keys() >= TAG_FIELDS and not self.overwrite:
            return "unchanged", ""
        known = made if job.tags is None else sources.read_tags(job.tags)
        hints = Tags() if known.keys() >= TAG_FIELDS else Tags(**known)
        clip = video.open(job.video, self.limits)
        with torch.autocast(self.device.type, enabled=False):
            tags = self.tagger.tag(clip, hints).overridden_by(hints)
        with atomic_write(path) as file:
            file.write(json.dumps(tags.to_dict(), indent=2).encode() + b"\n")
        return "done", path.name
