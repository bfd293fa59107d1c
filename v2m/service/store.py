"""The jobs of the service, in one SQLite file that survives a restart.

Every change is one transaction, on disk before the caller goes on: a job that was accepted is never forgotten, and none
is taken twice. States: `queued` → `running` → `done`, `failed` or `cancelled`; a running job whose process ended goes
back into the queue, at its place.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from v2m.core.errors import UsageError

State = Literal["queued", "running", "done", "failed", "cancelled"]
FINISHED: tuple[State, ...] = ("done", "failed", "cancelled")
MAX_ATTEMPTS = 3  # of a job whose process ends: it may be the job that ends it
MIN_SHARE = 0.02  # of a stage, from which its pace is known
BUSY_TIMEOUT_S = 30.0
SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    idempotency_key TEXT,
    digest TEXT NOT NULL,
    request TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    created REAL NOT NULL,
    started REAL,
    ended REAL,
    stage TEXT NOT NULL DEFAULT '',
    stage_started REAL,
    progress REAL NOT NULL DEFAULT 0,
    error TEXT,
    error_code INTEGER,
    result TEXT,
    UNIQUE (owner, idempotency_key)
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, number);
CREATE INDEX IF NOT EXISTS jobs_by_owner ON jobs (owner, state);
"""


class QueueFullError(UsageError):
    """The queue, or the share of one owner, is full."""


class IdempotencyError(UsageError):
    """An idempotency key was used before, for another request."""


@dataclass(frozen=True)
class StoredJob:
    """A job as the store knows it. Times are Unix seconds; `attempts` counts the processes that began it."""

    number: int
    id: str
    owner: str
    request: Mapping[str, Any]
    state: State
    attempts: int
    created: float
    started: float | None
    ended: float | None
    stage: str
    stage_started: float | None
    progress: float
    error: str | None
    error_code: int | None
    result: Mapping[str, Any] | None

    @property
    def is_finished(self) -> bool:
        return self.state in FINISHED

    @property
    def stage_seconds_left(self) -> float | None:
        """Seconds that the stage still takes at its pace so far; None where that cannot be known yet."""
        if self.state != "running" or self.stage_started is None or self.progress < MIN_SHARE:
            return None
        return (time.time() - self.stage_started) * (1 - self.progress) / self.progress


def new_id() -> str:
    """Return an id that nobody can guess."""
    return uuid.uuid4().hex


class JobStore:
    """Jobs in the SQLite file `path`; safe to use from several threads and processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        with self._transaction() as database:
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version not in {0, SCHEMA_VERSION}:
                raise UsageError(f"{str(path)!r} holds jobs of another version of v2m: give a new folder")
            for statement in _SCHEMA.split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def submit(
        self,
        job_id: str,
        owner: str,
        request: Mapping[str, Any],
        digest: str,
        *,
        idempotency_key: str | None = None,
        max_queued: int,
        max_per_owner: int,
    ) -> StoredJob:
        """Add a job to the queue, or return the earlier one of the same `idempotency_key`.

        `digest` stands for the request and its video. Raises QueueFullError, and IdempotencyError where the key was
        used with another digest.
        """
        with self._transaction() as database:
            if idempotency_key is not None:
                row = database.execute(
                    "SELECT * FROM jobs WHERE owner = ? AND idempotency_key = ?", (owner, idempotency_key)
                ).fetchone()
                if row is not None:
                    if row["digest"] != digest:
                        raise IdempotencyError("this idempotency key was used for another request")
                    return _to_job(row)
            unfinished = "SELECT COUNT(*) FROM jobs WHERE state IN ('queued', 'running')"
            if database.execute(unfinished).fetchone()[0] >= max_queued:
                raise QueueFullError(f"the queue is full: {max_queued} jobs wait or run")
            if database.execute(f"{unfinished} AND owner = ?", (owner,)).fetchone()[0] >= max_per_owner:
                raise QueueFullError(f"{max_per_owner} of your jobs wait or run, which is the limit")
            database.execute(
                "INSERT INTO jobs (id, owner, idempotency_key, digest, request, state, created) "
                "VALUES (?, ?, ?, ?, ?, 'queued', ?)",
                (job_id, owner, idempotency_key, digest, json.dumps(request), time.time()),
            )
            return self._get(database, job_id)

    def get(self, job_id: str, owner: str | None = None) -> StoredJob | None:
        """Return a job, of `owner` where one is given; None where there is none."""
        row = self._database.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return None if row is None or owner not in {None, row["owner"]} else _to_job(row)

    def list(self, owner: str, *, before: int | None = None, limit: int = 50) -> list[StoredJob]:
        """Return the newest jobs of an owner, those with a smaller number than `before`."""
        rows = self._database.execute(
            "SELECT * FROM jobs WHERE owner = ? AND number < ? ORDER BY number DESC LIMIT ?",
            (owner, before if before is not None else 2**62, limit),
        )
        return [_to_job(row) for row in rows]

    def position(self, job: StoredJob) -> int:
        """Return the number of jobs that wait or run before a queued one."""
        query = "SELECT COUNT(*) FROM jobs WHERE state IN ('queued', 'running') AND number < ?"
        return int(self._database.execute(query, (job.number,)).fetchone()[0])

    def counts(self) -> dict[str, int]:
        """Return the number of jobs in each state."""
        return dict(self._database.execute("SELECT state, COUNT(*) FROM jobs GROUP BY state").fetchall())

    def take(self) -> StoredJob | None:
        """Set the first queued job running, and return it; None where none waits."""
        with self._transaction() as database:
            row = database.execute("SELECT id FROM jobs WHERE state = 'queued' ORDER BY number LIMIT 1").fetchone()
            if row is None:
                return None
            database.execute(
                "UPDATE jobs SET state = 'running', started = ?, attempts = attempts + 1, stage = '', progress = 0 "
                "WHERE id = ?",
                (time.time(), row["id"]),
            )
            return self._get(database, row["id"])

    def report(self, job_id: str, stage: str, progress: float) -> None:
        """Note the stage of a running job and its progress 0–1."""
        with self._transaction() as database:
            database.execute(
                "UPDATE jobs SET stage_started = CASE WHEN stage = ? THEN stage_started ELSE ? END, stage = ?, "
                "progress = ? WHERE id = ? AND state = 'running'",
                (stage, time.time(), stage, progress, job_id),
            )

    def finish(self, job_id: str, result: Mapping[str, Any]) -> bool:
        """End a running job as done; return False where it was cancelled meanwhile."""
        return self._end(job_id, "done", "progress = 1, result = ?", (json.dumps(result),), ("running",))

    def fail(self, job_id: str, error: str, code: int) -> bool:
        return self._end(job_id, "failed", "error = ?, error_code = ?", (error, code), ("queued", "running"))

    def cancel(self, job_id: str) -> bool:
        """Cancel a job that waits or runs; return False where it has ended."""
        return self._end(job_id, "cancelled", "error = ?", ("cancelled",), ("queued", "running"))

    def requeue(self, job_id: str, *, counts: bool = True) -> None:
        """Put a running job whose process ended back at its place, or fail it after `MAX_ATTEMPTS`.

        Without `counts` the attempt is not the job's: the service was asked to end.
        """
        with self._transaction() as database:
            database.execute(
                "UPDATE jobs SET state = 'queued', started = NULL, stage = '', progress = 0, attempts = attempts - ? "
                "WHERE id = ? AND state = 'running'",
                (0 if counts else 1, job_id),
            )
            database.execute(
                "UPDATE jobs SET state = 'failed', ended = ?, error = ?, error_code = 1 "
                "WHERE id = ? AND state = 'queued' AND attempts >= ?",
                (time.time(), f"the process ended {MAX_ATTEMPTS} times during this job", job_id, MAX_ATTEMPTS),
            )

    def recover(self) -> list[str]:
        """Put all running jobs back into the queue: at a start no process runs any. Return their ids."""
        rows = self._database.execute("SELECT id FROM jobs WHERE state = 'running' ORDER BY number").fetchall()
        for row in rows:
            self.requeue(row["id"])
        return [row["id"] for row in rows]

    def expired(self, before: float) -> list[str]:
        """Return the ids of the jobs that ended before a Unix time."""
        rows = self._database.execute("SELECT id FROM jobs WHERE ended < ?", (before,))
        return [row["id"] for row in rows]

    def remove(self, job_ids: Sequence[str]) -> None:
        """Forget jobs that have ended."""
        with self._transaction() as database:
            database.executemany(
                "DELETE FROM jobs WHERE id = ? AND ended IS NOT NULL", [(job_id,) for job_id in job_ids]
            )

    def close(self) -> None:
        """Close the connection of this thread."""
        if hasattr(self._local, "database"):
            self._local.database.close()
            del self._local.database

    def _end(
        self, job_id: str, state: State, assignments: str, values: tuple[Any, ...], before: tuple[State, ...]
    ) -> bool:
        marks = ", ".join("?" * len(before))
        with self._transaction() as database:
            cursor = database.execute(
                f"UPDATE jobs SET state = ?, ended = ?, {assignments} WHERE id = ? AND state IN ({marks})",  # noqa: S608 - no value of a caller
                (state, time.time(), *values, job_id, *before),
            )
            return cursor.rowcount == 1

    @property
    def _database(self) -> sqlite3.Connection:
        if not hasattr(self._local, "database"):
            database = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
            database.row_factory = sqlite3.Row
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            self._local.database = database
        return self._local.database

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        database = self._database
        database.execute("BEGIN IMMEDIATE")
        try:
            yield database
        except BaseException:
            database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")

    def _get(self, database: sqlite3.Connection, job_id: str) -> StoredJob:
        return _to_job(database.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone())


def _to_job(row: sqlite3.Row) -> StoredJob:
    values = {name: row[name] for name in row.keys() if name not in {"idempotency_key", "digest"}}  # noqa: SIM118 - a Row iterates over values
    values["request"] = json.loads(values["request"])
    values["result"] = None if values["result"] is None else json.loads(values["result"])
    return StoredJob(**values)
