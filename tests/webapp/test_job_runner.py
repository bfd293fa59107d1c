"""The process that works for the page: what it gives, and how it is ended."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from v2m.core.errors import UsageError
from v2m.webapp.form import Form
from v2m.webapp.job_runner import CancelledTaskError, Desk
from v2m.webapp.worker import Done, Task


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    found = Desk()
    yield found
    found.cancel()


def task(clip: Path, out: Path | None, look: bool = False, **asked: object) -> Task:
    return Task(clip, "sketch", Form(**asked).words(60.0), out, look)  # type: ignore[arg-type]


def last(desk: Desk, asked: Task) -> Done:
    *_, (kind, done) = desk.run(asked, "somebody")
    assert kind == "done"
    return done


def test_a_look_gives_tags_and_what_is_given_wins(desk: Desk, clip: Path) -> None:
    found = last(desk, task(clip, None, look=True, genres="jazz", tempo=91)).tags
    assert (found["genres"], found["tempo"]) == (["jazz"], 91)
    assert found["instruments"]
    assert found["key"]


def test_takes_are_videos_each_and_all_files_of_the_best_are_given(desk: Desk, clip: Path, tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    events = list(desk.run(task(clip, room / "a.v2m.mp4", takes=2, seed=3), "somebody"))
    stages, told = ([value for kind, value in events if kind == wanted] for wanted in ("stage", "progress"))
    done = events[-1][1]
    assert stages == ["Analyzing the picture", "Writing the music", "Mixing and writing", "Writing take 2 of 2"]
    assert all(0 <= share <= 1 for share in told)
    assert sorted(take.seed for take in done.takes) == [3, 4]
    assert done.takes[0].fit >= done.takes[1].fit
    assert all(take.video.stat().st_size > 1000 for take in done.takes)
    best, other = done.takes
    assert {path.suffix for path in best.files} == {".mp4", ".json", ".wav", ".mid", ".edl", ".png"}
    assert {path.name for path in best.files} >= {"a.v2m.mp4", "a.v2m.wav", "a.v2m.json"}
    assert all(path.is_file() for path in (*best.files, *other.files))
    assert {path.suffix for path in other.files} == {".mp4", ".wav", ".png"}
    assert not {*best.files} & {*other.files}
    assert (best.report, best.music) == (room / "a.v2m.png", room / "a.v2m.wav")
    assert len(best.beats) > 3
    said = (room / "a.v2m.json").read_text()
    assert '"file": "a.v2m.mp4"' in said
    assert str(tmp_path) not in said, "a sidecar that is given out tells no folder of this machine"


def test_a_part_is_written_anew_of_any_take(desk: Desk, clip: Path, tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    _, other = last(desk, task(clip, tmp_path / "old" / "a.v2m.mp4", takes=2, seed=3)).takes
    asked = task(clip, tmp_path / "new" / "a.v2m.mp4", seed=9)
    flags = ("--inpaint", "1.5:3", "--inpaint-source", str(other.music))
    done = last(desk, dataclasses.replace(asked, words=(*asked.words, *flags)))
    (take,) = done.takes
    old, new = (soundfile.read(path, dtype="float32")[0] for path in (other.music, take.music))
    outside = np.r_[0 : int(1.5 * 48_000), 3 * 48_000 : len(old)]
    np.testing.assert_array_equal(new[outside], old[outside])
    assert np.abs(new - old).max() > 0.01
    assert take.video.stat().st_size > 1000
    assert [row["seed"] for row in done.record["music"]["takes"]] == [other.seed, 9]


def test_what_is_refused_is_a_line_that_tells_nothing_of_the_machine(desk: Desk, tmp_path: Path) -> None:
    bad = tmp_path / "notes.mp4"
    bad.write_text("these are no pictures")
    with pytest.raises(UsageError) as caught:
        last(desk, task(bad, tmp_path / "out.mp4"))
    assert "notes.mp4" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    with pytest.raises(UsageError, match="tempo 9000"):
        last(desk, task(bad, tmp_path / "out.mp4", tempo=9000))


def test_a_task_that_is_cancelled_ends_its_process_and_the_next_gets_another(clip: Path, tmp_path: Path) -> None:
    desk = Desk()
    asked = task(clip, tmp_path / "out.mp4")
    work = desk.run(asked, "one")
    next(work)
    assert desk._staff is not None
    process = desk._staff.process
    assert not desk.cancel("another")
    assert process.is_alive()
    assert desk.cancel("one")
    assert not process.is_alive()
    with pytest.raises(CancelledTaskError):
        list(work)
    try:
        assert last(desk, task(clip, None, look=True)).tags
    finally:
        desk.cancel()


def test_work_that_nobody_listens_to_any_more_is_not_in_the_way_of_the_next(clip: Path, tmp_path: Path) -> None:
    desk = Desk()
    work = desk.run(task(clip, tmp_path / "out.mp4"), "one")
    next(work)
    work.close()
    try:
        assert last(desk, task(clip, None, look=True, genres="jazz")).tags["genres"] == ["jazz"]
        assert desk._staff is not None
        process = desk._staff.process
        assert last(desk, task(clip, None, look=True)).tags
        assert desk._staff.process is process, "who has done a task stays for the next"
    finally:
        desk.cancel()


def test_a_process_that_the_system_ends_is_told_and_time_runs_out(clip: Path, tmp_path: Path) -> None:
    desk = Desk()
    work = desk.run(task(clip, tmp_path / "out.mp4"), "one")
    next(work)
    assert desk._staff is not None
    desk._staff.process.kill()
    with pytest.raises(UsageError, match="memory"):
        list(work)
    hasty = Desk(minutes=1e-6)
    with pytest.raises(UsageError, match="minutes"):
        list(hasty.run(task(clip, tmp_path / "out.mp4"), "one"))
    time.sleep(0.01)
    assert hasty._staff is None
