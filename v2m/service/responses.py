"""The answers of the HTTP service, as its OpenAPI description gives them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, Field

from v2m.service.service import Service, result_names
from v2m.service.store import State, StoredJob


class Problem(BaseModel):
    """An answer that is no success."""

    code: str = Field(description="a stable word")
    message: str = Field(description="one line for people")


class JobProblem(BaseModel):
    """The reason why a job failed."""

    code: int = Field(description="the exit code that the command would have had")
    message: str


class ResultFile(BaseModel):
    """A file that a job wrote."""

    name: str
    bytes: int
    url: str = Field(description="relative to the service; needs the key of the job")


class CandidateView(BaseModel):
    """One candidate, the best first."""

    seed: int
    sync: float | None = Field(description="how well sound and picture agree, 0 to 1; null for a single candidate")
    video: str = Field(description="the name of the video among the files")


class JobView(BaseModel):
    """A job. Times are UTC."""

    id: str
    state: State
    recipe: str
    created: datetime
    started: datetime | None
    ended: datetime | None
    attempts: int = Field(description="processes that began the job; more than 1 after a process ended")
    stage: str
    progress: float = Field(description="of the stage, 0 to 1")
    stage_seconds_left: float | None = Field(description="as estimated from the pace of the stage")
    queue_position: int | None = Field(description="jobs that wait or run before this one; null unless queued")
    error: JobProblem | None
    tags: Mapping[str, Any] | None
    record: Mapping[str, Any] | None = Field(description="the sidecar: every value that the music depends on")
    candidates: list[CandidateView]
    files: list[ResultFile]


class RecipeView(BaseModel):
    """A recipe. `missing`: what it lacks on this machine; `is_checked`: whether that is known yet."""

    name: str
    is_checked: bool
    missing: str | None
    capabilities: list[str]


class Health(BaseModel):
    """`status`: "ok"; the answer is 503 otherwise."""

    status: str
    version: str


def view_job(service: Service, job: StoredJob) -> JobView:
    """Return a job as the service shows it."""
    result = job.result or {}
    return JobView(
        id=job.id,
        state=job.state,
        recipe=job.request["request"]["recipe"],
        created=_utc(job.created),
        started=_utc(job.started) if job.started else None,
        ended=_utc(job.ended) if job.ended else None,
        attempts=job.attempts,
        stage=job.stage,
        progress=job.progress,
        stage_seconds_left=job.stage_seconds_left,
        queue_position=service.store.position(job) if job.state == "queued" else None,
        error=JobProblem(code=job.error_code or 0, message=job.error) if job.state == "failed" and job.error else None,
        tags=result.get("tags"),
        record=result.get("record"),
        candidates=[CandidateView(**{name: candidate[name] for name in CandidateView.model_fields})
                    for candidate in result.get("candidates", ())],
        files=_files(service, job),
    )  # fmt: skip


def file_url(job_id: str, name: str) -> str:
    return f"/v1/jobs/{job_id}/files/{quote(str(PurePosixPath(name)))}"


def _files(service: Service, job: StoredJob) -> list[ResultFile]:
    folder = service.result_folder(job)
    files: list[ResultFile] = []
    for name in result_names(job):
        path = folder / name
        if path.is_file():
            files.append(ResultFile(name=name, bytes=path.stat().st_size, url=file_url(job.id, name)))
    return files


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
