"""From videos to shards: what is kept is aligned, what is left out has a reason, and a killed run goes on."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from tests.conftest import ffmpeg
from tests.fixtures.tiny import clip as tiny_clip
from tests.fixtures.tiny import encoders
from v2m.analysis.visual_events import EVENT_CHANNELS
from v2m.cli.prepare import main
from v2m.core import atomic
from v2m.core.errors import UsageError
from v2m.core.prompts import build_prompt
from v2m.core.timing import codec_frames
from v2m.core.types import Tags
from v2m.data import encode, prepare, progress_log, writer
from v2m.data.config import PrepareConfig
from v2m.data.encode import FilteredOutError
from v2m.data.schema import CODES, EVENTS, FRAMES, LONG_TERM, META, TEXT, Manifest, Meta
from v2m.data.sources import VideoSource, discover_videos
from v2m.pretrained.codecs.encodec import load_encodec
from v2m.pretrained.text import T5TextEncoder
from v2m.pretrained.vision import FrozenVisionEncoder
from v2m.taggers.heuristic import HeuristicTagger

X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac")
TINY = {"max_segment_s": 4.0, "min_duration_s": 2.0, "num_long_term_frames": 4}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return encoders.write_options(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, media: Path) -> Path:
    """`a` of 4 s with its own sound; `b` of 6.5 s with a file of noise beside it; and what is left out."""
    root = tmp_path_factory.mktemp("videos")
    shutil.copy(media / "cuts.mp4", root / "a.mp4")
    moving = ("-f", "lavfi", "-i", "testsrc2=s=96x54:r=20:d=6.5")
    ffmpeg(*moving, *X264, root / "b.mp4")
    soundfile.write(root / "b.wav", noise(), 32000, "FLOAT")
    ffmpeg(*moving, *X264, root / "mute.mp4")
    ffmpeg(*moving, "-f", "lavfi", "-i", "anullsrc=d=6.5", *X264, root / "silent.mp4")
    ffmpeg("-f", "lavfi", "-i", "color=red:s=96x54:d=4", "-f", "lavfi", "-i", "sine=d=4", *X264, root / "static.mp4")
    ffmpeg(*moving, "-f", "lavfi", "-i", "sine=d=1.5", "-t", "1.5", *X264, root / "short.mp4")
    ffmpeg(*moving, "-f", "lavfi", "-i", "sine=d=2", *X264, root / "unequal.mp4")
    (root / "broken.mp4").write_bytes((root / "b.mp4").read_bytes()[:2000])
    return root


def noise() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, round(6.7 * 32000)).astype(np.float32)


def arguments(weights: dict[str, str], *inputs: Path) -> list[str]:
    given = {**weights, **{key: str(value) for key, value in TINY.items()}, "processes": "1", "device": "cpu"}
    return [*(f"--{name.replace('_', '-')}={value}" for name, value in given.items()), "--quiet", *map(str, inputs)]


def read(out: Path) -> dict[str, dict[str, Any]]:
    """By key, the members of each sample."""
    result: dict[str, dict[str, Any]] = {}
    for shard in Manifest.read(out).shards:
        with tarfile.open(out / shard.file) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                content = file.read()
                key, name = member.name.split(".", 1)
                result.setdefault(key, {})[name] = (
                    Meta(**json.loads(content)) if name == META else np.load(io.BytesIO(content), allow_pickle=False)
                )
    return result


def digests(out: Path) -> dict[str, str]:
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


@dataclass
class Prepared:
    out: Path
    samples: dict[str, dict[str, Any]]
    report: str


@pytest.fixture(scope="module")
def prepared(weights: dict[str, str], videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    out = tmp_path_factory.mktemp("made") / "out"
    text = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", text)
        assert main(arguments(weights, videos, out)) == 0
    return Prepared(out, read(out), text.getvalue())


def test_report_counts_kept_videos_and_reasons_of_dropped_ones(prepared: Prepared) -> None:
    manifest = Manifest.read(prepared.out)
    reasons = ("lengths_differ", "no_sound", "silent", "static", "too_short", "unreadable")
    assert manifest.dropped == dict.fromkeys(reasons, 1)
    assert [item[META].source for item in prepared.samples.values()] == ["a.mp4", "b.mp4", "b.mp4"]
    assert (manifest.num_samples, manifest.duration) == (3, pytest.approx(10.5, abs=0.05))
    for word in ("kept                  2  3 samples", "not_media", "1 shards", *reasons):
        assert word in prepared.report


def test_samples_match_the_manifest(prepared: Prepared, weights: dict[str, str]) -> None:
    manifest = Manifest.read(prepared.out)
    assert (manifest.vision_encoder, manifest.codec, manifest.text_encoder) == (
        f"{weights['vision_encoder']}:grid",
        weights["codec"],
        weights["text_encoder"],
    )
    assert (manifest.num_tokens, manifest.vision_dim, manifest.text_dim) == (5, tiny_clip.DIM, 16)
    assert (manifest.codec_frame_rate, manifest.num_codebooks, manifest.tagger) == (50, 4, "HeuristicTagger")
    for sample in prepared.samples.values():
        for name, shape in manifest.shapes(sample[META]).items():
            assert all(want in (None, has) for want, has in zip(shape, sample[name].shape, strict=True)), name
    assert len(prepared.samples) == 3


def test_long_video_is_split_evenly_without_loss(prepared: Prepared) -> None:
    first, second = (item for item in prepared.samples.values() if item[META].source == "b.mp4")
    assert (first[META].start, first[META].duration, second[META].start) == (0.0, 3.24, 3.24)
    assert second[META].start + second[META].duration == pytest.approx(6.5, abs=0.02)
    assert first[META].video_duration == second[META].video_duration == 6.5
    np.testing.assert_array_equal(first[LONG_TERM], second[LONG_TERM])


def test_codes_frames_and_events_keep_their_times(prepared: Prepared, videos: Path, weights: dict[str, str]) -> None:
    """Noise from sample to sample, frames by the second, cuts at 1.2 s and 2.6 s."""
    codec = load_encodec(Path(weights["codec"]), torch.device("cpu"))
    for sample in (item for item in prepared.samples.values() if item[META].source == "b.mp4"):
        first = round(sample[META].start * 32000)
        wave = torch.from_numpy(noise()[first : first + round(sample[META].duration * 32000)])
        np.testing.assert_array_equal(sample[CODES], codec.encode(wave[None, None])[0])
    a = prepared.samples[next(iter(prepared.samples))]
    cuts = a[EVENTS][:, EVENT_CHANNELS.index("cut")]
    assert np.flatnonzero(cuts).tolist() == [24, 52]
    vision = FrozenVisionEncoder.load(Path(weights["vision_encoder"]), torch.device("cpu"), name="m")
    for sample in prepared.samples.values():
        meta, count = sample[META], len(sample[FRAMES])
        clip = encode.video.open(videos / meta.source)
        width = vision.decode_width(clip.width, clip.height)
        for name, begin, step in (
            (FRAMES, meta.start, meta.duration / count),
            (LONG_TERM, 0.0, meta.video_duration / 4),
        ):
            times = [begin + (number + 0.5) * step for number in range(len(sample[name]))]
            expected = vision.encode(clip.frames(times, width))
            np.testing.assert_allclose(sample[name], expected.numpy(), rtol=2e-3, atol=2e-2)


def test_prompt_equals_that_of_the_generator(prepared: Prepared, weights: dict[str, str]) -> None:
    for sample in prepared.samples.values():
        meta = sample[META]
        assert meta.prompt == build_prompt(Tags(**meta.tags)) != ""
        expected = (
            T5TextEncoder.load(Path(weights["text_encoder"]), torch.device("cpu")).encode([meta.prompt]).tokens[0]
        )
        np.testing.assert_allclose(sample[TEXT], expected.numpy(), rtol=2e-3, atol=1e-3)


def test_known_tags_are_kept(weights: dict[str, str], videos: Path, tmp_path: Path) -> None:
    shutil.copy(videos / "a.mp4", tmp_path / "a.mp4")
    (tmp_path / "a.tags.json").write_text('{"genres": ["polka"], "tempo": 133}')
    assert main(arguments(weights, tmp_path, tmp_path / "out")) == 0
    [sample] = read(tmp_path / "out").values()
    assert "polka" in sample[META].prompt
    assert "133 bpm" in sample[META].prompt
    assert sample[META].tags["moods"]


def test_repeated_command_changes_no_file(
    prepared: Prepared, weights: dict[str, str], videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in prepared.out.iterdir() if path.name != progress_log.LOCK}
    monkeypatch.setattr(encode.SampleEncoder, "load", lambda *_: pytest.fail("nothing is to be encoded"))
    assert main(arguments(weights, videos, prepared.out)) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_several_processes_write_the_same_bytes(
    prepared: Prepared, weights: dict[str, str], videos: Path, tmp_path: Path
) -> None:
    assert main([*arguments(weights, videos, tmp_path / "out"), "--processes=2"]) == 0
    assert digests(tmp_path / "out") == digests(prepared.out)


def test_new_and_changed_videos_give_the_bytes_of_a_fresh_run(
    prepared: Prepared, weights: dict[str, str], videos: Path, tmp_path: Path
) -> None:
    folder, out = tmp_path / "videos", tmp_path / "out"
    folder.mkdir()
    shutil.copy(videos / "b.mp4", folder / "a.mp4")  # becomes another one
    shutil.copy2(videos / "b.mp4", folder)
    shutil.copy2(videos / "b.wav", folder)
    shutil.copy(videos / "b.wav", folder / "a.wav")
    assert main(arguments(weights, folder, out)) == 0
    assert len(read(out)) == 4
    (folder / "a.wav").unlink()
    for name in ("a.mp4", "mute.mp4"):
        shutil.copy2(videos / name, folder)
    assert main(arguments(weights, folder, out)) == 0
    again = tmp_path / "again"
    assert main(arguments(weights, folder, again)) == 0
    assert digests(out) == digests(again)
    assert [shard.sha256 for shard in Manifest.read(out).shards] == [
        shard.sha256 for shard in Manifest.read(prepared.out).shards
    ]


class Killed(BaseException):
    """As sudden as an end can be within one process."""


class Drawn:
    """Samples of random numbers in place of encoded videos: of these ones, but the second."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    def manifest(self) -> Manifest:
        return self._manifest

    def encode(self, source: VideoSource) -> Iterator[writer.EncodedSample]:
        if source.name.startswith("b"):
            raise FilteredOutError("silent", "as the name says")
        for number in range(2):
            meta = Meta(f"{source.key}_{number:04d}", source.name, 2.0 * number, 2.0, 4.0)
            yield (
                meta,
                {
                    name: np.full([3 if size is None else size for size in shape], number)
                    for name, shape in self._manifest.shapes(meta).items()
                },
            )


def test_run_killed_at_any_moment_resumes_to_the_same_bytes(
    prepared: Prepared, weights: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a name is taken and after, of every file that is written; before a line is on the disk and after."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (folder / name).write_bytes(b"x")
    sources = discover_videos([folder])
    manifest = replace(Manifest.read(prepared.out), shards=(), dropped={})
    monkeypatch.setattr(prepare, "_load_encoder", lambda _: Drawn(manifest))
    prepare.prepare(sources, _work(weights, tmp_path / "whole", shard_samples=2))
    expected, moments = digests(tmp_path / "whole"), 0
    assert len([name for name in expected if name.endswith(".tar")]) == 2

    def dying(function: Callable[..., Any], remaining: list[int]) -> Callable[..., Any]:
        def do(*given: Any, **named: Any) -> Any:
            remaining[0] -= 1
            if remaining[0] == 0:
                raise Killed
            return function(*given, **named) if remaining[0] > 0 else None  # the dead tidy nothing up

        return do

    for moment in range(1, 100):
        out, remaining = tmp_path / str(moment), [moment]
        with monkeypatch.context() as patch:
            for owner, name in ((os, "fsync"), (atomic, "fsync_dir"), (Path, "unlink"), (Path, "replace")):
                patch.setattr(owner, name, dying(getattr(owner, name), remaining))
            with suppress(Killed):
                prepare.prepare(sources, _work(weights, out, shard_samples=2))
        if remaining[0] > 0:
            break
        moments += 1
        out.mkdir(exist_ok=True)
        (out / ".of-another-process.v2m-0123abcd.tar").touch()
        prepare.prepare(sources, _work(weights, out, shard_samples=2))
        assert digests(out) == expected, f"killed at moment {moment}"
    assert moments > 20
    next((tmp_path / "1").glob("*.tar")).unlink()
    prepare.prepare(sources, _work(weights, tmp_path / "1", shard_samples=2))
    assert digests(tmp_path / "1") == expected, "a shard that was lost is made again"


def _work(weights: dict[str, str], out: Path, **more: Any) -> prepare.PrepareJob:
    settings = PrepareConfig(**weights, **TINY)  # type: ignore[arg-type]
    return prepare.PrepareJob(out, settings, HeuristicTagger(), "heuristic", "cpu", 1, quiet=True, **more)


def test_partly_written_record_is_ignored(tmp_path: Path) -> None:
    one, two = (progress_log.PrepareRecord(f"{key}.mp4", key, [None], drop_reason="silent") for key in "ab")
    progress_log.append_record(tmp_path, one)
    with (tmp_path / progress_log.RECORDS).open("ab") as file:
        file.write(b'{"key": "b", "sour')
    assert progress_log.read_records(tmp_path) == {"a": one}
    progress_log.append_record(tmp_path, two)
    assert progress_log.read_records(tmp_path) == {"a": one, "b": two}


def test_concurrent_runs_are_refused(tmp_path: Path) -> None:
    with (
        progress_log.lock_output_dir(tmp_path),
        pytest.raises(UsageError, match="another run is writing"),
        progress_log.lock_output_dir(tmp_path),
    ):
        pass


def test_folder_is_written_to_on_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(progress_log, "lock", refuse)
    with progress_log.lock_output_dir(tmp_path / "out"):
        assert (tmp_path / "out").is_dir()


def test_failing_video_does_not_stop_the_others(
    weights: dict[str, str], videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """A bug met on one is counted, told, and tried again the next time."""
    folder, out = tmp_path / "videos", tmp_path / "out"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4", "b.wav"):
        shutil.copy2(videos / name, folder)
    usual = HeuristicTagger.tag

    def tag(self: HeuristicTagger, video: Any, *rest: Any) -> Tags:
        assert video.path.name != "a.mp4", "a bug"
        return usual(self, video, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(HeuristicTagger, "tag", tag)
        manifest, _ = prepare.prepare(discover_videos([folder]), _work(weights, out))
    assert manifest.dropped == {"failed": 1}
    assert "a bug" in caplog.text
    manifest, _ = prepare.prepare(discover_videos([folder]), _work(weights, out))
    assert (manifest.dropped, manifest.num_samples) == ({}, 3)


@pytest.mark.parametrize("seconds", [2.0, 3.999999, 4.0, 4.01, 119.99, 120.0, 1e3 + 1 / 3])
@pytest.mark.parametrize("rate", [25, 50, 75])
def test_segments_are_adjacent_and_of_whole_frames(seconds: float, rate: int) -> None:
    result = encode.split_into_segments(seconds, rate, 4.0)
    assert result[0][0] == 0
    for (begin, duration), (after, _) in pairwise(result):
        assert begin + duration == pytest.approx(after, abs=1e-9)
    assert seconds - 1 / rate - 1e-6 < sum(duration for _, duration in result) <= seconds + 1e-6
    assert max(duration for _, duration in result) <= 4.0
    for _, duration in result:
        samples = encode.seconds_to_samples(duration, 32000 if rate != 75 else 24000)
        hop = 32000 // rate if rate != 75 else 320
        assert -(-samples // hop) == codec_frames(duration, rate), "what the codec gives is what the schema says"


def test_quiet_music_is_kept_and_half_silent_music_dropped() -> None:
    tone = 0.005 * np.sin(np.arange(320_000) / 20).astype(np.float32)[None]
    encode.check_silence(tone, 32000, PrepareConfig())
    gap = tone * (np.arange(320_000) < 150_000)
    with pytest.raises(FilteredOutError, match="silent"):
        encode.check_silence(gap, 32000, PrepareConfig())
    encode.check_silence(gap, 32000, PrepareConfig(max_silence=0.6))
