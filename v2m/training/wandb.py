"""Weights & Biases that never stops a run: without a key, or without its server, it keeps its records here."""

from __future__ import annotations

import logging
import netrc
import os
import socket
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lightning.pytorch.loggers import WandbLogger

HOME = "https://api.wandb.ai"
PATIENCE = 8.0  # seconds

logger = logging.getLogger(__name__)


class Wandb(WandbLogger):
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
        address = os.environ.get("WANDB_BASE_URL", HOME)
        why = None if given.get("offline") or os.environ.get("WANDB_MODE") else unreachable(address)
        if why:
            logger.warning("W&B keeps its records in %s (%s); `wandb sync` sends them", save_dir, why)
            given["offline"] = True
        Path(save_dir).mkdir(parents=True, exist_ok=True)
        super().__init__(project=project, name=name, save_dir=save_dir, **given)


def unreachable(address: str) -> str | None:
    """Why records cannot be sent to `address`, within `PATIENCE`; None where they can."""
    parts = urlsplit(address)
    host, port = parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
    if not os.environ.get("WANDB_API_KEY") and not _kept(host):
        return "there is no key"
    found: list[bool] = []

    def reach() -> None:
        try:
            socket.create_connection((host, port), timeout=PATIENCE).close()
            found.append(True)
        except OSError:
            pass

    thread = threading.Thread(target=reach, daemon=True)  # names can take longer to look up than any limit
    thread.start()
    thread.join(PATIENCE)
    return None if found else f"{host} does not answer"


def _kept(host: str) -> bool:
    """Whether `wandb login` left a key."""
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
