"""An environment of the suite's own, and small real clips made once a session with the ffmpeg that v2m uses."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import pytest

from tests.isolation import isolate, restored

HOME, PID = Path(tempfile.mkdtemp(prefix="v2m-home-")), os.getpid()
isolate(HOME)  # before anything is imported that reads the environment
FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
# Folders and files of the fast subset (`pytest -m fast`): at most 90 s on two cores.
FAST = (
    "analysis",
    "core",
    "mappings",
    "models",
    "sketch/test_plan.py",
    "sketch/test_beat_search.py",
    "test_docstrings.py",
)
EXAMPLE = Path(__file__).parents[1] / "data" / "examples" / "bunny_wakes.mp4"


def pytest_configure(config: pytest.Config) -> None:
    if "not gpu" in str(config.getoption("markexpr")):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    root = Path(__file__).parent
    fast = [root / place for place in FAST]
    for item in items:
        slow = any(item.get_closest_marker(name) for name in ("slow", "gpu", "weights"))
        if not slow and any(item.path.is_relative_to(place) for place in fast):
            item.add_marker("fast")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Without garbage collections, each of which would look through all that is imported meanwhile."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    isolate(HOME)  # once more: some modules set variables when they are imported
    gc.collect()
    gc.freeze()  # else each collection, of which a model's release is one, would look through all that was imported


def pytest_unconfigure() -> None:
    _remove_home()


@atexit.register  # for scripts that import this module, too
def _remove_home() -> None:
    if os.getpid() == PID:  # and no fork
        shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture(scope="module", autouse=True)
def _module_alone() -> Iterator[None]:
    with restored():
        yield


@pytest.fixture(autouse=True)
def _test_alone() -> Iterator[None]:
    with restored():
        yield


def ffmpeg(*arguments: str | Path) -> None:
    subprocess.run([FFMPEG, "-v", "error", "-nostdin", "-y", *map(str, arguments)], check=True)


def names(folder: Path) -> list[str]:
    """What lies in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `cuts.mp4`: 4 s, 160×90, 25 fps, hard cuts at 1.2 and 2.6 s, sound at −20 dBFS."""
    folder = tmp_path_factory.mktemp("media")
    shots = ("testsrc2", "mandelbrot", "smptebars")
    parts = ";".join(
        f"{shot}=s=160x90:r=25,trim=duration={seconds},format=yuv420p[v{k}]"
        for k, (shot, seconds) in enumerate(zip(shots, (1.2, 1.4, 1.4), strict=True))
    )
    graph = f"{parts};[v0][v1][v2]concat=n=3:v=1[v];sine=330:d=4,volume=0.8,aformat=channel_layouts=stereo[a]"
    codecs = ["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-c:a", "aac"]
    ffmpeg("-filter_complex", graph, "-map", "[v]", "-map", "[a]", *codecs, folder / "cuts.mp4")
    return folder


@pytest.fixture(scope="session")
def v2b_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny checkpoints of every model of the recipe v2b; the tagger's gives `tests.fixtures.tiny.videollama.BOTH` as
    answer."""
    from tests.fixtures.tiny import v2b, videollama  # which import torch

    folder = v2b.write_yue(tmp_path_factory.mktemp("weights"))
    videollama.make_native(folder / "tagger", shards=2, answer=videollama.BOTH)
    return folder


@pytest.fixture
def clip(media: Path, tmp_path: Path) -> Path:
    """A copy of `cuts.mp4` in a folder of its own."""
    return Path(shutil.copy(media / "cuts.mp4", tmp_path))
