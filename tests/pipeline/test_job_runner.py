"""The worker process of the page: results, errors, cancellation and limits."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from tests.conftest import ffmpeg
from tests.fixtures.packets import packet_digest
from v2m.core.errors import UsageError
from v2m.core.types import InpaintRequest
from v2m.media import video as videos
from v2m.mixing.mixer import default_output
from v2m.pipeline.job_runner import Job, JobCancelledError, JobResult, JobRunner, is_playable, strip_folders
from v2m.webapp.form import Form


@pytest.fixture(scope="module")
def runner() -> Iterator[JobRunner]:
    runner = JobRunner()
    yield runner
    runner.cancel()


def make_job(clip: Path, out: Path | None, **fields: object) -> Job:
    form = Form(**fields)  # type: ignore[arg-type]
    return Job(clip, "sketch", form.overrides(60.0), form.controls(), out)


def run(runner: JobRunner, job: Job) -> JobResult:
    *_, (kind, result) = runner.run(job, "a session")
    assert kind == "done"
    return result


def test_a_job_without_an_output_gives_tags_and_hints_win(runner: JobRunner, clip: Path) -> None:
    tags = run(runner, make_job(clip, None, genres="jazz", tempo=91)).tags
    assert (tags["genres"], tags["tempo"]) == (["jazz"], 91)
    assert tags["instruments"]
    assert tags["key"]
    assert run(runner, make_job(clip, None)).is_playable


def test_every_candidate_is_a_video_and_the_best_has_all_files(runner: JobRunner, clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    job = make_job(clip, folder / "a.v2m", candidates=2, seed=3)
    events = list(runner.run(job, "a session"))
    stages, shares = ([value for kind, value in events if kind == name] for name in ("stage", "progress"))
    result = events[-1][1]
    assert not any(candidate.preview for candidate in result.candidates), "browsers play the files themselves"
    assert stages == ["Analyzing the picture", "Writing the music", "Mixing and writing", "Writing take 2 of 2"]
    assert all(0 <= share <= 1 for share in shares)
    assert sorted(candidate.seed for candidate in result.candidates) == [3, 4]
    assert result.candidates[0].sync >= result.candidates[1].sync
    assert all(candidate.video.stat().st_size > 1000 for candidate in result.candidates)
    best, other = result.candidates
    assert {path.suffix for path in best.files} == {".mp4", ".json", ".wav", ".mid", ".edl", ".png"}
    assert {path.name for path in best.files} >= {"a.v2m.mp4", "a.v2m.wav", "a.v2m.json"}
    assert all(path.is_file() for path in (*best.files, *other.files))
    assert {path.suffix for path in other.files} == {".mp4", ".wav", ".png"}
    assert not {*best.files} & {*other.files}
    assert (best.report, best.music) == (folder / "a.v2m.png", folder / "a.v2m.wav")
    assert len(best.beats) > 3
    sidecar = (folder / "a.v2m.json").read_text()
    assert '"file": "a.v2m.mp4"' in sidecar
    assert result.record["settings"]["seed"] == 3
    assert str(tmp_path) not in sidecar, "a sidecar that is given out names no folder of this machine"


def test_folders_are_stripped_from_files_but_not_from_words() -> None:
    words = {"tags": {"caption": "/b/ ends here"}, "hints": {"lyrics": "/ la / la"}}
    record = {"input": {"file": "/home/me/a.mp4"}, "music": {"takes": [words]}, "settings": words, **words}
    assert strip_folders(record) == {**record, "input": {"file": "a.mp4"}}


SOURCE = "-f lavfi -i testsrc2=s=128x96:r=25:d=1.6 -f lavfi -i sine=440:r=48000:d=1.6"
FORMATS = {  # file: ffmpeg's arguments, and the suffix of the output
    "prores.mov": ("-c:v prores_ks -c:a pcm_s16le", ".mov"),
    "phone.MOV": ("-c:v libx265 -x265-params log-level=error -tag:v hvc1 -c:a aac", ".MOV"),
    "call.mov": ("-c:v libx264 -pix_fmt yuv420p -c:a pcm_mulaw -ar 8000", ".mov"),
    "dvd.VOB": ("-c:v mpeg2video -aspect 16:9 -c:a ac3 -f vob", ".mpg"),
    "camera.mxf": ("-c:v mpeg2video -c:a pcm_s16le", ".mkv"),
    "old.asf": ("-c:v wmv2 -c:a wmav2", ".wmv"),
    "phone.3g2": ("-c:v libx264 -pix_fmt yuv420p -c:a aac", ".mp4"),
    "GX010001.LRV": ("-c:v libx264 -pix_fmt yuv420p -c:a aac -f mp4", ".mp4"),
    "sticker.png": ("-an -r 10 -f apng", ".mp4"),
    "web.mp4": ("-c:v libvpx -deadline realtime -cpu-used 8 -c:a libopus -f webm", ".mkv"),
    "web.webm": ("-c:v libvpx -deadline realtime -cpu-used 8 -c:a libopus", ".webm"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_page_takes_the_formats_of_the_command(runner: JobRunner, tmp_path: Path, name: str) -> None:
    """The container is that of the command's rule, the pictures are the input's, and a browser gets what it plays."""
    arguments, suffix = FORMATS[name]
    source, out = tmp_path / name, tmp_path / "out" / "film.v2m"
    ffmpeg(*SOURCE.split(), *arguments.split(), source)
    out.parent.mkdir()
    assert is_playable(source) == (name == "web.webm")
    result = run(runner, make_job(source, out, original="keep", candidates=2 if name == "prores.mov" else 1))
    assert default_output(videos.open(source)).suffix == suffix
    for candidate in result.candidates:
        assert candidate.video.suffix == suffix
        assert candidate.preview not in candidate.files
        assert (candidate.preview is None) == (suffix in {".mp4", ".webm"})
        shown = candidate.preview or candidate.video
        assert is_playable(shown)
        if name != "sticker.png":
            assert packet_digest(candidate.video) == packet_digest(source)
        with av.open(str(shown)) as media:
            pictures, sound = media.streams.video[0], media.streams.audio[0]
            starts = [(stream.start_time or 0) * (stream.time_base or 0) for stream in (pictures, sound)]
            assert abs(starts[0] - starts[1]) < 0.05
            assert pictures.width / pictures.height == pytest.approx(16 / 9 if name == "dvd.VOB" else 4 / 3, abs=0.02)


@pytest.mark.parametrize("name", ["sticker.webp", "sticker.mp4"])
def test_page_takes_an_animated_webp(runner: JobRunner, tmp_path: Path, name: str) -> None:
    """FFmpeg does not read it, whatever its name is."""
    source, out = tmp_path / name, tmp_path / "out" / "film.v2m"
    frames = [Image.new("RGB", (64, 48), (90 * number, 40, 80)) for number in range(3)]
    frames[0].save(source, "WEBP", save_all=True, append_images=frames[1:], duration=500)
    out.parent.mkdir()
    tagged = run(runner, make_job(source, None))
    assert tagged.tags["genres"]
    assert not tagged.is_playable
    [candidate] = run(runner, make_job(source, out)).candidates
    assert candidate.preview is None
    assert is_playable(candidate.video)


def test_any_candidate_is_inpainted(runner: JobRunner, clip: Path, tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    _, other = run(runner, make_job(clip, tmp_path / "old" / "a.v2m", candidates=2, seed=3)).candidates
    job = make_job(clip, tmp_path / "new" / "a.v2m", seed=9)
    job = replace(job, controls=replace(job.controls, inpaint=InpaintRequest(1.5, 3.0, other.music)))
    result = run(runner, job)
    (candidate,) = result.candidates
    old, new = (soundfile.read(path, dtype="float32")[0] for path in (other.music, candidate.music))
    outside = np.r_[0 : int(1.5 * 48_000), 3 * 48_000 : len(old)]
    np.testing.assert_array_equal(new[outside], old[outside])
    assert np.abs(new - old).max() > 0.01
    assert candidate.video.stat().st_size > 1000
    assert [row["seed"] for row in result.record["music"]["takes"]] == [other.seed, 9]
    assert result.record["settings"]["inpaint"] == "1.5:3"


def test_an_error_is_one_line_without_flags_and_folders(runner: JobRunner, clip: Path, tmp_path: Path) -> None:
    bad = tmp_path / "notes.mp4"
    bad.write_text("these are no pictures")
    late = replace(make_job(clip, tmp_path / "a.v2m"), overrides={"start": 99.0})
    gone = make_job(clip, tmp_path / "a.v2m", melody=str(tmp_path / "gone.wav"))
    for job, message in (
        (make_job(bad, tmp_path / "out.v2m"), "notes.mp4"),
        (make_job(bad, tmp_path / "out.v2m", tempo=9000), "tempo 9000"),
        (late, "start 99 s lies outside the video"),
        (gone, "cannot do `melody`"),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            run(runner, job)
        assert str(tmp_path) not in str(caught.value)
        assert "--" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_cancelled_job_ends_its_process_and_the_next_gets_another(clip: Path, tmp_path: Path) -> None:
    runner = JobRunner()
    events = runner.run(make_job(clip, tmp_path / "out.v2m"), "one")
    next(events)
    assert runner._worker is not None
    process = runner._worker.process
    assert not runner.cancel("another")
    assert process.is_alive()
    assert runner.cancel("one")
    assert not process.is_alive()
    with pytest.raises(JobCancelledError):
        list(events)
    try:
        assert run(runner, make_job(clip, None)).tags
    finally:
        runner.cancel()


def test_an_abandoned_job_does_not_delay_the_next(clip: Path, tmp_path: Path) -> None:
    runner = JobRunner()
    events = runner.run(make_job(clip, tmp_path / "out.v2m"), "one")
    next(events)
    events.close()
    try:
        assert run(runner, make_job(clip, None, genres="jazz")).tags["genres"] == ["jazz"]
        assert runner._worker is not None
        process = runner._worker.process
        assert run(runner, make_job(clip, None)).tags
        assert runner._worker.process is process, "a worker that has done a job stays for the next"
    finally:
        runner.cancel()


def test_a_killed_process_and_the_time_limit_are_reported(clip: Path, tmp_path: Path) -> None:
    runner = JobRunner()
    events = runner.run(make_job(clip, tmp_path / "out.v2m"), "one")
    next(events)
    assert runner._worker is not None
    runner._worker.process.kill()
    with pytest.raises(UsageError, match="memory"):
        list(events)
    hasty = JobRunner(max_minutes=1e-6)
    with pytest.raises(UsageError, match="minutes"):
        list(hasty.run(make_job(clip, tmp_path / "out.v2m"), "one"))
    time.sleep(0.01)
    assert hasty._worker is None
