"""The HTTP service under load, and while its processes are killed.

    uv run python -m bench.service [--requests 100] [--kills 50] [--jobs 200]

* `--requests` jobs by `--clients` threads: lost jobs, jobs done twice (more than one attempt, or one id for two keys),
  jobs that ended out of order, seconds from the request to the end of the job.
* memory: `--jobs` more jobs; resident memory of the service and its worker after the first 20 and at the end.
* kills: SIGKILL of the worker, the service, or both, at random times while jobs come; then every accepted job must be
  done, or failed with a reason, and each file of a job that is done must be whole.

Clips have 2 s. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import httpx
import numpy as np
from av.error import FFmpegError

from tests.conftest import EXAMPLE, ffmpeg
from tests.fixtures.service_process import running, workers

POLL_S, DEADLINE_S = 0.1, 900.0
WARM_JOBS = 20
OPTIONS = ("--queue", "1000", "--queue-per-key", "1000")


def submit(address: str, video: bytes, key: str, seed: int) -> str:
    """Return the id of an accepted job."""
    request = {"settings": {"seed": seed}}
    files = {"video": ("a.mp4", io.BytesIO(video))}
    data, headers = {"request": json.dumps(request)}, {"Idempotency-Key": key}
    answer = httpx.post(f"{address}/v1/jobs", files=files, data=data, headers=headers, timeout=60.0)
    answer.raise_for_status()
    return answer.json()["id"]


def wait(address: str, job_id: str) -> dict[str, Any]:
    """Return a job that has ended."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        job = httpx.get(f"{address}/v1/jobs/{job_id}", timeout=60.0).json()
        if job["state"] in {"done", "failed", "cancelled"}:
            return job
        time.sleep(POLL_S)
    raise TimeoutError(job_id)


def load(address: str, video: bytes, requests: int, clients: int) -> dict[str, Any]:
    """Return what became of `requests` jobs by `clients` threads."""

    def work(number: int) -> tuple[str, float, dict[str, Any]]:
        started = time.monotonic()
        job_id = submit(address, video, f"load-{number}", number)
        job = wait(address, job_id)
        return job_id, time.monotonic() - started, job

    with ThreadPoolExecutor(clients) as pool:
        rows = list(pool.map(work, range(requests)))
    jobs = sorted((job for *_, job in rows), key=lambda job: job["created"])
    seconds = [row[1] for row in rows]
    ends = [job["ended"] for job in jobs]
    return {
        "requests": requests,
        "lost": sum(job["state"] != "done" for job in jobs),
        "twice": requests - len({row[0] for row in rows}) + sum(job["attempts"] > 1 for job in jobs),
        "out_of_order": sum(late < early for early, late in itertools.pairwise(ends)),
        "p50_s": round(float(np.percentile(seconds, 50)), 2),
        "p95_s": round(float(np.percentile(seconds, 95)), 2),
    }


def resident_mb(pid: int) -> float:
    """Return the memory of a service and its processes."""
    pages = [int(Path(f"/proc/{process}/statm").read_text().split()[1]) for process in (pid, *workers(pid))]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory(address: str, pid: int, video: bytes, jobs: int) -> dict[str, Any]:
    """Return the resident memory after the first jobs and after all."""
    sizes: list[float] = []
    for number in range(jobs):
        wait(address, submit(address, video, f"memory-{number}", number))
        sizes.append(resident_mb(pid))
    early, late = np.median(sizes[WARM_JOBS - 5 : WARM_JOBS + 5]), np.median(sizes[-10:])
    return {"memory_mb": [round(early), round(late)], "memory_growth": round(float(late / early - 1), 3)}


class Killer:
    """A service that is started again each time it is killed, and a client that does not mind."""

    def __init__(self, data: Path, video: bytes, seed: int) -> None:
        self._data, self._video, self._random = data, video, random.Random(seed)
        self.accepted: list[str] = []

    def run(self, kills: int) -> dict[str, Any]:
        """Kill `kills` times, wait for all jobs, and return what became of them."""
        done = 0
        while done < kills:
            with running(self._data, *OPTIONS) as (process, address), self._clients(address):
                while done < kills:
                    time.sleep(self._random.uniform(0.2, 6.0))
                    target = self._random.choice(("worker", "service", "both"))
                    done += self._kill(process.pid, target)
                    if target != "worker":
                        break
        with running(self._data, *OPTIONS) as (_, address):
            jobs = [wait(address, job_id) for job_id in self.accepted]
            halves = sum(self._is_half(address, file) for job in jobs for file in job["files"])
        silent = [job for job in jobs if job["state"] != "done" and not (job["error"] and job["error"]["message"])]
        leftovers = [path for path in self._data.rglob(".*v2m-*") if path.is_file()]
        return {
            "kills": done,
            "accepted": len(jobs),
            "failed_with_reason": sum(job["state"] == "failed" for job in jobs) - len(silent),
            "without_end": len(silent),
            "half_files": halves,
            "unfinished_files": len(leftovers),
        }

    @contextlib.contextmanager
    def _clients(self, address: str) -> Iterator[None]:
        stop = threading.Event()

        def work() -> None:
            while not stop.wait(1.0):
                number = len(self.accepted)
                with contextlib.suppress(httpx.HTTPError):
                    self.accepted.append(submit(address, self._video, f"kill-{number}", number))

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _kill(self, pid: int, target: str) -> int:
        processes = workers(pid) if target != "service" else []
        for process in [*([pid] if target != "worker" else []), *processes]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        return int(bool(processes) or target != "worker")

    @staticmethod
    def _is_half(address: str, file: dict[str, Any]) -> bool:
        """Return whether a file is not what its name says, from end to end."""
        content = httpx.get(f"{address}{file['url']}", timeout=60.0).content
        if len(content) != file["bytes"]:
            return True
        try:
            if file["name"].endswith(".json"):
                json.loads(content)
            else:
                with av.open(io.BytesIO(content), "r") as container:
                    for packet in container.demux():
                        packet.decode()
        except (ValueError, FFmpegError):
            return True
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ffmpeg("-i", EXAMPLE, "-t", "2", "-an", "-c:v", "copy", folder / "a.mp4")
        video = (folder / "a.mp4").read_bytes()
        result: dict[str, Any] = {}
        with running(folder / "load", *OPTIONS) as (process, address):
            result |= load(address, video, args.requests, args.clients)
            print(result, flush=True)
            result |= memory(address, process.pid, video, args.jobs)
            print(result, flush=True)
        result |= Killer(folder / "kills", video, args.seed).run(args.kills)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
