"""Capture of logged warnings, for the sidecar and the command line."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class _ListHandler(logging.Handler):
    def __init__(self, kept: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        message = " ".join(record.getMessage().split())
        if message not in self.kept:
            self.kept.append(message)


@contextmanager
def capture_warnings() -> Iterator[list[str]]:
    """The warnings logged below the logger `v2m` inside the block: one line each, and each once."""
    kept: list[str] = []
    handler, logger = _ListHandler(kept), logging.getLogger("v2m")
    logger.addHandler(handler)
    try:
        yield kept
    finally:
        logger.removeHandler(handler)
