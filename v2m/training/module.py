"""Lightning module that trains the music language model and the visual conditioner.

B batch, K codebooks, T codec frames, S steps of the delay pattern, V codebook entries.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from v2m import checkpoints
from v2m.checkpoints import Component, VisualInputConfig, lightning_ckpt
from v2m.checkpoints.lightning_ckpt import check_adapters
from v2m.core import compat
from v2m.core.errors import DependencyError, UsageError
from v2m.data.collate import Batch
from v2m.data.module import attached_shards
from v2m.data.schema import Manifest
from v2m.models import lora as lora_layers
from v2m.models import losses
from v2m.models.lm import LMConfig
from v2m.models.lora import LoRAConfig
from v2m.models.music_model import MusicConfig
from v2m.models.visual_conditioner import ConditionerConfig
from v2m.training import fsdp
from v2m.training.optim import OptimConfig, param_groups

logger = logging.getLogger(__name__)


class LitMusicLM(lightning.LightningModule):
    """Train the language model and the visual conditioner on shards.

    Args:
        init_from: Checkpoint to start from, a folder or a repository of the hub; None starts from random weights, with
            `lm`.
        lm: Sizes of the language model, without `init_from`; codebooks and channels are those of the shards.
        conditioner: Sizes of a new visual conditioner, for the frames of the shards; None keeps the one of
            `init_from`.
        text_dim: None trains without text, without `init_from`; any number stands for the width of the shards.
        window: Seconds of music that the model learns to write in one go; the data's.
        optim: Optimizer and learning-rate schedule.
        text_dropout, video_dropout: Share of clips without their text or video, for classifier-free guidance.
        lora: Train low-rank adapters of the language model of `init_from`, which stays as it is; None trains it whole.
        gradient_checkpointing: Recompute each layer in the backward pass, which saves memory.
        compile: Let PyTorch compile the language model's layers, which takes a while at the first step.
    """

    def __init__(
        self,
        init_from: str | None = None,
        *,
        lm: LMConfig | None = None,
        conditioner: ConditionerConfig | None = None,
        text_dim: int | None = 768,
        window: float = 30.0,
        optim: OptimConfig = OptimConfig(),
        text_dropout: float = 0.2,
        video_dropout: float = 0.2,
        lora: LoRAConfig | None = None,
        gradient_checkpointing: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        rates = {"text_dropout": text_dropout, "video_dropout": video_dropout}
        problems = [f"{name} {rate:g} must lie in 0–1" for name, rate in rates.items() if not 0 <= rate <= 1]
        if init_from is not None and lm is not None:
            problems.append("give init_from or lm, not both")
        if lora is not None and init_from is None:
            problems.append("lora adapts an existing model: give init_from")
        if problems:
            raise UsageError("model: " + "; ".join(problems))
        self._init_from, self._conditioner, self._window = init_from, conditioner, window
        self._config = MusicConfig(lm or LMConfig(), text_dim, conditioner=conditioner, segment_duration=window)
        self.optim_config, self.gradient_checkpointing, self.compiled = optim, gradient_checkpointing, compile
        self.lora, self.base_sha256 = lora, ""
        self.strict_loading = lora is None  # the frozen base is in no checkpoint
        self.text_dropout, self.video_dropout = text_dropout, video_dropout
        self.model: checkpoints.V2M | None = None  # built by setup: its name is part of the keys in a checkpoint

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Build the model and check that the shards fit it.

        Raises DependencyError where `init_from` cannot be read, UsageError where the shards, the strategy or the
        precision do not fit.
        """
        fsdp.check_strategy(self.trainer)
        data = attached_shards(self.trainer)
        manifest = None if data is None else data.manifest
        if self.model is None:
            if manifest is not None:
                self._size_from_manifest(manifest)
            self.model = self._load_init() if self._init_from else checkpoints.V2M(self._config)
            self.model.lm.gradient_checkpointing = self.gradient_checkpointing
            if self.lora is not None:
                mixed = self.trainer.precision == "bf16-mixed"
                self.base_sha256 = lora_layers.base_sha256(self.model.state_dict())
                lora_layers.inject_lora(self.model, self.lora, torch.bfloat16 if mixed else None)
            for layer in self.model.lm.layers if self.compiled else ():
                layer.compile()
        if manifest is not None:
            check_manifest(self.model.config, manifest)
            vision_encoder, _, pooling = manifest.vision_encoder.rpartition(":")
            names = {"vision_encoder": vision_encoder or pooling, "codec": manifest.codec}
            names |= {"text_encoder": manifest.text_encoder}
            components = {kind: Component(name) for kind, name in names.items()}
            check_components(self.model.components, components)
            self.model.components |= components
            self.model.sample_rate = manifest.sample_rate
            has_conditioner = self.model.config.conditioner is not None
            self.model.visual_input = _manifest_visual_input(manifest) if has_conditioner else None

    def configure_model(self) -> None:
        if self.model is not None:
            fsdp.apply_fsdp(self.model, self.trainer.strategy)

    def on_fit_start(self) -> None:
        parameters = list(self.music_model.parameters())
        trained = sum(value.numel() for value in parameters if value.requires_grad)
        rank_zero_info(f"{sum(value.numel() for value in parameters):,} parameters, of which {trained:,} are trained")

    def _size_from_manifest(self, manifest: Manifest) -> None:
        """Take the sizes of new parts that the shards decide."""
        if self._conditioner is not None:
            self._conditioner = replace(
                self._conditioner,
                num_tokens=manifest.num_tokens,
                vision_dim=manifest.vision_dim,
                num_event_channels=len(manifest.event_channels),
                codec_frame_rate=manifest.codec_frame_rate,
            )
        try:
            lm = replace(
                self._config.lm,
                num_codebooks=manifest.num_codebooks,
                codebook_size=manifest.codebook_size,
                channels=manifest.channels,
            )
        except ValueError as error:
            raise UsageError(f"model.lm does not go with {manifest.num_codebooks} codebooks: {error}") from error
        text_dim = None if self._config.text_dim is None else manifest.text_dim
        self._config = replace(self._config, lm=lm, text_dim=text_dim, conditioner=self._conditioner)

    def _load_init(self) -> checkpoints.V2M:
        """Return a model with the weights of `init_from`, and its conditioner or a new one."""
        assert self._init_from is not None
        source = checkpoints.V2M.from_pretrained(self._init_from, dtype=torch.float32)
        inputs = {"a melody": source.config.num_chroma, "a style": source.config.style}
        for name in (name for name, value in inputs.items() if value is not None):
            logger.warning("%s follows %s, which shards lack: it is trained without", self._init_from, name)
        config = replace(source.config, segment_duration=self._window)
        if self._conditioner is None or self._conditioner == config.conditioner:
            return source.train()
        components = {kind: value for kind, value in source.components.items() if kind != "vision_encoder"}
        config = replace(config, conditioner=self._conditioner)
        model = checkpoints.V2M(config, components=components, **source.provenance)
        state = {name: value for name, value in source.state_dict().items() if not name.startswith("conditioner.")}
        if unknown := ", ".join(model.load_state_dict(state, strict=False).unexpected_keys):
            raise DependencyError(f"{self._init_from!r} has weights that the model has no place for: {unknown}")
        return model

    @property
    def music_model(self) -> checkpoints.V2M:
        assert self.model is not None, "the model is built by setup"
        return self.model

    def forward(self, batch: Batch, drop_text: Tensor | None = None, drop_video: Tensor | None = None) -> Tensor:
        """Return logits (B, K, S − 1, V) of every step but the first; `drop_…` (B,) marks rows without."""
        lm = self.music_model.config.lm
        codes = losses.model_inputs(batch.codes, batch.lengths, lm.delay_pattern, lm.special_token_id)
        return self.music_model(codes, batch.text, batch.visual, drop_text, drop_video)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        drops = torch.rand(2, len(batch.codes)) < torch.tensor([[self.text_dropout], [self.video_dropout]])
        drop_text, drop_video = drops.to(batch.codes.device)
        delays = self.music_model.config.lm.delay_pattern
        logits = self(batch, drop_text, drop_video)
        loss = losses.codebook_cross_entropy(logits, batch.codes, batch.lengths, delays)
        self.log("train/loss", loss.mean, prog_bar=True, batch_size=len(batch.codes))
        for k, value in enumerate(loss.per_codebook):
            self.log(f"train/loss_{k}", value, batch_size=len(batch.codes))
        self.log("data/skipped", float(batch.num_skipped), reduce_fx="sum", batch_size=1)
        return loss.mean

    def validation_step(self, batch: Batch, _: int) -> None:
        self._log_losses("validation", batch)

    def test_step(self, batch: Batch, _: int) -> None:  # noqa: PT019 - not pytest's
        self._log_losses("test", batch)

    def _log_losses(self, stage: str, batch: Batch) -> None:
        """Log means over all codec frames, however they are spread over batches and ranks."""
        delays = self.music_model.config.lm.delay_pattern
        loss = losses.codebook_cross_entropy(self(batch), batch.codes, batch.lengths, delays)
        weight: Any = {"batch_size": int(batch.lengths.sum()), "on_epoch": True, "sync_dist": True}
        self.log(f"{stage}/loss", loss.mean, prog_bar=True, **weight)
        for k, value in enumerate(loss.per_codebook):
            self.log(f"{stage}/loss_{k}", value, **weight)

    def configure_optimizers(self) -> Any:
        config = self.optim_config
        total_steps = config.total_steps or self.trainer.max_steps
        if total_steps < 1:
            raise UsageError("the learning-rate schedule needs its number of steps: give `trainer.max_steps`")
        groups = param_groups(self.music_model, config)
        # fused: one pass over weights, gradients and moments, a third of the time of one tensor operation after another
        optimizer = AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)
        compat.allow_clipping(optimizer)
        scheduler = LambdaLR(optimizer, lambda step: config.lr_factor(step, total_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "lr"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Describe the model; with LoRA, leave out the base, which is named and known by its hash."""
        description = lightning_ckpt.describe_model(self.music_model)
        checkpoint[lightning_ckpt.EXPORT_KEY] = description | {"lora": self._lora_info}
        if self.lora is not None:
            state, prefix = checkpoint["state_dict"], lightning_ckpt.MODEL_PREFIX
            trained = [name for name in state if lora_layers.is_trainable(name.removeprefix(prefix))]
            checkpoint["state_dict"] = {name: state[name] for name in trained}

    def check_adapters(self, checkpoint: Mapping[str, Any]) -> None:
        """Raise UsageError where the checkpoint's adapters are not this model's."""
        check_adapters(checkpoint.get(lightning_ckpt.EXPORT_KEY, {}).get("lora"), self._lora_info)

    @property
    def _lora_info(self) -> dict[str, Any] | None:
        """Values that an export needs to merge the adapters into their base."""
        if self.lora is None:
            return None
        return {"init_from": self._init_from, "base_sha256": self.base_sha256, **asdict(self.lora)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Resume training with the weights as they are; validate, test and predict with the EMA weights.

        Raises UsageError for another model's adapters or sizes, DependencyError for no training checkpoint or a
        missing base.
        """
        if self.model is None:
            self.model = lightning_ckpt.build_model(checkpoint, "the checkpoint")
            state = lightning_ckpt.model_state(checkpoint, "the checkpoint")
            checkpoint["state_dict"] = {f"{lightning_ckpt.MODEL_PREFIX}{name}": value for name, value in state.items()}
            return
        self.check_adapters(checkpoint)
        lightning_ckpt.check_sizes(checkpoint, self.model)
        trainer = compat.attached_trainer(self)
        if trainer is None or trainer.state.fn != "fit":
            checkpoint["state_dict"] = lightning_ckpt.ema_state(checkpoint, "the checkpoint")


def check_manifest(config: MusicConfig, manifest: Manifest) -> None:
    """Raise UsageError, with all differences, where the shards do not suit a model of `config`."""
    lm, conditioner = config.lm, config.conditioner
    sizes = {
        "codebooks": (lm.num_codebooks, manifest.num_codebooks),
        "entries per codebook": (lm.codebook_size, manifest.codebook_size),
        "audio channels": (lm.channels, manifest.channels),
    }
    if config.text_dim is not None:
        sizes["dimensions per text token"] = config.text_dim, manifest.text_dim
    if conditioner is not None:
        sizes["tokens per frame"] = conditioner.num_tokens, manifest.num_tokens
        sizes["dimensions per vision token"] = conditioner.vision_dim, manifest.vision_dim
    if conditioner is not None and conditioner.kind != "vidmuse":
        sizes["event channels"] = conditioner.num_event_channels, len(manifest.event_channels)
        sizes["codec frames per second"] = conditioner.codec_frame_rate, manifest.codec_frame_rate
    differences = [
        f"{of_shards} {name} where the model has {of_model}"
        for name, (of_model, of_shards) in sizes.items()
        if of_model != of_shards
    ]
    if differences:
        encoders = f"vision {manifest.vision_encoder}, codec {manifest.codec}, text {manifest.text_encoder}"
        cure = "change the model's settings, or prepare with other encoders"
        raise UsageError(f"the shards ({encoders}) are not for this model: {', '.join(differences)}; {cure}")


def check_components(trained_with: Mapping[str, Component], prepared_with: Mapping[str, Component]) -> None:
    """Raise UsageError where the shards have other frozen components than a model was trained with.

    They are compared by their last names, so that a folder may stand for a repository; those without names are not.
    """
    named = {kind: component for kind, component in trained_with.items() if component.name and kind in prepared_with}
    differences = [
        f"{kind.replace('_', ' ')} {prepared_with[kind].name!r}, the start with {component.name!r}"
        for kind, component in named.items()
        if _base_name(component) != _base_name(prepared_with[kind])
    ]
    if differences:
        raise UsageError(f"the shards were made with the {', the '.join(differences)}: prepare with the start's")


def _base_name(component: Component) -> str:
    return (component.name or "").partition("@")[0].rstrip("/").rpartition("/")[2]


def _manifest_visual_input(manifest: Manifest) -> VisualInputConfig:
    """Return the config of the visual inputs of the shards."""
    return VisualInputConfig(
        pooling=manifest.vision_encoder.rpartition(":")[2],
        aspect=manifest.aspect,
        fps=manifest.video_frame_rate,
        num_long_term_frames=manifest.num_long_term_frames,
        event_rate=manifest.event_rate,
        event_channels=manifest.event_channels,
    )
