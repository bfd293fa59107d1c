"""Weights by name: from a local folder, `checkpoints/`, or the hub on first use; and their SHA-256."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

from v2m.core.atomic import atomic_write
from v2m.core.errors import DependencyError
from v2m.core.types import WeightsInfo
from v2m.pretrained.file_patterns import (
    COMMIT,
    card_license,
    checkpoint_folders,
    folder_revision,
    list_files,
    missing_files,
)

logger = logging.getLogger(__name__)

WEIGHT_SUFFIXES = {".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".th"}
SHA256 = re.compile(r"[0-9a-f]{64}")
_announced: set[str] = set()
REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*(@\w[\w./-]*)?")


def fetch(
    name: str, patterns: Sequence[str], *, license: str | None = None, download_size: int | None = None
) -> WeightsInfo:
    """Return the folder that holds `name`, downloading it if needed.

    Args:
        name: A local folder; or a repository of the Hugging Face hub, "owner/name" or "owner/name@revision", which is
            looked for in `checkpoints/name`, then in the hub's cache, and is downloaded if it is in neither.
        patterns: The files that are needed (see `v2m.pretrained.file_patterns`); no others are downloaded.
        license: The weights' license as the caller knows it, for model cards that name none.
        download_size: Bytes of those files as the caller knows them, for messages when the hub cannot be asked.

    Raises:
        DependencyError: The weights are not here and cannot be fetched; says which, how large, where to put them.
        DiskFullError: The disk has no room for them.
    """
    local = find_local(name, patterns, license=license)
    if local is not None:
        return local
    from v2m.pretrained import hub

    repo, _, pinned = name.partition("@")
    folder = hub.download(repo, pinned or "main", patterns, license=license, download_size=download_size)
    return WeightsInfo(name, folder, folder.name, card_license(folder) or license)


def find_local(name: str, patterns: Sequence[str], *, license: str | None = None) -> WeightsInfo | None:
    """Find weights as `fetch` does, without a download: None where they are not on this machine.

    Raises:
        DependencyError: A folder of that name is here and lacks files, or `name` is neither a folder nor a repository.
    """
    folder = _find_folder(name)
    if folder is not None:
        absent = missing_files(folder, patterns)
        if absent:
            raise DependencyError(f"{str(folder)!r} lacks {', '.join(absent)}: complete that folder, or move it away")
        return WeightsInfo(name, folder, folder_revision(folder), card_license(folder) or license)
    if not REPOSITORY.fullmatch(name):
        raise DependencyError(
            f"there is no folder {name!r}: give a folder that exists, or a repository of the hub as owner/name"
        )
    from v2m.pretrained import hub

    repo, _, pinned = name.partition("@")
    folder = hub.find_cached(repo, pinned or "main", patterns)
    return folder and WeightsInfo(name, folder, folder.name, card_license(folder) or license)


def announce_license(weights: WeightsInfo) -> None:
    """Print the license of the weights on stderr, one line, once for each."""
    line = f"weights {weights.name}; license: {weights.license or 'not stated: see their page'}"
    if line not in _announced:
        from tqdm import tqdm

        _announced.add(line)
        tqdm.write(line, file=sys.stderr)


def sha256_files(folder: Path) -> dict[str, str]:
    """SHA-256 of each weight file in `folder`, by its name relative to it.

    A file is hashed once: the hash stays in the user's cache until the file's size or modification time changes.
    """
    cache = _read_hash_cache()
    hashes: dict[str, str] = {}
    new_entries: dict[str, list[Any]] = {}
    for name in (name for name in list_files(folder) if Path(name).suffix in WEIGHT_SUFFIXES):
        path = (folder / name).resolve()
        if path.parent.name == "blobs" and SHA256.fullmatch(path.name):  # the hub's cache names large files so
            hashes[name] = path.name
            continue
        state = path.stat()
        entry = cache.get(str(path))
        if not (isinstance(entry, list) and len(entry) == 3 and entry[:2] == [state.st_size, state.st_mtime_ns]):
            with _open_readable(path) as file:
                entry = [state.st_size, state.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest()]
            new_entries[str(path)] = entry
        hashes[name] = entry[2]
    if new_entries:
        _write_hash_cache(new_entries)
    return hashes


def _find_folder(name: str) -> Path | None:
    """The folder on this machine for `name`, or None."""
    plain = Path(name).expanduser()
    if name and plain.is_dir():
        return plain
    repo, _, pinned = name.partition("@")
    if not Path(repo).name or Path(repo).is_absolute() or ".." in Path(repo).parts:
        return None
    for folder in (root / relative for root in checkpoint_folders() for relative in (repo, Path(repo).name)):
        if folder.is_dir():
            revision = folder_revision(folder)
            if COMMIT.fullmatch(pinned) and revision not in {None, pinned}:
                logger.warning("%s holds revision %s, not %s as asked for", folder, revision, pinned)
            return folder
    return None


def _open_readable(path: Path) -> BufferedReader:
    try:
        return path.open("rb")
    except PermissionError:
        raise DependencyError(f"{str(path)!r} may not be read: change its permissions") from None


def _hash_cache_path() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "v2m" / "digests.json"


def _read_hash_cache() -> dict[str, Any]:
    with suppress(OSError, ValueError, RuntimeError):  # RuntimeError: no home folder
        cache = json.loads(_hash_cache_path().read_text(encoding="utf-8"))
        return cache if isinstance(cache, dict) else {}
    return {}


def _write_hash_cache(entries: dict[str, list[Any]]) -> None:
    """Add entries to the hash cache, atomically; a cache that cannot be written to is skipped."""
    with suppress(OSError, RuntimeError):
        path = _hash_cache_path()
        cache = {name: entry for name, entry in _read_hash_cache().items() if Path(name).is_file()} | entries
        with atomic_write(path) as file:
            file.write(json.dumps(cache, indent=1).encode())
