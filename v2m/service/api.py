"""The HTTP routes: jobs, their events and files, recipes, health and metrics."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

import v2m
from v2m.core import errors
from v2m.service import inputs, stream_api
from v2m.service.dependencies import Owner, ServiceParam, check_length, follow, submit
from v2m.service.limits import BodyLimits, RequestTooLargeError, RequestTooSlowError
from v2m.service.metrics import Metrics, RequestCounter
from v2m.service.requests import JobRequest
from v2m.service.responses import Health, JobView, Problem, RecipeView, view_job
from v2m.service.service import FORM_BYTES, Service, ServiceError
from v2m.service.store import IdempotencyError, QueueFullError

RETRY_AFTER_S = 10
JOB_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "request": {"type": "string", "description": "JSON, as of application/json"},
                        **{name: {"type": "string", "format": "binary"} for name in inputs.FILE_PARTS},
                    },
                }
            },
            "application/json": {"schema": JobRequest.model_json_schema(ref_template="#/components/schemas/{model}")},
        },
    }
}
PROBLEMS: dict[int | str, dict[str, Any]] = {code: {"model": Problem} for code in (401, 404, 413, 422, 429)}

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/v1", responses=PROBLEMS)


def create_app(service: Service) -> FastAPI:
    """Return the application; it starts and stops the service."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(service.start)
        yield
        await run_in_threadpool(service.stop)

    app = FastAPI(title="v2m", version=v2m.__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service, app.state.metrics = service, Metrics(service)
    app.include_router(router)
    app.include_router(stream_api.router)
    app.include_router(operations)
    app.add_middleware(BodyLimits, max_bytes=service.config.max_bytes + FORM_BYTES)
    app.add_middleware(RequestCounter, metrics=app.state.metrics)
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
    return app


@router.post("/jobs", status_code=202, openapi_extra=JOB_BODY)
async def create_job(request: Request, service: ServiceParam, owner: Owner) -> JobView:
    """Queue a job. With the header `Idempotency-Key`, the same request again returns the same job."""
    check_length(service, request)
    key = request.headers.get("idempotency-key")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json":
        job = await submit(service, inputs.parse_request(await inputs.read_json(request)), {}, owner, key)
    else:
        form = await inputs.read_form(request)
        try:
            text = form.get("request", "{}")
            if not isinstance(text, str):
                raise ServiceError(422, "invalid_request", "the field `request` is JSON, no file")
            uploads = {name: value for name, value in form.items() if name != "request"}
            job = await submit(service, inputs.parse_request(text), uploads, owner, key)
        finally:
            await form.close()
    return await run_in_threadpool(view_job, service, job)


@router.get("/jobs")
def list_jobs(
    service: ServiceParam, owner: Owner, before: str | None = None, limit: Annotated[int, Query(ge=1, le=200)] = 50
) -> list[JobView]:
    """List your jobs, the newest first; `before` is the id of the last one of the page before."""
    number = service.job(before, owner).number if before else None
    return [view_job(service, job) for job in service.store.list(owner, before=number, limit=limit)]


@router.get("/jobs/{job_id}")
def get_job(job_id: str, service: ServiceParam, owner: Owner) -> JobView:
    """Return a job."""
    return view_job(service, service.job(job_id, owner))


@router.post("/jobs/{job_id}/cancel")
def cancel_job(job_id: str, service: ServiceParam, owner: Owner) -> JobView:
    """Cancel a job; one that has ended stays as it is."""
    return view_job(service, service.cancel(job_id, owner))


@router.delete("/jobs/{job_id}", status_code=204)
def delete_job(job_id: str, service: ServiceParam, owner: Owner) -> None:
    """Remove a job and its files, cancelled where it has not ended."""
    service.remove(job_id, owner)


@router.get("/jobs/{job_id}/events", response_class=EventSourceResponse)
async def job_events(job_id: str, service: ServiceParam, owner: Owner) -> AsyncIterator[ServerSentEvent]:
    """Send the job as a server-sent event `job` at each change; the stream ends with the job."""
    async for job in follow(service, job_id, owner):
        yield ServerSentEvent(data=await run_in_threadpool(view_job, service, job), event="job")


@router.get("/jobs/{job_id}/files/{name:path}")
def get_file(job_id: str, name: str, service: ServiceParam, owner: Owner) -> FileResponse:
    """Return a file of a job that is done; ranges are supported."""
    path = service.result_file(service.job(job_id, owner), name)
    headers = {"x-content-type-options": "nosniff"}
    return FileResponse(path, filename=path.name, content_disposition_type="attachment", headers=headers)


@router.get("/recipes")
def list_recipes(service: ServiceParam, owner: Owner) -> list[RecipeView]:  # noqa: ARG001 - asks for the key
    """List the recipes, and what each lacks on this machine."""
    return [
        RecipeView(
            name=name,
            is_checked=status is not None,
            missing=status and status.missing,
            capabilities=sorted(status.capabilities) if status else [],
        )
        for name, status in service.recipes.items()
    ]


operations = APIRouter()


@operations.get("/healthz", responses={503: {"model": Problem}})
def check_health(service: ServiceParam) -> Health:
    """Return whether jobs are taken; needs no key."""
    if not service.scheduler.is_alive or service.is_stopping.is_set():
        raise ServiceError(503, "not_ready", "no jobs are taken")
    service.store.counts()
    return Health(status="ok", version=v2m.__version__)


@operations.get("/metrics", include_in_schema=False)
def get_metrics(request: Request, owner: Owner) -> Response:  # noqa: ARG001 - asks for the key
    """Return the metrics for Prometheus."""
    return Response(request.app.state.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _problem(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"code": code, "message": message}, status, headers)


async def _service_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return _problem(error.status, error.code, str(error))


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    return _problem(error.status_code, code, str(error.detail), dict(error.headers or {}))


async def _validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    problems = [f"{'.'.join(map(str, line['loc']))}: {line['msg']}" for line in error.errors()[:5]]
    return _problem(422, "invalid_request", "; ".join(problems)[:1000])


async def _queue_full(_: Request, error: Exception) -> Response:
    return _problem(429, "queue_full", str(error), {"retry-after": str(RETRY_AFTER_S)})


async def _idempotency(_: Request, error: Exception) -> Response:
    return _problem(409, "idempotency_key_reused", str(error))


async def _too_large(_: Request, error: Exception) -> Response:  # noqa: ARG001 - the shape of a handler
    return _problem(413, "too_large", "the request has more bytes than this service takes", {"connection": "close"})


async def _too_slow(_: Request, error: Exception) -> Response:  # noqa: ARG001 - the shape of a handler
    return _problem(408, "too_slow", "the request came too slowly", {"connection": "close"})


async def _disk_error(_: Request, error: Exception) -> Response:
    if errors.exit_code(error) != errors.DISK:
        logger.exception("a request failed", exc_info=error)
        return _problem(500, "internal_error", "the service failed at this request")
    return _problem(507, "disk_full", "the disk of this service cannot be written")


_HANDLERS: dict[type[Exception], Any] = {
    ServiceError: _service_error,
    HTTPException: _http_error,
    RequestValidationError: _validation_error,
    QueueFullError: _queue_full,
    IdempotencyError: _idempotency,
    RequestTooLargeError: _too_large,
    RequestTooSlowError: _too_slow,
    OSError: _disk_error,
    Exception: _disk_error,
}
