"""A service with the real worker process, answered in this process."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from tests.conftest import EXAMPLE, ffmpeg
from v2m.service.api import create_app
from v2m.service.limits import Keys
from v2m.service.service import Service, ServiceConfig

KEY, OTHER_KEY = "first-key-of-the-tests", "second-key-of-the-tests"
DEADLINE_S = 240.0  # on a busy machine


@pytest.fixture(scope="session")
def short_video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The first two seconds of the example."""
    path = tmp_path_factory.mktemp("short") / "short.mp4"
    ffmpeg("-i", EXAMPLE, "-t", "2", "-an", "-c:v", "copy", path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, short_video: bytes) -> Path:
    """A folder that the service may read."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "short.mp4").write_bytes(short_video)
    return folder


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Service:
    keys = Keys([KEY, OTHER_KEY])
    data = tmp_path_factory.mktemp("service") / "data"
    return Service(ServiceConfig(data, keys, (folder,), ("127.0.0.1",), upload_mb=8, max_seconds=5.0, max_per_key=8))


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[TestClient]:
    service._check_recipes = lambda: None  # type: ignore[method-assign] - minutes of libraries' imports
    with TestClient(create_app(service), headers={"Authorization": f"Bearer {KEY}"}) as client:
        yield client


def submit(client: TestClient, video: bytes | None, *, headers: dict[str, str] | None = None, **request: Any) -> Any:
    """Return the answer to a job by upload, or by JSON where there is no video."""
    if video is None:
        return client.post("/v1/jobs", json=request, headers=headers)
    files = {"video": ("a.mp4", io.BytesIO(video), "video/mp4")}
    return client.post("/v1/jobs", files=files, data={"request": json.dumps(request)}, headers=headers)


def wait(client: TestClient, answer: httpx.Response) -> dict[str, Any]:
    """Return an accepted job when it has ended."""
    assert answer.status_code == httpx.codes.ACCEPTED, answer.text
    deadline = time.monotonic() + DEADLINE_S
    job: dict[str, Any] = {}
    while time.monotonic() < deadline:
        job = client.get(f"/v1/jobs/{answer.json()['id']}").json()
        if job["state"] in {"done", "failed", "cancelled"}:
            return job
        time.sleep(0.1)
    raise AssertionError(f"not ended in time: {job}")
