"""Processes of `multiprocessing` that end with the process that started them."""

from __future__ import annotations

import os
import threading
from multiprocessing import parent_process

EXIT_CODE = 143  # as after SIGTERM


def exit_with_parent() -> None:
    """End this process as soon as its parent has ended, even by SIGKILL; nothing where it has none."""
    parent = parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(EXIT_CODE)

    threading.Thread(target=wait, daemon=True).start()
