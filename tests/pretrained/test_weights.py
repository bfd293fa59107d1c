"""Weights: local folders, one download from the hub, revisions, licenses and hashes."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pretrained.hub_server import COMMIT, OLDER, Hub, serving
from v2m.core.errors import DependencyError, UsageError
from v2m.pretrained.weights import fetch, sha256_files

ROOT = Path(__file__).parents[2]
FILES = {
    "config.json": b'{"A": 1}',
    "model.safetensors": bytes(range(65, 91)) * 40_000,
    "decoders/large.pth": bytes(range(65, 91)) * 900_000,  # more than the 10 MiB that the hub writes at a time
    "README.md": b"---\nlicense: apache-2.0\n---\n# Tiny",
    "notes.txt": b"not asked for",
}
NEEDED = ["*.json", "*.safetensors|*.bin"]
CLIENT = """
import json, sys
from v2m.core import errors
from v2m.pretrained.weights import fetch, sha256_files
for name, files in json.loads(sys.argv[1]):
    try:
        got = fetch(name, files, license="MIT", download_size=12_400_000_000)
        row = [str(got.folder), got.revision, got.license, sha256_files(got.folder)]
    except Exception as error:
        row = [errors.exit_code(error), errors.format_error(error)]
    print(json.dumps(row))
"""

Client = Callable[..., tuple[list[Any], str]]


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with serving(FILES) as served:
        yield served


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> Client:
    """Fetch names in a process of its own, with the loopback hub and empty caches."""
    hub.requests.clear()

    def run(*requests: str | tuple[str, list[str]], **settings: str) -> tuple[list[Any], str]:
        pairs = [(request, NEEDED) if isinstance(request, str) else request for request in requests]
        places = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "XDG_CACHE_HOME": str(tmp_path / "xdg")}
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "V2M_"))}
        done = subprocess.run(
            [sys.executable, "-c", CLIENT, json.dumps(pairs)],
            cwd=ROOT,
            env={**environment, **places, **settings},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()], done.stderr

    return run


def folder_with(path: Path, *names: str) -> Path:
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(b"{}")
    return path


def test_download_is_announced_resumes_after_a_disconnect_and_is_cached(hub: Hub, client: Client) -> None:
    hub.cut = "decoders/large.pth"
    request = ("owner/tiny", ["*.json", "decoders/"])
    ((folder, revision, license, hashes),), output = client(request)
    assert (revision, license) == (COMMIT, "apache-2.0")
    assert Path(folder, "decoders/large.pth").read_bytes() == FILES["decoders/large.pth"]
    assert hashes == {"decoders/large.pth": hashlib.sha256(FILES["decoders/large.pth"]).hexdigest()}
    assert output.splitlines()[0].startswith("fetching owner/tiny (23.4 MB); license: apache-2.0; into ")
    assert ("large.pth", f"bytes={10 << 20}-") in hub.transfers(), "the transfer resumes where it was cut"
    assert {name for name, _ in hub.transfers()} == {"config.json", "large.pth", "README.md"}

    hub.requests.clear()
    (cached,), output = client(request)
    (offline,), _ = client(request, HF_HUB_OFFLINE="1")
    assert cached == offline == [folder, revision, license, hashes]
    assert (hub.requests, output) == ([], "")


def test_incomplete_snapshot_is_completed(hub: Hub, client: Client) -> None:
    request = ("owner/tiny", ["[cmn]*.*"])  # other files still match when notes.txt is missing
    ((folder, *_),), _ = client(request)
    Path(folder, "notes.txt").unlink()
    ((code, line),), _ = client(request, HF_HUB_OFFLINE="1")
    assert code == 4
    assert "HF_HUB_OFFLINE is set and they are not, or not all, in the hub's cache" in line
    hub.requests.clear()
    client(request)
    assert Path(folder, "notes.txt").read_bytes() == FILES["notes.txt"]
    assert {name for name, _ in hub.transfers()} <= {"notes.txt"}


def test_hub_errors_are_one_line_with_reason_size_and_folder(client: Client) -> None:
    rows, _ = client("owner/none", "owner/gated", "owner/tiny@nope", ("owner/tiny", ["*.json", "vocoder.pth"]))
    assert [code for code, _ in rows] == [4, 4, 4, 4]
    sizes = {"none": "12.4 GB", "gated": "1.0 MB", "tiny": "12.4 GB"}  # the hint where the hub tells none
    for (name, size), (_, line) in zip(sizes.items(), rows, strict=False):
        assert line.startswith(f"weights owner/{name} ({size}) cannot be fetched: ")
        assert line.endswith(f"or put its files into {ROOT / 'checkpoints' / name}, or give the folder that has them")
    assert "has no such repository, or it is private" in rows[0][1]
    assert "license must be accepted first" in rows[1][1]
    assert "`hf auth login`" in rows[1][1]
    assert "it has no revision 'nope'" in rows[2][1]
    assert "owner/tiny has no vocoder.pth at revision main" in rows[3][1]


def test_unreachable_hub_is_reported_as_such(client: Client) -> None:
    ((code, line),), _ = client("owner/tiny", HF_ENDPOINT="http://127.0.0.1:9")
    assert (code, "http://127.0.0.1:9 cannot be reached" in line) == (4, True)


def test_revision_is_pinned_and_insufficient_disk_space_is_reported_before_download(hub: Hub, client: Client) -> None:
    ((code, line), (folder, revision, *_)), _ = client(("owner/tiny", ["*.bin"]), f"owner/tiny@{OLDER}")
    assert code == 6
    assert line.startswith("1000000000.0 GB of owner/tiny are to go into ")
    assert "free some room, or set HF_HOME to a folder on another disk" in line
    assert "huge.bin" not in {name for name, _ in hub.transfers()}
    assert revision == OLDER
    assert Path(folder, "model.safetensors").read_bytes() == FILES["model.safetensors"].lower()


def test_unwritable_cache_is_reported(client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ((code, line),), _ = client("owner/tiny", HF_HOME=str(tmp_path / "file"))
    assert (code, "cannot be written to: set HF_HOME to a folder that can" in line) == (4, True)


def test_local_folder_is_used_unchanged(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "mine", "config.json", "sub/model.safetensors")
    got = fetch(str(folder), NEEDED, license="MIT")
    assert (got.name, got.folder, got.revision, got.license) == (str(folder), folder, None, "MIT")


@pytest.mark.parametrize(
    ("card", "license"),
    [
        ("---\nlicense: cc-by-nc-4.0\n---\ntext", "cc-by-nc-4.0"),
        ("---\nlicense: other\nlicense_name: own-terms\n---\n", "own-terms"),
        ("---\nlicense: [mit, apache-2.0]\n---\n", "mit, apache-2.0"),
        ("no front matter\nlicense: gpl\n", "MIT"),
        ("---\n: [\n---\n", "MIT"),
    ],
)
def test_model_card_overrides_the_default_license(tmp_path: Path, card: str, license: str) -> None:
    (folder_with(tmp_path, "config.json") / "README.md").write_text(card)
    assert fetch(str(tmp_path), ["*.json"], license="MIT").license == license


def test_folder_without_a_required_file_is_refused_with_the_pattern(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "mine", "config.json", ".cache/model.safetensors")
    with pytest.raises(DependencyError, match=r"mine' lacks \*\.safetensors\|\*\.bin, \*\.model: complete that folder"):
        fetch(str(folder), [*NEEDED, "*.model"])


@pytest.mark.parametrize("other", [False, True])
def test_missing_shard_of_an_index_is_reported(tmp_path: Path, other: bool) -> None:
    names = ["a-1.safetensors", "model.safetensors.index.json"] + ["pytorch_model.bin"] * other
    folder = folder_with(tmp_path, *names)
    (folder / names[1]).write_text(json.dumps({"weight_map": {"x": "a-1.safetensors", "y": "a-2.safetensors"}}))
    with pytest.raises(DependencyError, match=r"lacks a-2\.safetensors"):
        fetch(str(folder), NEEDED)
    folder_with(tmp_path, "a-2.safetensors")
    assert fetch(str(folder), NEEDED).folder == folder


def test_missing_shards_of_an_unused_format_are_ignored(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "model.safetensors", "pytorch_model.bin.index.json")
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"x": "pytorch_model-1.bin"}}))
    assert fetch(str(folder), NEEDED).folder == folder


def test_optional_files_are_fetched_if_present_and_as_last_alternative(hub: Hub, client: Client) -> None:
    request = ("owner/tiny", ["*.json", "*.safetensors|*.txt|", "*.model|", "decoders/*.bin|notes.txt|"])
    client(request)
    assert {name for name, _ in hub.transfers()} == {"config.json", "model.safetensors", "notes.txt", "README.md"}
    hub.requests.clear()
    ((folder, *_),), _ = client(request, HF_HUB_OFFLINE="1")
    assert (COMMIT in folder, hub.requests) == (True, [])


def test_optional_folder_with_an_index_needs_its_shards(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "config.json", "part/model.safetensors.index.json")
    (folder / "part/model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "a.safetensors"}}))
    with pytest.raises(DependencyError, match=r"lacks part/a\.safetensors"):
        fetch(str(folder), ["config.json", "part/|"])
    assert fetch(str(folder), ["config.json", "other/|"]).folder == folder


@pytest.mark.parametrize("where", ["tiny", "owner/tiny"])
@pytest.mark.parametrize("name", ["owner/tiny", f"owner/tiny@{OLDER}"])
def test_checkpoints_folder_takes_precedence_over_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, name: str
) -> None:
    monkeypatch.delenv("V2M_CHECKPOINTS", raising=False)
    monkeypatch.chdir(tmp_path)
    folder = folder_with(tmp_path / "checkpoints" / where, "config.json")
    assert fetch(name, ["*.json"]).folder == folder
    other = folder_with(tmp_path / "elsewhere" / where, "config.json")
    monkeypatch.setenv("V2M_CHECKPOINTS", str(tmp_path / "elsewhere"))
    assert fetch(name, ["*.json"]).folder == other


def test_other_revision_in_checkpoints_gives_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("V2M_CHECKPOINTS", str(tmp_path))
    folder = folder_with(tmp_path / "tiny", "config.json")
    notes = folder / ".cache/huggingface/download/config.json.metadata"
    notes.parent.mkdir(parents=True)
    notes.write_text(f"{COMMIT}\netag\n1.0\n")
    with caplog.at_level(logging.WARNING, "v2m"):
        assert fetch(f"owner/tiny@{COMMIT}", ["*.json"]).revision == COMMIT
        assert caplog.messages == []
        fetch(f"owner/tiny@{OLDER}", ["*.json"])
    assert caplog.messages == [f"{folder} holds revision {COMMIT}, not {OLDER} as asked for"]


@pytest.mark.parametrize("name", ["/no/such/folder", "./none", "none", "", "../up", "a/b/c"])
def test_name_that_is_neither_folder_nor_repository_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        fetch(name, ["*.json"])


def test_file_is_hashed_again_only_after_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    folder = folder_with(tmp_path / "mine", "a.pth", "sub/b.safetensors", "config.json", ".git/lfs/c.pth")
    first = sha256_files(folder)
    assert first == dict.fromkeys(("a.pth", "sub/b.safetensors"), hashlib.sha256(b"{}").hexdigest())
    stamp = (folder / "a.pth").stat().st_mtime_ns
    (folder / "a.pth").write_bytes(b"[]")
    os.utime(folder / "a.pth", ns=(stamp, stamp))
    assert sha256_files(folder) == first, "same size and time: not read again"
    os.utime(folder / "a.pth", ns=(stamp, stamp + 1))
    assert sha256_files(folder)["a.pth"] == hashlib.sha256(b"[]").hexdigest()


@pytest.mark.parametrize("state", ["file", "garbage"])
def test_hashing_works_without_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    if state == "file":
        (tmp_path / "xdg").touch()
    else:
        (folder_with(tmp_path / "xdg/v2m", "digests.json") / "digests.json").write_text('{"a": ')
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    folder = folder_with(tmp_path / "mine", "a.pth")
    assert sha256_files(folder) == sha256_files(folder) == {"a.pth": hashlib.sha256(b"{}").hexdigest()}


def test_blob_name_in_the_hub_cache_is_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / COMMIT
    folder_with(blobs, "a" * 64, "b" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "large.pth").symlink_to(blobs / ("a" * 64))
    (snapshot / "small.pth").symlink_to(blobs / ("b" * 40))  # of a small file it is the git hash
    assert sha256_files(snapshot) == {"large.pth": "a" * 64, "small.pth": hashlib.sha256(b"{}").hexdigest()}


def test_weights_module_imports_no_heavy_package() -> None:
    heavy = {"torch", "huggingface_hub", "yaml"}
    code = f"import sys, v2m.pretrained.weights; sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
