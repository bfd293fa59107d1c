"""Where weights come from: a local folder, `checkpoints/`, or the hub on first use; and what identifies them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sys
import uuid
from collections.abc import Sequence
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

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
    """The folder that holds `name`.

    Args:
        name: A local folder; or a repository of the Hugging Face hub, "owner/name" or "owner/name@revision", which is
            looked for in `checkpoints/name`, then in the hub's cache, and is downloaded if it is in neither.
        files: Patterns of the files that are needed; the others are not downloaded. "a|b" means b where there is no a,
            "a|" nothing where there is no a.
        license: The weights' license, as far as the caller knows: said where the model card does not say it.
        size: Bytes of those files, as far as the caller knows: said where the hub cannot be asked.

    Raises:
        MissingError: The weights are not here and cannot be fetched; says which, how large, where to put them.
        NoRoomError: The disk has no room for them.
    """
    found = find_local(name, patterns, license=license)
    if found is not None:
        return found
    from v2m.pretrained import hub

    repo, _, pinned = name.partition("@")
    folder = hub.download(repo, pinned or "main", patterns, license=license, download_size=download_size)
    return WeightsInfo(name, folder, folder.name, card_license(folder) or license)


def find_local(name: str, patterns: Sequence[str], *, license: str | None = None) -> WeightsInfo | None:
    """As `fetch`, but downloads nothing: None where the weights are not on this machine.

    Raises:
        MissingError: A folder of that name is here and lacks files, or `name` is neither a folder nor a repository.
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
    """One line on stderr, once for each, that says under which license the weights are."""
    line = f"weights {weights.name}; license: {weights.license or 'not stated: see their page'}"
    if line not in _announced:
        from tqdm import tqdm

        _announced.add(line)
        tqdm.write(line, file=sys.stderr)


def sha256_files(folder: Path) -> dict[str, str]:
    """SHA-256 of each weight file in `folder`, by its name relative to it.

    A file is hashed once: what was found is kept in the user's cache, until its size or time changes.
    """
    known = _read_hash_cache()
    found: dict[str, str] = {}
    fresh: dict[str, list[Any]] = {}
    for name in (each for each in list_files(folder) if Path(each).suffix in WEIGHT_SUFFIXES):
        path = (folder / name).resolve()
        if path.parent.name == "blobs" and SHA256.fullmatch(path.name):  # the hub's cache names large files so
            found[name] = path.name
            continue
        state = path.stat()
        entry = known.get(str(path))
        if not (isinstance(entry, list) and len(entry) == 3 and entry[:2] == [state.st_size, state.st_mtime_ns]):
            with _open_readable(path) as file:
                entry = [state.st_size, state.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest()]
            fresh[str(path)] = entry
        found[name] = entry[2]
    if fresh:
        _write_hash_cache(fresh)
    return found


def _find_folder(name: str) -> Path | None:
    """The folder on this machine that `name` means, or None."""
    plain = Path(name).expanduser()
    if name and plain.is_dir():
        return plain
    repo, _, pinned = name.partition("@")
    if not Path(repo).name or Path(repo).is_absolute() or ".." in Path(repo).parts:
        return None
    for folder in (root / each for root in checkpoint_folders() for each in (repo, Path(repo).name)):
        if folder.is_dir():
            there = folder_revision(folder)
            if COMMIT.fullmatch(pinned) and there not in {None, pinned}:
                logger.warning("%s holds revision %s, not %s as asked for", folder, there, pinned)
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
        known = json.loads(_hash_cache_path().read_text(encoding="utf-8"))
        return known if isinstance(known, dict) else {}
    return {}


def _write_hash_cache(entries: dict[str, list[Any]]) -> None:
    """Adds to what is remembered, whole or not at all; a cache that cannot be written to is done without."""
    with suppress(OSError, RuntimeError):
        path = _hash_cache_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = {name: entry for name, entry in _read_hash_cache().items() if Path(name).is_file()} | entries
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            temporary.write_text(json.dumps(kept, indent=1), encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
