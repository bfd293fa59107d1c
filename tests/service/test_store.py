"""The store: order, idempotency, limits, restarts."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from v2m.core.errors import UsageError
from v2m.service.store import MAX_ATTEMPTS, IdempotencyError, JobStore, QueueFullError, StoredJob, new_id


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    store = JobStore(tmp_path / "jobs.sqlite")
    yield store
    store.close()


def submit(store: JobStore, owner: str = "a", *, key: str | None = None, digest: str = "", **limits: int) -> StoredJob:
    bounds: dict[str, Any] = {"max_queued": 100, "max_per_owner": 100, **limits}
    return store.submit(new_id(), owner, {"seed": 1}, digest, idempotency_key=key, **bounds)


def test_jobs_are_taken_in_their_order_each_once(store: JobStore) -> None:
    jobs = [submit(store) for _ in range(3)]
    assert [store.position(job) for job in jobs] == [0, 1, 2]
    taken = [store.take() for _ in range(4)]
    assert [job and job.id for job in taken] == [*(job.id for job in jobs), None]
    assert store.counts() == {"running": 3}


def test_threads_take_no_job_twice(store: JobStore) -> None:
    ids = [submit(store).id for _ in range(40)]
    taken: list[str] = []

    def take_all() -> None:
        while (job := store.take()) is not None:
            taken.append(job.id)
        store.close()

    threads = [threading.Thread(target=take_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(ids)


def test_the_same_idempotency_key_returns_the_same_job_for_its_owner_alone(store: JobStore) -> None:
    first = submit(store, key="k", digest="x")
    assert submit(store, key="k", digest="x").id == first.id
    assert submit(store, "b", key="k", digest="x").id != first.id
    with pytest.raises(IdempotencyError):
        submit(store, key="k", digest="y")
    assert store.counts() == {"queued": 2}


def test_the_queue_and_each_owner_have_limits_which_ended_jobs_leave(store: JobStore) -> None:
    job = submit(store, max_per_owner=1)
    with pytest.raises(QueueFullError, match="of your jobs"):
        submit(store, max_per_owner=1)
    submit(store, "b", max_per_owner=1)
    with pytest.raises(QueueFullError, match="queue is full"):
        submit(store, "c", max_queued=2)
    store.cancel(job.id)
    submit(store, max_per_owner=1)


def test_a_restart_queues_running_jobs_at_their_place(store: JobStore, tmp_path: Path) -> None:
    first, second = submit(store), submit(store)
    store.take()
    again = JobStore(tmp_path / "jobs.sqlite")
    assert again.recover() == [first.id]
    job = again.take()
    assert job is not None
    assert (job.id, job.attempts) == (first.id, 2)
    assert [job.id for job in again.list("a")] == [second.id, first.id]
    again.close()


def test_a_job_that_ends_its_process_each_time_fails(store: JobStore) -> None:
    job = submit(store)
    for _ in range(MAX_ATTEMPTS):
        assert store.take() is not None
        store.requeue(job.id)
    failed = store.get(job.id)
    assert failed is not None
    assert failed.state == "failed"
    assert failed.error is not None
    assert str(MAX_ATTEMPTS) in failed.error
    assert store.take() is None


def test_an_attempt_that_the_service_ended_does_not_count(store: JobStore) -> None:
    job = submit(store)
    for _ in range(2 * MAX_ATTEMPTS):
        assert store.take() is not None
        store.requeue(job.id, counts=False)
    queued = store.get(job.id)
    assert queued is not None
    assert (queued.state, queued.attempts) == ("queued", 0)


def test_a_cancelled_job_is_neither_finished_nor_reported(store: JobStore) -> None:
    job = submit(store)
    store.take()
    store.report(job.id, "Writing", 0.5)
    running = store.get(job.id)
    assert running is not None
    assert (running.stage, running.progress) == ("Writing", 0.5)
    assert running.stage_seconds_left is not None
    assert store.cancel(job.id)
    assert not store.finish(job.id, {})
    assert not store.cancel(job.id)
    store.report(job.id, "Mixing", 0.1)
    cancelled = store.get(job.id)
    assert cancelled is not None
    assert (cancelled.state, cancelled.stage) == ("cancelled", "Writing")


def test_only_ended_jobs_expire(store: JobStore) -> None:
    done, waiting = submit(store), submit(store)
    store.take()
    assert store.finish(done.id, {"tags": {}})
    assert store.expired(time.time() - 60) == []
    assert store.expired(time.time() + 1) == [done.id]
    store.remove([done.id, waiting.id])
    assert store.get(done.id) is None
    assert store.get(waiting.id) is not None


def test_another_owner_sees_no_job(store: JobStore) -> None:
    job = submit(store)
    assert store.get(job.id, "a") is not None
    assert store.get(job.id, "b") is None
    assert store.list("b") == []


def test_a_file_of_another_version_is_refused(store: JobStore, tmp_path: Path) -> None:
    import sqlite3

    with sqlite3.connect(tmp_path / "jobs.sqlite") as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(UsageError, match="another version"):
        JobStore(tmp_path / "jobs.sqlite")
