"""Prepare that cannot go on: a full disk, a signal, another run, weights that may not be read. Then the same again."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.data.test_prepare import digests
from tests.robustness.full_disk import file_size_limit, small_disk
from tests.robustness.test_prepare import ROOT, command, weights
from v2m.cli.prepare import main
from v2m.core import errors
from v2m.core.atomic import TEMPORARY_GLOB
from v2m.data import progress_log
from v2m.data.writer import PARTS_DIR

__all__ = ["weights"]


@pytest.fixture(scope="module")
def videos(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    for name in "abc":
        shutil.copy(media / "cuts.mp4", root / f"{name}.mp4")
    return root


@pytest.fixture(scope="module")
def wanted(weights: Path, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a run leaves that nothing stops."""
    out = tmp_path_factory.mktemp("wanted") / "out"
    assert main(command(weights, videos, out)) == 0
    return digests(out)


def unfinished(out: Path) -> list[Path]:
    return [*out.rglob(TEMPORARY_GLOB), *out.glob("*.tar")]


def test_full_disk_keeps_finished_parts(
    weights: Path, videos: Path, wanted: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """While parts are written, and while the shard is: what has been done is kept."""
    out = tmp_path / "out"
    part = 20_000  # a bound that parts do not keep to
    for size in (part, 3 * part):
        with file_size_limit(size):
            assert main(command(weights, videos, out)) == errors.DISK
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "free some room, or give another OUT" in said
        assert not unfinished(out)
    assert len(list((out / PARTS_DIR).glob("*.part"))) == 3
    assert main(command(weights, videos, out)) == 0
    assert digests(out) == wanted


def test_really_full_disk_keeps_finished_parts(
    weights: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The room of one video is left."""
    with small_disk(tmp_path / "disk", "60k") as disk:
        assert main(command(weights, videos, disk / "out")) == errors.DISK
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "No space left on device" in said
        assert not unfinished(disk / "out")


ENDS = [
    pytest.param(signal.SIGINT, 1, id="SIGINT"),
    pytest.param(signal.SIGTERM, 1, id="SIGTERM"),
    pytest.param(signal.SIGTERM, 2, id="SIGTERM to two processes", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("number", "processes"), ENDS)
def test_interrupted_run_is_resumed(
    weights: Path, videos: Path, wanted: dict[str, str], tmp_path: Path, *, number: int, processes: int
) -> None:
    out = tmp_path / "out"
    given = [f"--processes={processes}" if each == "--processes=1" else each for each in command(weights, videos, out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "v2m", "prepare", *given],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - as in test_commands
        start_new_session=True,
    )
    wait(lambda: (out / progress_log.RECORDS).is_file() or process.poll() is not None)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number, said
    assert said.splitlines()[-1].endswith("no unfinished file is left behind")
    assert "Traceback" not in said
    wait(lambda: not alive(process.pid))
    assert not list(out.glob("*.tar"))
    assert main(given) == 0
    assert digests(out) == wanted


def wait(until: Callable[[], bool], seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        time.sleep(0.01)


def alive(group: int) -> bool:
    """Whether any process of it goes on."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_concurrent_run_is_refused(
    weights: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_log.lock_output_dir(tmp_path / "out"):
        assert main(command(weights, videos, tmp_path / "out")) == errors.USAGE
    assert f"another run is writing to '{tmp_path / 'out'}'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize(
    "by",
    [
        pytest.param("mode", marks=pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")),
        "open",
    ],
)
def test_unreadable_encoder_is_reported(
    weights: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, capsys: Any, name: str, by: str
) -> None:
    path = Path(shutil.copytree(weights, tmp_path / "weights")) / "clip" / name
    if by == "mode":
        path.chmod(0)
    else:
        usual = Path.open

        def refuse(self: Path, *given: Any, **more: Any) -> Any:
            if self == path:
                raise PermissionError(errno.EACCES, "Permission denied", str(self))
            return usual(self, *given, **more)

        monkeypatch.setattr(Path, "open", refuse)
    assert main(command(tmp_path / "weights", videos, tmp_path / "out")) == errors.ENVIRONMENT
    assert f"{name}' may not be read: change its permissions" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("fault", ["missing", "truncated", "empty"])
def test_broken_encoder_is_reported(
    weights: Path, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], *, name: str, fault: str
) -> None:
    path = Path(shutil.copytree(weights, tmp_path / "weights")) / "encodec" / name
    held = path.read_bytes()
    path.unlink()
    if fault != "missing":
        path.write_bytes(held[: len(held) // 2] if fault == "truncated" else b"")
    assert main(command(tmp_path / "weights", videos, tmp_path / "out")) == errors.ENVIRONMENT
    said = capsys.readouterr().err
    assert (name if fault != "missing" or name == "config.json" else "lacks model*.safetensors") in said
    assert said.count("\n") == 1
