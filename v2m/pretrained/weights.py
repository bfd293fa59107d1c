"""Weights by name: from a local folder, `checkpoints/`, or the hub on first use; and their SHA-256.

A loader lists the files it needs as patterns; no others are downloaded. A pattern is one of huggingface_hub's
`allow_patterns`, a shell pattern over the path relative to the folder, and one file must match it:

* "config.json", "*.safetensors", "tokenizer/": that file, all such files, every file below that folder.
* "model.safetensors|pytorch_model.bin": alternatives; every file that matches the first one with any match.
* "preprocessor_config.json|": optional, an alternative that matches nothing.

Files in hidden folders (`.cache/…`) never match. Shards that a matched `*.index.json` lists are needed too.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from v2m.core.atomic import atomic_write
from v2m.core.disk_space import format_bytes
from v2m.core.errors import DependencyError, UsageError
from v2m.core.types import WeightsInfo

logger = logging.getLogger(__name__)

WEIGHT_SUFFIXES = {".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".th"}
MODEL_CARD = "README.md"  # fetched where there is one: it names the license
COMMIT, SHA256 = re.compile(r"[0-9a-f]{40}"), re.compile(r"[0-9a-f]{64}")
REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*(@\w[\w./-]*)?")
BUNDLED = Path(__file__).parent / "bundled"  # weights that v2m itself carries, by name
_announced: set[str] = set()


def fetch(
    name: str, patterns: Sequence[str], *, license: str | None = None, download_size: int | None = None
) -> WeightsInfo:
    """Return the folder that holds `name`, downloading it if needed.

    Args:
        name: A local folder; weights that v2m carries, by name; or a repository of the Hugging Face hub, "owner/name"
            or "owner/name@revision", which is looked for in `checkpoints/name`, then in the hub's cache, and is
            downloaded if it is in neither.
        patterns: The files that are needed (see above).
        license: License of the weights, for model cards that name none.
        download_size: Bytes of those files, for messages when the hub cannot be reached.

    Raises DependencyError that says which weights, how large, and where to put them; UsageError where `name` can be
    neither a folder nor a repository; DiskFullError without room.
    """
    local = find_local(name, patterns, license=license)
    if local is not None:
        return local
    from v2m.pretrained import hub

    repo, _, pinned = name.partition("@")
    try:
        remote = hub.list_files(repo, pinned or "main")
        absent = unmatched(remote.sizes, patterns)
        if absent:
            message = f"the repository {repo} has no {', '.join(absent)} at revision {remote.revision}: check the name"
            raise DependencyError(message)
        names = match_files(remote.sizes, [*patterns, MODEL_CARD])
        download_size = sum(remote.sizes[name] for name in names)
        folder = hub.download(remote, names, license_name(remote.card) or license)
    except hub.HubError as error:
        size = "" if download_size is None else f" ({format_bytes(download_size)})"
        where = f"put its files into {checkpoint_folders()[0] / Path(repo).name}, or give the folder that has them"
        raise DependencyError(f"weights {repo}{size} cannot be fetched: {error}; or {where}", repo) from error
    return WeightsInfo(name, folder, folder.name, card_license(folder) or license)


def find_local(name: str, patterns: Sequence[str], *, license: str | None = None) -> WeightsInfo | None:
    """Find weights as `fetch` does, without a download: None where they are not on this machine.

    Raises DependencyError where a folder of that name lacks files, UsageError where `name` can be neither a folder nor
    a repository.
    """
    folder = find_folder(name)
    if folder is not None:
        absent = _missing_files(folder, patterns)
        if absent:
            raise DependencyError(f"{str(folder)!r} lacks {', '.join(absent)}: complete that folder, or move it away")
        return WeightsInfo(name, folder, _folder_revision(folder), card_license(folder) or license)
    if (path := Path(name).expanduser()).is_file():
        raise DependencyError(f"{name!r} is a file: give the folder that holds it, {str(path.parent)!r}")
    if path.suffix in WEIGHT_SUFFIXES:
        raise UsageError(f"there is no file {name!r}: check the name, or give the folder of the weights")
    if not REPOSITORY.fullmatch(name):
        message = f"there is no folder {name!r}: give a folder that exists, or a repository of the hub as owner/name"
        raise UsageError(message)
    from v2m.pretrained import hub

    repo, _, pinned = name.partition("@")
    cached = hub.find_cached(repo, pinned or "main")
    if cached is None:
        return None
    folder, repo_files = cached
    if _missing_files(folder, patterns) or not set(match_files(repo_files, patterns)) <= set(_list_files(folder)):
        return None
    return WeightsInfo(name, folder, folder.name, card_license(folder) or license)


def announce_license(weights: WeightsInfo) -> None:
    """Print the license of the weights on stderr, one line, once for each."""
    line = f"weights {weights.name}; license: {weights.license or 'not stated: see their page'}"
    if line not in _announced:
        from tqdm import tqdm

        _announced.add(line)
        tqdm.write(line, file=sys.stderr)


def bundled_folder(name: str) -> Path | None:
    """Return the folder of weights that v2m itself carries, None for others."""
    folder = BUNDLED / name
    return folder if name and Path(name).name == name and folder.is_dir() else None


def checkpoint_folders() -> list[Path]:
    """Folders for weights placed by hand: $V2M_CHECKPOINTS, or `checkpoints/` here and beside the package."""
    folder = os.environ.get("V2M_CHECKPOINTS")
    if folder:
        return [Path(folder).expanduser()]
    return list(dict.fromkeys([Path.cwd() / "checkpoints", Path(__file__).parents[2] / "checkpoints"]))


def match_files(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The `names` that `patterns` need, in their order."""
    names = [name for name in names if not _is_hidden(name)]
    needed: set[str] = set()
    for pattern in patterns:
        matches = ([name for name in names if _matches(name, choice)] for choice in pattern.split("|"))
        needed |= set(next(filter(None, matches), []))
    return [name for name in names if name in needed]


def unmatched(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The patterns that no name matches, optional ones aside."""
    names = list(names)
    return [pattern for pattern in patterns if not pattern.endswith("|") and not match_files(names, [pattern])]


def card_license(folder: Path) -> str | None:
    """Return the license that a folder's model card states."""
    import yaml

    try:
        text = (folder / MODEL_CARD).read_text(encoding="utf-8")
        front = re.match(r"\ufeff?---\s*\n(.*?)\n---", text, re.DOTALL)
        card = yaml.safe_load(front[1]) if front else None
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return license_name(card) if isinstance(card, dict) else None


def sha256_files(folder: Path) -> dict[str, str]:
    """SHA-256 of each weight file in `folder`, by its name relative to it.

    A file is hashed once: the hash stays in the user's cache until the file's size or modification time changes.
    """
    cache = _read_hash_cache()
    hashes: dict[str, str] = {}
    new_entries: dict[str, list[Any]] = {}
    for name in (name for name in _list_files(folder) if Path(name).suffix in WEIGHT_SUFFIXES):
        path = (folder / name).resolve()
        if path.parent.name == "blobs" and SHA256.fullmatch(path.name):  # the hub's cache names large files so
            hashes[name] = path.name
            continue
        state = path.stat()
        entry = cache.get(str(path))
        if not (isinstance(entry, list) and len(entry) == 3 and entry[:2] == [state.st_size, state.st_mtime_ns]):
            entry = new_entries[str(path)] = [state.st_size, state.st_mtime_ns, _sha256(path)]
        hashes[name] = entry[2]
    if new_entries:
        _write_hash_cache(new_entries)
    return hashes


def find_folder(name: str) -> Path | None:
    """Return the local folder of weights: as given, carried by v2m, or below `checkpoint_folders`."""
    plain = Path(name).expanduser()
    if name and plain.is_dir():
        return plain
    bundled = bundled_folder(name)
    if bundled is not None:
        return bundled
    repo, _, pinned = name.partition("@")
    if not Path(repo).name or Path(repo).is_absolute() or ".." in Path(repo).parts:
        return None
    for folder in (root / relative for root in checkpoint_folders() for relative in (repo, Path(repo).name)):
        if folder.is_dir():
            revision = _folder_revision(folder)
            if COMMIT.fullmatch(pinned) and revision not in {None, pinned}:
                logger.warning("%s holds revision %s, not %s as asked for", folder, revision, pinned)
            return folder
    return None


def _list_files(folder: Path) -> list[str]:
    """Names of all files below `folder`, relative, with "/" between; hidden folders are left out."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if not _is_hidden(name))


def _missing_files(folder: Path, patterns: Sequence[str]) -> list[str]:
    """Patterns that no file in `folder` matches, and needed shards that an index lists and `folder` lacks."""
    names = _list_files(folder)
    shards = {shard for name in names if name.endswith(".index.json") for shard in _listed_shards(folder, name)}
    # the alternative of each pattern that is there: weights must be complete in one format only
    formats = [
        next((choice for choice in pattern.split("|") if match_files(names, [choice])), pattern.partition("|")[0])
        for pattern in patterns
    ]
    return unmatched(names, patterns) + match_files(sorted(shards - set(names)), formats)


def _listed_shards(folder: Path, index: str) -> list[str]:
    """Files that an index lists, relative to `folder`; none of a broken index, which its reader reports."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        shards = json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"]
        return [(PurePosixPath(index).parent / str(shard)).as_posix() for shard in shards.values()]
    return []


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts[:-1])


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, f"{pattern}*" if pattern.endswith("/") else pattern)


def license_name(card: dict[str, Any]) -> str | None:
    """Return the license in a model card's data; "other" stands for a name of the authors' own."""
    license = card.get("license")
    if license == "other":
        license = card.get("license_name") or license
    if isinstance(license, list):
        license = ", ".join(map(str, license))
    return str(license) if license else None


def _folder_revision(folder: Path) -> str | None:
    """The hub commit of a folder, by its snapshot name or the notes of `hf download`, or None."""
    resolved = folder.resolve()
    if resolved.parent.name == "snapshots" and COMMIT.fullmatch(resolved.name):
        return resolved.name
    commits: set[str] = set()
    for note in (folder / ".cache" / "huggingface" / "download").rglob("*.metadata"):
        with suppress(OSError, ValueError):
            commits.add(note.read_text(encoding="utf-8").partition("\n")[0].strip())
    commit = commits.pop() if len(commits) == 1 else ""
    return commit if COMMIT.fullmatch(commit) else None


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
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
