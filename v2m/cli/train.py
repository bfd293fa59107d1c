"""The command `train.py`: LightningCLI with fit, validate, test and predict."""

from __future__ import annotations

import inspect
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from v2m.checkpoints import lightning_ckpt
from v2m.cli.runner import with_flags
from v2m.core import compat, errors
from v2m.core.arguments import OneLineParser, to_plain
from v2m.data.module import ShardData
from v2m.pretrained import safe_load
from v2m.training.audio_samples import LogAudioSamples
from v2m.training.checkpoints import CheckpointCallback, latest_checkpoint
from v2m.training.ema import EMACallback
from v2m.training.generation_eval import GenerationEval
from v2m.training.predict import LitGenerate, PredictResults
from v2m.training.save_config import SaveConfig
from v2m.training.throughput import OptionalLearningRateMonitor, ThroughputLogger

FLAGS = {
    "out": "--data.out",
    "overwrite": "--model.predict.overwrite",
    "ckpt_path": "--ckpt_path",
    "tags": "--model.predict.tags",
    "tagger": "--model.tagger",
    "low_memory": "--model.tagger.low_memory",
    "embedding": "--eval.embedding",
}
MOOT_WARNINGS = (  # Lightning's, about what is no problem here
    "LightningCLI's args parameter",  # `v2m tag` and `v2m train` have taken their name off the arguments
    r".*isinstance\(treespec, LeafSpec\)",  # its own use of PyTorch
    "Total length of `list` across ranks is zero",  # no validation is wanted
    r"Error detected in \w+Backward",  # a traceback of the forward pass, before the error that ends the run
    "The number of training batches .* is smaller than the logging interval",  # steps count on over the epochs
)
MOOT_RECORDS = ("Tip:", "TPU available", "that has Tensor Cores", "No CUDA runtime is found")  # no command acts on them
TRAINER_FIELDS = frozenset(inspect.signature(Trainer).parameters)
logger = logging.getLogger(__name__)


class CommandParser(OneLineParser, LightningArgumentParser):
    """Lightning's parser with errors of one line."""


class ResultsCLI(LightningCLI):
    """LightningCLI whose command predicts for videos: their results, and the exit code of the run."""

    results: PredictResults
    exit_code: int = errors.OK

    def print_results(self) -> None:
        """Print how each video ended, once for all ranks, and set the exit code.

        A rank that Lightning has started ends with 0: with another code it would end the others.
        """
        if self.trainer.is_global_zero:
            sys.stdout.write(with_flags(self.results.table, FLAGS) + "\n")
            self.exit_code = self.results.exit_code


class TrainCLI(ResultsCLI):
    """`fit`, `validate`, `test` and `predict`, with one window for data and model."""

    def __init__(self, args: Sequence[str] | None = None, *, run: bool = True) -> None:
        self.results = PredictResults()
        callbacks = [self.results, OptionalLearningRateMonitor("step")]
        super().__init__(
            LitGenerate,
            ShardData,
            args=None if args is None or list(args) == sys.argv[1:] else list(args),
            run=run,
            seed_everything_default=0,
            save_config_callback=SaveConfig,
            parser_class=CommandParser,
            parser_kwargs={"prog": "train.py"},
            trainer_defaults={
                "use_distributed_sampler": False,
                "num_sanity_val_steps": 0,
                "enable_model_summary": False,  # its floating-point operations are 0 and its sizes those of float32
                "callbacks": callbacks,
            },
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.link_arguments("data.window", "model.window")
        callbacks = {"checkpoints": CheckpointCallback, "ema": EMACallback, "throughput": ThroughputLogger}
        for key, kind in {**callbacks, "audio_samples": LogAudioSamples, "eval": GenerationEval}.items():
            parser.add_lightning_class_args(kind, key)

    def _parse_ckpt_path(self) -> None:
        """Check the checkpoint, mapped into memory; Lightning would load it to look for the model's settings."""
        path = self.config.get(self.config.get("subcommand") or "", {}).get("ckpt_path")
        if path is not None and Path(path).is_file():
            lightning_ckpt.check_training_checkpoint(safe_load.read_pickle(Path(path)), repr(str(path)))

    def before_instantiate_classes(self) -> None:
        """Save settings and logs of training alone; a sweep's run gets a folder, or it would resume another."""
        run_id, config = os.environ.get("WANDB_RUN_ID"), self.config.get(self.subcommand or "", self.config)
        if run_id and os.environ.get("WANDB_SWEEP_ID"):
            config.trainer.default_root_dir = str(Path(config.trainer.default_root_dir or ".") / run_id)
        if self.subcommand not in {None, "fit"}:
            self.save_config_callback = None
        if self.subcommand == "predict":
            self.config.predict.trainer.logger = False

    def before_predict(self) -> None:
        kwargs: Any = self.config_init["predict"]
        kwargs["return_predictions"], kwargs["weights_only"] = False, True
        tagger = self.config.predict.model.tagger
        if tagger is not None:
            self.model.tagger_config = to_plain(tagger)

    def after_predict(self) -> None:
        self.print_results()

    def instantiate_classes(self) -> None:
        """Raise UsageError for settings that Lightning and jsonargparse refuse with other errors."""
        try:
            super().instantiate_classes()
        except (ValueError, MisconfigurationException) as error:
            if isinstance(error, errors.UsageError):
                raise
            message = str(error.__cause__ or error)  # the cause has the setting's message
            raise errors.UsageError(message.replace("`", '"')) from error  # Lightning's backticks mark no fields

    def before_fit(self) -> None:
        """Resume from the newest readable checkpoint of the run's folder, unless one is given."""
        compat.hide_unlimited_epochs(self.trainer)
        kwargs: Any = self.config_init["fit"]
        kwargs["weights_only"] = True
        if kwargs.get("ckpt_path") is None:
            callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]
            callback = next(item for item in callbacks if isinstance(item, CheckpointCallback))
            path = latest_checkpoint(callback.directory(self.trainer))
            if path is not None:
                logger.warning("resuming from checkpoint %s", path)
                kwargs["ckpt_path"] = str(path)


def main(argv: Sequence[str]) -> int:
    """Run the command and return its exit code, as infer.py's; a user's error is one line."""
    if "wandb" not in sys.modules:  # an inherited W&B service belongs to another process's run and never ends this one
        os.environ.pop("WANDB_SERVICE", None)
    return run_cli(TrainCLI, argv, "train.py")


def run_cli(build: Callable[[Sequence[str]], ResultsCLI], argv: Sequence[str], name: str) -> int:
    """Build a LightningCLI, which runs at once, and return the exit code."""
    logging.basicConfig(format="%(message)s")
    for source in ("lightning.pytorch.utilities.rank_zero", "torch.utils.cpp_extension"):
        logging.getLogger(source).addFilter(_is_relevant)
    try:
        with warnings.catch_warnings():
            for message in MOOT_WARNINGS:
                warnings.filterwarnings("ignore", message)
            for category in () if sys.warnoptions else (DeprecationWarning, FutureWarning):  # a matter of our code
                warnings.simplefilter("ignore", category)
            return build(argv).exit_code
    except BaseException as error:
        error = _as_usage_error(error)
        code = errors.exit_code(error)
        if code == errors.BUG and not isinstance(error, SystemExit):
            traceback.print_exc()
        if not isinstance(error, SystemExit):
            sys.stderr.write(f"{name}: {with_flags(errors.format_error(_strip_worker_traceback(error)), FLAGS)}\n")
        return code


def _is_relevant(record: logging.LogRecord) -> bool:
    """Return whether a log record of Lightning or torch is of use to who runs the command."""
    return not any(words in str(record.msg) for words in MOOT_RECORDS)


def _as_usage_error(error: BaseException) -> BaseException:
    """Return a UsageError: the cause, or for what Lightning refuses while it runs; else the error."""
    if isinstance(error.__cause__, errors.UsageError):
        return error.__cause__
    if not isinstance(error, ValueError | MisconfigurationException) or errors.exit_code(error) != errors.BUG:
        return error
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    if not Path(last).is_relative_to(Path(lightning.__file__).parent):
        return error

    def option(match: re.Match[str]) -> str:
        name, value = match[1], (match[2] or "").replace("=None", "=null")
        return f"`trainer.{name}{value}`" if name in TRAINER_FIELDS else f'"{name}{value}"'

    return errors.UsageError(re.sub(r"`(\w+)(=\w+)?`", option, str(error)).replace("``", ""))


def _strip_worker_traceback(error: BaseException) -> BaseException:
    """Return the error without the traceback that a DataLoader worker puts before its message."""
    text = str(error)
    if "Original Traceback" not in text:
        return error
    return type(error)(text.strip().rpartition("\n")[2].partition(": ")[2])
