"""Progress of a dataset on disk, so that a killed run resumes where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from v2m.core.atomic import lock
from v2m.core.errors import UsageError
from v2m.data.sources import VideoSource
from v2m.data.writer import PARTIAL_PREFIX, VideoPart, atomic_write, part_path

RECORDS, SETTINGS, LOCK = "prepared.jsonl", "settings.json", ".lock"


@dataclass(frozen=True)
class PrepareRecord:
    """Outcome of one video: a part, or the reason it was dropped. `state` is that of its files."""

    source: str
    key: str
    file_state: list[Any]
    part: VideoPart | None = None
    drop_reason: str = ""
    detail: str = ""


def check_output_dir(out: Path) -> None:
    """Raises UsageError for what is no folder, or one of other things."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{str(out)!r} is a file: give a folder")
    if (out / SETTINGS).is_file():
        return
    if any(each.name != LOCK and not each.name.startswith(PARTIAL_PREFIX) for each in out.iterdir()):
        raise UsageError(f"{str(out)!r} holds something else than a dataset: give a new folder")


@contextmanager
def lock_output_dir(out: Path) -> Iterator[None]:
    """Makes the folder if need be. Raises UsageError while another run writes to it, and as `check` does."""
    check_output_dir(out)
    out.mkdir(parents=True, exist_ok=True)
    with (out / LOCK).open("w") as file:
        try:
            lock(file)
        except BlockingIOError:
            raise UsageError(f"another run is writing to {str(out)!r}: let it end, or give another folder") from None
        yield


def record_settings(out: Path, settings: Mapping[str, Any]) -> None:
    """Says in a folder that is `locked` what it is made with, or makes sure that it was made with the same.

    Raises:
        UsageError: It was not; names the differences.
    """
    path = out / SETTINGS
    if not path.is_file():
        with atomic_write(path) as file:
            file.write(json.dumps(settings, indent=1, sort_keys=True).encode() + b"\n")
        return
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        names = sorted(held.keys() | settings.keys())
    except (ValueError, AttributeError):
        raise UsageError(f"{str(path)!r} cannot be read: give a new folder") from None
    wanted = json.loads(json.dumps(settings))
    other = [
        f"{name} {held.get(name)!r}, not {wanted.get(name)!r}" for name in names if held.get(name) != wanted.get(name)
    ]
    if other:
        raise UsageError(f"{str(out)!r} was prepared with {'; '.join(other)}: give the same, or a new folder")


def read_records(out: Path) -> dict[str, PrepareRecord]:
    """Records by key; the last one counts. A partly written line is ignored."""
    found: dict[str, PrepareRecord] = {}
    try:
        lines = (out / RECORDS).read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return found
    for line in lines:
        try:
            held = json.loads(line)
            part = None if held["part"] is None else VideoPart(**held["part"])
            done = PrepareRecord(**{**held, "part": part})
        except (ValueError, KeyError, TypeError):
            continue
        found[done.key] = done
    return found


def is_up_to_date(done: PrepareRecord | None, source: VideoSource, out: Path, held: set[str]) -> bool:
    """Return whether the record still holds for `source`: the files are the same, and the part exists.

    `held` are the keys of the parts in shards.
    """
    if (
        done is None
        or done.file_state != source.file_state()
        or done.source != source.name
        or done.drop_reason == "failed"
    ):
        return False
    return done.part is None or done.key in held or part_path(out, done.key).is_file()


def append_record(out: Path, done: PrepareRecord) -> None:
    """Writes its line, on the disk when this returns."""
    with (out / RECORDS).open("ab") as file:
        if file.tell() and not _ends_with_newline(out / RECORDS):
            file.write(b"\n")
        file.write(_to_line(done))
        file.flush()
        os.fsync(file.fileno())


def replace_records(out: Path, every: Iterable[PrepareRecord]) -> None:
    """Writes the ledger anew with these lines alone, where it is not so already."""
    content = b"".join(map(_to_line, every))
    path = out / RECORDS
    if not path.is_file() or path.read_bytes() != content:
        with atomic_write(path) as file:
            file.write(content)


def sha256_json(values: Any) -> str:
    """SHA-256 of plain values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def _to_line(done: PrepareRecord) -> bytes:
    return json.dumps(asdict(done), sort_keys=True).encode() + b"\n"


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
