"""The scheduler: runs the jobs of the store one after the other, in the order in which they came.

One worker process does the work, and holds one model at a time. A job whose process ends goes back into the queue; each
attempt writes into a folder of its own, so that a process that outlived its job disturbs no other.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from v2m.core import errors
from v2m.core.errors import UsageError
from v2m.pipeline.job_runner import Job, JobCancelledError, JobError, JobResult, JobRunner, WorkerLostError
from v2m.service.requests import JobRequest, build_job
from v2m.service.store import JobStore, StoredJob

REPORT_S = 0.5  # between two reports of one stage
IDLE_S = 1.0  # between two looks at the queue, and
EXPIRY_S = 60.0  # at what has expired
ORPHAN_S = 3600.0  # age of a folder that belongs to no job: longer than any upload takes
OUT_NAME = "result"  # of the outputs, up to `.v2m`

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobFolders:
    """Folders of the jobs below `root`: the inputs of a job, and the outputs of each attempt."""

    root: Path

    def job(self, job_id: str) -> Path:
        return self.root / job_id

    def inputs(self, job_id: str) -> Path:
        return self.job(job_id) / "input"

    def outputs(self, job_id: str, attempt: int) -> Path:
        return self.job(job_id) / f"attempt-{attempt}"

    def remove(self, job_id: str) -> None:
        shutil.rmtree(self.job(job_id), ignore_errors=True)


class Scheduler:
    """Runs queued jobs in a thread until `stop`.

    Jobs that ended `retention_s` seconds ago are removed with their files.
    """

    def __init__(
        self, store: JobStore, runner: JobRunner, folders: JobFolders, *, max_seconds: float, retention_s: float
    ) -> None:
        self._store, self._runner, self._folders = store, runner, folders
        self._max_seconds, self._retention_s = max_seconds, retention_s
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._loop, name="v2m-scheduler", daemon=True)
        self._next_expiry = 0.0
        self.on_end: Callable[[str, str, float], None] | None = None  # gets recipe, state and seconds of each job

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        """Put jobs that an earlier process left running back into the queue, and begin."""
        self._recover()
        self._thread.start()

    def _recover(self) -> None:
        for job_id in self._store.recover():
            logger.warning("job %s was running when its process ended, and is queued again", job_id)

    def notify(self) -> None:
        """Look at the queue now."""
        self._wake.set()

    def cancel(self, job_id: str) -> bool:
        """Cancel a job that waits or runs; return False where it has ended."""
        is_cancelled = self._store.cancel(job_id)
        if is_cancelled:
            self._runner.cancel(job_id)  # nothing where another job runs
        return is_cancelled

    def stop(self, grace_s: float) -> None:
        """Take no further job; after `grace_s` seconds the running one goes back into the queue."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(grace_s)
        self._runner.cancel()
        self._thread.join()

    def _loop(self) -> None:
        while not self._stopping.is_set():
            try:
                has_run = self._run_next()
                if time.monotonic() >= self._next_expiry:
                    self._next_expiry = time.monotonic() + EXPIRY_S
                    self.remove_expired()
            except Exception:  # a full disk or a locked store pass; without this thread no job would ever end
                logger.exception("the queue failed, and goes on")
                has_run = False
            if not has_run:
                self._wake.wait(IDLE_S)
                self._wake.clear()
        self._store.close()

    def _run_next(self) -> bool:
        """Run the job that waits longest. Return False where none waits."""
        self._recover()  # a job is running here only where its end could not be stored
        job = self._store.take()
        if job is None:
            return False
        self._run(job)
        for attempt in range(1, job.attempts):  # files that killed processes left
            shutil.rmtree(self._folders.outputs(job.id, attempt), ignore_errors=True)
        self._report_end(job)
        return True

    def remove_expired(self) -> None:
        """Remove jobs that ended `retention_s` ago, and folders of no job."""
        expired = self._store.expired(time.time() - self._retention_s)
        for job_id in expired:
            self._folders.remove(job_id)
        self._store.remove(expired)
        for folder in self._folders.root.iterdir():
            with contextlib.suppress(FileNotFoundError):  # a request that was refused removes its own
                age = time.time() - folder.stat().st_mtime
                if age > ORPHAN_S and self._store.get(folder.name) is None:
                    shutil.rmtree(folder, ignore_errors=True)

    def _report_end(self, job: StoredJob) -> None:
        ended = self._store.get(job.id)
        if self.on_end and ended is not None and ended.is_finished and job.started is not None:
            self.on_end(job.request["request"]["recipe"], ended.state, time.time() - job.started)

    def _run(self, job: StoredJob) -> None:
        out = self._folders.outputs(job.id, job.attempts)
        try:
            result = self._work(job, out)
            if self._store.finish(job.id, _plain_result(result, out)):
                shutil.rmtree(self._folders.inputs(job.id), ignore_errors=True)
                return
        except JobCancelledError:
            if self._stopping.is_set():
                self._store.requeue(job.id, counts=False)
        except WorkerLostError as error:
            logger.warning("job %s lost its process: %s", job.id, error)
            if self._stopping.is_set():
                self._store.requeue(job.id, counts=False)
            else:
                self._store.requeue(job.id)
        except JobError as error:
            self._store.fail(job.id, str(error), error.code)
        except Exception as error:
            logger.exception("job %s", job.id)
            self._store.fail(job.id, errors.format_error(error), errors.exit_code(error))
        shutil.rmtree(out, ignore_errors=True)

    def _work(self, job: StoredJob, out: Path) -> JobResult:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        stage, reported = "Starting", 0.0
        for kind, value in self._runner.run(self._to_job(job, out), job.id):
            if kind == "done":
                return value
            if kind == "stage":
                stage, reported = value, 0.0
            if kind in {"stage", "progress"} and time.monotonic() >= reported + REPORT_S:
                reported = time.monotonic()
                self._store.report(job.id, stage, value if kind == "progress" else 0.0)
        raise JobCancelledError

    def _to_job(self, job: StoredJob, out: Path) -> Job:
        files = {name: Path(path) for name, path in job.request["files"].items()}
        video = files.pop("video")
        if not video.is_file():
            raise UsageError("the video is gone")
        request = JobRequest.model_validate(job.request["request"])
        return build_job(request, video, out / f"{OUT_NAME}.v2m", max_seconds=self._max_seconds, **files)


def _plain_result(result: JobResult, out: Path) -> dict[str, Any]:
    """Return the tags, the record and the files of each candidate, by their paths below `out`."""

    def names(paths: tuple[Path, ...]) -> list[str]:
        return [path.relative_to(out).as_posix() for path in paths if path.is_file()]

    candidates: list[Mapping[str, Any]] = [
        {
            "seed": candidate.seed,
            "sync": candidate.sync,
            "video": candidate.video.relative_to(out).as_posix(),
            "files": names(candidate.files),
        }
        for candidate in result.candidates
    ]
    return {"folder": out.name, "tags": dict(result.tags), "record": dict(result.record), "candidates": candidates}
