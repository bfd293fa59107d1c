"""What learns, for Lightning: losses, optimizer, steps; and music for videos by it. No architecture, no files but the
checkpoint it starts from.

B batch, K codebooks, T codec frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from v2m import checkpoints
from v2m.checkpoints import lightning_ckpt
from v2m.checkpoints.lora import check_adapters
from v2m.core.errors import DependencyError, UsageError
from v2m.core.protocols import Tagger
from v2m.data.collate import Batch
from v2m.data.predict_data import VideoJob
from v2m.data.schema import Manifest
from v2m.models import lora as adapters
from v2m.models import losses
from v2m.models.lm import LMConfig
from v2m.models.lora import LoRAConfig
from v2m.models.music_model import MusicConfig
from v2m.models.visual.vidmuse import ConditionerConfig
from v2m.pipeline.batch import VideoResult
from v2m.taggers.heuristic import Palette
from v2m.training import fsdp
from v2m.training.compatibility import check_components, check_manifest, manifest_components, visual_input_config
from v2m.training.optim import OptimConfig, param_groups
from v2m.training.predict import PredictConfig, build_predictor


class LitMusicLM(lightning.LightningModule):
    """Trains the language model and the visual conditioner on shards, and writes music for videos: by what they show,
    by their tags, or by both. A start without a conditioner is told by tags alone, trained or not.

    Args:
        start: Checkpoint to start from, a folder or a repository of the hub; None starts from nothing, with `lm`.
        lm: Sizes of the language model, where there is no start; codebooks, entries and channels are the shards'.
        conditioner: Sizes of the visual conditioner, which begins anew, for the pictures of the shards; None keeps the
            start's.
        text: None reads no text, where there is no start; else the width is that of the shards.
        window: Seconds that it learns to write in one go; the data's.
        learning: The optimizer and its schedule.
        drop_text, drop_video: How often a clip is shown without them, for classifier-free guidance.
        lora: Adapts the language model of the start, which stays as it is, by few weights; None lets all of it learn.
        recompute: Computes each layer anew in the backward pass, which saves memory.
        compile: Lets PyTorch compile the language model's layers, which takes a while at the first step.
        tagger: Frozen: says for `predict` what music would fit a video. It does not learn, is not moved, and is in no
            checkpoint; None measures the picture.
        scoring: How `predict` writes music.
    """

    def __init__(
        self,
        start: str | None = None,
        *,
        lm: LMConfig | None = None,
        conditioner: ConditionerConfig | None = None,
        text: int | None = 768,
        window: float = 30.0,
        learning: OptimConfig = OptimConfig(),
        drop_text: float = 0.2,
        drop_video: float = 0.2,
        lora: LoRAConfig | None = None,
        recompute: bool = False,
        compile: bool = False,
        tagger: Tagger | None = None,
        scoring: PredictConfig | None = None,
    ) -> None:
        super().__init__()
        rates = {"drop_text": drop_text, "drop_video": drop_video}
        problems = [f"{name} {rate:g} must lie in 0–1" for name, rate in rates.items() if not 0 <= rate <= 1]
        problems += ["give start or lm, not both"] * (start is not None and lm is not None)
        problems += ["lora adapts a model that there is: give start"] * (lora is not None and start is None)
        if problems:
            raise UsageError("model: " + "; ".join(problems))
        self._start, self._conditioner, self._window = start, conditioner, window
        self._config = MusicConfig(lm or LMConfig(), text, conditioner=conditioner, segment_duration=window)
        self.learning, self.recompute, self.compiled = learning, recompute, compile
        self.lora, self.base = lora, ""
        self.strict_loading = lora is None  # the frozen base is in no checkpoint
        self.drop_text, self.drop_video = drop_text, drop_video
        self.model: checkpoints.V2M | None = None
        self._aside = (tagger or Palette(),)  # in a tuple, a tagger that is a module does not become a part of this one
        self.chosen: Any = f"{type(self.tagger).__module__}.{type(self.tagger).__qualname__}"
        self.scoring = scoring or PredictConfig()
        self._score: Callable[[VideoJob], VideoResult] | None = None

    @property
    def tagger(self) -> Tagger:
        return self._aside[0]

    def setup(self, stage: str) -> None:
        """Makes the model, and sees whether the shards are for it.

        Raises:
            DependencyError: The start cannot be read.
            UsageError: The shards hold something else than the model reads and writes, all of which is told; or the
                trainer has a strategy or precision that this training cannot have.
        """
        if stage == "predict":  # by what the checkpoint says, without shards
            if self.trainer.strategy.restore_checkpoint_after_setup:
                raise UsageError("predict shares videos among devices, not weights: give --trainer.strategy ddp")
            return
        fsdp.check_strategy(self.trainer)
        manifest = getattr(getattr(self.trainer, "datamodule", None), "manifest", None)
        if self.model is None:
            if manifest is not None:
                self._fit_to(manifest)
            self.model = self._begun() if self._start else checkpoints.V2M(self._config)
            self.model.lm.gradient_checkpointing = self.recompute
            if self.lora is not None:
                mixed = self.trainer.precision == "bf16-mixed"
                self.base = adapters.base_sha256(self.model.state_dict())
                adapters.inject_lora(self.model, self.lora, torch.bfloat16 if mixed else None)
            for layer in self.model.lm.layers if self.compiled else ():
                layer.compile()
        if manifest is not None:
            check_manifest(self.model.config, manifest)
            check_components(self.model.components, manifest_components(manifest))
            self.model.components |= manifest_components(manifest)
            self.model.sample_rate = manifest.sample_rate
            self.model.visual_input = None if self.model.config.conditioner is None else visual_input_config(manifest)

    def configure_model(self) -> None:
        if self.model is not None:
            fsdp.apply_fsdp(self.model, self.trainer.strategy)

    def _fit_to(self, manifest: Manifest) -> None:
        """Sizes of what begins anew that the shards decide."""
        if self._conditioner is not None:
            about = {"num_event_channels": len(manifest.rhythm), "codec_frame_rate": manifest.code_rate}
            self._conditioner = replace(
                self._conditioner, num_tokens=manifest.tokens, vision_dim=manifest.width, **about
            )
        sizes = {"num_codebooks": manifest.codebooks, "codebook_size": manifest.entries, "channels": manifest.channels}
        try:
            lm = replace(self._config.lm, **sizes)
        except ValueError as error:
            raise UsageError(f"model.lm does not go with {manifest.codebooks} codebooks: {error}") from error
        text = None if self._config.text_dim is None else manifest.text_width
        self._config = replace(self._config, lm=lm, text_dim=text, conditioner=self._conditioner)

    def _begun(self) -> checkpoints.V2M:
        """With the start's weights, and a conditioner of its own or a new one."""
        assert self._start is not None
        source = checkpoints.V2M.from_pretrained(self._start, dtype=torch.float32)
        config = replace(source.config, segment_duration=self._window)
        if self._conditioner is None or self._conditioner == config.conditioner:
            return source.train()
        heard = {kind: part for kind, part in source.components.items() if kind != "vision_encoder"}
        about = {"components": heard, "license": source.license, "origin": source.origin}
        model = checkpoints.V2M(replace(config, conditioner=self._conditioner), **about, sample_rate=source.sample_rate)
        kept = {name: value for name, value in source.state_dict().items() if not name.startswith("conditioner.")}
        unknown = model.load_state_dict(kept, strict=False).unexpected_keys
        if unknown:
            raise DependencyError(f"{self._start!r} has weights that the model has no place for: {', '.join(unknown)}")
        return model

    @property
    def made(self) -> checkpoints.V2M:
        assert self.model is not None, "the model is made by setup"
        return self.model

    def forward(self, batch: Batch, drop_text: Tensor | None = None, drop_video: Tensor | None = None) -> Tensor:
        """Logits (B, K, S − 1, V) of what comes after each step but the last."""
        lm = self.made.config.lm
        codes = losses.model_inputs(batch.codes, batch.lengths, lm.delay_pattern, lm.special_token_id)
        return self.made(codes, batch.text, batch.seen, drop_text, drop_video)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        drops = torch.rand(2, len(batch.codes)) < torch.tensor([[self.drop_text], [self.drop_video]])
        drop_text, drop_video = drops.to(batch.codes.device)
        mean, each = losses.codebook_cross_entropy(
            self(batch, drop_text, drop_video), batch.codes, batch.lengths, self.made.config.lm.delay_pattern
        )
        self.log("train/loss", mean, prog_bar=True, batch_size=len(batch.codes))
        for k, value in enumerate(each):
            self.log(f"train/loss_{k}", value, batch_size=len(batch.codes))
        self.log("data/skipped", float(batch.skipped), reduce_fx="sum", batch_size=1)
        return mean

    def validation_step(self, batch: Batch, _: int) -> None:
        self._measure("validation", batch)

    def test_step(self, batch: Batch, _: int) -> None:  # noqa: PT019 - not pytest's
        self._measure("test", batch)

    def _measure(self, stage: str, batch: Batch) -> None:
        """Means over all codec frames, whatever the batches and ranks that they came in."""
        mean, each = losses.codebook_cross_entropy(
            self(batch), batch.codes, batch.lengths, self.made.config.lm.delay_pattern
        )
        weight: Any = {"batch_size": int(batch.lengths.sum()), "on_epoch": True, "sync_dist": True}
        self.log(f"{stage}/loss", mean, prog_bar=True, **weight)
        for k, value in enumerate(each):
            self.log(f"{stage}/loss_{k}", value, **weight)

    def configure_optimizers(self) -> Any:
        steps = self.learning.steps or self.trainer.max_steps
        if steps < 1:
            raise UsageError("how long the cosine of the learning rate is must be known: give --trainer.max_steps")
        how = self.learning
        adam = AdamW(param_groups(self.made, how), lr=how.rate, betas=how.betas, eps=how.eps)
        schedule = LambdaLR(adam, lambda step: how.share(step, steps))
        return {"optimizer": adam, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Of an adapted model without what it adapts, which is named and known by its hash."""
        checkpoint[lightning_ckpt.EXPORT_KEY] = lightning_ckpt.describe_model(self.made) | {"lora": self._adapted}
        if self.lora is not None:
            checkpoint["state_dict"] = {
                name: value
                for name, value in checkpoint["state_dict"].items()
                if adapters.is_trainable(name.removeprefix(lightning_ckpt.MODEL_PREFIX))
            }

    def check_adapters(self, checkpoint: Mapping[str, Any]) -> None:
        """Raises UsageError where the checkpoint's adapters are not this model's."""
        check_adapters(checkpoint.get(lightning_ckpt.EXPORT_KEY, {}).get("lora"), self._adapted)

    @property
    def _adapted(self) -> dict[str, Any] | None:
        """What an export needs to put the adapters into the start."""
        return None if self.lora is None else {"init_from": self._start, "base_sha256": self.base, **asdict(self.lora)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Training goes on with the weights as they are; what is measured, and what plays, are the averaged ones.

        Raises:
            UsageError: The checkpoint's adapters are not this model's.
            DependencyError: It is none of training, or what it adapts is not there.
        """
        if self.model is None:
            self.model = lightning_ckpt.build_model(checkpoint, "the checkpoint")
            state = lightning_ckpt.model_state(checkpoint, "the checkpoint")
            checkpoint["state_dict"] = {f"{lightning_ckpt.MODEL_PREFIX}{name}": value for name, value in state.items()}
            return
        self.check_adapters(checkpoint)
        if self._trainer is None or self.trainer.state.fn != "fit":
            checkpoint["state_dict"] = lightning_ckpt.ema_state(checkpoint, "the checkpoint")

    def on_predict_start(self) -> None:
        """Raises UsageError where there is nothing to play, DependencyError where a part or the tagger is missing."""
        path = self.trainer.ckpt_path
        if self.model is None:
            if self._start is None or self._conditioner is not None:
                raise UsageError("nothing has been learned yet: give --ckpt_path, a checkpoint that training has saved")
            self.model = checkpoints.V2M.from_pretrained(self._start, device=self.device, dtype=torch.float32)
        name = Path(path).name if path else self._start or "in memory"
        self._score = build_predictor(
            self.made.eval(), name, self.tagger, self.scoring, device=self.device, chosen=self.chosen
        )

    def predict_step(self, batch: list[VideoJob], _: int) -> list[VideoResult]:
        """Each video with music in its folder, as `v2m.pipeline.batch.process_video` has it."""
        assert self._score is not None, "on_predict_start has made it"
        return [self._score(turn) for turn in batch]

    def on_predict_end(self) -> None:
        self._score = None  # and with it the decoder's copy of the weights
