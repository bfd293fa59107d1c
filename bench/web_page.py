"""Waiting times of the web page: `uv run python -m bench.web_page`.

Needs Debian's chromium and chromium-driver.

The example is uploaded; the time runs from the press on *Make music* until the browser can play the video. First on a
page that has just opened, while it still checks the recipes, then after that, each time with a browser of its own. Then
a cancel, until the process that held the models is gone; then several people who press within the same second. Last
line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from bench.clips import EXAMPLE
from tests.fixtures.browser import Visitor, serving

LONG = 600.0  # seconds


def upload_example(visitor: Visitor) -> None:
    visitor.upload(EXAMPLE)
    visitor.until_status("tags were found", LONG)


def press_to_play(address: str, folder: Path) -> float:
    with Visitor(address, folder) as visitor:
        upload_example(visitor)
        start = time.monotonic()
        visitor.press("make")
        visitor.playable(LONG)
        return time.monotonic() - start


def wait_for_recipes(address: str, folder: Path) -> None:
    """Wait until the page has checked all recipes."""
    with Visitor(address, folder) as visitor:
        visitor.wait(lambda: "not at hand" in (text := visitor.text("#lacking")) and "looked at" not in text, "", LONG)


def worker_pids(page: int) -> list[int]:
    """Return the processes that hold models."""
    children = Path(f"/proc/{page}/task/{page}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path("/proc", child, "cmdline").read_bytes()]


def cancel(address: str, page: int, folder: Path) -> tuple[float, float]:
    """Return the seconds from the press until the process was gone, and until the page showed it."""
    with Visitor(address, folder) as visitor:
        upload_example(visitor)
        visitor.press("make")
        visitor.until_status("Writing the music")
        (worker,) = worker_pids(page)
        start = time.monotonic()
        visitor.press("cancel")
        visitor.wait(lambda: not Path("/proc", str(worker)).exists(), "it still works")
        gone = time.monotonic() - start
        visitor.until_status("Cancelled")
        return gone, time.monotonic() - start


def together(address: str, folder: Path, count: int) -> tuple[int, float]:
    """Return how many of `count` users got their music, and the seconds until the last did."""
    with ExitStack() as stack:
        visitors = [stack.enter_context(Visitor(address, folder)) for _ in range(count)]
        for visitor in visitors:
            upload_example(visitor)
        start = time.monotonic()
        for visitor in visitors:
            visitor.press("make")
        lengths = [visitor.playable(LONG) for visitor in visitors]
        return sum(length > 17 for length in lengths), time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presses", type=int, default=5)
    parser.add_argument("--people", type=int, default=4)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, serving() as (address, page):
        folder = Path(name)
        first = press_to_play(address, folder)
        print(f"the first press, while recipes are checked: {first:.1f} s", flush=True)
        wait_for_recipes(address, folder)
        presses = [press_to_play(address, folder) for _ in range(args.presses)]
        print("later presses:", ", ".join(f"{seconds:.1f}" for seconds in presses), "s", flush=True)
        gone, confirmed = cancel(address, page, folder)
        print(f"cancel: process gone after {gone:.2f} s, shown by the page after {confirmed:.2f} s", flush=True)
        users, last = together(address, folder, args.people)
        print(f"{users} of {args.people} people at once got their music, the last after {last:.1f} s")
    print(json.dumps({
        "press_to_play_s": round(statistics.median(presses), 2), "first_press_to_play_s": round(first, 2),
        "cancel_s": round(gone, 2), "users_at_once": users, "last_of_them_s": round(last, 1),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
