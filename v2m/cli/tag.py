"""The command `v2m tag`: music tags for a corpus, on as many devices and nodes as there are.

It writes what `v2m prepare` reads as known tags.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from v2m.cli.train import CommandParser, ResultsCLI, run_cli
from v2m.data.module import VideoDataModule
from v2m.training.predict import LitTagger, PredictResults


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
        self.trainer.predict(self.model, self.datamodule, return_predictions=False)
        self.print_results()


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code, as infer.py's."""
    return run_cli(TagCLI, argv, "v2m tag")
