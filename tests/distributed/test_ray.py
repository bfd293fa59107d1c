"""The commands on a small Ray cluster: the files of one machine, whatever worker is killed."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from v2m.cli import evaluate, prepare, score
from v2m.core.engine import map_in_order
from v2m.core.errors import DependencyError, InvalidInputError, UsageError
from v2m.core.types import ProgressFn, Tags, Video
from v2m.data.synthetic import make_clips
from v2m.distributed.cluster import _join, connect, plan_workers
from v2m.distributed.ray_engine import STOP_S, RayEngine
from v2m.taggers.heuristic import HeuristicTagger

BUILT_IN = {"codec": "v2m-score-1", "vision_encoder": "v2m-frame-statistics-1", "text_encoder": "v2m-hashed-words-1"}
ENGINE = RayEngine(num_processes=2)


def file_digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*.*"))}


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[Any]:
    """The one cluster of this module, which the commands then use, too."""
    with connect("local", 2) as ray:
        yield ray


class FatalTagger(HeuristicTagger):
    """Logs each video, and kills its process at `fatal` unless `marker` exists."""

    def __init__(self, log: str, marker: str, fatal: str = "00001.mp4") -> None:
        super().__init__()
        self.log, self.marker, self.fatal = Path(log), Path(marker), fatal

    def tag(self, video: Video, hints: Tags, progress: ProgressFn | None = None) -> Tags:
        with self.log.open("a") as file:
            file.write(f"{video.path.name}\n")
        if video.path.name == self.fatal and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().tag(video, hints, progress)


def test_shards_are_those_of_one_machine_although_a_worker_is_killed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clips, log, marker = tmp_path / "clips", tmp_path / "log", tmp_path / "marker"
    make_clips(clips, 3, 5.0, 0, 1, with_audio=False, quiet=True)
    for path in clips.glob("*.tags.json"):
        path.unlink()  # so that the tagger is asked
    tagger = ["--tagger", f"{__name__}.FatalTagger", f"--tagger.log={log}", f"--tagger.marker={marker}"]
    options = [f"--{name.replace('_', '-')}={value}" for name, value in BUILT_IN.items()]
    command = [*options, *tagger, "--shard-samples=2", "--quiet", str(clips)]
    assert prepare.main([*command, "--engine=ray", "--processes=2", str(tmp_path / "ray")]) == 0
    assert marker.exists(), "no worker was killed"
    assert "its video was done again" in caplog.text
    assert sorted(log.read_text().split()) == ["00000.mp4", "00001.mp4", "00001.mp4", "00002.mp4"]
    assert prepare.main([*command, "--processes=1", str(tmp_path / "local")]) == 0
    made = file_digests(tmp_path / "ray")
    assert made == file_digests(tmp_path / "local")
    assert len([name for name in made if name.endswith(".tar")]) == 2

    log.unlink()
    assert prepare.main([*command, "--engine=ray", str(tmp_path / "ray")]) == 0
    assert file_digests(tmp_path / "ray") == made
    assert not log.exists(), "finished videos were encoded again"


@pytest.mark.slow
def test_scored_videos_and_their_measures_are_those_of_one_machine(
    media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(media / "cuts.mp4", clips / name)
    on_ray, local = tmp_path / "ray", tmp_path / "local"
    assert score.main([str(clips), "--out", str(on_ray), "--engine=ray", "--processes=2"]) == 0
    assert score.main([str(clips), "--out", str(local)]) == 0
    assert file_digests(on_ray) == file_digests(local)
    assert len(file_digests(on_ray)) == 4
    capsys.readouterr()
    assert score.main([str(clips), "--out", str(on_ray), "--engine=ray", "--processes=2"]) == 0
    assert "2 unchanged" in capsys.readouterr().out
    assert evaluate.main([str(on_ray), "--engine=ray", "--processes=2"]) == 0
    measured = capsys.readouterr().out
    assert evaluate.main([str(local)]) == 0
    assert capsys.readouterr().out == measured


@pytest.mark.slow
def test_tags_are_those_of_one_machine(media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from v2m.cli import tag

    (tmp_path / "clips").mkdir()
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(media / "cuts.mp4", tmp_path / "clips" / name)
    (tmp_path / "clips" / "b.mp4").write_bytes(b"no video")
    command = [f"--data.videos={tmp_path / 'clips'}", "--trainer.accelerator=cpu"]
    assert tag.main([*command, f"--data.out={tmp_path / 'ray'}", "--engine=ray", "--processes=1"]) == 7
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert rows[:2] == [["a.mp4", "done"], ["b.mp4", "failed"]]
    assert tag.main([*command, f"--data.out={tmp_path / 'local'}"]) == 7
    assert file_digests(tmp_path / "ray") == file_digests(tmp_path / "local")
    assert len(file_digests(tmp_path / "ray")) == 1


def load_square(folder: Path) -> Callable[[int], int]:
    (folder / f"loaded-{os.getpid()}").touch()

    def square(number: int) -> int:
        logging.getLogger("v2m.test").warning("number %d", number)
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return number**2

    return square


class Counted(Sequence[int]):
    """Numbers, of which it is known how many have been taken."""

    def __init__(self, count: int) -> None:
        self.length, self.taken = count, 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: Any) -> Any:
        if index >= self.length:
            raise IndexError
        self.taken = max(self.taken, index + 1)
        return index


def test_each_worker_loads_once_and_has_one_item_in_hand_and_a_deadly_item_is_given_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    items, results = Counted(8), []
    for done, result in enumerate(ENGINE.map(partial(load_square, tmp_path), items, lambda item, _: -item), start=1):
        results.append(result)
        assert items.taken <= done + 1, "a worker got another item before its result could be recorded"
    assert sorted(results) == sorted([-3, *(number**2 for number in range(8) if number != 3)])
    assert len([*tmp_path.iterdir()]) <= 2 + 3, "a worker loads once, and once more when it is started again"
    assert {f"number {number}" for number in range(8) if number != 3} <= set(caplog.messages)


def load_slow_writer(folder: Path) -> Callable[[float], float]:
    def write(seconds: float) -> float:
        unfinished = folder / f"{seconds}"
        unfinished.touch()
        try:
            time.sleep(seconds)
        finally:
            unfinished.unlink()
        return seconds

    return write


def test_workers_tidy_up_when_the_run_is_ended(tmp_path: Path) -> None:
    results = ENGINE.map(partial(load_slow_writer, tmp_path), [0.0, 60.0], lambda item, _: -item)
    assert next(results) == 0
    wait_for((tmp_path / "60.0").exists)
    start = time.monotonic()
    results.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert time.monotonic() - start < STOP_S
    assert not [*tmp_path.iterdir()]


def wait_for(is_met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_met():
        assert time.monotonic() < deadline, "it did not come to that in a minute"
        time.sleep(0.02)


@pytest.mark.slow
def test_signal_during_work_leaves_no_files_and_one_line(media: Path, tmp_path: Path) -> None:
    from tests.conftest import ffmpeg  # workers import this module, and that one clears their environment

    clips, out, temporary = tmp_path / "clips", tmp_path / "out", tmp_path / "tmp"
    for folder in (clips, out, temporary):
        folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        ffmpeg("-stream_loop", "20", "-i", media / "cuts.mp4", "-c", "copy", clips / name)
    command = [sys.executable, "-m", "v2m", "score", str(clips), "--out", str(out), "--candidates=50"]
    process = subprocess.Popen(
        [*command, "--engine=ray", "--processes=2"], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "TMPDIR": str(temporary)}, start_new_session=True,
    )  # fmt: skip
    try:
        wait_for(lambda: process.poll() is not None or len([*out.iterdir()]) > 1)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 143, err
    assert err.count("\n") == 1
    assert "no unfinished file is left behind" in err
    assert not [*out.iterdir(), *temporary.glob("v2m-*")]


def load_refusal() -> Callable[[int], int]:
    def refuse(number: int) -> int:
        time.sleep(0.01)
        raise InvalidInputError("too_long", f"{number} s are too long") if number else UsageError("nothing")

    return refuse


def test_an_error_of_the_function_ends_the_run_as_it_is() -> None:
    with pytest.raises(InvalidInputError, match="7 s are too long") as caught:
        map_in_order(RayEngine(num_processes=1), load_refusal, [7])
    assert caught.value.reason == "too_long"
    with pytest.raises(UsageError, match="nothing"):
        map_in_order(RayEngine(num_processes=1), load_refusal, [0])


def read_settings() -> Callable[[str], str | None]:
    return os.environ.get


def test_cluster_is_on_the_loopback_address_and_reports_to_nobody(ray: Any) -> None:
    assert [node["NodeManagerAddress"] for node in ray.nodes()] == ["127.0.0.1"]
    names = ["RAY_USAGE_STATS_ENABLED", "RAY_AUTH_MODE", "CUDA_VISIBLE_DEVICES"]
    assert map_in_order(RayEngine(num_processes=1), read_settings, names) == ["0", "token", ""]


@pytest.mark.parametrize(
    ("nodes", "options", "expected"),
    [
        ([{"CPU": 2.0}], {}, (1, 2, 0)),
        ([{"CPU": 2.0}], {"num_processes": 2}, (2, 1, 0)),
        ([{"CPU": 16.0}, {"CPU": 9.0}], {}, (6, 4, 0)),
        ([{"CPU": 64.0, "GPU": 8.0}, {"CPU": 64.0}], {}, (8, 4, 1)),
        ([{"CPU": 64.0, "GPU": 8.0}, {"CPU": 64.0}], {"worker_gpus": 0}, (32, 4, 0)),
        ([{"CPU": 6.0, "GPU": 1.0}], {"worker_gpus": 0.25}, (1, 4, 0.25)),
        ([{"CPU": 2.0}], {"num_processes": 5}, (5, 1, 0)),
        ([{"CPU": 6.0}, {"CPU": 6.0}], {"num_processes": 3}, (3, 3, 0)),
        ([{"CPU": 8.0, "GPU": 4.0}], {"worker_gpus": 2.0}, (2, 4, 2)),
    ],
)
def test_workers_are_as_many_as_fit(nodes: Any, options: dict[str, Any], expected: tuple[float, ...]) -> None:
    assert plan_workers(nodes, **options) == expected


def test_workers_that_fit_nowhere_are_refused() -> None:
    with pytest.raises(UsageError, match="no machine of the cluster has a core and 2 GPUs"):
        plan_workers([{"CPU": 8.0, "GPU": 1.0}], worker_gpus=2)
    with pytest.raises(UsageError, match=r"worker_gpus 1.5 must be a whole number, or below 1"):
        plan_workers([{"CPU": 8.0, "GPU": 2.0}], worker_gpus=1.5)


def test_address_without_a_cluster_is_refused_at_once() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(DependencyError, match=f"no Ray cluster answers at '{address}'"):
            _join(_NoRay, address)
        assert time.monotonic() - start < 15


class _NoRay:
    """Stands for Ray, which waits for minutes where nothing answers."""

    @staticmethod
    def init(address: str, **_: Any) -> None:
        pytest.fail(f"Ray was given {address}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--address", "auto", "--processes", "2"],
            "--address and --processes would have no effect: give --engine ray",
        ),
        (["--engine", "ray", "--processes", "0"], "processes 0 must be above 0"),
    ],
)
def test_options_without_effect_are_refused(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score.main([str(tmp_path), *options]) == 2
    assert message in capsys.readouterr().err
