"""The tagger alone, for a corpus on as many devices and nodes as there are: `python -m v2m.tag` (see `--help`).

What it writes is what `python -m v2m.data.prepare` reads as known tags.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import fields

import lightning
import torch
from lightning.pytorch.cli import LightningCLI

from v2m import errors
from v2m.batch import Row
from v2m.data import sources, writer
from v2m.data.videos import Turn, Videos
from v2m.errors import UsageError
from v2m.interfaces import Tagger
from v2m.io import video
from v2m.io.video import Limits
from v2m.taggers.palette import Palette
from v2m.training.command import ended, told
from v2m.training.outcome import Outcome
from v2m.training.scoring import ready
from v2m.types import Tags

ALL = {field.name for field in fields(Tags)}


class TagVideos(lightning.LightningModule):
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
        self._aside = (tagger or Palette(),)  # in a tuple, a tagger that is a module does not become a part of this one
        self.limits, self.overwrite = limits or Limits(), overwrite

    @property
    def tagger(self) -> Tagger:
        return self._aside[0]

    def on_predict_start(self) -> None:
        """Raises MissingError where the tagger's weights are."""
        ready(self.tagger, self.device)

    def predict_step(self, batch: list[Turn], _: int) -> list[Row]:
        """How each video ended. What is wrong with it alone does not stop the others."""
        return [self._row(turn) for turn in batch]

    def on_predict_end(self) -> None:
        if release := getattr(self.tagger, "release", None):
            release()

    def _row(self, turn: Turn) -> Row:
        begun = time.perf_counter()
        status, detail, code, trace = "done", "", errors.OK, ""
        try:
            status, detail = self._tag(turn)
        except Exception as error:
            status, detail, code = "failed", errors.describe(error), errors.exit_code(error)
            trace = "".join(traceback.format_exception(error))
        return Row(turn.video, status, detail, code, time.perf_counter() - begun, trace)

    def _tag(self, turn: Turn) -> tuple[str, str]:
        if turn.twin is not None:
            raise UsageError(f"its tags would have the name of {turn.twin!r}'s: rename one of the two")
        path = turn.folder / f"{turn.video.stem}{sources.TAGS}"
        made = sources.read_tags(path) if path.is_file() else {}
        if made.keys() >= ALL and not self.overwrite:
            return "unchanged", ""
        known = made if turn.tags is None else sources.read_tags(turn.tags)
        hints = Tags() if known.keys() >= ALL else Tags(**known)
        clip = video.open(turn.video, self.limits)
        with torch.autocast(self.device.type, enabled=False):
            tags = self.tagger.tag(clip, hints).merge(hints)
        with writer.whole(path) as file:
            file.write(json.dumps(tags.as_dict(), indent=2).encode() + b"\n")
        return "done", path.name


class Command(LightningCLI):
    """Lightning's trainer over the videos."""

    def __init__(self, args: Sequence[str] | None = None) -> None:
        self.outcome = Outcome()
        quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
        super().__init__(
            TagVideos,
            Videos,
            args=None if args is None or list(args) == sys.argv[1:] else list(args),
            run=False,
            save_config_callback=None,
            seed_everything_default=False,
            auto_configure_optimizers=False,
            parser_kwargs={"prog": "python -m v2m.tag", "description": "Writes what music would fit each video."},
            trainer_defaults={"use_distributed_sampler": False, "callbacks": [self.outcome], **quiet},
        )
        self.trainer.predict(self.model, self.datamodule, return_predictions=False)
        self.code = told(self)


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit code, as infer.py's."""
    return ended(Command, argv, "v2m.tag")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
