"""Limits of bodies, and keys."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from v2m.core.errors import UsageError
from v2m.service.limits import LOCAL_OWNER, BodyLimits, Keys, RequestTooLargeError, RequestTooSlowError

KEY, OTHER = "k" * 20, "o" * 20


def read_body(parts: Sequence[bytes], *, length: int | None = None, pause: float = 0.0, **limits: Any) -> bytes:
    """Return the body that an application behind the limits reads."""
    body = bytearray()
    messages = iter([*parts])
    left = len(parts)

    async def receive() -> dict[str, Any]:
        nonlocal left
        await asyncio.sleep(pause)
        left -= 1
        return {"type": "http.request", "body": next(messages), "more_body": left > 0}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            body.extend(message["body"])
            more = message["more_body"]

    headers = [] if length is None else [(b"content-length", str(length).encode())]
    scope = {"type": "http", "headers": headers}
    asyncio.run(BodyLimits(app, **limits)(scope, receive, lambda _: asyncio.sleep(0)))
    return bytes(body)


def test_a_body_within_the_limits_passes() -> None:
    assert read_body([b"ab", b"cd"], length=4, max_bytes=4) == b"abcd"


def test_a_large_body_is_refused_by_its_header_or_as_it_comes() -> None:
    with pytest.raises(RequestTooLargeError):
        read_body([b"a"], length=5, max_bytes=4)
    with pytest.raises(RequestTooLargeError):
        read_body([b"abc", b"de"], max_bytes=4)
    with pytest.raises(RequestTooLargeError):
        read_body([b"abc", b"de"], length=1, max_bytes=4)


def test_a_slow_body_is_refused_by_part_and_in_all() -> None:
    with pytest.raises(RequestTooSlowError):
        read_body([b"a"], pause=5.0, max_bytes=4, idle_s=0.01)
    with pytest.raises(RequestTooSlowError):
        read_body([b"a"] * 1000, pause=0.01, max_bytes=5000, idle_s=60.0, total_s=0.1)


def test_each_key_is_an_owner() -> None:
    keys = Keys([KEY, OTHER])
    owner = keys.owner(f"Bearer {KEY}")
    assert owner
    assert owner == keys.owner(f"bearer {KEY}")
    assert owner != keys.owner(f"Bearer {OTHER}")
    assert KEY not in owner
    for header in (None, "", "Bearer", "Bearer ", f"Basic {KEY}", KEY, f"Bearer {KEY}x", "Bearer ü"):
        assert keys.owner(header) is None


def test_without_keys_everybody_is_one_owner() -> None:
    assert Keys().owner(None) == Keys(["", " "]).owner("Bearer x") == LOCAL_OWNER


def test_keys_come_from_a_file_with_comments_and_weak_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# ours\n{KEY}\n\n")
    assert Keys.from_file(path).owner(f"Bearer {KEY}")
    assert Keys.from_file(path).owner("Bearer # ours") is None
    path.write_text("# none\n")
    with pytest.raises(UsageError, match="no key"):
        Keys.from_file(path)
    with pytest.raises(UsageError, match="guessed"):
        Keys(["short"])
