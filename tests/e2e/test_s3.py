"""Videos, shards and scored videos in a bucket of a real S3 server on the loopback address."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
import torch
from moto.server import ThreadedMotoServer

from tests.e2e.test_train import words as train_words
from tests.fixtures.tiny import shards as made
from v2m.cli import prepare, score, train
from v2m.core import remote
from v2m.core.errors import InvalidInputError
from v2m.data.synthetic import make_clips
from v2m.pipeline import remote_batch

SECRET = "the-secret-of-this-test"
BUILT_IN = ("--codec=v2m-score-1", "--vision-encoder=v2m-frame-statistics-1", "--text-encoder=v2m-hashed-words-1")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it reports each request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket, and the variables by which it is reached."""
    variables = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in {**variables, "AWS_ENDPOINT_URL": endpoint, "V2M_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").mkdir("videos")
    yield "s3://videos"
    fsspec.filesystem("s3").rm("videos", recursive=True)
    fsspec.filesystem("s3").clear_instance_cache()


def upload(folder: Path, address: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            remote.write_file(path, remote.join(address, path.relative_to(folder).as_posix()))


def digests(address: str, *suffixes: str) -> dict[str, str]:
    """The digests of the files of these kinds at an address, or in a folder."""
    if remote.is_address(address):
        contents = {file.name: remote.read_bytes(file.address) for file in remote.list_files(address)}
    else:
        contents = {path.name: path.read_bytes() for path in Path(address).iterdir() if path.is_file()}
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items() if name.endswith(suffixes)}


def test_shards_of_a_bucket_are_those_of_a_folder(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = tmp_path / "clips"
    make_clips(clips, 3, 5.0, 0, 1, with_audio=False, quiet=True)
    more = tmp_path / "more"
    more.mkdir()
    for path in clips.glob("00002.*"):
        shutil.move(path, more)
    upload(clips, f"{bucket}/clips")
    command = [*BUILT_IN, "--quiet", "--processes=1", "--shard-samples=1"]
    assert prepare.main([*command, f"{bucket}/clips", f"{bucket}/shards"]) == 0
    assert prepare.main([*command, str(clips), str(tmp_path / "local")]) == 0
    made = digests(f"{bucket}/shards", ".tar", "dataset.json")
    assert made == digests(str(tmp_path / "local"), ".tar", "dataset.json")
    assert len(made) == 3

    upload(more, f"{bucket}/clips")
    upload(more, str(clips.as_uri()))
    monkeypatch.setenv("V2M_CACHE", str(tmp_path / "another machine"))
    assert prepare.main([*command, f"{bucket}/clips", f"{bucket}/shards"]) == 0
    assert prepare.main([*command, str(clips), str(tmp_path / "local")]) == 0
    assert digests(f"{bucket}/shards", ".tar", "dataset.json") == digests(
        str(tmp_path / "local"), ".tar", "dataset.json"
    )
    captured = capsys.readouterr()
    assert SECRET not in captured.out + captured.err
    assert prepare.main([*command, f"{bucket}/clips", bucket]) == 2
    assert "holds something else than a dataset" in capsys.readouterr().err


def test_keys_that_are_no_names_of_web_pages_and_empty_folders(bucket: str) -> None:
    s3 = fsspec.filesystem("s3")
    s3.call_s3("put_object", Bucket="videos", Key="folder/", Body=b"")  # as consoles make them
    with pytest.raises(InvalidInputError, match="nothing is at"):
        remote.list_files(f"{bucket}/folder/")
    names = ["clip #1.mp4", "clip #2.mp4", "what?.mp4"]
    for name in names:
        s3.pipe_file(f"{bucket}/folder/{name}", name.encode())
    found = remote_batch.find_videos([f"{bucket}/folder"])
    assert [video.name for video in found] == names
    with remote.open_file(f"{bucket}/folder/{names[0]}") as file:
        assert file.read() == names[0].encode()
        assert file.blocksize == file.cache.blocksize == 4 << 20


def test_training_on_a_bucket_resumes_to_the_same_weights(
    bucket: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    upload(made.write(tmp_path / "shards", (3, 3, 2), seconds=2.0), f"{bucket}/shards")
    address, weights = f"{bucket}/shards", {}
    more = ["--data.validation", address, "--data.num_workers", "2", "--checkpoints.every_n_train_steps", "3"]
    for name, stops in (("whole", "6"), ("cut", "36")):
        for stop in stops:
            arguments = train_words(address, tmp_path / name, *more, "--trainer.max_steps", stop)
            assert train.main(arguments) == 0
        held = torch.load(tmp_path / name / "checkpoints/step00000006.ckpt", weights_only=True)
        weights[name] = held["state_dict"]
    assert all(torch.equal(value, weights["cut"][name]) for name, value in weights["whole"].items())
    assert "than before" not in caplog.text


@pytest.mark.slow
def test_scored_videos_of_a_bucket_are_those_of_a_folder(
    bucket: str, media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in ("a.mp4", "b.mp4"):
        shutil.copy(media / "cuts.mp4", clips / name)
    upload(clips, f"{bucket}/clips")
    command = [f"{bucket}/clips", "--out", f"{bucket}/scored", "--wav"]
    assert score.main(command) == 0
    assert score.main([str(clips), "--out", str(tmp_path / "local"), "--wav"]) == 0
    made = digests(f"{bucket}/scored", ".mp4", ".wav")
    assert made == digests(str(tmp_path / "local"), ".mp4", ".wav")
    assert sorted(made) == ["a.v2m.mp4", "a.v2m.wav", "b.v2m.mp4", "b.v2m.wav"]
    record = json.loads(remote.read_bytes(f"{bucket}/scored/a.v2m.json"))
    assert record["input"]["file"] == f"{bucket}/clips/a.mp4"
    assert record["output"]["sha256"] == made["a.v2m.mp4"]

    capsys.readouterr()
    remote.write_file(clips / "a.mp4", f"{bucket}/scored/b.v2m.mp4")  # another program's, of another size
    assert score.main(command) == 7
    assert [line.split()[:2] for line in capsys.readouterr().out.splitlines()[:2]] == [
        ["a.mp4", "unchanged"],
        ["b.mp4", "failed"],
    ]
    assert score.main([*command, "--overwrite"]) == 0
    assert digests(f"{bucket}/scored", ".mp4", ".wav") == made


def test_bucket_that_does_not_exist_is_one_line(
    bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert score.main([f"{bucket}-of-nobody/clips"]) == 2
    assert score.main([str(tmp_path / "gone.mp4"), "--out", f"{bucket}/scored"]) == 7
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1
    assert "nothing is at 's3://videos-of-nobody/clips': check the name" in captured.err
    assert SECRET not in captured.out + captured.err
