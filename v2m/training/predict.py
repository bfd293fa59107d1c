"""Modules and results of `train.py predict` and `v2m tag`: music, or tags, for a corpus of videos."""

from __future__ import annotations

import copy
import hashlib
import logging
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import distributed

from v2m.checkpoints import V2M
from v2m.core import errors
from v2m.core.errors import DiskFullError, UsageError
from v2m.core.protocols import Tagger
from v2m.core.types import SamplingConfig, Tags
from v2m.data.video_jobs import VideoJob
from v2m.generators.in_memory import InMemoryGenerator
from v2m.generators.options import LMPrecision
from v2m.media.video import Limits
from v2m.mixing.mixer import MixConfig
from v2m.pipeline import batch
from v2m.pipeline.batch import VideoResult
from v2m.pipeline.recipes import Recipe
from v2m.taggers.base import as_tagger
from v2m.taggers.heuristic import HeuristicTagger
from v2m.training.checkpoints import restore_signal_handlers
from v2m.training.module import LitMusicLM
from v2m.training.video_tagger import VideoTagger, ready_tagger

GATHER_TIMEOUT = timedelta(days=365)  # that a rank waits for the others: the longest video decides

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PredictConfig:
    """Options of `predict`.

    Args:
        seed: The same seed gives the same music.
        tags: Hints: every field set here wins over the tagger's.
        sampling: How codes are drawn.
        window: Seconds that are generated in one go; None is what the model was trained on.
        stride: Seconds from one window to the next; None is 0.6 windows.
        precision: Precision of the language model's weights; None is what suits the device.
        mix: Levels of the music and of the clip's own sound.
        limits: Bounds of accepted input.
        overwrite: Whether files that exist may be replaced; else finished videos are left alone.
        keep_tagger: Whether the tagger stays in memory beside the music model.
    """

    seed: int = 0
    tags: Tags = field(default_factory=Tags)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    window: float | None = None
    stride: float | None = None
    precision: LMPrecision | None = None
    mix: MixConfig = field(default_factory=lambda: MixConfig(fade_out=1.5))  # no model knows where the video ends
    limits: Limits = field(default_factory=Limits)
    overwrite: bool = False
    keep_tagger: bool = True


class LitGenerate(LitMusicLM):
    """Train the language model and the visual conditioner on shards, or generate music (`predict`).

    Args:
        init_from: Checkpoint to start from, a folder or a repository of the hub; None starts from random weights, with
            `lm`. Without a conditioner it can predict untrained, from the tags alone.
        tagger: Frozen tagger of `predict`. It is not trained, moved, or saved in a checkpoint; None measures the
            picture.
        predict: Options of `predict`.
        kwargs: Arguments of LitMusicLM.
    """

    def __init__(
        self,
        init_from: str | None = None,
        *,
        tagger: Tagger | None = None,
        predict: PredictConfig | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(init_from, **kwargs)
        # in a tuple, so that Lightning does not register a tagger that is a module
        self._tagger_ref = (tagger or HeuristicTagger(),)
        self.tagger_config: Any = f"{type(self.tagger).__module__}.{type(self.tagger).__qualname__}"
        self.predict_config = predict or PredictConfig()
        self._predict_video: Callable[[VideoJob], VideoResult] | None = None

    @property
    def tagger(self) -> Tagger:
        return self._tagger_ref[0]

    def setup(self, stage: str) -> None:
        """Build the model for training; `predict` takes it from the checkpoint, without shards."""
        if stage != "predict":
            super().setup(stage)
        elif self.trainer.strategy.restore_checkpoint_after_setup:
            raise UsageError("predict shares videos among devices, not weights: give `trainer.strategy=ddp`")

    def on_predict_start(self) -> None:
        """Build the generator. Raises UsageError without a model, DependencyError without its parts."""
        path = self.trainer.ckpt_path
        if self.model is None:
            if self._init_from is None or self._conditioner is not None:
                raise UsageError("the model is untrained: give `ckpt_path`, a checkpoint that training has saved")
            self.model = V2M.from_pretrained(self._init_from, device=self.device, dtype=torch.float32)
        name = Path(path).name if path else self._init_from or "in memory"
        self._predict_video = self._build_predictor(name)

    def predict_step(self, batch: list[VideoJob], _: int) -> list[VideoResult]:
        """Return the result of each video; an error of one does not stop the others."""
        assert self._predict_video is not None, "on_predict_start builds it"
        return [self._predict_video(job) for job in batch]

    def on_predict_end(self) -> None:
        self._predict_video = None  # and with it the decoder's copy of the weights

    def _build_predictor(self, name: str) -> Callable[[VideoJob], VideoResult]:
        """Return the function that scores one video; `name` is the model's in the metadata file."""
        model, config, device = self.music_model.eval(), self.predict_config, self.device
        generator = InMemoryGenerator(
            model, name, device, sampling=config.sampling, window=config.window, stride=config.stride,
            precision=config.precision,
        )  # fmt: skip
        tagger = ready_tagger(self.tagger, device)
        if config.keep_tagger:
            tagger = copy.copy(tagger)
            tagger.release = lambda: None  # which the pipeline calls after each video
        settings = {key: value for key, value in asdict(config).items() if key not in {"overwrite", "keep_tagger"}}
        settings |= {"tagger": self.tagger_config, "weights_sha256": model_sha256(model)}
        settings |= {"origin": model.origin, "license": model.license}

        recipe = Recipe(
            name=name, tagger=tagger, generator=generator, tags=config.tags, mix=config.mix, limits=config.limits,
            seed=config.seed, start=config.mix.start, end=config.mix.end, settings=settings,
        )  # fmt: skip

        def predict(job: VideoJob) -> VideoResult:
            job.folder.mkdir(parents=True, exist_ok=True)
            with torch.autocast(device.type, enabled=False):  # training's would make other music than infer.py's
                return batch.process_video(job.video, job.out, recipe, config.overwrite)

        return predict


class LitTagger(lightning.LightningModule):
    """A frozen tagger that is no part of the module, which has no weights and no checkpoint.

    `NAME.tags.json`, which `v2m prepare` reads as known tags, is written for each video. A complete one is left alone;
    in an incomplete one the user's tags win, and the tagger fills in the rest.

    Args:
        tagger: Names the music that would fit a video; None measures the picture.
        limits: Bounds of accepted input.
        overwrite: Whether tags that exist are replaced.
    """

    def __init__(self, tagger: Tagger | None = None, *, limits: Limits | None = None, overwrite: bool = False) -> None:
        super().__init__()
        # in a tuple, so that Lightning does not register a tagger that is a module
        self._tagger_ref = (tagger or HeuristicTagger(),)
        self.limits, self.overwrite = limits or Limits(), overwrite

    @property
    def tagger(self) -> Tagger:
        return self._tagger_ref[0]

    def on_predict_start(self) -> None:
        """Raise DependencyError where the tagger's weights are missing."""
        ready_tagger(self.tagger, self.device)

    def predict_step(self, batch: list[VideoJob], _: int) -> list[VideoResult]:
        """Return the result of each video; an error of one does not stop the others."""
        tag = VideoTagger(self.tagger, self.limits, self.overwrite, self.device)
        return [tag(job) for job in batch]

    def on_predict_end(self) -> None:
        as_tagger(self.tagger).release()


def model_sha256(model: V2M) -> str:
    """Return the SHA-256 of all weights with their names, and of the sizes."""
    digest = hashlib.sha256(repr(model.config.to_dict()).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


class PredictResults(lightning.Callback):
    """Collect the results of `predict_step` over all ranks.

    SIGTERM and SIGINT end the run at once, on every rank that it has started.
    """

    def __init__(self) -> None:
        self.rows: list[VideoResult] = []  # of this rank; at the end, of all, in the order of the videos
        self._group: Any = None
        self._handlers: dict[int, Any] = {}
        self._parent_pid: int | None = None
        self._signal: int | None = None  # the signal that asks for the end

    @property
    def exit_code(self) -> int:
        """`errors.BATCH` where a video failed."""
        return errors.BATCH if any(row.code != errors.OK for row in self.rows) else errors.OK

    @property
    def table(self) -> str:
        return batch.format_table(self.rows)

    def on_predict_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        self.rows, self._signal = [], None
        if trainer.world_size > 1:
            self._group = distributed.new_group(backend="gloo", timeout=GATHER_TIMEOUT)
        launcher, parent_pid = trainer.strategy.launcher, os.getppid()

        def end(number: int, _: Any) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Lightning sends it when the started ranks end
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            self._signal = number
            if launcher is not None:
                launcher.kill(number)  # type: ignore[arg-type]
            raise SystemExit(128 + number)

        self._parent_pid = parent_pid if trainer.local_rank else None
        self._handlers = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}

    def on_predict_batch_start(self, *_: Any, **__: Any) -> None:
        if self._parent_pid is not None and os.getppid() != self._parent_pid:  # killed, and nobody waits for this rank
            raise SystemExit(errors.SIGTERM)
        self._exit_if_signaled()

    def on_predict_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any, **__: Any) -> None:  # noqa: ARG002
        self.add(outputs)

    def add(self, rows: Sequence[VideoResult]) -> None:
        """Add results that have just come. Raise DiskFullError where one found no room."""
        self.rows += rows
        for row in rows:
            if row.code == errors.BUG:
                logger.error("%s: %s", row.path, row.trace)
        self._exit_if_signaled()
        full = next((row for row in rows if row.code == errors.DISK), None)
        if full is not None:
            raise DiskFullError(f"{full.path.name!r}: {full.detail}")

    def on_predict_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002
        if self._group is not None:
            by_rank: list[Any] = [None] * trainer.world_size
            distributed.all_gather_object(by_rank, self.rows, group=self._group)
            self.rows = [row for row in chain(*zip_longest(*by_rank)) if row is not None]

    def on_predict_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        self._group = None
        restore_signal_handlers(self._handlers)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:  # noqa: ARG002
        self.on_predict_end(trainer, pl_module)

    def _exit_if_signaled(self) -> None:
        """Exit after a signal whose exception was lost during cleanup."""
        if self._signal is not None:
            raise SystemExit(128 + self._signal)
