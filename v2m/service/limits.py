"""Limits of requests: their size, the time that a slow one may take, and the keys that may send them."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from v2m.core.errors import UsageError

MIN_KEY_LENGTH = 16
LOCAL_OWNER = "local"  # of all jobs where there are no keys
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class RequestTooLargeError(Exception):
    """A body of more bytes than are taken."""


class RequestTooSlowError(Exception):
    """A body that came too slowly."""


@dataclass(frozen=True)
class BodyLimits:
    """ASGI middleware that bounds each body.

    It takes `max_bytes`, `idle_s` seconds between two parts, `total_s` seconds for all. Whoever reads a body beyond
    these gets RequestTooLargeError or RequestTooSlowError.
    """

    app: Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
    max_bytes: int
    idle_s: float = 30.0
    total_s: float = 1800.0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"")
        received = int(length) if length.isdigit() and int(length) > self.max_bytes else 0  # refused at the first read
        loop, is_complete = asyncio.get_running_loop(), False
        deadline = loop.time() + self.total_s

        async def receive_within_limits() -> Message:
            nonlocal received, is_complete
            if is_complete:  # what follows the body is the end of the connection, whenever it comes
                return await receive()
            if received > self.max_bytes:
                raise RequestTooLargeError
            try:
                async with asyncio.timeout(min(self.idle_s, deadline - loop.time())):
                    message = await receive()
            except TimeoutError:
                raise RequestTooSlowError from None
            received += len(message.get("body", b""))
            if received > self.max_bytes:
                raise RequestTooLargeError
            is_complete = message["type"] != "http.request" or not message.get("more_body", False)
            return message

        await self.app(scope, receive_within_limits, send)


class Keys:
    """Keys that may use the service, each an owner of jobs; without any, everybody is one owner."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        keys = [key.strip() for key in keys if key.strip()]
        if any(len(key) < MIN_KEY_LENGTH for key in keys):
            raise UsageError(f"a key has fewer than {MIN_KEY_LENGTH} characters: it could be guessed")
        self._digests = tuple(hashlib.sha256(key.encode()).digest() for key in keys)

    @classmethod
    def from_file(cls, path: Path) -> Keys:
        """Read keys, one a line; lines that begin with # are comments."""
        lines = path.read_text(encoding="utf-8").splitlines()
        keys = [line for line in lines if not line.lstrip().startswith("#")]
        if not any(map(str.strip, keys)):
            raise UsageError(f"{str(path)!r} holds no key")
        return cls(keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def owner(self, authorization: str | None) -> str | None:
        """Return the owner of a request by its header `Authorization: Bearer KEY`; None for an unknown key."""
        if not self._digests:
            return LOCAL_OWNER
        scheme, _, key = (authorization or "").partition(" ")
        digest = hashlib.sha256(key.strip().encode()).digest()
        found = [known for known in self._digests if hmac.compare_digest(known, digest)]  # in the same time for all
        return found[0].hex()[:16] if found and scheme.lower() == "bearer" else None
