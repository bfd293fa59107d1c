"""The command `train.py`: Lightning's, which goes on where a run of the same folder ended."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from v2m import errors
from v2m.data.module import ShardData
from v2m.lit import V2M
from v2m.training.checkpoints import Checkpoints, newest
from v2m.training.ema import Average
from v2m.training.meter import Meter

logger = logging.getLogger(__name__)


class Command(LightningCLI):
    """`fit`, `validate`, `test` and `predict`, with one window for data and model."""

    def __init__(self, args: Sequence[str] | None = None, *, run: bool = True) -> None:
        super().__init__(
            V2M,
            ShardData,
            args=None if args is None or list(args) == sys.argv[1:] else list(args),
            run=run,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={"prog": "train.py"},
            trainer_defaults={"use_distributed_sampler": False, "num_sanity_val_steps": 0},
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("data.window", "model.window")
        parser.add_lightning_class_args(Checkpoints, "checkpoints")
        parser.add_lightning_class_args(Average, "ema")
        parser.add_lightning_class_args(Meter, "meter")

    def before_fit(self) -> None:
        """Without a checkpoint to go on from, the newest of the run's folder that is whole."""
        given: Any = self.config_init["fit"]
        given["weights_only"] = True
        if given.get("ckpt_path") is None:
            own = next(each for each in self.trainer.callbacks if isinstance(each, Checkpoints))  # type: ignore[attr-defined]
            found = newest(own.home(self.trainer))
            if found is not None:
                logger.warning("going on from %s", found)
                given["ckpt_path"] = str(found)


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit code, as infer.py's; what a user got wrong is one line."""
    logging.basicConfig(format="%(message)s")
    try:
        Command(argv)
    except BaseException as error:
        code = errors.exit_code(error)
        if code == errors.BUG and not isinstance(error, SystemExit):
            traceback.print_exc()
        if not isinstance(error, SystemExit):
            sys.stderr.write(f"train.py: {errors.describe(_plain(error))}\n")
        return code
    return errors.OK


def _plain(error: BaseException) -> BaseException:
    """Without the traceback that a reading process put before what it said."""
    text = str(error)
    if "Original Traceback" not in text:
        return error
    return type(error)(text.strip().rpartition("\n")[2].partition(": ")[2])
