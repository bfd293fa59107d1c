"""A folder for each request, which is gone when its person has left, at the latest after some time."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
import uuid
from pathlib import Path


class Rooms:
    """Folders with names that nobody can guess.

    Args:
        minutes: After which a folder is removed.
    """

    def __init__(self, minutes: float = 60.0) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="v2m-page-"))
        self.uploads = self.root / "uploads"  # Gradio's, which clears it by itself
        self._rooms = self.root / "rooms"
        self._rooms.mkdir()
        self.minutes = minutes
        self._of: dict[str, list[Path]] = {}
        self._lock = threading.Lock()

    def new(self, owner: str) -> Path:
        """An empty folder of `owner`; those that have had their time are removed."""
        self.sweep()
        room = self._rooms / uuid.uuid4().hex
        room.mkdir()
        with self._lock:
            self._of.setdefault(owner, []).append(room)
        return room

    def leave(self, owner: str) -> None:
        """Removes the folders of `owner`."""
        with self._lock:
            rooms = self._of.pop(owner, [])
        for room in rooms:
            shutil.rmtree(room, ignore_errors=True)

    def sweep(self) -> None:
        old = time.time() - 60 * self.minutes
        for room in self._rooms.iterdir():
            if room.is_dir() and room.stat().st_mtime < old:
                shutil.rmtree(room, ignore_errors=True)

    def close(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
