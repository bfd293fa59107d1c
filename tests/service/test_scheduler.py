"""The scheduler: what expires, and what it outlives."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path

import pytest

from tests.service.conftest import DEADLINE_S
from v2m.pipeline.job_runner import JobRunner
from v2m.service.scheduler import ORPHAN_S, JobFolders, Scheduler
from v2m.service.store import JobStore, new_id


def make_scheduler(tmp_path: Path, retention_s: float = 60.0) -> tuple[Scheduler, JobStore, JobFolders]:
    store, folders = JobStore(tmp_path / "jobs.sqlite"), JobFolders(tmp_path / "jobs")
    folders.root.mkdir()
    return Scheduler(store, JobRunner(), folders, max_seconds=5.0, retention_s=retention_s), store, folders


def submit(store: JobStore, folders: JobFolders) -> str:
    job_id = new_id()
    folders.inputs(job_id).mkdir(parents=True)
    request = {"request": {"recipe": "sketch"}, "files": {"video": str(folders.inputs(job_id) / "gone.mp4")}}
    store.submit(job_id, "a", request, "", max_queued=9, max_per_owner=9)
    return job_id


def test_ended_jobs_and_folders_of_no_job_are_removed_in_time(tmp_path: Path) -> None:
    scheduler, store, folders = make_scheduler(tmp_path, retention_s=0.0)
    ended, waiting, orphan, fresh = submit(store, folders), submit(store, folders), "orphan", "fresh"
    for name in (orphan, fresh):
        folders.inputs(name).mkdir(parents=True)
    long_ago = time.time() - ORPHAN_S - 1
    for name in (orphan, waiting):
        os.utime(folders.job(name), (long_ago, long_ago))
    store.cancel(ended)
    scheduler.remove_expired()
    assert {path.name for path in folders.root.iterdir()} == {waiting, fresh}
    assert store.get(ended) is None
    assert store.get(waiting) is not None
    store.close()


def test_the_queue_outlives_a_store_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler, store, folders = make_scheduler(tmp_path)
    job_id, failures, fail = submit(store, folders), [1, 1], store.fail

    def fail_late(*args: object) -> bool:
        if failures:
            failures.pop()
            raise sqlite3.OperationalError("database or disk is full")
        return fail(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "fail", fail_late)
    scheduler.start()
    deadline = time.monotonic() + DEADLINE_S
    while (job := store.get(job_id)) is not None and not job.is_finished and time.monotonic() < deadline:
        time.sleep(0.05)
    is_alive = scheduler.is_alive
    scheduler.stop(0.0)
    assert is_alive
    assert job is not None
    assert (job.state, job.error) == ("failed", "the video is gone")
    assert not failures
    store.close()
