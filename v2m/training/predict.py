"""Module and options of `train.py predict`: a corpus of videos with music by a model in memory, as `infer.py` does it.

The module gives a tagger and a generator; `v2m.pipeline.batch` tags, generates, mixes and writes the files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from v2m.checkpoints import V2M
from v2m.core.errors import UsageError
from v2m.core.protocols import Tagger
from v2m.core.types import ProgressFn, SamplingConfig, Tags, Video
from v2m.data.predict_data import VideoJob
from v2m.generators.in_memory import InMemoryGenerator
from v2m.generators.musicgen.options import Precision
from v2m.media.video import Limits
from v2m.mixing.mixer import MixConfig
from v2m.pipeline import batch
from v2m.pipeline.batch import VideoResult
from v2m.taggers.heuristic import Palette
from v2m.training.module import LitMusicLM


@dataclass(frozen=True)
class PredictConfig:
    """Options of `train.py predict`.

    Args:
        seed: The same seed gives the same music.
        tags: Hints: every field set here wins over the tagger's.
        sampling: How codes are drawn.
        window: Seconds that are written in one go; None is what the model was trained on.
        stride: Seconds from one window to the next; None is 0.6 windows.
        precision: Precision of the language model's weights; None is what suits the device.
        mix: How the music meets the clip's own sound, and how loud.
        limits: Bounds of accepted input.
        overwrite: Whether files that exist may be replaced; else finished videos are left alone.
        keep_tagger: Whether the tagger stays in memory beside the model that writes.
    """

    seed: int = 0
    tags: Tags = field(default_factory=Tags)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    window: float | None = None
    stride: float | None = None
    precision: Precision | None = None
    mix: MixConfig = field(default_factory=lambda: MixConfig(fade_out=1.5))  # no model knows where the video ends
    limits: Limits = field(default_factory=Limits)
    overwrite: bool = False
    keep_tagger: bool = True


class LitGenerate(LitMusicLM):
    """Train the language model and the visual conditioner on shards, or write music for videos (`predict`).

    Args:
        init_from: Checkpoint to start from, a folder or a repository of the hub; None starts from random weights, with
            `lm`. Without a conditioner it can predict untrained, from the tags alone.
        tagger: Frozen tagger of `predict`. It is not trained, moved, or saved in a checkpoint; None measures the
            picture.
        predict: How `predict` writes music.
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
        self._tagger_ref = (tagger or Palette(),)  # in a tuple, a tagger that is a module is not registered here
        self.tagger_config: Any = f"{type(self.tagger).__module__}.{type(self.tagger).__qualname__}"
        self.predict_config = predict or PredictConfig()
        self._predict_video: Callable[[VideoJob], VideoResult] | None = None

    @property
    def tagger(self) -> Tagger:
        return self._tagger_ref[0]

    def setup(self, stage: str) -> None:
        """Build the model for training; `predict` takes it from the checkpoint, without shards. Errors as there."""
        if stage != "predict":
            super().setup(stage)
        elif self.trainer.strategy.restore_checkpoint_after_setup:
            raise UsageError("predict shares videos among devices, not weights: give --trainer.strategy ddp")

    def on_predict_start(self) -> None:
        """Raise UsageError where there is no model, DependencyError where a component or the tagger is missing."""
        path = self.trainer.ckpt_path
        if self.model is None:
            if self._init_from is None or self._conditioner is not None:
                raise UsageError("nothing has been learned yet: give --ckpt_path, a checkpoint that training has saved")
            self.model = V2M.from_pretrained(self._init_from, device=self.device, dtype=torch.float32)
        name = Path(path).name if path else self._init_from or "in memory"
        self._predict_video = build_predictor(
            self.music_model.eval(),
            name,
            self.tagger,
            self.predict_config,
            device=self.device,
            tagger_config=self.tagger_config,
        )

    def predict_step(self, batch: list[VideoJob], _: int) -> list[VideoResult]:
        """Return how each video ended: with music in its folder, or why not."""
        assert self._predict_video is not None, "on_predict_start builds it"
        return [self._predict_video(job) for job in batch]

    def on_predict_end(self) -> None:
        self._predict_video = None  # and with it the decoder's copy of the weights


def build_predictor(
    model: V2M, name: str, tagger: Tagger, config: PredictConfig, *, device: torch.device, tagger_config: Any
) -> Callable[[VideoJob], VideoResult]:
    """Return a function that gives one video music and returns how that ended.

    Args:
        model: The trained model, on `device`.
        name: Name of the model in the metadata file.
        tagger: Names the music that would fit.
        config: All other options.
        device: Device of the model.
        tagger_config: The tagger in the metadata file.

    Raises:
        UsageError, DependencyError: As `InMemoryGenerator` raises them, and the tagger's `prepare`.
    """
    generator = InMemoryGenerator(
        model,
        name,
        device,
        sampling=config.sampling,
        window=config.window,
        stride=config.stride,
        precision=config.precision,
    )
    place_tagger(tagger, device)
    kept_tagger = _KeptTagger(tagger) if config.keep_tagger else tagger
    settings = {key: value for key, value in asdict(config).items() if key not in {"overwrite", "keep_tagger"}}
    settings |= {"tagger": tagger_config, "weights_sha256": model_sha256(model)}
    settings |= {"origin": model.origin, "license": model.license}

    def predict(job: VideoJob) -> VideoResult:
        job.folder.mkdir(parents=True, exist_ok=True)
        with torch.autocast(device.type, enabled=False):  # that of training would make other music than infer.py
            row = batch.process_video(
                job.video,
                job.folder,
                settings,
                config.overwrite,
                job.duplicate_of,
                tagger=kept_tagger,
                generator=generator,
                seed=config.seed,
                provenance={"recipe": name, "settings": settings},
                tags=config.tags,
                mix=config.mix,
                start=config.mix.start,
                end=config.mix.end,
                limits=config.limits,
            )
        detail = row.detail.replace("--overwrite", "--model.predict.overwrite true").replace("--out", "--data.out")
        return row._replace(detail=detail)

    return predict


def place_tagger(tagger: Tagger, device: torch.device) -> None:
    """Put a tagger that may work anywhere on this rank's device, and make sure that its weights are here."""
    if getattr(tagger, "device", None) == "auto":
        tagger.device = device_string(device)  # type: ignore[attr-defined]
    if prepare := getattr(tagger, "prepare", None):
        prepare()


def device_string(device: torch.device) -> str:
    """Return the device as `v2m.core.lazy_model.choose_device` takes it."""
    return str(device) if device.type == "cuda" else device.type


def model_sha256(model: V2M) -> str:
    """Return the SHA-256 of all weights with their names, and of the sizes."""
    digest = hashlib.sha256(repr(model.config.to_dict()).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


class _KeptTagger:
    """A tagger that is not released between two videos."""

    def __init__(self, tagger: Tagger) -> None:
        self._tagger = tagger

    def tag(self, video: Video, hints: Tags, progress: ProgressFn | None = None) -> Tags:
        return self._tagger.tag(video, hints, progress)

    def __getattr__(self, name: str) -> Any:
        if name == "release":
            raise AttributeError(name)
        return getattr(self._tagger, name)
