"""Which rank works on which video, and where what it makes goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from v2m.core.errors import UsageError
from v2m.data.video_jobs import VideoJob, VideoJobs


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [1, 5, 6])
def test_ranks_share_out_the_videos_in_as_many_batches_each(tmp_path: Path, world: int, count: int) -> None:
    every = VideoJobs.from_inputs(touched(tmp_path, *(f"{number}.mp4" for number in range(count))), None, None).jobs
    ranks = [list(VideoJobs(every, world, rank)) for rank in range(world)]
    assert len({len(batches) for batches in ranks}) == 1
    assert all(len(batches) == len(VideoJobs(every, world, rank)) for rank, batches in enumerate(ranks))
    assert all(len(batch) <= 1 for batches in ranks for batch in batches)
    found = [job.video.name for step in zip(*ranks, strict=True) for batch in step for job in batch]
    assert found == [f"{number}.mp4" for number in range(count)]


def test_outputs_keep_the_subfolders_of_their_videos(tmp_path: Path) -> None:
    folder = touched(tmp_path / "in", "a.mp4", "b/a.mp4", "b/a.tags.json")
    beside = VideoJobs.from_inputs(folder, None, None).jobs
    assert beside == (
        VideoJob(folder / "a.mp4", folder, out=folder / "a.v2m"),
        VideoJob(folder / "b/a.mp4", folder / "b", folder / "b/a.tags.json", out=folder / "b/a.v2m"),
    )
    apart = VideoJobs.from_inputs([folder], tmp_path / "out", None).jobs
    assert [job.folder for job in apart] == [tmp_path / "out", tmp_path / "out/b"]
    assert not any(job.duplicate_of for job in (*beside, *apart))


def test_outputs_of_videos_elsewhere_stay_inside_the_output_folder(tmp_path: Path) -> None:
    folder = touched(tmp_path, "x/a.mp4", "lists/none.txt")
    lines = [{"video_path": "../x/a.mp4"}]
    (folder / "lists/all.jsonl").write_text("\n".join(map(json.dumps, lines)))
    [job] = VideoJobs.from_inputs(folder / "lists/all.jsonl", tmp_path / "out", None).jobs
    assert job.folder == tmp_path / "out/x"
    (folder / "lists/all.jsonl").write_text(json.dumps({"video_path": str(folder / "x/a.mp4")}))
    [job] = VideoJobs.from_inputs(folder / "lists/all.jsonl", tmp_path / "out", None).jobs
    assert job.folder.is_relative_to(tmp_path / "out")


def test_second_video_with_the_same_tags_file_names_the_first(tmp_path: Path) -> None:
    folder = touched(tmp_path, "a.mp4", "a.webm", "b/a.mp4", "b/c.mp4")
    jobs = VideoJobs.from_inputs(folder, None, None).jobs
    assert [job.duplicate_of for job in jobs] == [None, "a.mp4", None, None]
    assert [job.out.name for job in jobs] == ["a.mp4.v2m", "a.webm.v2m", "a.v2m", "c.v2m"]
    both = VideoJobs.from_inputs([folder / "a.mp4", folder / "b/a.mp4"], tmp_path / "out", None).jobs
    assert [job.duplicate_of for job in both] == [None, "a.mp4"]
    assert both[0].out != both[1].out


@pytest.mark.parametrize(
    ("inputs", "out", "message"),
    [
        (None, None, "name the videos: give `data.videos`"),
        ([], None, "name the videos: give `data.videos`"),
        ("no/such/folder", None, "no such file or folder"),
        ("", "a.mp4", "names a file: give a folder"),
    ],
)
def test_invalid_inputs_are_refused(tmp_path: Path, inputs: Any, out: str | None, message: str) -> None:
    folder = touched(tmp_path, "a.mp4")
    videos = folder / inputs if isinstance(inputs, str) else inputs
    with pytest.raises(UsageError, match=message):
        VideoJobs.from_inputs(videos, None if out is None else folder / out, None)
