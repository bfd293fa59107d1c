"""The service without HTTP: accepts jobs, and gives their state and their files to whoever owns them."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from v2m.core.atomic import lock
from v2m.core.errors import UsageError
from v2m.pipeline import recipe_status, sidecar
from v2m.pipeline.job_runner import JobRunner
from v2m.pipeline.recipe_status import RecipeStatus
from v2m.pipeline.recipes import DEFAULT_RECIPE, list_recipes
from v2m.service.limits import Keys
from v2m.service.requests import JobRequest, check_request
from v2m.service.scheduler import JobFolders, Scheduler
from v2m.service.store import JobStore, StoredJob

FORM_BYTES = 1_000_000  # of a form, beside its files
FREE_DISK_BYTES = 500_000_000  # that an accepted upload must leave
LINK_S = 24 * 3600.0  # seconds for which a signed address of a file is good


class ServiceError(Exception):
    """An answer that is no success: HTTP `status`, a stable word `code`, one line for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass(frozen=True)
class ServiceConfig:
    """Settings of the service.

    Args:
        data: Folder of the jobs; one service uses it at a time.
        keys: Who may use the service.
        folders: Folders whose videos a request may name by `path`.
        fetch_hosts: Hosts from which a request may have a video fetched.
        upload_mb: The largest request, in MB.
        max_seconds: The longest video.
        max_minutes: The longest time that a job may run.
        retention_hours: For which a finished job and its files are kept.
        max_queued: Jobs that may wait or run.
        max_per_key: Jobs of one key that may wait or run.
        grace_s: Seconds that a running job is given at the end of the service.
    """

    data: Path
    keys: Keys = field(default_factory=Keys)
    folders: tuple[Path, ...] = ()
    fetch_hosts: tuple[str, ...] = ()
    upload_mb: int = 512
    max_seconds: float = 600.0
    max_minutes: float = 60.0
    retention_hours: float = 24.0
    max_queued: int = 200
    max_per_key: int = 100
    grace_s: float = 10.0

    @property
    def max_bytes(self) -> int:
        return self.upload_mb * 1_000_000


class Service:
    """Jobs of a data folder, from `start` to `stop`.

    Raises:
        UsageError: Another service uses the folder.
    """

    def __init__(self, config: ServiceConfig) -> None:
        # The outputs of jobs have absolute paths: below a folder that is named from the current one none would lie.
        self.config = config = replace(config, data=config.data.absolute())
        config.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = (config.data / "lock").open("a")
        try:
            lock(self._lock)
        except BlockingIOError:
            raise UsageError(f"another service uses {str(config.data)!r}: give another folder") from None
        self._secret = _read_secret(config.data / "secret")
        self.folders = JobFolders(config.data / "jobs")
        self.uploads = config.data / "uploads"
        shutil.rmtree(self.uploads, ignore_errors=True)  # of requests that ended with an earlier service
        for folder in (self.folders.root, self.uploads):
            folder.mkdir(exist_ok=True)
        self.store = JobStore(config.data / "jobs.sqlite")
        self.runner = JobRunner(config.max_minutes)
        self.scheduler = Scheduler(
            self.store,
            self.runner,
            self.folders,
            max_seconds=config.max_seconds,
            retention_s=3600 * config.retention_hours,
        )
        self.is_stopping = threading.Event()
        self.recipes: dict[str, RecipeStatus | None] = dict.fromkeys(list_recipes())
        self.recipes[DEFAULT_RECIPE] = recipe_status.READY

    def start(self) -> None:
        """Take jobs, and find out in the background which recipes can be used."""
        self.scheduler.start()
        threading.Thread(target=self._check_recipes, name="v2m-recipes", daemon=True).start()

    def stop(self) -> None:
        """Take no further job; give the running one `grace_s` seconds, then queue it again."""
        self.is_stopping.set()
        self.scheduler.stop(self.config.grace_s)
        self.store.close()
        self._lock.close()

    def _check_recipes(self) -> None:
        for name, status in recipe_status.check_all_recipes():
            self.recipes[name] = status
            if self.is_stopping.is_set():
                return

    def check_size(self, request_bytes: int) -> None:
        """Raise ServiceError where a request of so many bytes is too large, or does not fit on the disk."""
        if request_bytes > self.config.max_bytes + FORM_BYTES:
            raise ServiceError(413, "too_large", f"the request has more than {self.config.upload_mb} MB")
        if shutil.disk_usage(self.config.data).free < request_bytes + FREE_DISK_BYTES:
            raise ServiceError(507, "disk_full", "the disk of this service is too full")

    def submit(
        self, job_id: str, request: JobRequest, files: Mapping[str, Path], *, owner: str, digest: str, key: str | None
    ) -> StoredJob:
        """Queue a job whose `files` are at hand, or return the earlier one of the same idempotency `key`.

        The job's folder is removed where no new job comes of it. Raises QueueFullError, IdempotencyError.
        """
        stored = {"request": request.model_dump(), "files": {name: str(path) for name, path in files.items()}}
        try:
            job = self.store.submit(
                job_id,
                owner,
                stored,
                digest,
                idempotency_key=key,
                max_queued=self.config.max_queued,
                max_per_owner=self.config.max_per_key,
            )
        except BaseException:
            self.folders.remove(job_id)
            raise
        if job.id != job_id:
            self.folders.remove(job_id)
        self.scheduler.notify()
        return job

    def check(self, request: JobRequest) -> None:
        """Raise ServiceError for a request that cannot be done."""
        try:
            check_request(request)
        except ValueError as error:
            raise ServiceError(422, "invalid_request", str(error)) from None
        status = self.recipes[request.recipe]
        if status is not None and status.missing:
            raise ServiceError(422, "recipe_not_available", f"recipe {request.recipe}: {status.missing}")

    def job(self, job_id: str, owner: str) -> StoredJob:
        """Return a job of `owner`. Raise ServiceError where there is none."""
        job = self.store.get(job_id, owner)
        if job is None:
            raise ServiceError(404, "not_found", "there is no such job")
        return job

    def cancel(self, job_id: str, owner: str) -> StoredJob:
        """Cancel a job that has not ended."""
        self.job(job_id, owner)
        self.scheduler.cancel(job_id)
        return self.job(job_id, owner)

    def remove(self, job_id: str, owner: str) -> None:
        """Remove a job and its files, cancelled where it has not ended."""
        self.cancel(job_id, owner)
        self.store.remove([job_id])
        self.folders.remove(job_id)

    def inpaint_source(self, job_id: str, owner: str) -> Path:
        """Return the WAV of a finished job."""
        job = self.job(job_id, owner)
        video = job.result["candidates"][0]["video"] if job.result else ""
        path = self.result_folder(job) / Path(video).with_suffix(".wav")
        if job.state != "done" or not path.is_file():
            raise ServiceError(422, "no_music", f"job {job_id[:40]} has no WAV to write a part of anew")
        return path

    def check_same_video(self, job_id: str, owner: str, video: Path) -> None:
        """Raise ServiceError where a finished job is of another video than the file `video`."""
        job = self.job(job_id, owner)
        if job.result is None or job.result["record"]["input"]["sha256"] != sidecar.sha256_file(video):
            raise ServiceError(422, "invalid_request", f"job {job_id[:40]} is of another video")

    def result_folder(self, job: StoredJob) -> Path:
        """Return the folder with the outputs of a job that is done."""
        return self.folders.job(job.id) / (job.result or {}).get("folder", "attempt-0")

    def result_file(self, job: StoredJob, name: str) -> Path:
        """Return one of the files that a job wrote. Raise ServiceError for any other."""
        if name not in result_names(job):
            raise ServiceError(404, "not_found", "there is no such file")
        path = self.result_folder(job) / name
        if not path.is_file():
            raise ServiceError(404, "not_found", "the file has expired")
        return path

    def sign(self, job_id: str, name: str) -> str:
        """Return the query of an address of a file that needs no key, for `LINK_S` seconds."""
        expires = int(time.time() + LINK_S)
        return f"expires={expires}&signature={self._signature(job_id, name, expires)}"

    def is_signed(self, job_id: str, name: str, expires: int, signature: str) -> bool:
        expected = self._signature(job_id, name, expires)
        return time.time() < expires and hmac.compare_digest(expected.encode(), signature.encode())

    def _signature(self, job_id: str, name: str, expires: int) -> str:
        return hmac.new(self._secret, f"{job_id}\0{name}\0{expires}".encode(), hashlib.sha256).hexdigest()


def result_names(job: StoredJob) -> list[str]:
    """Return the names of all files of a job, below its folder of results."""
    candidates: list[Mapping[str, Any]] = list((job.result or {}).get("candidates", ()))
    return [name for candidate in candidates for name in candidate["files"]]


def _read_secret(path: Path) -> bytes:
    """Return the secret that signs addresses of files; made at the first start."""
    if not path.exists() or len(path.read_bytes()) < 32:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(32))
    return path.read_bytes()
