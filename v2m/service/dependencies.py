"""Functions that all routes share: the service, the owner of a request, its job and its changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from v2m.service import inputs
from v2m.service.requests import JobRequest
from v2m.service.service import Service, ServiceError
from v2m.service.store import StoredJob

EVENT_S = 0.5  # between two looks at a job
MAX_KEY_LENGTH = 200


def get_service(request: Request) -> Service:
    return request.app.state.service


def get_owner(request: Request) -> str:
    """Return the owner of the request's key. Raise ServiceError for a request without a valid one."""
    owner = get_service(request).config.keys.owner(request.headers.get("authorization"))
    if owner is None:
        raise ServiceError(401, "unauthorized", "this service needs a key: Authorization: Bearer KEY")
    return owner


ServiceParam = Annotated[Service, Depends(get_service)]
Owner = Annotated[str, Depends(get_owner)]


def check_length(service: Service, request: Request) -> None:
    """Raise ServiceError for a request whose header gives a length that is too large."""
    length = request.headers.get("content-length", "0")
    service.check_size(int(length) if length.isdigit() else 0)


async def submit(
    service: Service, request: JobRequest, uploads: dict[str, Any], owner: str, key: str | None
) -> StoredJob:
    """Queue a job of a checked request with its files."""
    if key is not None and not 0 < len(key) <= MAX_KEY_LENGTH:
        raise ServiceError(422, "invalid_request", f"an idempotency key has 1 to {MAX_KEY_LENGTH} characters")
    await run_in_threadpool(service.check, request)
    files: dict[str, Any] = {}
    if request.inpaint is not None:
        files["inpaint_source"] = await run_in_threadpool(service.inpaint_source, request.inpaint.job, owner)
    collected = await inputs.collect_files(service, request, uploads)
    if request.inpaint is not None:
        try:
            await run_in_threadpool(service.check_same_video, request.inpaint.job, owner, collected.files["video"])
        except ServiceError:
            service.folders.remove(collected.job_id)
            raise
    digest = inputs.request_digest(request, collected)
    return await run_in_threadpool(
        service.submit, collected.job_id, request, {**collected.files, **files}, owner=owner, digest=digest, key=key
    )


async def follow(service: Service, job_id: str, owner: str) -> AsyncIterator[StoredJob]:
    """Yield a job at each change until it ends, is removed, or the service stops."""
    known = None
    job = await run_in_threadpool(service.job, job_id, owner)
    while job is not None:
        seen = (job.state, job.stage, job.progress)
        if seen != known:
            known = seen
            yield job
        if job.is_finished or service.is_stopping.is_set():
            return
        await asyncio.sleep(EVENT_S)
        job = await run_in_threadpool(service.store.get, job_id, owner)
