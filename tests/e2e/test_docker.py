"""The images of docker/: what their files name exists, the health check works, and the first one builds."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import EXAMPLE
from tests.fixtures.installed import PROJECT
from tests.fixtures.service_process import running
from v2m.cli import serve

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "docker").glob("Dockerfile*"))
KEY = "a-key-of-these-tests"
DEADLINE_S = 600.0


def instructions(file: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile with their words."""
    lines = re.sub(r"\\\n\s*", " ", file.read_text()).splitlines()
    return [(name, words) for name, _, words in (line.partition(" ") for line in lines) if name and name != "#"]


def words_of(file: Path, name: str) -> list[str]:
    return [words for each, words in instructions(file) if each == name]


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_images_are_pinned_and_not_of_root(file: Path) -> None:
    images = words_of(file, "FROM")
    assert images
    assert all(re.match(r"python:3\.12-slim-\w+@sha256:[0-9a-f]{64}( AS build)?$", image) for image in images)
    assert len({image.split()[0] for image in images}) == 1
    last = max(number for number, (name, _) in enumerate(instructions(file)) if name == "FROM")
    [user] = [words for name, words in instructions(file)[last:] if name == "USER"]
    assert int(user.partition(":")[0]) > 0
    assert not re.search(r"https?://(?!127\.0\.0\.1)", file.read_text()), "no index is named"


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_files_of_an_image_exist_and_are_not_ignored(file: Path) -> None:
    first, *allowed = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert first == "*"
    roots = {line[1:] for line in allowed if line.startswith("!")}
    copied = {source for words in words_of(file, "COPY") if "--from" not in words for source in words.split()[:-1]}
    assert {Path(source).parts[0] for source in copied} == roots
    assert all((ROOT / source).exists() for source in copied)
    readme, licenses = PROJECT["readme"], PROJECT["license-files"]
    assert {readme, *(name for name in licenses if "/" not in name)} <= copied, "the build needs them"


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_extras_exist_and_the_command_parses(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extras = [re.findall(r"--extra (\S+)", words) for words in words_of(file, "RUN") if "uv sync" in words]
    assert len(extras) == 2
    assert extras[0] == extras[1], "the second step keeps what the first has installed"
    assert {"serve", "app"} <= set(extras[0]) <= set(PROJECT["optional-dependencies"])
    [entry], [command] = words_of(file, "ENTRYPOINT"), words_of(file, "CMD")
    assert json.loads(entry) == ["v2m"]
    program, *arguments = json.loads(command)
    assert program == "serve"
    monkeypatch.setenv("V2M_KEYS", KEY)
    assert str(serve.parse(arguments).port) in words_of(file, "EXPOSE")[0].split()


def health_check(file: Path, port: str) -> int:
    [words] = words_of(file, "HEALTHCHECK")
    program, *arguments = json.loads(words.partition(" CMD ")[2])
    assert program == "python"
    command = [word.replace(":8000/", f":{port}/") for word in arguments]
    return subprocess.run([sys.executable, *command], check=False, stderr=subprocess.DEVNULL).returncode


def test_health_check_asks_a_real_service(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(KEY)
    with running(tmp_path / "data", "--key-file", str(tmp_path / "keys")) as (_, address):
        port = address.rpartition(":")[2]
        assert {health_check(file, port) for file in FILES} == {0}
    assert health_check(FILES[0], port) == 1


def docker(*words: str) -> str:
    return subprocess.run(["docker", *words], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


@pytest.fixture(scope="module")
def container() -> Iterator[tuple[str, str]]:
    """The name of a container of the first image, and its address."""
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
    ):
        pytest.skip("there is no Docker daemon")
    docker("build", "-f", "docker/Dockerfile", "-t", "v2m-test", ".")
    options = shlex.split(f"--init --rm --detach --read-only --tmpfs /tmp --cap-drop ALL -e V2M_KEYS={KEY}")
    name = docker("run", *options, "-p", "127.0.0.1::8000", "v2m-test")
    try:
        yield name, f"http://{docker('port', name, '8000').splitlines()[0]}"
    finally:
        docker("kill", name)


@pytest.mark.slow
def test_container_becomes_healthy_and_scores_a_video(container: tuple[str, str]) -> None:
    name, address = container
    deadline = time.monotonic() + DEADLINE_S
    while docker("inspect", "--format", "{{.State.Health.Status}}", name) != "healthy":
        assert time.monotonic() < deadline
        time.sleep(1)
    with httpx.Client(base_url=address, headers={"Authorization": f"Bearer {KEY}"}, timeout=60.0) as client:
        with EXAMPLE.open("rb") as video:
            job = client.post("/v1/jobs", files={"video": ("a.mp4", video)}).json()
        while job["state"] in {"queued", "running"}:
            assert time.monotonic() < deadline
            time.sleep(1)
            job = client.get(f"/v1/jobs/{job['id']}").json()
        assert job["state"] == "done", job["error"]
    assert docker("exec", name, "id", "-u") == "1000"
