"""The command `v2m tag`: music tags for a corpus, on as many devices and nodes as there are.

It writes what `v2m prepare` reads as known tags.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lightning.pytorch.cli import LightningArgumentParser

from v2m.cli.engine import add_engine_arguments, build_engine
from v2m.cli.train import CommandParser, ResultsCLI, run_cli
from v2m.core.engine import Engine
from v2m.data.module import VideoDataModule
from v2m.taggers.base import as_tagger
from v2m.training.predict import LitTagger, PredictResults
from v2m.training.video_tagger import tag_videos


class TagCLI(ResultsCLI):
    """Lightning's trainer over the videos."""

    def __init__(self, args: Sequence[str] | None = None) -> None:
        self.results = PredictResults()
        quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
        super().__init__(
            LitTagger,
            VideoDataModule,
            args=None if args is None or list(args) == sys.argv[1:] else list(args),
            run=False,
            save_config_callback=None,
            seed_everything_default=False,
            auto_configure_optimizers=False,
            parser_class=CommandParser,
            parser_kwargs={"prog": "v2m tag", "description": "Writes music tags for each video."},
            trainer_defaults={"use_distributed_sampler": False, "callbacks": [self.results], **quiet},
        )
        engine = build_engine(self.config)
        if engine is None:
            self.trainer.predict(self.model, self.datamodule, return_predictions=False)
        else:
            self._predict_with(engine)
        self.print_results()

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        add_engine_arguments(parser)
        processes = "with --engine ray: videos side by side; default: as fit"
        parser.add_argument("--processes", type=int | None, default=None, help=processes)

    def _predict_with(self, engine: Engine) -> None:
        """Tag the videos in the engine's processes; `trainer` has no part in it."""
        jobs = self.datamodule.predict_dataloader().jobs
        as_tagger(self.model.tagger).prepare()  # finds what is missing before any process starts
        for row in tag_videos(jobs, self.model.tagger, self.model.limits, self.model.overwrite, engine):
            self.results.add([row])
        order = {job.video: number for number, job in enumerate(jobs)}
        self.results.rows.sort(key=lambda row: order[row.path])


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code, as infer.py's."""
    return run_cli(TagCLI, argv, "v2m tag")
