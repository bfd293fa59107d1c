"""What the benches of training share: shards of the published sizes, and a trainer with a clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch

from tests.fixtures.tiny import shards
from v2m.models.lm import LMConfig
from v2m.models.visual.vidmuse import ConditionerConfig

# As `prepare` makes them with CLIP ViT-B/32, EnCodec 32 kHz and T5-base.
KEPT = replace(
    shards.KEPT, vision_encoder="random:grid", vision_dim=768, num_long_term_frames=32, codebook_size=2048, text_dim=768
)
CONDITIONER = ConditionerConfig()
SIZES = {
    "tiny": LMConfig(dim=64, num_layers=2, num_heads=4),
    "middle": LMConfig(dim=512, num_layers=8, num_heads=8),
    "small": LMConfig(),  # MusicGen-small's
}


class Clock(lightning.Callback):
    """Seconds of each step, from the end of the one before it, with the work of its device."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self.seconds: list[float] = []
        self._since: float | None = None

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        now = self._now()
        if self._since is not None:
            self.seconds.append(now - self._since)
        self._since = now


def write(folder: Path, samples: int, seconds: float) -> Path:
    """A folder of shards."""
    return shards.write(folder, (samples,), seconds=seconds, manifest=KEPT)


def trainer(steps: int, device: str, precision: str, *callbacks: lightning.Callback) -> lightning.Trainer:
    """Without any file, and silent."""
    return lightning.Trainer(
        max_steps=steps,
        accelerator=device,
        devices=1,
        precision=precision,  # type: ignore[arg-type]
        gradient_clip_val=1.0,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
