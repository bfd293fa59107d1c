"""Hostile requests to the HTTP service: is each answered, and does the service stay up?

    uv run python -m bench.hostile

Huge, slow, truncated and malformed requests, paths out of the folder, wrong types, many headers, videos whose headers
promise more than they hold. A request is answered where the service gives a status below 500, or closes a connection
that breaks the protocol; a job is answered where it ends, done or failed with a reason. After each the service must
say that it is well; in the end its memory must not have grown by more than `MAX_GROWTH_MB`.
Last line: one JSON object.
"""

from __future__ import annotations

import io
import json
import os
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from bench.service import resident_mb, wait
from tests.conftest import EXAMPLE, FFMPEG
from tests.fixtures.service_process import running

HEADER_TIMEOUT_S = 2.0
ANSWER_S = 60.0  # for a request, and
JOB_S = 120.0  # for a job
MAX_GROWTH_MB = 300.0
OPTIONS = ("--upload-mb", "20", "--seconds", "60", "--minutes", "2")


def raw(address: str, data: bytes, *, pause: float = 0.0, parts: int = 1, close: bool = False) -> bool:
    """Send bytes in `parts` with a pause after each; return whether an answer or an end comes."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=ANSWER_S) as connection:
        try:
            size = -(-len(data) // parts) or 1
            for start in range(0, max(1, len(data)), size):
                connection.sendall(data[start : start + size])
                time.sleep(pause)
            if close:
                return True
            answer = connection.recv(65536)
        except ConnectionError:
            return True
        except TimeoutError:
            return False
    return not answer or b" 5" not in answer[:14]


def post(address: str, video: bytes, request: str = "{}", name: str = "a.mp4") -> bool:
    """Post a job; return whether it is refused, or ends with a reason."""
    files, data = {"video": (name, io.BytesIO(video))}, {"request": request}
    answer = httpx.post(f"{address}/v1/jobs", files=files, data=data, timeout=ANSWER_S)
    if answer.status_code != httpx.codes.ACCEPTED:
        return answer.status_code < 500 and bool(answer.json()["message"])
    started = time.monotonic()
    job = wait(address, answer.json()["id"])
    has_reason = job["state"] == "done" or bool(job["error"] and job["error"]["message"])
    return has_reason and time.monotonic() - started < JOB_S


def get(address: str, path: str) -> bool:
    return httpx.get(f"{address}{path}", timeout=ANSWER_S).status_code < 500


def patched(video: bytes, box: bytes, offset: int, value: bytes) -> bytes:
    """Return a video with `value` written `offset` bytes behind the name of a box."""
    start = video.index(box) + len(box) + offset
    return video[:start] + value + video[start + len(value) :]


def huge_picture() -> bytes:
    """Return a Matroska file of PNG pictures of 8,192 × 8,192 pixels: some KB that unpack to GB."""
    words = ["-f", "lavfi", "-i", "color=black:s=8192x8192:d=2:r=5", "-c:v", "png", "-f", "matroska", "-"]
    return subprocess.run([FFMPEG, "-v", "error", *words], capture_output=True, check=True).stdout


def cases(address: str, video: bytes) -> Iterator[tuple[str, Callable[[], bool]]]:
    """Yield the name of each request and the call that makes it."""
    post_head = b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    part = b'--b\r\nContent-Disposition: form-data; name="video"; filename="a.mp4"\r\n\r\n'
    get_head = b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\n"
    raw_cases: dict[str, tuple[bytes, dict[str, Any]]] = {
        "nothing": (b"", {}),
        "half a request line": (b"GET /v1/jo", {}),
        "headers without an end": (get_head, {}),
        "headers, a byte at a time": (get_head, {"pause": 0.1, "parts": 60}),
        "10,000 headers": (get_head + b"".join(b"X-%d: y\r\n" % n for n in range(10_000)) + b"\r\n", {}),
        "a header of 10 MB": (get_head + b"X: " + b"y" * 10_000_000 + b"\r\n\r\n", {}),
        "a path of 1 MB": (b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", {}),
        "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n", {}),
        "HTTP/9": (b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", {}),
        "length that is no number": (post_head + b"Content-Length: many\r\n\r\n", {}),
        "negative length": (post_head + b"Content-Length: -5\r\n\r\n", {}),
        "length of an exabyte": (post_head + b"Content-Length: 999999999999999999\r\n\r\n" + part, {}),
        "two lengths": (post_head + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef", {}),
        "length and chunks": (post_head + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {}),
        "chunk of a wrong size": (post_head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n", {}),
        "body cut off": (post_head + b"Content-Length: 100000\r\n\r\n" + part + video[:1000], {"close": True}),
        "no boundary": (post_head.replace(b"; boundary=b", b"") + b"Content-Length: 3\r\n\r\nabc", {}),
        "two requests at once": (get_head + b"\r\n" + get_head + b"\r\n", {}),
        "null bytes in the path": (b"GET /v1/jobs/\x00 HTTP/1.1\r\nHost: x\r\n\r\n", {}),
        "upgrade": (get_head + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", {}),
    }
    for name, (data, options) in raw_cases.items():
        yield name, lambda data=data, options=options: raw(address, data, **options)
    for path in ("../../../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%00", "a" * 5000, "x/files/../../secret", "'--"):
        yield f"path {path[:30]}", lambda path=path: get(address, f"/v1/jobs/{path}")
    yield "limit of a list", lambda: get(address, "/v1/jobs?limit=1e99&before=%27")
    requests = {
        "settings of a wrong type": '{"settings": []}',
        "class by path": '{"settings": {"generator": {"class_path": "os.system"}}}',
        "tempo that is text": '{"settings": {"tags.tempo": "fast"}}',
        "tempo of 1e308": '{"settings": {"tags.tempo": 1e308}}',
        "a number of 5,000 digits": '{"settings": {"seed": ' + "9" * 5000 + "}}",
        "not a number": '{"settings": {"mix.lufs": NaN}}',
        "deep nesting": '{"settings":' + '{"a":' * 50_000 + "1" + "}" * 50_000 + "}",
        "10,000 settings": json.dumps({"settings": {f"tags.x{n}": 1 for n in range(10_000)}}),
        "a million candidates": '{"settings": {"candidates": 1000000}}',
        "1,000 words": json.dumps({"settings": {"tags.genres": ["a"] * 1000}}),
        "a file of the machine": '{"path": "/etc/passwd"}',
        "an address inside": '{"url": "http://169.254.169.254/latest/meta-data"}',
        "a regular expression": json.dumps({"settings": {"tags.genres": "(a+)+$" * 500}}),
        "surrogates": '{"settings": {"tags.caption": "\\ud800"}}',
        "a null byte": '{"settings": {"tags.caption": "a\\u0000b"}}',
        "recipe of surrogates": '{"recipe": "\\ud800"}',
        "path of surrogates": '{"path": "\\ud800"}',
        "unknown setting of a generator": '{"settings": {"generator.none": 1}}',
        "settings of surrogates": '{"settings": {"\\ud800": 1}}',
        "recipe by path": '{"recipe": "../../etc/passwd"}',
    }
    for name, request in requests.items():
        yield name, lambda request=request: post(address, video, request)
    for name in ("../../a.mp4", "a" * 5000 + ".mp4", "a\0.mp4", "-i.mp4", "concat:a|b.mp4", ".mp4", 'a".mp4\r\nX: y'):
        yield f"file name {name[:20]!r}", lambda name=name: post(address, video, name=name)
    videos: dict[str, bytes] = {
        "25 MB for a limit of 20": bytes(25_000_000),
        "zeros": bytes(1_000_000),
        "empty": b"",
        "truncated": video[: len(video) // 2],
        "head alone": video[:200],
        "text": b"#EXTM3U\nhttp://127.0.0.1:1/a.ts\n",
        "play list": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        "concat list": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "duration of centuries": patched(video, b"mvhd", 12, struct.pack(">II", 1, 0xFFFFFFF0)),
        "time scale of 0": patched(video, b"mdhd", 12, bytes(4)),
        "a billion samples": patched(video, b"stsz", 8, struct.pack(">I", 0x3FFFFFFF)),
        "65,535 × 65,535 pixels": patched(video, b"avc1", 24, b"\xff\xff\xff\xff"),
        "box longer than the file": patched(video, b"moov", -8, struct.pack(">I", 0x7FFFFFFF)),
        "8,192 × 8,192 pixels": huge_picture(),
        "random": os.urandom(500_000),
    }
    for name, content in videos.items():
        yield f"video: {name}", lambda content=content: post(address, content)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        words = [FFMPEG, "-v", "error", "-i", str(EXAMPLE), "-t", "2", "-an", "-c:v", "copy", f"{name}/a.mp4"]
        subprocess.run(words, check=True)
        video = (Path(name) / "a.mp4").read_bytes()
        answered, crashes, count, unanswered = 0, 0, 0, []
        with running(Path(name) / "data", *OPTIONS, header_timeout_s=HEADER_TIMEOUT_S) as (process, address):
            assert post(address, video), "the service works"
            before = resident_mb(process.pid)
            for case, call in cases(address, video):
                count += 1
                try:
                    good = call()
                except KeyError:  # an answer that is no job
                    good = False
                except httpx.HTTPError as error:  # the connection was closed
                    good = not isinstance(error, httpx.TimeoutException)
                answered += good
                if not good:
                    unanswered.append(case)
                print(f"{case:32} {'answered' if good else 'NOT ANSWERED'}", flush=True)
                well = process.poll() is None and httpx.get(f"{address}/healthz", timeout=ANSWER_S).status_code == 200
                crashes += not well
            assert post(address, video), "the service still works"
            growth = resident_mb(process.pid) - before
    result = {"requests": count, "answered": answered, "crashes": crashes, "unanswered": unanswered}
    print(json.dumps({**result, "memory_growth_mb": round(growth), "memory_is_bounded": growth < MAX_GROWTH_MB}))


if __name__ == "__main__":
    main()
