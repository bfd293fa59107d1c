"""The streaming dialect: one request that answers with the music itself, for plug-ins of editors.

`POST /v1/video-to-music` answers with lines of JSON that carry the sound in base64 while the connection is open, or
with the id of a task for `mode=async`, which `GET /v1/tasks/{id}` shows. Jobs are the same as those of `/v1/jobs`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from v2m.core.types import TEMPO_RANGE
from v2m.service import derived_files, inputs
from v2m.service.dependencies import Owner, ServiceParam, check_length, follow, submit
from v2m.service.requests import MAX_CANDIDATES, ExtraFiles, JobRequest
from v2m.service.service import Service, ServiceError
from v2m.service.store import StoredJob

CHUNK_BYTES = 48 * 1024  # of sound in one line
STATUSES = {"queued": "queued", "running": "processing", "done": "succeeded"}
CONTENT_TYPES = {"m4a": "audio/mp4", "wav": "audio/wav"}
_TEMPO = re.compile(r"\b(\d{2,3})\s*bpm\b", re.IGNORECASE)

router = APIRouter(prefix="/v1")


class MusicForm(BaseModel):
    """The fields of the form. Fields that this service has no use for are left alone."""

    model_config = ConfigDict(extra="ignore")
    prompt: str = Field(default="", max_length=5000)
    mode: Literal["stream", "async"] = "stream"
    variants_num: int = Field(default=1, ge=1, le=MAX_CANDIDATES)
    ducking: bool = False
    preserve_speech: bool = False
    output_format: Literal["m4a", "wav"] = "m4a"
    prompt_influence: float = Field(default=0.5, ge=0, le=1)
    stems: bool = False
    recipe: str | None = None
    video_url: str | None = None

    def job_request(self) -> JobRequest:
        """Return the job of these fields."""
        request: dict[str, Any] = {"settings": self.settings(), "url": self.video_url}
        request["extras"] = ExtraFiles(stems=self.stems, wav=True)
        if self.recipe is not None:
            request["recipe"] = self.recipe
        with inputs.invalid_requests():
            return JobRequest.model_validate(request)

    def settings(self) -> dict[str, Any]:
        """Return the settings: the prompt as tags, and the mix with the clip's own sound."""
        tags: dict[str, Any] = {}
        if self.prompt.strip():
            tags = {"caption": self.prompt, "genres": self.prompt, "moods": self.prompt}
            if (match := _TEMPO.search(self.prompt)) and TEMPO_RANGE[0] <= int(match[1]) <= TEMPO_RANGE[1]:
                tags["tempo"] = int(match[1])
        original = "duck" if self.ducking else "keep" if self.preserve_speech else "replace"
        return {"tags": tags, "mix": {"original": original}, "candidates": self.variants_num}


@router.post("/video-to-music", response_model=None)
async def create_music(request: Request, service: ServiceParam, owner: Owner) -> Response:
    """Write music for a video; the answer is the sound as a stream of lines, or a task."""
    check_length(service, request)
    form = await inputs.read_form(request)
    try:
        if form.get("segments") or form.get("segment_prompts"):
            raise ServiceError(422, "unsupported", "prompts for segments are not supported")
        with inputs.invalid_requests():
            fields = MusicForm.model_validate({name: value for name, value in form.items() if isinstance(value, str)})
        uploads = {name: value for name, value in form.items() if not isinstance(value, str)}
        key = request.headers.get("idempotency-key")
        job = await submit(service, fields.job_request(), uploads, owner, key)
    finally:
        await form.close()
    if fields.mode == "async":
        return JSONResponse({"task_id": job.id, "status": STATUSES.get(job.state, "failed")}, 202)
    lines = _stream(service, job, owner, fields.output_format)
    return StreamingResponse(lines, media_type="application/x-ndjson")


@router.get("/tasks/{task_id}")
def get_task(task_id: str, request: Request, service: ServiceParam, owner: Owner) -> dict[str, Any]:
    """Return the state of a task; when it has succeeded, addresses of its files that need no key."""
    job = service.job(task_id, owner)
    task: dict[str, Any] = {"task_id": job.id, "type": "video_to_music", "status": STATUSES.get(job.state, "failed")}
    if task["status"] == "failed":
        code = "CANCELLED" if job.state == "cancelled" else "GENERATION_FAILED"
        task["error"] = {"code": code, "message": job.error or "cancelled"}
    if job.state == "done":
        base = str(request.base_url).rstrip("/")
        task |= {kind: list(entries) for kind, entries in _artifacts(service, job, base).items()}
    return task


@router.get("/tasks/{task_id}/files/{name}")
def get_task_file(task_id: str, name: str, service: ServiceParam, expires: int, signature: str) -> Response:
    """Return the sound of a task's file by its signed address."""
    job = service.store.get(task_id) if service.is_signed(task_id, name, expires, signature) else None
    if job is None or job.state != "done":
        raise ServiceError(404, "not_found", "there is no such file")
    path = derived_files.derive(service.result_folder(job), _candidates(job), name)
    return FileResponse(path, media_type=CONTENT_TYPES[path.suffix[1:]], filename=name)


@router.get("/account/services")
def list_services(service: ServiceParam, owner: Owner) -> dict[str, Any]:  # noqa: ARG001 - asks for the key
    """Return what this service does, and its limits."""
    return {
        "available_services": ["video_to_music"],
        "max_upload_size_mb": service.config.upload_mb,
        "max_video_duration_seconds": service.config.max_seconds,
    }


async def _stream(service: Service, job: StoredJob, owner: str, suffix: str) -> AsyncIterator[str]:
    """Yield the lines of a job; one whose reader has gone is cancelled."""
    try:
        async for state in follow(service, job.id, owner):
            job = state
            yield _line("progress", stage=job.stage, progress=job.progress)
        if job.state != "done":
            message = job.error or "the service stops, and the job goes on when it starts again"
            yield _line("error", code="GENERATION_FAILED", message=message)
            return
        candidates = _candidates(job)
        for index in range(len(candidates)):
            name = f"music-{index + 1}.{suffix}"
            path = await run_in_threadpool(derived_files.derive, service.result_folder(job), candidates, name)
            for chunk in _chunks(path):
                yield _line("audio_chunk", stream_index=index, num_streams=len(candidates), data=chunk)
        yield _line("title", title=_title(job))
        yield _line("complete")
    finally:
        if not job.is_finished and not service.is_stopping.is_set():
            service.scheduler.cancel(job.id)


def _chunks(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield base64.b64encode(chunk).decode()


def _line(kind: str, **values: Any) -> str:
    return json.dumps({"type": kind, **values}) + "\n"


def _title(job: StoredJob) -> str:
    """Return a name for the music: its style and mood."""
    tags = (job.result or {}).get("tags", {})
    words = [*tags.get("moods", ())[:1], *tags.get("genres", ())[:1]]
    return " ".join(dict.fromkeys(str(word)[:40] for word in words)).capitalize() or "Music"


def _candidates(job: StoredJob) -> list[Mapping[str, Any]]:
    return list((job.result or {}).get("candidates", ()))


def _artifacts(service: Service, job: StoredJob, base: str) -> dict[str, list[dict[str, Any]]]:
    """Return the files of a job by kind: the music, it with the clip's own sound, stems."""
    settings = job.request["request"]["settings"]
    original = settings.get("mix", {}).get("original", "replace")
    has_stems = bool(job.request["request"]["extras"]["stems"])
    candidates = _candidates(job)

    def entry(name: str) -> dict[str, Any]:
        path = f"/v1/tasks/{job.id}/files/{name}"
        return {"url": f"{base}{path}?{service.sign(job.id, name)}", "content_type": CONTENT_TYPES[name[-3:]]}

    def entries(kind: str, suffix: str = "m4a") -> list[dict[str, Any]]:
        numbers = range(1, len(candidates) + 1)
        return [{"stream_index": number - 1, **entry(f"{kind}-{number}.{suffix}")} for number in numbers]

    artifacts = {"audio": [{**item, "title": {"title": _title(job)}} for item in entries("music")]}
    if original != "replace":
        artifacts["mux"] = entries("mixed")
    if original == "duck":
        artifacts["ducked"] = entries("mixed")
    if has_stems:
        names = derived_files.stem_names(service.result_folder(job), candidates)
        artifacts["stems"] = [{"stream_index": 0, **{name: entry(f"stem-{name}.wav") for name in names}}]
    return artifacts
