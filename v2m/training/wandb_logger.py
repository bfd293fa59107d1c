"""Weights & Biases that never stops a run: without a key, or without its server, it keeps its records here."""

from __future__ import annotations

import logging
import netrc
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers import WandbLogger

DEFAULT_URL = "https://api.wandb.ai"
REACH_TIMEOUT_S = 8.0  # seconds in which the server must answer, and then take the run
FINISH_TIMEOUT_S = 120.0  # seconds at the end for what is still to be sent
OFFLINE_INIT_TIMEOUT_S = (
    120.0  # in which W&B's own process must have begun where there is no server: a busy machine is slow
)

logger = logging.getLogger(__name__)


class ResilientWandbLogger(WandbLogger):
    """Lightning's logger, offline where it cannot be online: `wandb sync` sends what was kept.

    Args:
        project: Its name there.
        name: Of the run.
        save_dir: Where records are kept.
        given: What else WandbLogger takes.
    """

    def __init__(
        self, project: str = "v2m", name: str | None = None, save_dir: str = "checkpoints", **given: Any
    ) -> None:
        address = os.environ.get("WANDB_BASE_URL", DEFAULT_URL)
        why = None if given.get("offline") or os.environ.get("WANDB_MODE") else unreachable(address)
        if why:
            logger.warning("W&B keeps its records in %s (%s); `wandb sync` sends them", save_dir, why)
            given["offline"] = True
        Path(save_dir).mkdir(parents=True, exist_ok=True)
        settings = given.get("settings") or {}
        if isinstance(settings, Mapping):
            alone = given.get("offline") or os.environ.get("WANDB_MODE", "online") != "online"
            wait = OFFLINE_INIT_TIMEOUT_S if alone else REACH_TIMEOUT_S
            given["settings"] = {"init_timeout": wait, "finish_timeout": FINISH_TIMEOUT_S, **settings}
        super().__init__(project=project, name=name, save_dir=save_dir, **given)
        if self._wandb_init.get("anonymous") is None:  # what is no longer there is warned of even so
            self._wandb_init.pop("anonymous", None)
        self._ailing, self._untold = False, list[Any]()

    @property
    def experiment(self) -> Any:
        """The run, begun on first use; offline where its server does not take it."""
        try:
            return super().experiment
        except Exception as error:  # of any kind: no record is worth a run
            if self._offline or self._experiment is not None:
                raise
            said = " ".join(str(error).split())[:200]
            logger.warning("W&B does not take the run (%s): its records are kept in %s", said, self.save_dir)
            self._offline = True
            self._wandb_init["mode"] = "offline"
            settings = self._wandb_init.get("settings")
            if isinstance(settings, dict) and settings["init_timeout"] == REACH_TIMEOUT_S:
                settings["init_timeout"] = OFFLINE_INIT_TIMEOUT_S
            return super().experiment

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        while self._untold and self._try(super().log_hyperparams, self._untold[0]):
            self._untold.pop(0)
        self._try(super().log_metrics, metrics, step)

    def log_hyperparams(self, params: Any) -> None:
        if not self._try(super().log_hyperparams, params):
            self._untold.append(params)  # the configuration comes once, and figures many times

    def _try(self, record: Callable[..., None], *given: Any) -> bool:
        """Whether it was recorded. What cannot be is told once."""
        try:
            record(*given)
        except Exception as error:
            if not self._ailing:
                logger.warning("W&B records no more (%s: %s): training goes on", type(error).__name__, error)
            self._ailing = True
            return False
        return True


def unreachable(address: str) -> str | None:
    """Why records cannot be sent to `address`, within `PATIENCE`; None where they can."""
    host = urlsplit(address).hostname or ""
    if not os.environ.get("WANDB_API_KEY") and not _kept(host):
        return "there is no key"
    found: list[bool] = []

    def reach() -> None:
        try:
            urllib.request.urlopen(address, timeout=REACH_TIMEOUT_S).close()  # noqa: S310 - where W&B itself would go
        except urllib.error.HTTPError:  # an answer as well
            pass
        except (OSError, ValueError, HTTPException):
            return
        found.append(True)

    thread = threading.Thread(target=reach, daemon=True)  # names can take longer to look up than any limit
    thread.start()
    thread.join(REACH_TIMEOUT_S)
    return None if found else f"{host} does not answer"


def _kept(host: str) -> bool:
    """Whether `wandb login` left a key."""
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
