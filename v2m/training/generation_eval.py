"""Generation metrics of `test`: music that the EMA weights generate for a few fixed clips."""

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
from v2m.data.sources import discover_videos
from v2m.evaluation import embedding_metrics, tables
from v2m.evaluation.per_clip import Row, clip_metrics, ground_truth_audio
from v2m.evaluation.tables import Baselines
from v2m.training.artifacts import write_artifacts
from v2m.training.eval_clips import EvalClip, check_minimums, generate_clips, load_clips
from v2m.training.wandb_logger import log_tables

logger = logging.getLogger(__name__)


class GenerationEval(lightning.Callback):
    """Let `test` generate music for fixed clips with fixed seeds, and measure it as `v2m evaluate` does.

    Tables, audio, spectrograms and, for videos, the videos with their music go to test/ in the trainer's
    default_root_dir, and to its loggers. Only the first rank works. The ground truth is the clip's original music: that
    of the shards as their codec decodes it, or the sound of the videos.

    Args:
        num_clips: Number of clips; 0 measures losses alone.
        videos: Video files, or folders of them; None takes the first test samples, which have no pictures and no tags
            in words.
        embedding: Metrics with pretrained embeddings: clap, ast, pe-av, vggish, imagebind, each alone or with
            =WEIGHTS, or the path of a class of yours.
        max_seconds: Length of the music at most; of a test sample never more than a window.
        seed: Seed of the first clip; the next clips have the next numbers.
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
        problems = check_minimums(num_clips=(num_clips, 0), max_seconds=(max_seconds, 1), seed=(seed, 0))
        if embedding and not num_clips:
            problems.append("embedding needs clips to measure: give `eval.num_clips`")
        if problems:
            raise UsageError("eval: " + "; ".join(problems))
        self.num_clips, self.embedding, self.max_seconds, self.seed = num_clips, embedding or [], max_seconds, seed
        self.sampling = sampling or SamplingConfig()
        self.videos = [Path(videos)] if isinstance(videos, str | Path) else videos
        self._embedders: Sequence[Any] = ()

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:  # noqa: ARG002
        """Raise UsageError, InvalidInputError or DependencyError where a setting cannot be followed."""
        if stage != "test" or not self.num_clips:
            return
        if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            raise UsageError("eval needs whole weights on a device: give `trainer.strategy=auto` or ddp")
        if self.videos is not None:
            discover_videos(self.videos)
        if self.embedding and trainer.is_global_zero:
            from v2m.evaluation import embedders

            self._embedders = embedders.build_embedders(self.embedding)

    def on_test_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not self.num_clips or not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir) / "test"
        folder.mkdir(parents=True, exist_ok=True)
        module: Any = pl_module
        loader = trainer.datamodule.test_dataloader() if self.videos is None else None  # type: ignore[attr-defined]
        clips = load_clips(self.videos, loader, self.num_clips, self.max_seconds, module, preview_dir=folder / "videos")
        music = {}
        for clip, audio in generate_clips(clips, module.music_model, self.sampling, self.seed, lambda fraction: None):  # noqa: ARG005
            music[clip.name] = audio
            write_artifacts(folder, clip.name, audio, clip.visual_features, clip.preview, title=clip.name)
        systems = {"": {name: _clip_row(clips[name], audio) for name, audio in music.items()}}
        baselines = self._add_embedding_metrics(clips, music, systems[""])
        table = tables.to_markdown(systems[""], baselines)
        (folder / "table.md").write_text(table + "\n", encoding="utf-8")
        (folder / "clips.csv").write_text(tables.to_csv(systems, baselines), encoding="utf-8")
        (folder / "summary.csv").write_text(tables.summary_csv(systems, baselines), encoding="utf-8")
        sys.stdout.write("\n".join([table, *(f"* {note}" for note in baselines.notes)]) + "\n")
        if trainer.loggers:
            log_tables(trainer.loggers, systems, baselines, prefix="test", step=trainer.global_step)

    def _add_embedding_metrics(
        self, clips: Mapping[str, EvalClip], music: Mapping[str, Audio], rows: dict[str, Row]
    ) -> Baselines:
        """Add metrics with pretrained embeddings to `rows`, and return those of the ground truth."""
        truth = _ground_truth(clips)
        references = None
        if truth is not None:
            references = {name: embedding_metrics.EvalClip(lambda a=audio: a) for name, audio in truth.items()}
        generated = {name: _to_embed(clips[name], audio) for name, audio in music.items()}
        result = embedding_metrics.evaluate_embeddings(self._embedders, {"": generated}, references, seed=self.seed)
        for name, values in result.rows.get("", {}).items():
            rows[name] = {**rows[name], **values}
        ground_truth = result.baselines.ground_truth
        for name, audio in (truth or {}).items():
            ground_truth[name] = {**_clip_row(clips[name], audio), **ground_truth.get(name, {})}
        return result.baselines


def _ground_truth(clips: Mapping[str, EvalClip]) -> dict[str, Audio] | None:
    """Return the original music of the clips, or None, with a warning, where one has none."""
    try:
        return {
            name: clip.reference if clip.video is None else ground_truth_audio(clip.video.path, clip.duration)
            for name, clip in clips.items()
        }
    except (UsageError, InvalidInputError, DependencyError) as error:
        logger.warning("there is no ground truth: %s", error)
        return None


def _clip_row(clip: EvalClip, audio: Audio) -> Row:
    return clip_metrics(audio, clip.visual_features, clip.duration, clip.tags)


def _to_embed(clip: EvalClip, audio: Audio) -> embedding_metrics.EvalClip:
    if clip.video is None:
        return embedding_metrics.EvalClip(lambda: audio, None, "")
    return embedding_metrics.EvalClip(lambda: audio, lambda: clip.video, build_prompt(clip.tags))
