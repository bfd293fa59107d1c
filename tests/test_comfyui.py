"""The node of ComfyUI, which is not installed here: by the command, and by a real service."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from tests.conftest import EXAMPLE, names
from tests.fixtures.http_server import serve
from tests.fixtures.packets import packet_digest
from tests.fixtures.service_process import running

FOLDER = Path(__file__).parents[1] / "examples" / "comfyui"
KEY = "a-key-of-these-tests"
LOAD = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("node", sys.argv[1] + "/__init__.py")
sys.modules["node"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.NODE_CLASS_MAPPINGS["V2MScoreVideo"].INPUT_TYPES()
print(*sorted({name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)))
"""


class InterruptProcessingError(Exception):
    """As ComfyUI raises it."""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The node, from a folder that was copied as a user does, loaded as ComfyUI does."""
    folder = shutil.copytree(FOLDER, tmp_path_factory.mktemp("custom_nodes") / "v2m")
    spec = importlib.util.spec_from_file_location("custom_node_v2m", folder / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["custom_node_v2m"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.NODE_CLASS_MAPPINGS["V2MScoreVideo"]()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("service")
    (folder / "keys").write_text(KEY)
    with running(folder / "data", "--key-file", str(folder / "keys"), "--upload-mb", "20") as (_, address):
        yield address


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder, in which a node without ComfyUI makes `output`."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def jobs(address: str) -> list[Any]:
    return httpx.get(f"{address}/v1/jobs", headers={"Authorization": f"Bearer {KEY}"}, timeout=60.0).json()


def interrupt_at(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """Have the user's button be seen pressed at the n-th look."""
    looks = iter(range(1, 1000))

    def throw_exception_if_processing_interrupted() -> None:
        if next(looks) == call:
            raise InterruptProcessingError

    management = ModuleType("comfy.model_management")
    vars(management)["throw_exception_if_processing_interrupted"] = throw_exception_if_processing_interrupted
    monkeypatch.setitem(sys.modules, "comfy.model_management", management)


def test_node_loads_without_any_other_package() -> None:
    command = [sys.executable, "-I", "-S", "-c", LOAD, str(FOLDER)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["__main__", "node"]


def test_fields_are_the_arguments_of_the_node(node: Any) -> None:
    fields = node.INPUT_TYPES()
    named = {name for group in fields.values() for name in group}
    parameters = inspect.signature(node.score).parameters.values()
    assert named >= {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}
    assert set(fields["required"]) == {
        each.name for each in parameters if each.kind is each.KEYWORD_ONLY and each.default is each.empty
    }
    assert len(node.RETURN_TYPES) == len(node.RETURN_NAMES) == 2


def test_command_scores_a_video_into_a_new_folder(node: Any, clip: Path, workplace: Path) -> None:
    before = clip.read_bytes()
    fields = {"video": "cuts.mp4", "recipe": "sketch", "seed": 7, "genres": "jazz", "negative": " ", "tempo": 91.0}
    first, second = (node.score(**fields, original="duck") for _ in range(2))
    video, music = map(Path, first["result"])
    assert first["ui"]["text"] == list(first["result"])
    assert video.parent == workplace / "output" / "v2m" / "cuts_00001"
    assert Path(second["result"][0]).parent.name == "cuts_00002"
    assert video.read_bytes() == Path(second["result"][0]).read_bytes()
    assert packet_digest(video) == packet_digest(clip)
    assert soundfile.info(music).duration == pytest.approx(4, abs=0.05)
    record = json.loads(video.with_suffix(".json").read_text())
    assert (record["seed"], record["tags"]["genres"], record["tags"]["tempo"]) == (7, ["jazz"], 91)
    assert record["mix"]["original"] == "duck"
    assert clip.read_bytes() == before


def test_folders_of_comfyui_are_used(
    node: Any, clip: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path_factory.mktemp("comfyui")
    paths = ModuleType("folder_paths")
    vars(paths).update(
        get_annotated_filepath=lambda name: os.path.join(root / "input", name),  # noqa: PTH118 - as ComfyUI does
        get_output_directory=lambda: str(root / "output"),
    )
    monkeypatch.setitem(sys.modules, "folder_paths", paths)
    (root / "input").mkdir()
    shutil.copy(clip, root / "input" / "mine.mp4")
    assert node.VALIDATE_INPUTS(video="mine.mp4") is True
    assert node.VALIDATE_INPUTS(video=None) is True, "it comes from another node"
    assert node.VALIDATE_INPUTS(video="cuts.mp4") == "there is no file 'cuts.mp4'"
    result = node.score(video="mine.mp4", recipe="sketch", seed=0)["result"]
    assert Path(result[0]) == root / "output" / "v2m" / "mine_00001" / "mine.v2m.mp4"


def test_another_file_under_the_same_name_is_a_change(node: Any, clip: Path, workplace: Path) -> None:
    fields = {"recipe": "sketch", "seed": 0}
    before = node.IS_CHANGED(video="cuts.mp4", **fields)
    assert node.IS_CHANGED(video=str(clip), **fields) == before
    os.utime(clip, ns=(1, 1))
    assert node.IS_CHANGED(video="cuts.mp4", **fields) != before
    assert node.IS_CHANGED(video="gone.mp4", **fields) == str(workplace / "gone.mp4")
    assert node.IS_CHANGED(video=None, **fields) == "", "it comes from another node"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"video": "gone.mp4"}, "there is no file 'gone.mp4'"),
        ({"recipe": "none"}, "unknown recipe 'none'"),
        ({"key": "H major"}, "key 'H major' is not a tonic and mode"),
        ({"genres": "--help"}, None),
        ({"address": "file:///etc"}, "must begin with http"),
        ({"address": "http://127.0.0.1:9"}, "cannot be reached"),
    ],
)
def test_errors_are_one_line(
    node: Any, clip: Path, workplace: Path, fields: dict[str, Any], message: str | None
) -> None:
    values = {"video": "cuts.mp4", "recipe": "sketch", "seed": 0, **fields}
    if message is None:  # a word is no flag
        assert Path(node.score(**values)["result"][0]).is_file()
        return
    with pytest.raises(RuntimeError, match=message) as caught:
        node.score(**values)
    assert "\n" not in str(caught.value)
    assert not (workplace / "output").exists() or names(workplace / "output" / "v2m") == []


def test_an_interrupt_ends_the_command(node: Any, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_at(monkeypatch, 3)
    with pytest.raises(InterruptProcessingError):
        node.score(video=str(EXAMPLE), recipe="sketch", seed=0)
    assert names(workplace / "output" / "v2m") == []


def test_service_gives_the_same_music_as_the_command(
    node: Any, address: str, clip: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"video": "cuts.mp4", "recipe": "sketch", "seed": 7, "genres": "jazz, funk", "key": "A minor"}
    expected = node.score(**fields)["result"]
    monkeypatch.setenv("V2M_KEY", KEY)
    result = node.score(**fields, address=f"{address}/")["result"]
    assert [Path(path).parent.name for path in result] == ["cuts_00002"] * 2
    first, second = (soundfile.read(paths[1], dtype="float32")[0] for paths in (expected, result))
    np.testing.assert_array_equal(first, second)
    assert packet_digest(Path(result[0])) == packet_digest(clip)
    assert jobs(address) == [], "the job is removed from the service"


def test_errors_of_the_service_are_shown(
    node: Any, address: str, clip: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = {"video": "cuts.mp4", "recipe": "sketch", "seed": 7, "address": address}
    with pytest.raises(RuntimeError, match="needs a key"):
        node.score(**fields)
    large = workplace / "large.mp4"
    with large.open("wb") as file:
        file.truncate(60_000_000)
    with pytest.raises(RuntimeError, match="needs a key"):
        node.score(**{**fields, "video": "large.mp4"})
    for key in ("a key of\ntwo lines", "schlüssel"):
        monkeypatch.setenv("V2M_KEY", key)
        with pytest.raises(RuntimeError, match="V2M_KEY must be ASCII characters on one line"):
            node.score(**fields)
    monkeypatch.setenv("V2M_KEY", f"{KEY}\n")
    with pytest.raises(RuntimeError, match="broke off the upload: the file may be larger"):
        node.score(**{**fields, "video": "large.mp4"})
    with pytest.raises(RuntimeError, match="no recipe 'none'"):
        node.score(**{**fields, "recipe": "none"})
    (workplace / "notes.mp4").write_text("these are no pictures")
    with pytest.raises(RuntimeError, match="video"):
        node.score(**{**fields, "video": "notes.mp4"})
    assert names(workplace / "output" / "v2m") == []
    assert jobs(address) == []


def test_an_interrupt_removes_the_job_from_the_service(
    node: Any, address: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("V2M_KEY", KEY)
    interrupt_at(monkeypatch, 4)  # the upload looks for it, too
    with pytest.raises(InterruptProcessingError):
        node.score(video=str(EXAMPLE), recipe="sketch", seed=0, address=address)
    assert names(workplace / "output" / "v2m") == []
    assert jobs(address) == []


def test_other_servers_are_told_apart_and_redirects_are_not_followed(
    node: Any, clip: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("V2M_KEY", KEY)
    keys: list[str | None] = []  # of each request: a second one would have followed the redirect

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys.append(self.headers["Authorization"])
            redirects = self.path.startswith("/old")
            self.send_response(302 if redirects else 200)
            if redirects:
                self.send_header("Location", "/new")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"hi")

        def log_message(self, format: str, *args: object) -> None:
            pass

    fields = {"video": "cuts.mp4", "recipe": "sketch", "seed": 0}
    with serve(Other) as other:
        with pytest.raises(RuntimeError, match="is no service of v2m"):
            node.score(**fields, address=other)
        with pytest.raises(RuntimeError, match="302"):
            node.score(**fields, address=f"{other}/old")
    assert keys == [f"Bearer {KEY}"] * 2
