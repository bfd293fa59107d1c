"""The page of v2m in a real headless Chromium, for its bench and its tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

ROOT = Path(__file__).parents[1]
DRIVER = shutil.which("chromedriver")


@contextmanager
def served(*words: str, environment: dict[str, str] | None = None) -> Iterator[str]:
    """The page's address, while `v2m app` runs."""
    with serving(*words, environment=environment) as (address, _):
        yield address


@contextmanager
def serving(*words: str, environment: dict[str, str] | None = None) -> Iterator[tuple[str, int]]:
    """The page's address, and the number of its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "v2m", "app", "--port", str(port), *words],
            cwd=ROOT, env={**os.environ, **(environment or {})}, stdout=said, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            _wait_until_it_listens(port, process)
            yield f"http://127.0.0.1:{port}", process.pid
        except Exception:
            said.seek(0)
            sys.stderr.write(said.read()[-3000:])
            raise
        finally:
            process.terminate()
            process.wait(30)


def _wait_until_it_listens(port: int, process: subprocess.Popen[bytes], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the page ended with {process.returncode}")
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise RuntimeError("the page did not open")


class Visitor:
    """A person with a browser of their own."""

    def __init__(self, address: str, downloads: Path, size: tuple[int, int] = (1400, 1500)) -> None:
        options = Options()
        words = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--mute-audio")
        for word in (*words, f"--window-size={size[0]},{size[1]}"):
            options.add_argument(word)
        options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
        self.browser = webdriver.Chrome(options=options, service=Service(DRIVER))
        self.downloads = downloads
        self.browser.get(address)

    def close(self) -> None:
        self.browser.quit()

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def find(self, css: str) -> Any:
        return self.wait(lambda: self.browser.find_element(By.CSS_SELECTOR, css), f"there is no {css}")

    def all(self, css: str) -> list[Any]:
        return self.browser.find_elements(By.CSS_SELECTOR, css)

    def text(self, css: str) -> str:
        return " ".join(self.browser.execute_script(
            "const e = document.querySelector(arguments[0]); return e ? e.innerText : ''", css
        ).split())  # fmt: skip

    def wait(self, found: Callable[[], Any], otherwise: str, seconds: float = 60.0) -> Any:
        """What `found` gives when it is true."""
        end, last = time.monotonic() + seconds, None
        while time.monotonic() < end:
            try:
                if value := found():
                    return value
            except Exception as error:  # of Selenium: the page is being drawn
                last = error
            time.sleep(0.05)
        raise AssertionError(f"{otherwise} within {seconds:g} s; the page says {self.text('#status')!r} ({last})")

    def upload(self, path: Path) -> None:
        self.find("#upload input[type=file]").send_keys(str(path))

    def press(self, name: str) -> None:
        self.browser.execute_script("arguments[0].click()", self.find(f"#{name}"))

    def until_status(self, words: str, seconds: float = 60.0) -> str:
        return self.wait(lambda: words in (said := self.text("#status")) and said, f"no {words!r}", seconds)

    def playable(self, seconds: float = 60.0) -> float:
        """Waits until the result can be played; its length in seconds."""
        script = "const v = document.querySelector('#result video'); return v && v.readyState >= 2 ? v.duration : 0"
        return float(self.wait(lambda: self.browser.execute_script(script), "no playable video", seconds))

    def click_at(self, css: str, across: float, down: float = 0.5) -> None:
        """Clicks at a share of the width and the height of a picture, when it is there and stands still."""
        there = self.find(css)
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", there)
        loaded = "const p = arguments[0]; return p.complete && p.naturalWidth ? p.getBoundingClientRect().top : null"
        seen: list[float | None] = [None]

        def still() -> bool:
            seen.append(self.browser.execute_script(loaded, there))
            return seen[-1] is not None and seen[-1] == seen[-2]

        self.wait(still, f"{css} is not there yet")
        width, height = there.size["width"], there.size["height"]
        move = ActionChains(self.browser).move_to_element_with_offset(
            there, round((across - 0.5) * width), round((down - 0.5) * height)
        )
        move.click().perform()

    def source(self, css: str) -> str:
        """Where what it shows comes from."""
        return str(self.find(css).get_attribute("src"))

    def value(self, css: str) -> str:
        return str(self.find(f"{css} input, {css} textarea").get_attribute("value"))

    def picture(self, path: Path) -> Path:
        self.browser.save_screenshot(str(path))
        return path
