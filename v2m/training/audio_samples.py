"""Listening to a run: the same clips with the same seeds, time and again, by the averaged weights."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from v2m.core.errors import BUG, DependencyError, UsageError, exit_code
from v2m.core.types import SamplingConfig
from v2m.data.module import ResumableLoader
from v2m.training.checkpoints import CheckpointCallback, preserve_rng_state
from v2m.training.ema import EMACallback

logger = logging.getLogger(__name__)


class LogAudioSamples(lightning.Callback):
    """Writes music for a few fixed clips while training, and logs it: sound, spectrogram, the video with its music, and
    how well it meets the cuts. All of it is kept under audio_samples/ in the trainer's default_root_dir, too.

    Only the first rank works. Training goes on bit for bit as without it, and whatever fails here is a warning.

    Args:
        every: Validations from one listening to the next, with one more at the end of training; 0 is never.
        clips: How many clips.
        videos: Video files, or folders of them; None takes the first samples of validation, which have no pictures.
        seconds: What is heard of each at most; of a sample of validation never more than a window.
        seed: The same for all times; that of a clip is as much higher as clips stand before it.
        sampling: How codes are drawn.
    """

    def __init__(
        self,
        every_n_validations: int = 0,
        num_clips: int = 2,
        videos: list[Path] | Path | None = None,
        *,
        max_seconds: float = 30.0,
        seed: int = 0,
        sampling: SamplingConfig | None = None,
    ) -> None:
        bounds = {
            "every_n_validations": (every_n_validations, 0),
            "num_clips": (num_clips, 1),
            "max_seconds": (max_seconds, 1),
            "seed": (seed, 0),
        }
        problems = [f"{name} {value:g} must be {low} or more" for name, (value, low) in bounds.items() if value < low]
        if problems:
            raise UsageError("audio_samples: " + "; ".join(problems))
        self.every_n_validations, self.num_clips, self.max_seconds, self.seed = (
            every_n_validations,
            num_clips,
            max_seconds,
            seed,
        )
        self.sampling = sampling or SamplingConfig()
        self.videos = [Path(videos)] if isinstance(videos, str | Path) else videos
        self._clips: Sequence[Any] = ()
        self._validations = 0
        self._last_step = -1  # the step at which it listened last
        self._references_logged = False

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Raises UsageError or InvalidInputError where `videos` are none."""
        if self.every_n_validations and stage == "fit" and self.videos is not None:
            from v2m.data.sources import discover_videos

            discover_videos(self.videos)

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not self.every_n_validations or not trainer.is_global_zero:
            return
        try:
            with preserve_rng_state():
                self._clips = self._load_clips(trainer, pl_module)
        except Exception as error:
            logger.warning("there will be nothing to listen to: %s", _describe_error(error))

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not self.every_n_validations or trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        self._validations += 1
        if self._validations % self.every_n_validations == 0:  # the averaged weights are in place by now
            self._generate_safely(trainer, pl_module)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not self._clips or trainer.global_step == self._last_step:
            return
        average = next((each for each in trainer.callbacks if isinstance(each, EMACallback)), None)  # type: ignore[attr-defined]
        modes = {module: module.training for module in pl_module.modules()}
        with nullcontext() if average is None else average.applied(pl_module):
            pl_module.eval()
            self._generate_safely(trainer, pl_module)
        for module, mode in modes.items():
            module.training = mode

    def state_dict(self) -> dict[str, Any]:
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._validations = int(state_dict["validations"])

    def _load_clips(self, trainer: Any, module: Any) -> Sequence[Any]:
        from v2m.training.eval_clips import load_shard_clips, load_video_clips

        if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            raise DependencyError(f"{type(trainer.strategy).__name__} parts the weights among ranks")
        if self.videos is not None:
            films = _output_dir(trainer) / "videos"
            return load_video_clips(
                self.videos, self.num_clips, self.max_seconds, module.music_model, module.device, preview_dir=films
            )
        loader = None if trainer.datamodule is None else trainer.datamodule.val_dataloader()
        if not isinstance(loader, ResumableLoader):
            raise DependencyError("give --audio_samples.videos, or --data.validation, whose samples can be listened to")
        return load_shard_clips(loader, self.num_clips, self.max_seconds, module.music_model, module.device)

    def _generate_safely(self, trainer: Any, module: Any) -> None:
        self._last_step = trainer.global_step
        if not self._clips:
            return
        try:
            with preserve_rng_state():
                self._generate(trainer, module)
        except _StopRequestedError:
            logger.warning("the run is to end: listening at step %d is left undone", trainer.global_step)
        except Exception as error:
            logger.warning(
                "listening at step %d failed, training goes on: %s", trainer.global_step, _describe_error(error)
            )

    def _generate(self, trainer: Any, module: Any) -> None:
        from v2m.models.inference.decoder import Decoder
        from v2m.models.lora import merged_weights
        from v2m.training.artifacts import log_artifacts, mean_metrics, write_artifacts, write_metrics
        from v2m.training.eval_clips import GenerateOptions

        begun, step = time.perf_counter(), trainer.global_step
        folder = _output_dir(trainer) / f"step{step:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        stop = _StopCheck(trainer)
        with merged_weights(module.music_model):
            decoder = Decoder(module.music_model.lm)
        heard = []
        for number, clip in enumerate(self._clips):
            score = clip.generate(module.music_model, GenerateOptions(decoder, self.sampling, self.seed + number, stop))
            title = f"{clip.name}   step {step}"
            heard.append(
                write_artifacts(folder, clip.name, score.audio, clip.visual_features, clip.preview, title=title)
            )
        figures = mean_metrics([each.metrics for each in heard])
        write_metrics(folder, step, heard, figures)
        if not self._references_logged:
            references = self._write_references(trainer)
            heard += references
            figures |= {
                f"reference_{name}": value for name, value in mean_metrics([r.metrics for r in references]).items()
            }
        figures["seconds_taken"] = time.perf_counter() - begun
        log_artifacts(trainer.loggers, heard, figures, max(0, step - 1))  # as Lightning counts them
        self._references_logged = True

    def _write_references(self, trainer: Any) -> list[Any]:
        """The music that the clips had, once a run, to hear what the codec can do and to read the figures by."""
        from v2m.training.artifacts import write_artifacts

        folder = _output_dir(trainer) / "reference"
        folder.mkdir(exist_ok=True)
        there = [clip for clip in self._clips if clip.reference is not None]
        return [
            write_artifacts(
                folder,
                f"{clip.name}_reference",
                clip.reference,
                clip.visual_features,
                None,
                title=f"{clip.name}   as it was",
            )
            for clip in there
        ]


class _StopRequestedError(Exception):
    """A signal came."""


class _StopCheck:
    """Told how far a piece is; ends it where a signal asks the run to end."""

    def __init__(self, trainer: Any) -> None:
        self._asked = [each for each in trainer.callbacks if isinstance(each, CheckpointCallback)]

    def __call__(self, fraction: float) -> None:  # noqa: ARG002
        if any(each.signal is not None for each in self._asked):
            raise _StopRequestedError


def _output_dir(trainer: lightning.Trainer) -> Path:
    return Path(trainer.default_root_dir) / "audio_samples"


def _describe_error(error: BaseException) -> str:
    """Message of an error, with the class of an unexpected one."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}" if exit_code(error) == BUG else said
