"""Generation metrics of `test`: music that the EMA weights write for a few fixed clips."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from v2m.core.errors import DependencyError, InvalidInputError, UsageError
from v2m.core.prompts import build_prompt
from v2m.core.types import Audio, SamplingConfig
from v2m.evaluation import tables
from v2m.evaluation.embedding_metrics import EvalClip, evaluate_embeddings
from v2m.evaluation.ground_truth import ground_truth_audio
from v2m.evaluation.per_clip import Row, clip_metrics
from v2m.evaluation.tables import Baselines

logger = logging.getLogger(__name__)


class GenerationEval(lightning.Callback):
    """Lets `test` write music for fixed clips with fixed seeds, and measures it as `v2m evaluate` does.

    Table, sound, spectrograms and, of videos, films go to test/ in the trainer's default_root_dir, and to its loggers.
    Only the first rank works. The truth is the music that a clip had: that of the shards as their codec gives it back,
    or the sound of the videos.

    Args:
        clips: How many; 0 measures losses alone.
        videos: Video files, or folders of them; None takes the first samples of the test, which have no pictures and
            no tags in words.
        embedding: Measures with weights: clap, ast, pe-av, vggish, imagebind, each alone or with =WEIGHTS, or the path
            of a class of yours.
        seconds: What is heard of each clip at most; of a sample of the test never more than a window.
        seed: That of a clip is as much higher as clips stand before it.
        sampling: How codes are drawn.
    """

    def __init__(
        self,
        num_clips: int = 0,
        videos: list[Path] | Path | None = None,
        embedding: list[str] | None = None,
        *,
        max_seconds: float = 30.0,
        seed: int = 0,
        sampling: SamplingConfig | None = None,
    ) -> None:
        bounds = {"num_clips": (num_clips, 0), "max_seconds": (max_seconds, 1), "seed": (seed, 0)}
        problems = [f"{name} {value:g} must be {low} or more" for name, (value, low) in bounds.items() if value < low]
        if embedding and not num_clips:
            problems.append("embedding needs clips to measure: give --eval.num_clips")
        if problems:
            raise UsageError("eval: " + "; ".join(problems))
        self.num_clips, self.embedding, self.max_seconds, self.seed = num_clips, embedding or [], max_seconds, seed
        self.sampling = sampling or SamplingConfig()
        self.videos = [Path(videos)] if isinstance(videos, str | Path) else videos
        self._embeddings: Sequence[Any] = ()

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Raises UsageError, InvalidInputError or DependencyError where what is asked for cannot be had."""
        if stage != "test" or not self.num_clips:
            return
        if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            raise UsageError("eval needs whole weights on a device: give --trainer.strategy auto or ddp")
        if self.videos is not None:
            from v2m.data.sources import discover_videos

            discover_videos(self.videos)
        if self.embedding and trainer.is_global_zero:
            from v2m.evaluation import embedders

            self._embeddings = embedders.build_embedders(self.embedding)

    def on_test_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not self.num_clips or not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir) / "test"
        folder.mkdir(parents=True, exist_ok=True)
        clips = self._load_clips(trainer, pl_module, folder)
        music = self._generate(clips, pl_module, folder)
        systems: dict[str, dict[str, Row]] = {
            "": {name: _clip_row(clips[name], audio) for name, audio in music.items()}
        }
        truth = _ground_truth(clips)
        beside = self._add_embedding_metrics(clips, music, truth, systems)
        table = tables.to_markdown(systems[""], beside)
        _write_tables(folder, table, systems, beside)
        sys.stdout.write("\n".join([table, *(f"* {note}" for note in beside.notes)]) + "\n")
        if trainer.loggers:
            from v2m.training.log_tables import log_tables

            log_tables(trainer.loggers, systems, beside, prefix="test", step=trainer.global_step)

    def _load_clips(self, trainer: Any, module: Any, folder: Path) -> dict[str, Any]:
        from v2m.training.eval_clips import load_shard_clips, load_video_clips

        if self.videos is not None:
            given = self.videos, self.num_clips, self.max_seconds, module.music_model, module.device
            found = load_video_clips(*given, preview_dir=folder / "videos")
        else:
            loader = trainer.datamodule.test_dataloader()
            found = load_shard_clips(loader, self.num_clips, self.max_seconds, module.music_model, module.device)
        return {clip.name: clip for clip in found}

    def _generate(self, clips: Mapping[str, Any], module: Any, folder: Path) -> dict[str, Audio]:
        from v2m.models.inference.decoder import Decoder
        from v2m.models.lora import merged_weights
        from v2m.training.artifacts import write_artifacts
        from v2m.training.eval_clips import GenerateOptions

        found = {}
        with merged_weights(module.music_model):
            decoder = Decoder(module.music_model.lm)
        for number, (name, clip) in enumerate(clips.items()):
            how = GenerateOptions(decoder, self.sampling, self.seed + number, lambda fraction: None)  # noqa: ARG005
            found[name] = clip.generate(module.music_model, how).audio
            write_artifacts(folder, name, found[name], clip.visual_features, clip.preview, title=name)
        return found

    def _add_embedding_metrics(
        self, clips: Mapping[str, Any], music: Mapping[str, Audio], truth: Mapping[str, Audio] | None, systems: Any
    ) -> Baselines:
        """Adds measures with weights to `systems`."""
        true = None if truth is None else {name: EvalClip(lambda each=each: each) for name, each in truth.items()}
        pieces = {name: _piece(clips[name], audio) for name, audio in music.items()}
        found = evaluate_embeddings(self._embeddings, {"": pieces}, true, seed=self.seed)
        for name, values in found.rows.get("", {}).items():
            systems[""][name] = {**systems[""][name], **values}
        for name, sound in (truth or {}).items():
            found.baselines.ground_truth[name] = {
                **_clip_row(clips[name], sound),
                **found.baselines.ground_truth.get(name, {}),
            }
        return found.baselines


def _ground_truth(clips: Mapping[str, Any]) -> dict[str, Audio] | None:
    """The music that the clips had; None, with a warning, where one had none."""
    found = {}
    for name, clip in clips.items():
        try:
            sound = clip.reference or ground_truth_audio(clip.video.path, clip.video.duration)
        except (UsageError, InvalidInputError, DependencyError) as error:
            logger.warning("there is no ground truth: %s", error)
            return None
        found[name] = sound
    return found


def _clip_row(clip: Any, audio: Audio) -> Row:
    return clip_metrics(audio, clip.visual_features, _duration(clip), getattr(clip, "tags", None))


def _duration(clip: Any) -> float:
    return clip.video.duration if hasattr(clip, "video") else clip.duration


def _piece(clip: Any, audio: Audio) -> EvalClip:
    has_video = hasattr(clip, "video")
    return EvalClip(
        lambda: audio, (lambda: clip.video) if has_video else None, build_prompt(clip.tags) if has_video else ""
    )


def _write_tables(folder: Path, table: str, systems: Mapping[str, Mapping[str, Row]], beside: Baselines) -> None:
    (folder / "table.md").write_text(table + "\n", encoding="utf-8")
    (folder / "clips.csv").write_text(tables.to_csv(systems, beside), encoding="utf-8")
    (folder / "summary.csv").write_text(tables.summary_csv(systems, beside), encoding="utf-8")
