"""What a run of training needs that is listened to, offline, and what W&B has kept of one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportAttributeAccessIssue]  # made at runtime

from bench.tiny import encoders, shards

HEADER, BLOCK = 7, 32768  # bytes at the begin of a file of W&B's records, and of a block of them


def prepared(folder: Path, *, seconds: float = 3.0) -> Path:
    """Encoders, and shards in `folder`/shards that name them."""
    made = encoders.write(folder / "encoders")
    names = {"vision": f"{made / 'clip'}:grid", "codec": str(made / "encodec"), "text": str(made / "t5")}
    manifest = replace(shards.KEPT, width=32, aspect="squash", **names)
    return shards.write(folder / "shards", (3, 3), seconds=seconds, manifest=manifest)


def records(path: Path) -> Iterator[Any]:
    """What W&B wrote to a `.wandb` file: records of its own protocol in the blocks of LevelDB's log."""
    held, at, part = path.read_bytes(), HEADER, b""
    while at + 7 <= len(held):
        if BLOCK - at % BLOCK < 7:  # too little left for a record's head
            at += BLOCK - at % BLOCK
            continue
        size, kind = int.from_bytes(held[at + 4 : at + 6], "little"), held[at + 6]
        part += held[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in {1, 4}:  # whole, or the last part
            found = Record()
            found.ParseFromString(part)
            yield found
            part = b""


def ended(folder: Path, seconds: float = 60.0) -> list[Any]:
    """Records of the one run of W&B under `folder`, once its end is among them: W&B's own process writes them, and may
    still do so when the run has ended.

    Raises:
        TimeoutError: No end came within `seconds`.
    """
    last = time.monotonic() + seconds
    while time.monotonic() < last:
        for path in folder.rglob("*.wandb"):
            found = list(records(path))
            if found and found[-1].HasField("exit"):
                return found
        time.sleep(0.1)
    raise TimeoutError(f"no run of W&B ended in {str(folder)!r}: {sorted(map(str, folder.rglob('*.wandb')))}")
