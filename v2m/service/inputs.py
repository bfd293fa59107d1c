"""Inputs of a request: the settings, and the video by upload, path or address."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import urljoin, urlsplit

from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from v2m.core.errors import UsageError, error_text
from v2m.service.requests import JobRequest, resolve_path
from v2m.service.service import Service, ServiceError
from v2m.service.store import new_id

MAX_JSON_BYTES = 1_000_000
MAX_FIELDS, MAX_FILES = 40, 3
CHUNK_BYTES = 1 << 20
FETCH_TIMEOUT_S, FETCH_TOTAL_S = 30.0, 900.0
MAX_REDIRECTS = 5
FILE_PARTS = ("video", "melody", "reference")


@dataclass(frozen=True)
class JobInputs:
    """The files of a job in its folder, by their part of the request; `digest` of their contents."""

    job_id: str = field(default_factory=new_id)
    files: dict[str, Path] = field(default_factory=dict)
    digest: list[str] = field(default_factory=list)


@contextmanager
def invalid_requests() -> Iterator[None]:
    """Turn what is wrong with a request's form or fields into a ServiceError."""
    try:
        yield
    except MultiPartException as error:
        raise ServiceError(400, "invalid_form", error.message) from None
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, line['loc']))}: {line['msg']}" for line in error.errors()[:5]]
        raise ServiceError(422, "invalid_request", "; ".join(problems)[:1000]) from None
    except UsageError as error:
        raise ServiceError(422, "invalid_request", str(error)) from None
    except (ValueError, RecursionError) as error:  # of json: no JSON, no UTF-8, too many digits, too deep
        raise ServiceError(400, "invalid_json", f"the request is no JSON: {error_text(error, 200)}") from None


async def read_form(request: Request) -> FormData:
    """Return the fields and files of a form. Uploads lie in temporary files until the form is closed."""
    with invalid_requests():
        return await request.form(max_files=MAX_FILES, max_fields=MAX_FIELDS, max_part_size=MAX_JSON_BYTES)


async def read_json(request: Request) -> bytes:
    """Return a body of at most `MAX_JSON_BYTES`."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_JSON_BYTES:
            raise ServiceError(413, "too_large", "a body of JSON takes at most 1 MB")
    return bytes(body)


def parse_request(text: str | bytes) -> JobRequest:
    """Return the settings of a job from JSON."""
    with invalid_requests():
        return JobRequest.model_validate(json.loads(text or "{}"))


async def collect_files(service: Service, request: JobRequest, uploads: Mapping[str, object]) -> JobInputs:
    """Put the video of a request, and the other files, into the folder of a new job.

    Raises ServiceError where there is no video, or more than one.
    """
    named = [name for name in ("path", "url") if getattr(request, name) is not None]
    parts = {name: value for name, value in uploads.items() if isinstance(value, UploadFile)}
    if unknown := set(parts) - set(FILE_PARTS):
        raise ServiceError(422, "invalid_request", f"there is no file part {min(unknown)[:40]!a}")
    if len(named) + ("video" in parts) != 1:
        message = "give one video: the file part `video`, or `path`, or `url`"
        raise ServiceError(422, "no_video" if not named else "invalid_request", message)
    inputs = JobInputs()
    folder = service.folders.inputs(inputs.job_id)
    folder.mkdir(parents=True)
    try:
        for name, upload in parts.items():
            path = folder / f"{name}{_safe_suffix(upload.filename or '')}"
            chunks = iter(partial(upload.file.read, CHUNK_BYTES), b"")
            await run_in_threadpool(_write, chunks, path, inputs, name)
        if request.path is not None:
            with invalid_requests():
                path = resolve_path(request.path, service.config.folders)
            status = path.stat()
            inputs.files["video"] = path
            inputs.digest.append(f"{path}:{status.st_size}:{status.st_mtime_ns}")
        if request.url is not None:
            await run_in_threadpool(_fetch, service, request.url, folder, inputs)
    except BaseException:
        service.folders.remove(inputs.job_id)
        raise
    return inputs


def request_digest(request: JobRequest, inputs: JobInputs) -> str:
    """Return the digest by which two requests are the same."""
    text = json.dumps([request.model_dump(), inputs.digest], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _safe_suffix(name: str) -> str:
    suffix = PurePosixPath(name.replace("\\", "/")).suffix.lower()
    return suffix if re.fullmatch(r"\.[a-z0-9]{1,8}", suffix) else ".bin"


def _write(chunks: Iterable[bytes], path: Path, inputs: JobInputs, name: str) -> None:
    """Write a file of a job, and note it with its digest."""
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
            file.write(chunk)
    if not size:
        raise ServiceError(422, "empty_file", f"{name}: the file is empty")
    inputs.files[name] = path
    inputs.digest.append(f"{name}:{digest.hexdigest()}")


def check_address(address: str, hosts: tuple[str, ...]) -> None:
    """Raise ServiceError for an address of a host that the operator has not allowed."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        raise ServiceError(422, "invalid_url", "url: no address of a file") from None
    host = parts.hostname or ""
    names = {host, f"{host}:{port}"} if port else {host}
    if parts.scheme not in {"http", "https"} or parts.username is not None or not names & set(hosts):
        message = "url: this service fetches nothing from there" if hosts else "url: this service fetches no videos"
        raise ServiceError(422, "host_not_allowed", message)


def _fetch(service: Service, address: str, folder: Path, inputs: JobInputs) -> None:
    """Fetch a video; each address of a redirect is checked like the first."""
    import httpx

    deadline = time.monotonic() + FETCH_TOTAL_S
    with httpx.Client(timeout=FETCH_TIMEOUT_S, follow_redirects=False, trust_env=False) as client:
        for _ in range(MAX_REDIRECTS + 1):
            check_address(address, service.config.fetch_hosts)
            try:
                with client.stream("GET", address) as response:
                    if response.is_redirect:
                        address = urljoin(address, response.headers.get("location", ""))
                        continue
                    if response.status_code != httpx.codes.OK:
                        raise ServiceError(422, "fetch_failed", f"url: the host answers {response.status_code}")
                    path = folder / f"video{_safe_suffix(urlsplit(address).path)}"
                    _write(_within_limits(service, response.iter_bytes(CHUNK_BYTES), deadline), path, inputs, "video")
                    return
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise ServiceError(422, "fetch_failed", f"url: {error_text(error, 200)}") from None
    raise ServiceError(422, "fetch_failed", "url: too many redirects")


def _within_limits(service: Service, chunks: Iterable[bytes], deadline: float) -> Iterator[bytes]:
    """Yield chunks. Raise ServiceError where they are too many bytes, or come too slowly."""
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > service.config.max_bytes:
            raise ServiceError(413, "too_large", f"url: more than {service.config.upload_mb} MB")
        if time.monotonic() > deadline:
            raise ServiceError(422, "fetch_failed", "url: the host is too slow")
        yield chunk
