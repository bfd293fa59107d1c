"""Where weights come from: a local folder, `checkpoints/`, or the hub on first use."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from v2m.errors import MissingError
from v2m.types import Weights


def fetch(name: str, files: Sequence[str], *, licence: str | None = None, size: int | None = None) -> Weights:
    """The folder that holds `name`.

    Args:
        name: A local folder; or a repository of the Hugging Face hub, "owner/name" or "owner/name@revision", which is
            looked for in `checkpoints/name`, then in the hub's cache, and is downloaded if it is in neither.
        files: Patterns of the files that are needed; the others are not downloaded.
        licence: The weights' licence, as far as the caller knows: said before the download.
        size: Bytes of those files, as far as the caller knows: said where the hub cannot be asked.

    Raises:
        MissingError: The weights are not here and cannot be fetched; says which, how large, where to put them.
    """
    folder = Path(name)
    if folder.is_dir():
        return Weights(name, folder, licence=licence)
    raise MissingError(f"weights {name!r} are not a folder ({files}, {size})")


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each weight file in `folder`, by its name relative to it."""
    found = {}
    for path in sorted(each for each in folder.rglob("*") if each.suffix in {".safetensors", ".pth", ".bin"}):
        with path.open("rb") as file:
            found[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
