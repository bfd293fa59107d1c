"""The two ways to the music: the command `v2m score`, and the HTTP service. Standard library alone."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from time import sleep
from typing import Any

POLL_S = 0.5
END_S = 10.0  # that the command gets to end what it has started
TIMEOUT_S = 60.0  # of one exchange with the service
CHUNK_BYTES = 1 << 20
COMMAND, KEY = "V2M_COMMAND", "V2M_KEY"  # variables: a key in a field would lie in the saved workflow


@dataclass(frozen=True)
class Request:
    """What to write: the tags that are given, the rest is read from the picture; `folder` is empty."""

    video: Path
    folder: Path
    recipe: str
    seed: int
    tags: Mapping[str, Any]
    original: str


def score_by_command(request: Request, raise_if_interrupted: Callable[[], None]) -> tuple[Path, Path]:
    """Run `v2m score`; return the paths of the video and of the WAV. Raises RuntimeError with the command's error."""
    tags = [f"--tags.{name}={value}" for name, value in request.tags.items()]
    words = [*_command(), "score", str(request.video), f"--out={request.folder}", f"--recipe={request.recipe}"]
    words += [f"--seed={request.seed}", f"--mix.original={request.original}", "--wav", "--quiet", *tags]
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, text=True, errors="replace", **options) as process:
        try:
            errors = _wait(process, raise_if_interrupted)
        except BaseException:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_S)
            process.kill()
            raise
    if process.returncode:
        raise RuntimeError((errors.strip().splitlines() or [f"v2m ended with code {process.returncode}"])[-1])
    [record] = request.folder.glob("*.json")
    video = request.folder / json.loads(record.read_text(encoding="utf-8"))["output"]["file"]
    return video, video.with_suffix(".wav")


def _command() -> list[str]:
    if os.environ.get(COMMAND):
        return shlex.split(os.environ[COMMAND])
    if find_spec("v2m") is not None:
        return [sys.executable, "-m", "v2m"]
    program = shutil.which("v2m")
    if program is None:
        raise RuntimeError(f"there is no command v2m: install it, name it in {COMMAND}, or give an address")
    return [program]


def _wait(process: subprocess.Popen[str], raise_if_interrupted: Callable[[], None]) -> str:
    """Return what the process wrote to standard error."""
    while True:
        try:
            return process.communicate(timeout=POLL_S)[1]
        except subprocess.TimeoutExpired:
            raise_if_interrupted()


def score_by_service(
    request: Request, address: str, raise_if_interrupted: Callable[[], None], show_progress: Callable[[float], None]
) -> tuple[Path, Path]:
    """Have a service write the video; return the paths of the video and of the WAV.

    Raises RuntimeError with the service's message. The job is removed from the service in any case.
    """
    service = _Service(address)
    job = service.submit(request, raise_if_interrupted)
    try:
        while job["state"] in {"queued", "running"}:
            raise_if_interrupted()
            show_progress(job["progress"])
            sleep(POLL_S)
            job = service.get(job["id"])
        if job["state"] != "done":
            raise RuntimeError((job["error"] or {}).get("message") or f"the job was {job['state']}")
        video = job["candidates"][0]["video"]
        names = [video, str(Path(video).with_suffix(".wav"))]
        urls = {each["name"]: each["url"] for each in job["files"]}
        first, second = (service.download(urls[name], request.folder / _safe_name(name)) for name in names)
        return first, second
    finally:
        with suppress(RuntimeError):
            service.remove(job["id"])


class _Service:
    """The routes of `v2m serve` that the node needs."""

    def __init__(self, address: str) -> None:
        if not re.match(r"https?://[^/\s]+", address):
            raise RuntimeError(f"address {address!r} must begin with http:// or https://")
        self._address = address.rstrip("/")
        key = os.environ.get(KEY, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise RuntimeError(f"{KEY} must be ASCII characters on one line")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._opener = urllib.request.build_opener(_NoRedirects)

    def submit(self, request: Request, raise_if_interrupted: Callable[[], None]) -> dict[str, Any]:
        self._json("GET", "/v1/recipes")  # needs the key: an upload without it would be broken off, without a reason
        settings = {f"tags.{name}": value for name, value in request.tags.items()}
        settings |= {"seed": request.seed, "mix.original": request.original}
        text = json.dumps({"recipe": request.recipe, "settings": settings, "extras": {"wav": True}})
        boundary = uuid.uuid4().hex
        name = f"video{_suffix(request.video)}"
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="request"\r\n\r\n{text}\r\n'
            f'--{boundary}\r\nContent-Disposition: form-data; name="video"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        length = len(head) + request.video.stat().st_size + len(tail)
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Content-Length": str(length)}
        body = _body(head, request.video, tail, raise_if_interrupted)
        return self._json("POST", "/v1/jobs", body, headers)

    def get(self, job_id: str) -> dict[str, Any]:
        return self._json("GET", f"/v1/jobs/{job_id}")

    def download(self, url: str, path: Path) -> Path:
        """Write the file at a URL of this service to `path`, whole or not at all."""
        temporary = path.with_name(f".{path.name}.unfinished")
        try:
            with self._open("GET", url) as answer, temporary.open("wb") as file:
                shutil.copyfileobj(answer, file, CHUNK_BYTES)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return path

    def remove(self, job_id: str) -> None:
        self._open("DELETE", f"/v1/jobs/{job_id}").close()

    def _json(self, *words: Any) -> Any:
        with self._open(*words) as answer:
            try:
                return json.load(answer)
            except ValueError:
                raise RuntimeError(f"{self._address} is no service of v2m") from None

    def _open(
        self, method: str, path: str, data: Iterator[bytes] | None = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        url = f"{self._address}/{path.lstrip('/')}"
        request = urllib.request.Request(url, data, {**self._headers, **(headers or {})}, method=method)  # noqa: S310 - http or https
        try:
            return self._opener.open(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{self._address}: {_message(error)}") from None
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            if data is not None and isinstance(reason, ConnectionError):
                message = f"{self._address} broke off the upload: the file may be larger than it takes"
                raise RuntimeError(message) from None
            raise RuntimeError(f"{self._address} cannot be reached ({reason})") from None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the key would go along to another host."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:  # noqa: PLR0917 - urllib's
        return None


def _body(head: bytes, video: Path, tail: bytes, raise_if_interrupted: Callable[[], None]) -> Iterator[bytes]:
    yield head
    with video.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            raise_if_interrupted()
            yield chunk
    yield tail


def _message(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["message"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"{error.code} {error.reason}"


def _suffix(path: Path) -> str:
    return path.suffix if re.fullmatch(r"\.\w{1,8}", path.suffix, re.ASCII) else ""


def _safe_name(name: str) -> str:
    """Return the last part of a name that the service gives."""
    return re.sub(r"[^\w.-]+", "_", Path(name.replace("\\", "/")).name).lstrip(".") or "result"
