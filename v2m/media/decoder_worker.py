"""The decoder process `python -m v2m.media.decoder_worker`; `v2m.media.decoder_process` starts it.

Requests are lines of JSON on stdin. Replies on stdout are each a line of JSON that may announce `bytes` of payload; the
last one to a request holds `done` or the kind of its failure.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from typing import Any, BinaryIO, NoReturn

import numpy as np

from v2m.core.errors import InvalidInputError

Reply = tuple[dict[str, Any], np.ndarray | None]


def handle_request(request: dict[str, Any]) -> Iterator[Reply]:
    """Yield the replies to one request; failures are raised."""
    import av.logging  # heavy, so imported after the limits are set and the parent is watched

    from v2m.media import webp
    from v2m.media.decoding import DecodeStats, seek_frames
    from v2m.media.probe import probe
    from v2m.media.reading import read_frames

    av.logging.set_level(None)
    task = request.pop("task")
    if task == "convert":
        webp.convert(**request)
    if task == "probe":
        facts = probe(**request)
        yield {key: value for key, value in facts.items() if key != "timestamps"}, facts["timestamps"]
    elif task == "read":
        stats = DecodeStats()
        for times, images in read_frames(**request, stats=stats):
            yield {"times": times, "shape": images.shape}, images
        yield {"stats": asdict(stats)}, None
    elif task == "seek":
        for images in seek_frames(**request):
            yield {"shape": images.shape}, images
    yield {"done": True}, None


def error_reply(error: Exception) -> dict[str, Any]:
    """Return the last reply to a request that `error` ended."""
    from v2m.media.decoding import SeekError
    from v2m.media.ffmpeg import DISK_ERRORS

    if isinstance(error, InvalidInputError):
        return {"refused": [error.reason, str(error)]}
    if isinstance(error, SeekError):
        return {"seek_error": str(error)}
    if isinstance(error, OSError) and error.errno in DISK_ERRORS.values():
        return {"disk_error": error.errno}
    if isinstance(error, MemoryError):
        return {"refused": ["too_large", "needs more memory to decode than is allowed; scale it down"]}
    return {"bug": "".join(traceback.format_exception(error))}


def send_reply(out: BinaryIO, header: dict[str, Any], payload: np.ndarray | None = None) -> None:
    data = b"" if payload is None else np.ascontiguousarray(payload).data.cast("B")
    out.write(json.dumps(header | {"bytes": len(data)}).encode() + b"\n")
    out.write(data)
    out.flush()


def serve(requests: queue.SimpleQueue[bytes], out: BinaryIO) -> NoReturn:
    with suppress(Exception):  # a request says what is wrong; most processes start before they get one
        import v2m.media.probe
        import v2m.media.reading
        import v2m.media.webp  # noqa: F401
    while True:
        request = json.loads(requests.get())
        try:
            for header, payload in handle_request(request):
                send_reply(out, header, payload)
        except BrokenPipeError:
            os._exit(0)
        except Exception as error:
            send_reply(out, error_reply(error))


def read_requests(requests: queue.SimpleQueue[bytes]) -> None:
    """Queue the requests; when the parent is gone, end the process in the middle of whatever it decodes."""
    for line in sys.stdin.buffer:
        requests.put(line)
    os._exit(0)


def main(memory_limit: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    with suppress(ImportError, ValueError, OSError):  # some systems lack this limit
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory_limit, memory_limit))
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # prints of native libraries must not mix with the replies
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=read_requests, args=(requests,), daemon=True).start()
    serve(requests, out)


if __name__ == "__main__":
    main(int(sys.argv[1]))
