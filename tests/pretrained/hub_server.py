"""A hub server on the loopback interface: downloads, uploads and their failures."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.fixtures.http_server import serve

COMMIT, OLDER = "c" * 40, "0" * 40


@dataclass
class Hub:
    """`files` of "owner/tiny", whose branch main is at COMMIT; OLDER has them in lower case.

    "owner/gated" shows the same and gives none of it. Both also claim to have a "huge.bin" of 10¹⁸ bytes. requests:
    (method, path, Range) of all that came in. cut: a name whose next transfer ends halfway. uploaded: what was put into
    "owner/new", by name; private: what was asked for when it was made.
    """

    files: dict[str, bytes]
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    cut: str | None = None
    url: str = ""
    uploaded: dict[str, bytes] = field(default_factory=dict)
    private: bool | None = None
    large: dict[str, bytes] = field(default_factory=dict)  # by SHA-256, until a commit names them

    def at(self, revision: str) -> dict[str, bytes] | None:
        revisions = {"main": self.files, COMMIT: self.files}
        return revisions.get(revision) or ({k: v.lower() for k, v in self.files.items()} if revision == OLDER else None)

    def transfers(self) -> list[tuple[str, str | None]]:
        files = [(path, part) for how, path, part in self.requests if how == "GET" and "/api/" not in path]
        return [(path.rpartition("/")[2], part) for path, part in files]


@cache
def _entry(name: str, data: bytes) -> dict[str, Any]:
    entry = {"path": name, "rfilename": name, "type": "file", "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
    if name.endswith((".safetensors", ".pth")):
        sha = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"oid": sha, "sha256": sha, "size": len(data), "pointerSize": 130}
    return entry


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        parts = path.strip("/").removeprefix("api/models/").split("/")
        repo, rest = "/".join(parts[:2]), parts[2:]
        if repo == "owner/gated" and "/api/" not in path:
            return self.refuse(401, "GatedRepo")
        if repo not in {"owner/tiny", "owner/gated"}:
            return self.refuse(404, "RepoNotFound")
        revision = rest[1] if len(rest) > 1 else "main"
        files = self.hub.at(revision)
        if files is None:
            return self.refuse(404, "RevisionNotFound")
        if "/api/" not in path:
            return self.file("/".join(rest[2:]), files, COMMIT if revision == "main" else revision)
        entries = [_entry(name, data) for name, data in files.items()]
        entries += [{**_entry("huge.bin", b""), "size": 10**18}]
        if rest[:1] == ["tree"]:
            return self.answer(200, json.dumps(entries).encode())
        sha = COMMIT if revision == "main" else revision
        card = {"license": "apache-2.0"}
        about = {"id": repo, "modelId": repo, "sha": sha, "siblings": entries, "cardData": card, "tags": []}
        return self.answer(200, json.dumps(about).encode())

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, None))
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answers = {
            "/api/repos/create": self.create,
            "/api/validate-yaml": lambda _: {"errors": [], "warnings": []},
            "/api/models/owner/new/preupload/main": self.preupload,
            "/owner/new.git/info/lfs/objects/batch": self.batch,
            "/api/models/owner/new/commit/main": self.commit,
        }
        if "owner/gated" in path or b'"gated"' in body:
            return self.refuse(403, "Forbidden")
        if path not in answers:
            return self.refuse(404, "RepoNotFound")
        return self.answer(200, json.dumps(answers[path](body)).encode())

    def create(self, body: bytes) -> dict[str, Any]:
        asked = json.loads(body)
        self.hub.private = asked.get("private") or asked.get("visibility") == "private"
        return {"url": f"{self.hub.url}/owner/new", "name": "owner/new"}

    def preupload(self, body: bytes) -> dict[str, Any]:
        names = [item["path"] for item in json.loads(body)["files"]]
        kinds = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in names}
        return {"files": [{"path": n, "uploadMode": kind, "shouldIgnore": False} for n, kind in kinds.items()]}

    def batch(self, body: bytes) -> dict[str, Any]:
        requested = json.loads(body)["objects"]
        places = [{"upload": {"href": f"{self.hub.url}/large/{item['oid']}"}} for item in requested]
        objects = [{**item, "actions": place} for item, place in zip(requested, places, strict=True)]
        return {"transfer": "basic", "objects": objects}

    def commit(self, body: bytes) -> dict[str, Any]:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.hub.uploaded[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.hub.uploaded[value["path"]] = self.hub.large[value["oid"]]
        return {"success": True, "commitOid": COMMIT, "commitUrl": f"{self.hub.url}/owner/new/commit/{COMMIT}"}

    def do_PUT(self) -> None:
        path = urlsplit(self.path).path
        self.hub.requests.append((self.command, path, None))
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if hashlib.sha256(data).hexdigest() != path.rpartition("/")[2]:
            return self.refuse(400, "BadRequest")
        self.hub.large[path.rpartition("/")[2]] = data
        return self.answer(200, b"")

    def file(self, name: str, files: dict[str, bytes], commit: str) -> None:
        if name not in files:
            return self.refuse(404, "EntryNotFound")
        data, entry = files[name], _entry(name, files[name])
        tag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{tag}"', "Accept-Ranges": "bytes"}
        begin, part = 0, self.headers.get("Range")
        if part is not None:
            begin = int(part.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        cut = self.command == "GET" and self.hub.cut == name
        if cut:
            self.hub.cut = None
        return self.answer(206 if begin else 200, data[begin:], headers, cut=cut)

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None, *, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = self.close_connection or cut


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[Hub]:
    hub = Hub(files)
    with serve(type("HubHandler", (_Handler,), {"hub": hub})) as hub.url:
        yield hub
