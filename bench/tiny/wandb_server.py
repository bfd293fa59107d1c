"""As much of W&B's server as training talks to, on this machine alone, and the ways in which it may be away."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, get_args

Manner = Literal["answers", "closed", "silent", "refuses", "fails", "hangs", "dies", "confuses"]
MANNERS: tuple[Manner, ...] = get_args(Manner)
WHO = {"id": "1", "name": "someone"}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    manner: Manner = "answers"
    rows = 0  # of history that came

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is no matter."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format: str, *_: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._answer({})

    def do_PUT(self) -> None:
        self._body()
        self._answer({})

    def do_POST(self) -> None:
        asked = self._body()
        if self.server.manner == "hangs":
            threading.Event().wait()
        if self.server.manner in {"refuses", "fails"}:
            refused = self.server.manner == "refuses"
            self._answer({"errors": [{"message": "no"}]}, 401 if refused else 500)
            return
        history = asked.get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
        self.server.rows += len(history)
        confusing = self.server.manner == "confuses"
        self._answer({"data": {}} if confusing else self._found(asked))
        if self.server.manner == "dies" and "files" in asked:
            threading.Thread(target=_end, args=(self.server,), daemon=True).start()

    def _found(self, asked: dict[str, Any]) -> dict[str, Any]:
        query, given = asked.get("query", ""), asked.get("variables") or {}
        found: dict[str, Any] = {}
        if "viewer" in query:
            about = {"entity": "someone", "username": "someone", "flags": "{}", "teams": {"edges": []}}
            found = {"viewer": WHO | about}
        elif "upsertBucket" in query:
            about = {"id": "1", "name": given.get("name"), "displayName": given.get("name"), "historyLineCount": 0}
            bucket = about | {"project": {"id": "1", "name": "v2m", "entity": WHO}}
            found = {"upsertBucket": {"bucket": bucket, "inserted": True}}
        elif "createRunFiles" in query:
            host = self.headers["Host"]
            files = [{"name": name, "uploadUrl": f"http://{host}/file/{name}"} for name in given["files"]]
            found = {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": files}}
        elif "serverInfo" in query:
            found = {"serverInfo": {"features": []}}
        return {"data": found}

    def _body(self) -> dict[str, Any]:
        held = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with suppress(ValueError):
            found = json.loads(held)
            return found if isinstance(found, dict) else {}
        return {}

    def _answer(self, found: dict[str, Any], code: int = 200) -> None:
        held = json.dumps(found).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(held)))
        self.end_headers()
        self.wfile.write(held)


@contextmanager
def serving(manner: Manner) -> Iterator[tuple[str, _Server | None]]:
    """Its address, and the server where there is one.

    answers: as it should. closed: nobody listens. silent: takes connections and never answers. refuses, fails: 401 and
    500 to all that is posted. hangs: answers to who only looks whether it is there, and to nothing else. dies: takes a
    run and the first that is told of it, then is gone. confuses: answers with nothing, on which W&B's own process
    crashes.
    """
    if manner in {"closed", "silent"}:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            address = f"http://127.0.0.1:{listening.getsockname()[1]}"
            if manner == "closed":
                listening.close()
            yield address, None
        return
    server = _Server(("127.0.0.1", 0), _Handler)
    server.manner = manner
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", server
    finally:
        _end(server)


def _end(server: _Server) -> None:
    server.shutdown()
    server.server_close()
