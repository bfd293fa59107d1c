"""What a run was told and what came of it, for its logger and beside its checkpoints."""

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

from v2m.data.schema import Manifest

SECRET_NAMES = re.compile(
    r"(api|access|private|auth)_?key|(^|_)(token|secret|password|passwd|credentials?)$", re.IGNORECASE
)
REDACTED = "(not recorded)"
MIN_SECRET_LENGTH = 8  # characters of a secret that is looked for


class SaveConfig(SaveConfigCallback):
    """The whole configuration of the command, as config.yaml in the trainer's default_root_dir and to every logger;
    there also the sizes of the model that was made and what its shards hold."""

    def __init__(self, parser: Any, config: Any, **given: Any) -> None:
        given["save_to_log_dir"] = False
        super().__init__(parser, config, **given)

    def save_config(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:  # noqa: ARG002
        plain = redact_secrets(yaml.safe_load(self.parser.dump(self.config, skip_none=False)))
        root = Path(trainer.default_root_dir)
        root.mkdir(parents=True, exist_ok=True)
        (root / self.config_filename).write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")
        _log_hyperparams(trainer, plain)

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        made: Any = getattr(pl_module, "model", None)
        about: dict[str, Any] = {"world_size": trainer.world_size}
        if made is not None:
            weights = list(made.parameters())
            about |= {"model": made.config.plain, "origin": made.origin, "license": made.license}
            about["weights"] = sum(value.numel() for value in weights)
            about["weights_that_learn"] = sum(value.numel() for value in weights if value.requires_grad)
        manifest = getattr(getattr(trainer, "datamodule", None), "manifest", None)
        if isinstance(manifest, Manifest):
            held = {name: value for name, value in asdict(manifest).items() if name not in {"shards", "dropped"}}
            about["shards"] = held | {"samples": manifest.samples, "hours": round(manifest.seconds / 3600, 3)}
        _log_hyperparams(trainer, {"made": about})


def redact_secrets(value: Any, name: str = "") -> Any:
    """Plain values without what is named like a key or a password, and without the secrets of the environment."""
    if isinstance(value, Mapping):
        return {key: redact_secrets(each, str(key)) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [redact_secrets(each) for each in value]
    if not isinstance(value, str):
        return value
    if SECRET_NAMES.search(name):
        return REDACTED
    for each in _environment_secrets():
        value = value.replace(each, REDACTED)
    return re.sub(r"(?<=://)[^/@\s]+@", "", value)  # a password in an address


def _environment_secrets() -> list[str]:
    kinds = re.compile(r"KEY|TOKEN|SECRET|PASSW", re.IGNORECASE)
    return [value for name, value in os.environ.items() if kinds.search(name) and len(value) >= MIN_SECRET_LENGTH]


def _log_hyperparams(trainer: lightning.Trainer, plain: Mapping[str, Any]) -> None:
    for logger in trainer.loggers:
        logger.log_hyperparams(dict(plain))
