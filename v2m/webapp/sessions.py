"""Folders of each visitor's session, removed when the visitor has left, at the latest after some time."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
import uuid
from pathlib import Path


class SessionFolders:
    """Folders with names that nobody can guess, removed at the age of `max_minutes`."""

    def __init__(self, max_minutes: float = 60.0) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="v2m-page-"))
        self.uploads = self.root / "uploads"  # Gradio's, which clears it by itself
        self._folders = self.root / "sessions"
        self._folders.mkdir()
        self.max_minutes = max_minutes
        self._by_session: dict[str, list[Path]] = {}
        self._lock = threading.Lock()

    def create(self, session: str) -> Path:
        """Return a new empty folder for `session`; expired ones are removed."""
        self.remove_expired()
        folder = self._folders / uuid.uuid4().hex
        folder.mkdir()
        with self._lock:
            self._by_session.setdefault(session, []).append(folder)
        return folder

    def remove(self, session: str) -> None:
        """Remove the folders of `session`."""
        with self._lock:
            folders = self._by_session.pop(session, [])
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)

    def remove_expired(self) -> None:
        oldest = time.time() - 60 * self.max_minutes
        for folder in self._folders.iterdir():
            if folder.is_dir() and folder.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
