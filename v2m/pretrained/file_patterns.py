"""File patterns of a weights folder or a hub repository, and the license and revision of a folder.

A loader lists the files it needs as patterns; nothing else is downloaded. Each pattern is a shell pattern over the
path relative to the folder, with "/" between, plus three marks:

* "config.json", "*.safetensors": every file that matches; one must.
* "tokenizer/": every file below that folder.
* "model.safetensors|pytorch_model.bin": alternatives; every file that matches the first one with any match.
* "preprocessor_config.json|": optional, an alternative that matches nothing.

Files in hidden folders (`.cache/…`) never match. Shards that a matched `*.index.json` lists are needed too.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

COMMIT = re.compile(r"[0-9a-f]{40}")


def checkpoint_folders() -> list[Path]:
    """Folders for weights placed by hand: $V2M_CHECKPOINTS, or `checkpoints/` here and beside the package."""
    folder = os.environ.get("V2M_CHECKPOINTS")
    if folder:
        return [Path(folder).expanduser()]
    return list(dict.fromkeys([Path.cwd() / "checkpoints", Path(__file__).parents[2] / "checkpoints"]))


def list_files(folder: Path) -> list[str]:
    """Names of all files below `folder`, relative, with "/" between; hidden folders are left out."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if not _is_hidden(name))


def match_files(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The `names` that `patterns` need, in their order (see the module for the patterns)."""
    names = [name for name in names if not _is_hidden(name)]
    needed: set[str] = set()
    for pattern in patterns:
        matches = ([name for name in names if _matches(name, choice)] for choice in pattern.split("|"))
        needed |= set(next(filter(None, matches), []))
    return [name for name in names if name in needed]


def unmatched(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The patterns that no name matches, those that end in "|" aside."""
    names = list(names)
    return [pattern for pattern in patterns if not pattern.endswith("|") and not match_files(names, [pattern])]


def missing_files(folder: Path, patterns: Sequence[str]) -> list[str]:
    """Patterns that no file in `folder` matches, and needed shards that an index lists and `folder` lacks."""
    names = list_files(folder)
    shards = {shard for name in names if name.endswith(".index.json") for shard in _listed_shards(folder, name)}
    return unmatched(names, patterns) + match_files(sorted(shards - set(names)), _resolve_alternatives(names, patterns))


def card_license(folder: Path) -> str | None:
    """The license in the front matter of the folder's model card (README.md), or None."""
    import yaml

    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
        front = re.match(r"\ufeff?---\s*\n(.*?)\n---", text, re.DOTALL)
        card = yaml.safe_load(front[1]) if front else None
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return license_name(card) if isinstance(card, dict) else None


def license_name(card: dict[str, Any]) -> str | None:
    """The license in a model card's data; "other" stands for a name of the authors' own."""
    license = card.get("license")
    if license == "other":
        license = card.get("license_name") or license
    if isinstance(license, list):
        license = ", ".join(map(str, license))
    return str(license) if license else None


def folder_revision(folder: Path) -> str | None:
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


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts[:-1])


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, f"{pattern}*" if pattern.endswith("/") else pattern)


def _resolve_alternatives(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The alternative of each pattern that `names` has: weights must be complete in one format only."""
    return [
        next((choice for choice in pattern.split("|") if match_files(names, [choice])), pattern.partition("|")[0])
        for pattern in patterns
    ]


def _listed_shards(folder: Path, index: str) -> list[str]:
    """Files that an index lists, relative to `folder`; none of a broken index, which its reader reports."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        shards = json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"]
        return [(PurePosixPath(index).parent / str(shard)).as_posix() for shard in shards.values()]
    return []
