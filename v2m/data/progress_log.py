"""Progress of a dataset on disk, so that a killed run resumes where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from v2m.core.atomic import TEMPORARY_GLOB, atomic_write, lock
from v2m.core.errors import UsageError
from v2m.data.sources import RemoteSource, Source
from v2m.data.writer import VideoPart, part_path

RECORDS, SETTINGS, LOCK = "prepared.jsonl", "settings.json", ".lock"


@dataclass(frozen=True)
class PrepareRecord:
    """Outcome of one video: a part, or the reason it was dropped. `file_state` is that of its files."""

    source: str
    key: str
    file_state: list[Any]
    part: VideoPart | None = None
    drop_reason: str = ""
    detail: str = ""

    def to_line(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True).encode() + b"\n"


def check_output_dir(out: Path) -> None:
    """Raise UsageError where `out` is a file, or a folder that holds something else than a dataset."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{str(out)!r} is a file: give a folder")
    if not out.exists() or (out / SETTINGS).is_file():
        return
    if any(path.name != LOCK and not path.match(TEMPORARY_GLOB) for path in out.iterdir()):
        raise UsageError(f"{str(out)!r} holds something else than a dataset: give a new folder")


@contextmanager
def lock_output_dir(out: Path) -> Iterator[None]:
    """Hold the folder, made if need be, for this run alone. Raise UsageError where another run has it."""
    check_output_dir(out)
    out.mkdir(parents=True, exist_ok=True)
    with hold_lock(out / LOCK, str(out)):
        yield


@contextmanager
def hold_lock(path: Path, out: str) -> Iterator[None]:
    """Hold the lock file at `path` for this run alone. Raise UsageError where another run has it."""
    with path.open("w") as file:
        try:
            lock(file)
        except BlockingIOError:
            raise UsageError(f"another run is writing to {out!r}: let it end, or give another `out`") from None
        except OSError:
            pass  # a file system without locks
        yield


def record_settings(out: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of a new dataset; raise UsageError where they differ from the recorded ones."""
    path = out / SETTINGS
    if not path.is_file():
        with atomic_write(path) as file:
            file.write(json.dumps(settings, indent=1, sort_keys=True).encode() + b"\n")
        return
    current = json.loads(json.dumps(settings))
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
        names = sorted(recorded.keys() | current.keys())
    except (ValueError, AttributeError):
        raise UsageError(f"{str(path)!r} cannot be read: give a new folder") from None
    differing = [name for name in names if recorded.get(name) != current.get(name)]
    if differing:
        problems = "; ".join(f"{name} {recorded.get(name)!r}, not {current.get(name)!r}" for name in differing)
        raise UsageError(f"{str(out)!r} was prepared with {problems}: give the same, remove it, or give a new one")


def read_records(out: Path) -> dict[str, PrepareRecord]:
    """Return the records by key, the last one of each; a partly written line is ignored."""
    records: dict[str, PrepareRecord] = {}
    path = out / RECORDS
    for line in path.read_bytes().split(b"\n")[:-1] if path.is_file() else []:
        try:
            values = json.loads(line)
            part = None if values["part"] is None else VideoPart(**values["part"])
            record = PrepareRecord(**{**values, "part": part})
        except (ValueError, KeyError, TypeError):
            continue
        records[record.key] = record
    return records


def is_up_to_date(record: PrepareRecord | None, source: Source, out: Path, keys_in_shards: Set[str]) -> bool:
    """Return whether a record still holds: the files of `source` are the same, and its part exists."""
    if record is None or record.drop_reason == "failed":
        return False
    if record.file_state != source.file_state() or record.source != source.name:
        return False
    if isinstance(source, RemoteSource) and not all(file.version for file in source.files.values()):
        return False  # a changed file may have the same size
    return record.part is None or record.key in keys_in_shards or part_path(out, record.key).is_file()


def append_record(out: Path, record: PrepareRecord) -> None:
    """Append the line of a record; it is on the disk when this returns."""
    with (out / RECORDS).open("a+b") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":  # a run was killed in the middle of a line
                file.write(b"\n")
        file.write(record.to_line())
        file.flush()
        os.fsync(file.fileno())


def replace_records(out: Path, records: Iterable[PrepareRecord]) -> None:
    """Write these records in place of all others, unless the file holds just them."""
    content = b"".join(record.to_line() for record in records)
    path = out / RECORDS
    if not path.is_file() or path.read_bytes() != content:
        with atomic_write(path) as file:
            file.write(content)


def sha256_json(values: Any) -> str:
    """Return the SHA-256 of plain values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()
