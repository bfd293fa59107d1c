"""What a folder of weights holds: the files that patterns ask for, its license, its revision."""

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
    """Where weights may have been put by hand: $V2M_CHECKPOINTS, or `checkpoints/` here and beside the package."""
    given = os.environ.get("V2M_CHECKPOINTS")
    if given:
        return [Path(given).expanduser()]
    return list(dict.fromkeys([Path.cwd() / "checkpoints", Path(__file__).parents[2] / "checkpoints"]))


def list_files(folder: Path) -> list[str]:
    """Names of all files below, relative, with "/" between; nothing of hidden folders."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if not _is_hidden(name))


def match_files(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """Those of `names` that the patterns `files` ask for; of alternatives, "a|b", the first that matches any; "a|"
    is done without where there is no a."""
    names = [name for name in names if not _is_hidden(name)]
    wanted: set[str] = set()
    for pattern in patterns:
        matches = ([name for name in names if _matches(name, each)] for each in pattern.split("|"))
        wanted |= set(next((each for each in matches if each), []))
    return [name for name in names if name in wanted]


def unmatched(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The patterns that no name matches."""
    names = list(names)
    return [pattern for pattern in patterns if not pattern.endswith("|") and not match_files(names, [pattern])]


def missing_files(folder: Path, patterns: Sequence[str]) -> list[str]:
    """What is needed and not in `folder`: patterns that no file matches, and shards that an index lists."""
    here = list_files(folder)
    listed = {shard for name in here if name.endswith(".index.json") for shard in _listed_shards(folder, name)}
    return unmatched(here, patterns) + match_files(sorted(listed - set(here)), _resolve_alternatives(here, patterns))


def card_license(folder: Path) -> str | None:
    """The license that the model card (README.md) names in its front matter, or None."""
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
    """The hub's commit that a folder holds, or None: a snapshot's name says it, or the notes of `hf download`."""
    resolved = folder.resolve()
    if resolved.parent.name == "snapshots" and COMMIT.fullmatch(resolved.name):
        return resolved.name
    commits: set[str] = set()
    for note in (folder / ".cache" / "huggingface" / "download").rglob("*.metadata"):
        with suppress(OSError, ValueError):
            commits.add(note.read_text(encoding="utf-8").partition("\n")[0].strip())
    only = commits.pop() if len(commits) == 1 else ""
    return only if COMMIT.fullmatch(only) else None


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts[:-1])


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, f"{pattern}*" if pattern.endswith("/") else pattern)


def _resolve_alternatives(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The patterns with their alternatives decided by what is here: weights in two formats need to be whole in one."""
    return [
        next((each for each in pattern.split("|") if match_files(names, [each])), pattern.partition("|")[0])
        for pattern in patterns
    ]


def _listed_shards(folder: Path, index: str) -> list[str]:
    """The files that an index lists, by their names in `folder`; nothing of a wrong index: reading it tells more."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        homes = json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"]
        return [(PurePosixPath(index).parent / str(shard)).as_posix() for shard in homes.values()]
    return []
