"""A W&B logger that never stops training: W&B's offline mode keeps what cannot be sent.

Lightning's WandbLogger lets an error of W&B, whose server may be away for a night, end the run that it only reports on.
"""

from __future__ import annotations

import logging
import netrc
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers import Logger, WandbLogger

from v2m.core import compat
from v2m.core.errors import error_text
from v2m.evaluation import tables
from v2m.evaluation.per_clip import Row
from v2m.evaluation.tables import Baselines

ONLINE_INIT_TIMEOUT_S = 8.0  # in which the server must take the run
OFFLINE_INIT_TIMEOUT_S = 120.0  # in which W&B's own process must have started: a busy machine is slow
FINISH_TIMEOUT_S = 120.0  # at the end, for what is still to be sent
Systems = Mapping[str, Mapping[str, Row]]

logger = logging.getLogger(__name__)


class ResilientWandbLogger(WandbLogger):
    """Lightning's logger, offline where it cannot be online: `wandb sync` sends the records later.

    Args:
        project: Name of the project at W&B.
        name: Name of the run.
        save_dir: Folder of the records.
        kwargs: Any other argument of WandbLogger.
    """

    def __init__(
        self, project: str = "v2m", name: str | None = None, save_dir: str = "checkpoints", **kwargs: Any
    ) -> None:
        offline = kwargs.get("offline") or os.environ.get("WANDB_MODE", "online") != "online"
        if not offline and not _has_api_key():
            logger.warning("W&B keeps its records in %s (there is no key); `wandb sync` sends them", save_dir)
            offline = kwargs["offline"] = True
        if offline:
            kwargs.setdefault("mode", "offline")  # Lightning's `offline` is an environment variable, read once
        Path(save_dir).mkdir(parents=True, exist_ok=True)
        settings = kwargs.get("settings") or {}
        if isinstance(settings, Mapping):
            timeout = OFFLINE_INIT_TIMEOUT_S if offline else ONLINE_INIT_TIMEOUT_S
            kwargs["settings"] = {"init_timeout": timeout, "finish_timeout": FINISH_TIMEOUT_S, **settings}
        super().__init__(project=project, name=name, save_dir=save_dir, **kwargs)
        arguments = compat.wandb_init_arguments(self)
        if arguments.get("anonymous") is None:  # W&B warns of this removed argument even if it is None
            arguments.pop("anonymous", None)
        self._failed, self._unlogged_params = False, list[Any]()

    @property
    def experiment(self) -> Any:
        """The run, started on first use; offline if the server does not take it."""
        try:
            return super().experiment
        except Exception as error:  # of any kind: no record is worth a run
            if compat.wandb_offline(self) or compat.wandb_run_started(self):
                raise
            message = error_text(error, 200)
            logger.warning("W&B does not take the run (%s): its records are kept in %s", message, self.save_dir)
            compat.set_wandb_offline(self)
            settings = compat.wandb_init_arguments(self).get("settings")
            if isinstance(settings, dict) and settings["init_timeout"] == ONLINE_INIT_TIMEOUT_S:
                settings["init_timeout"] = OFFLINE_INIT_TIMEOUT_S
            return super().experiment

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        while self._unlogged_params and self._try(super().log_hyperparams, self._unlogged_params[0]):
            self._unlogged_params.pop(0)
        self._try(super().log_metrics, metrics, step)

    def log_hyperparams(self, params: Any) -> None:
        if not self._try(super().log_hyperparams, params):
            self._unlogged_params.append(params)  # the configuration comes once, and metrics many times

    def _try(self, log: Callable[..., None], *args: Any) -> bool:
        """Return whether `log` succeeded; only the first failure is reported."""
        try:
            log(*args)
        except Exception as error:
            if not self._failed:
                logger.warning("W&B records no more (%s: %s): training goes on", type(error).__name__, error)
            self._failed = True
            return False
        return True


def _has_api_key() -> bool:
    """Return whether there is a key: W&B asks for a missing one at the terminal, and training would wait."""
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return bool(os.environ.get("WANDB_API_KEY")) or netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def log_to_wandb(project: str, systems: Systems, baselines: Baselines) -> None:
    """Log the tables of an evaluation to a W&B run of their own, kept in ./wandb where it cannot be sent."""
    folder = str(Path.cwd())  # W&B's own process may have started in another folder
    wandb_logger = ResilientWandbLogger(project=project, save_dir=folder, job_type="metrics")
    log_tables([wandb_logger], systems, baselines, prefix="metrics")
    wandb_logger.experiment.finish()


def log_tables(
    loggers: Sequence[Logger], systems: Systems, baselines: Baselines, *, prefix: str, step: int | None = None
) -> None:
    """Log means as `prefix`/metric, and tables to W&B; a logger that fails does not stop the others."""
    values = {}
    for name, columns in tables.summarize(systems, baselines).items():
        for system, mean in columns.items():
            suffix = "" if len(systems) == 1 and system in systems else f"/{system}"
            values[f"{prefix}/{name}{suffix}"] = mean.value
    for target in loggers:
        try:
            target.log_metrics(values, step)
            if isinstance(target, WandbLogger):
                columns, rows = tables.clip_rows(systems, baselines)
                target.log_table(f"{prefix}/clips", columns, rows, step=step)
                summary = tables.summary_rows(systems, baselines)
                target.log_table(f"{prefix}/summary", tables.SUMMARY_HEADER, summary, step=step)
        except Exception as error:
            logger.warning("%s did not log the tables (%s: %s)", type(target).__name__, type(error).__name__, error)
