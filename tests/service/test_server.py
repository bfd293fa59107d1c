"""The command `v2m serve`: its process, signals, and clients that are too slow or too loud."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import EXAMPLE
from tests.fixtures.service_process import is_alive, running, workers
from tests.service.conftest import DEADLINE_S
from v2m.cli.serve import parse
from v2m.core.errors import UsageError


def submit(address: str, **data: str) -> str:
    with EXAMPLE.open("rb") as video:
        answer = httpx.post(f"{address}/v1/jobs", files={"video": ("a.mp4", video)}, data=data, timeout=60.0)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def wait(address: str, job_id: str, state: str) -> dict[str, Any]:
    deadline = time.monotonic() + DEADLINE_S
    job: dict[str, Any] = {}
    while time.monotonic() < deadline:
        job = httpx.get(f"{address}/v1/jobs/{job_id}", timeout=60.0).json()
        if job["state"] in {state, "failed"}:
            assert job["state"] == state, job["error"]
            return job
        time.sleep(0.05)
    raise AssertionError(f"not {state} in time: {job}")


def wait_for_work(address: str, job_id: str) -> None:
    """Wait until the worker process has begun a job."""
    deadline = time.monotonic() + DEADLINE_S
    while not wait(address, job_id, "running")["stage"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ask(address: str, request: bytes, *, pause: float = 0.0) -> bytes:
    """Send bytes, and return all that comes back before the service closes the connection."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=DEADLINE_S) as connection:
        try:
            connection.sendall(request)
            time.sleep(pause)
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
        except ConnectionError:
            return b""
        return b"".join(parts)


linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the worker in /proc")


@linux
@pytest.mark.slow
def test_jobs_outlive_the_worker_and_the_service(tmp_path: Path) -> None:
    with running(tmp_path / "data") as (process, address):
        first = submit(address)
        wait_for_work(address, first)
        for worker in workers(process.pid):
            os.kill(worker, signal.SIGKILL)
        assert wait(address, first, "done")["attempts"] == 2
        second, third = submit(address), submit(address)
        wait_for_work(address, second)
        left = workers(process.pid)
        process.kill()
        process.wait()
        deadline = time.monotonic() + DEADLINE_S
        while any(map(is_alive, left)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(map(is_alive, left)), "no worker outlives its service"
    with running(tmp_path / "data") as (process, address):
        assert wait(address, second, "done")["attempts"] == 2
        assert wait(address, third, "done")["attempts"] == 1
        attempts = [path.name for path in (tmp_path / "data").rglob("attempt-*") if path.parent.name == second]
        assert attempts == ["attempt-2"], "files of the killed process are removed"
        assert len(wait(address, first, "done")["files"]) > 1, "what was done before is there"


def test_jobs_lie_in_a_folder_that_is_named_from_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with running(Path("data")) as (_, address):
        assert len(wait(address, submit(address), "done")["files"]) > 1


def test_sigterm_queues_the_running_job_again(tmp_path: Path) -> None:
    with running(tmp_path / "data", "--grace", "0") as (process, address):
        job_id = submit(address)
        wait_for_work(address, job_id)
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
    with running(tmp_path / "data") as (_, address):
        assert wait(address, job_id, "done")["attempts"] == 1, "the attempt that the service ended does not count"


def test_slow_and_large_headers_are_cut_off(tmp_path: Path) -> None:
    with running(tmp_path / "data") as (_, address):
        assert ask(address, b"") == b"", "a connection without a request is closed"
        assert ask(address, b"GET /healthz HTTP/1.1\r\nHost: x\r\n") == b""
        many = b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 200_000 + b"\r\n"
        assert b" 200 " not in ask(address, many)
        assert b" 400 " in ask(address, b"nonsense\r\n\r\n")
        keep = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        assert b" 200 " in ask(address, keep + keep[:10]), "the second request is as slow as a first may not be"
        assert httpx.get(f"{address}/healthz", timeout=60.0).json()["status"] == "ok"


def test_a_second_service_on_the_same_folder_or_port_is_refused(tmp_path: Path) -> None:
    with running(tmp_path / "data") as (_, address):
        words = [sys.executable, "-m", "v2m", "serve", "--data", str(tmp_path / "data"), "--port"]
        done = subprocess.run([*words, "0"], capture_output=True, text=True, check=False)
        assert (done.returncode, "another service uses" in done.stderr) == (2, True), done.stderr
        done = subprocess.run([*words, address.split(":")[-1]], capture_output=True, text=True, check=False)
        assert (done.returncode, "give another --port" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--host", "0.0.0.0"], "give --key-file"),
        (["--port", "70000"], "port 70000"),
        (["--queue", "0"], "queue 0"),
        (["--folders", "/nowhere"], "no folder"),
    ],
)
def test_wrong_options_are_refused(words: list[str], problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("V2M_KEYS", raising=False)
    with pytest.raises(UsageError, match=problem):
        parse(words)


def test_other_addresses_need_keys_or_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse(["--host", "0.0.0.0", "--no-keys"]).no_keys
    monkeypatch.setenv("V2M_KEYS", "a-key-of-some-length")
    assert parse(["--host", "0.0.0.0"]).host == "0.0.0.0"
