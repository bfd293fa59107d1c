"""The configuration of a run and the sizes of its model, for the logger and beside the checkpoints."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning
import yaml
from lightning.pytorch.cli import SaveConfigCallback

from v2m.data.module import attached_shards
from v2m.training.module import LitMusicLM

SECRET_NAMES = re.compile(r"(?i)(api|access|private|auth)_?key|(^|_)(token|secret|password|passwd|credentials?)$")
REDACTED = "(not recorded)"
MIN_SECRET_LENGTH = 8  # characters of an environment variable that counts as a secret


class SaveConfig(SaveConfigCallback):
    """Save the configuration in default_root_dir; log it with the sizes of model and shards."""

    def __init__(self, parser: Any, config: Any, **kwargs: Any) -> None:
        kwargs["save_to_log_dir"] = False
        super().__init__(parser, config, **kwargs)

    def save_config(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:  # noqa: ARG002
        config = redact_secrets(yaml.safe_load(self.parser.dump(self.config, skip_none=False)))
        root = Path(trainer.default_root_dir)
        root.mkdir(parents=True, exist_ok=True)
        (root / self.config_filename).write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        _log_hyperparams(trainer, config)

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        model = pl_module.model if isinstance(pl_module, LitMusicLM) else None
        info: dict[str, Any] = {"world_size": trainer.world_size}
        if model is not None:
            parameters = list(model.parameters())
            info |= {"model": model.config.to_dict(), "origin": model.origin, "license": model.license}
            info["parameters"] = sum(value.numel() for value in parameters)
            info["trainable_parameters"] = sum(value.numel() for value in parameters if value.requires_grad)
        data = attached_shards(trainer)
        if data is not None:
            manifest = data.manifest
            shards = {name: value for name, value in asdict(manifest).items() if name not in {"shards", "dropped"}}
            info["shards"] = shards | {"samples": manifest.num_samples, "hours": round(manifest.duration / 3600, 3)}
        _log_hyperparams(trainer, {"model_info": info})


def redact_secrets(value: Any, name: str = "") -> Any:
    """Return plain values without those named like a secret, and without secrets of the environment."""
    if isinstance(value, Mapping):
        return {key: redact_secrets(item, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_secrets(item) for item in value]
    if not isinstance(value, str):
        return value
    if SECRET_NAMES.search(name):
        return REDACTED
    for variable, secret in os.environ.items():
        if re.search(r"(?i)KEY|TOKEN|SECRET|PASSW", variable) and len(secret) >= MIN_SECRET_LENGTH:
            value = value.replace(secret, REDACTED)
    return re.sub(r"(?<=://)[^/@\s]+@", "", value)  # a password in an address


def _log_hyperparams(trainer: lightning.Trainer, params: Mapping[str, Any]) -> None:
    for logger in trainer.loggers:
        logger.log_hyperparams(dict(params))
