"""The command `train.py`: Lightning's, which goes on where a run of the same folder ended."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from v2m.checkpoints import lightning_ckpt
from v2m.core import errors
from v2m.core.arguments import to_plain
from v2m.data.module import ShardData
from v2m.pretrained import safe_load
from v2m.training.audio_samples import LogAudioSamples
from v2m.training.checkpoints import CheckpointCallback, latest_checkpoint
from v2m.training.ema import EMACallback
from v2m.training.generation_eval import GenerationEval
from v2m.training.module import LitMusicLM
from v2m.training.predict_results import PredictResults
from v2m.training.save_config import SaveConfig
from v2m.training.throughput import ThroughputLogger

logger = logging.getLogger(__name__)


class TrainCLI(LightningCLI):
    """`fit`, `validate`, `test` and `predict`, with one window for data and model."""

    def __init__(self, args: Sequence[str] | None = None, *, run: bool = True) -> None:
        self.outcome, self.code = PredictResults(), errors.OK
        super().__init__(
            LitMusicLM,
            ShardData,
            args=None if args is None or list(args) == sys.argv[1:] else list(args),
            run=run,
            seed_everything_default=0,
            save_config_callback=SaveConfig,
            parser_kwargs={"prog": "train.py"},
            trainer_defaults={
                "use_distributed_sampler": False,
                "num_sanity_val_steps": 0,
                "callbacks": [self.outcome],
            },
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("data.window", "model.window")
        parser.add_lightning_class_args(CheckpointCallback, "checkpoints")
        parser.add_lightning_class_args(EMACallback, "ema")
        parser.add_lightning_class_args(ThroughputLogger, "meter")
        parser.add_lightning_class_args(LogAudioSamples, "listening")
        parser.add_lightning_class_args(GenerationEval, "measuring")

    def _parse_ckpt_path(self) -> None:
        """Lightning would read all of the checkpoint here for settings of the model, and there are none in it.

        Raises:
            DependencyError: It is broken, or none of training; its weights are only mapped into memory.
        """
        path = self.config.get(self.config.get("subcommand") or "", {}).get("ckpt_path")
        if path is not None and Path(path).is_file():
            lightning_ckpt.check_training_checkpoint(safe_load.read_pickle(Path(path)), repr(str(path)))

    def before_instantiate_classes(self) -> None:
        """The settings of a run are those of its training, and music for videos is nothing to record.

        Each run of a sweep gets a folder of its own, or it would go on where another ended.
        """
        run, given = os.environ.get("WANDB_RUN_ID"), self.config.get(self.subcommand or "", self.config)
        if run and os.environ.get("WANDB_SWEEP_ID"):
            given.trainer.default_root_dir = str(Path(given.trainer.default_root_dir or ".") / run)
        if self.subcommand not in {None, "fit"}:
            self.save_config_callback = None
        if self.subcommand == "predict":
            self.config.predict.trainer.logger = False

    def before_predict(self) -> None:
        given: Any = self.config_init["predict"]
        given["return_predictions"], given["weights_only"] = False, True
        chosen = self.config.predict.model.tagger
        self.model.chosen = self.model.chosen if chosen is None else to_plain(chosen)

    def after_predict(self) -> None:
        self.code = print_results(self)

    def instantiate_classes(self) -> None:
        """Raises UsageError for settings that cannot be, of which Lightning and jsonargparse tell otherwise."""
        try:
            super().instantiate_classes()
        except (ValueError, MisconfigurationException) as error:
            if isinstance(error, errors.UsageError):
                raise
            raise errors.UsageError(str(error.__cause__ or error)) from error  # the cause is a setting's own words

    def before_fit(self) -> None:
        """Without a checkpoint to go on from, the newest of the run's folder that is whole."""
        given: Any = self.config_init["fit"]
        given["weights_only"] = True
        if given.get("ckpt_path") is None:
            own = next(each for each in self.trainer.callbacks if isinstance(each, CheckpointCallback))  # type: ignore[attr-defined]
            found = latest_checkpoint(own.home(self.trainer))
            if found is not None:
                logger.warning("going on from %s", found)
                given["ckpt_path"] = str(found)


def print_results(command: Any) -> int:
    """Says how each video ended, once for all ranks; gives the exit code.

    A rank that Lightning has started ends well: with another code it would end the others.
    """
    if not command.trainer.is_global_zero:
        return errors.OK
    sys.stdout.write(command.outcome.table + "\n")
    return command.outcome.code


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit code, as infer.py's; what a user got wrong is one line."""
    return run_cli(TrainCLI, argv, "train.py")


def run_cli(make: Callable[[Sequence[str]], Any], argv: Sequence[str], name: str) -> int:
    """Makes a command of Lightning, which does its work, and returns the exit code."""
    logging.basicConfig(format="%(message)s")
    try:
        return make(argv).code
    except BaseException as error:
        code = errors.exit_code(error)
        if code == errors.BUG and not isinstance(error, SystemExit):
            traceback.print_exc()
        if not isinstance(error, SystemExit):
            sys.stderr.write(f"{name}: {errors.format_error(_strip_worker_traceback(error))}\n")
        return code


def _strip_worker_traceback(error: BaseException) -> BaseException:
    """Without the traceback that a reading process put before what it said."""
    text = str(error)
    if "Original Traceback" not in text:
        return error
    return type(error)(text.strip().rpartition("\n")[2].partition(": ")[2])
