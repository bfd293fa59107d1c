"""The MCP server, through the SDK's client and as bare lines, on real clips."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
import soundfile
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp_types import CallToolResult, TextContent

from tests.conftest import EXAMPLE, names
from tests.fixtures.packets import packet_digest
from tests.fixtures.service_process import workers
from v2m.cli.mcp import main
from v2m.pipeline.sidecar import sha256_file

PRINTING = """
import os, sys

def hook(event, arguments):
    if event == "import" and arguments[0] in {"v2m.generators.sketch", "v2m.media.mux"}:
        print("printed")
        os.write(1, b"written\\n")

sys.addaudithook(hook)
"""
HANGING = """
import sys, time

def hook(event, arguments):
    if event == "open" and str(arguments[0]).endswith("cuts.json"):
        print("hangs", file=sys.stderr, flush=True)
        time.sleep(60)

sys.addaudithook(hook)
"""


def arguments(folder: Path, *options: str) -> list[str]:
    return ["-m", "v2m", "mcp", "--folder", str(folder), "--out", str(folder / "out"), *options]


@asynccontextmanager
async def connected(folder: Path, *options: str) -> AsyncIterator[Client]:
    """Yield a client of a server that may read `folder` and write below `folder/out`."""
    server = StdioServerParameters(
        command=sys.executable, args=arguments(folder, *options), env=dict(os.environ), cwd=folder
    )
    with (folder / "stderr.txt").open("w") as errors:
        async with Client(stdio_client(server, errors)) as client:
            yield client


def run(work: Callable[[Client], Awaitable[None]], folder: Path, *options: str) -> None:
    async def session() -> None:
        async with connected(folder, *options) as client:
            await work(client)

    anyio.run(session)


def line(result: CallToolResult) -> str:
    """The one line of an error."""
    assert result.is_error
    [content] = result.content
    assert isinstance(content, TextContent)
    assert "\n" not in content.text
    return content.text


def test_tools_are_listed_with_schemas_that_refuse_unknown_arguments(tmp_path: Path) -> None:
    async def work(client: Client) -> None:
        assert "score_video" in (client.instructions or "")
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"score_video", "list_recipes", "tag_video", "inpaint_video"}
        assert all(tool.input_schema["additionalProperties"] is False for tool in tools.values())
        assert all(tool.output_schema and tool.description and tool.annotations for tool in tools.values())
        assert tools["score_video"].input_schema["required"] == ["path"]
        idempotent = {name for name, tool in tools.items() if tool.annotations and tool.annotations.idempotent_hint}
        assert idempotent == {"list_recipes", "tag_video"}, "the others write another folder each time"

    run(work, tmp_path)


def test_a_video_is_scored_then_a_part_of_its_music_is_written_anew(clip: Path) -> None:
    before = clip.read_bytes()
    reports: list[tuple[float, float | None, str | None]] = []

    async def follow(progress: float, total: float | None, message: str | None) -> None:
        reports.append((progress, total, message))

    async def work(client: Client) -> None:
        asked = {"path": clip.name, "tags": {"genres": ["jazz"]}, "seed": 3, "candidates": 2, "extras": {"midi": True}}
        scored = await client.call_tool("score_video", asked, progress_callback=follow)
        assert not scored.is_error, scored.content
        first = scored.structured_content
        again = await client.call_tool("score_video", {"path": str(clip), "seed": 3})
        part = {"path": clip.name, "result": first["video"], "start": 1.5, "end": 3}
        other = (await client.call_tool("inpaint_video", part)).structured_content
        check_first(first)
        assert Path(again.structured_content["video"]).parent.name == "cuts-2", "nothing is overwritten"
        assert again.structured_content["candidates"][0]["sync_score"] is None
        assert other["tags"]["genres"] == ["jazz"], "the settings of the result hold"
        assert other["seed"] == first["seed"] + 1
        old, new = (soundfile.read(each["music"], dtype="float32")[0] for each in (first, other))
        outside = np.r_[0 : int(1.5 * 48_000), 3 * 48_000 : len(old)]
        np.testing.assert_array_equal(new[outside], old[outside])
        assert np.abs(new - old).max() > 0.01

    def check_first(result: dict[str, Any]) -> None:
        video = Path(result["video"])
        assert video == clip.parent / "out" / "cuts" / "cuts.v2m.mp4"
        assert packet_digest(video) == packet_digest(clip)
        assert all(Path(path).is_file() for path in (*result["files"], result["music"], result["sidecar"]))
        assert {Path(path).suffix for path in result["files"]} == {".mp4", ".json", ".wav", ".mid"}
        assert {each["seed"] for each in result["candidates"]} == {3, 4}
        assert result["candidates"][0]["seed"] == result["seed"]
        assert result["candidates"][0]["sync_score"] >= result["candidates"][1]["sync_score"] > 0
        assert result["tags"]["genres"] == ["jazz"]
        assert result["cuts"]["cuts"] == 2
        assert result["seconds"] == pytest.approx(4, abs=0.05)

    run(work, clip.parent)
    assert clip.read_bytes() == before
    assert names(clip.parent / "out") == ["cuts", "cuts-2", "cuts-3"]
    shares = [progress for progress, _, _ in reports]
    assert shares == sorted(set(shares)), "progress always rises"
    assert {total for _, total, _ in reports} == {5.0}
    begins = dict(reversed([(message, progress) for progress, _, message in reports]))
    assert sorted(begins.values()) == [1, 2, 3, 4], "each stage begins with its name"
    assert {message for _, _, message in reports} == {
        *("Analyzing the picture", "Writing the music", "Mixing and writing", "Writing take 2 of 2")
    }


def test_an_inpainted_result_keeps_its_settings_and_belongs_to_its_video(clip: Path) -> None:
    other = clip.with_name("other.mp4")
    other.write_bytes(clip.read_bytes() + b"\0\0\0\x08free")  # the same video in another file
    tags = {"caption": "/b/ ends here", "genres": ["jazz"], "moods": ["calm"]}

    async def work(client: Client) -> None:
        settings = {"generator.reverb": 0.1, "mix.lufs": -20, "rank_by": "sync", "commercial_safe": True}
        asked = {"path": clip.name, "tags": tags, "settings": settings, "seed": 2**31 - 1}
        scored = (await client.call_tool("score_video", asked)).structured_content
        part: dict[str, Any] = {"result": scored["video"], "start": 1.5, "end": 3}
        assert "was made of another video than" in line(
            await client.call_tool("inpaint_video", {"path": other.name, **part})
        )
        part |= {"path": clip.name, "tags": {"genres": [], "moods": None, "tempo": None}}
        text = line(await client.call_tool("inpaint_video", part))
        assert "tags.moods: Input should be a valid list" in text
        part["tags"].pop("moods")
        result = (await client.call_tool("inpaint_video", part)).structured_content
        record = json.loads(Path(result["sidecar"]).read_text())["settings"]
        assert record["generator"]["init_args"]["reverb"] == 0.1
        assert record["commercial_safe"]
        assert record["mix"]["lufs"] == -20
        assert (record["tags"]["caption"], record["tags"]["genres"]) == ("/b/ ends here", [])
        assert result["seed"] == 0, "the one after the last"
        assert result["tags"]["caption"] == "/b/ ends here"
        assert result["tags"]["moods"] == ["calm"]

    run(work, clip.parent)


def test_a_long_name_is_cut(clip: Path) -> None:
    long = clip.rename(clip.with_name("\U00020000" * 60 + ".mp4"))  # 240 bytes

    async def work(client: Client) -> None:
        scored = await client.call_tool("score_video", {"path": long.name, "candidates": 2, "seed": 1000})
        assert not scored.is_error, scored.content

    run(work, long.parent)


def test_tags_are_named_and_recipes_say_what_they_lack(clip: Path) -> None:
    async def work(client: Client) -> None:
        result = (await client.call_tool("tag_video", {"path": clip.name, "tags": {"tempo": 91}})).structured_content
        assert result["tags"]["tempo"] == 91
        assert result["tags"]["genres"]
        sketch, vidmuse = (await client.call_tool("list_recipes", {"names": ["sketch", "vidmuse"]})).structured_content[
            "recipes"
        ]
        assert sketch["missing"] is None
        assert "inpaint" in sketch["capabilities"]
        assert "Zeyue7/VidMuse" in vidmuse["missing"]
        assert "30 s" in vidmuse["description"]
        assert "--" not in vidmuse["description"]

    run(work, clip.parent)
    assert not (clip.parent / "out").exists(), "nothing is written"


WRONG = [
    ("score_video", {}, "path: Field required"),
    ("score_video", {"path": 7}, "path: Input should be a valid string"),
    ("score_video", {"path": None}, "path: Input should be a valid string"),
    ("score_video", {"path": ["cuts.mp4"]}, "path: Input should be a valid string"),
    ("score_video", {"path": "../secret.mp4"}, "is no file below the allowed folders"),
    ("score_video", {"path": "{parent}/secret.mp4"}, "is no file below the allowed folders"),
    ("score_video", {"path": "link.mp4"}, "is no file below the allowed folders"),
    ("score_video", {"path": "linked/secret.mp4"}, "is no file below the allowed folders"),
    ("score_video", {"path": "pipe.mp4"}, "is no file below the allowed folders"),
    ("score_video", {"path": "gone.mp4"}, "is no file below the allowed folders"),
    ("score_video", {"path": "."}, "is no file below the allowed folders"),
    ("score_video", {"path": ""}, "is no file below the allowed folders"),
    ("score_video", {"path": "cuts.mp4\0"}, "is no file below the allowed folders"),
    ("score_video", {"path": "a" * 100_000}, "is no file below the allowed folders"),
    ("score_video", {"path": "~/cuts.mp4"}, "is no file below the allowed folders"),
    ("score_video", {"path": "file:cuts.mp4"}, "is no file below the allowed folders"),
    ("score_video", {"path": "notes.mp4"}, "notes.mp4"),
    ("score_video", {"path": "cuts.mp4", "recipe": "none"}, "unknown recipe 'none': give one of acestep"),
    ("score_video", {"path": "cuts.mp4", "recipe": "mine.yaml"}, "unknown recipe 'mine.yaml'"),
    ("score_video", {"path": "cuts.mp4", "overwrite": True}, "overwrite: Extra inputs are not permitted"),
    ("score_video", {"path": "cuts.mp4", "two\nlines": 1}, "two lines: Extra inputs are not permitted"),
    ("score_video", {"path": "cuts.mp4", "out": "/tmp"}, "out: Extra inputs are not permitted"),
    ("score_video", {"path": "cuts.mp4", "seed": -1}, "seed: Input should be greater than or equal to 0"),
    ("score_video", {"path": "cuts.mp4", "seed": 10**30}, "seed: "),
    ("score_video", {"path": "cuts.mp4", "candidates": 1000}, "candidates: Input should be less than or equal to 4"),
    ("score_video", {"path": "cuts.mp4", "start": 99}, "start 99 s lies outside the video"),
    ("score_video", {"path": "cuts.mp4", "tags": {"tempo": 9000}}, "tempo 9000 is outside 30 to 300"),
    ("score_video", {"path": "cuts.mp4", "tags": {"genre": "jazz"}}, "tags.genre: Extra inputs are not permitted"),
    ("score_video", {"path": "cuts.mp4", "settings": {"limits.duration": 1e9}}, "'limits.duration'"),
    (
        "score_video",
        {"path": "cuts.mp4", "settings": {"tempo": 90}},
        "rank_by, align_to_cuts, watermark, commercial_safe, gen",
    ),
    ("score_video", {"path": "cuts.mp4", "settings": {"candidates": 1000}}, "give it as the argument 'candidates'"),
    ("score_video", {"path": "cuts.mp4", "settings": {"generator": {"class_path": "os.system"}}}, "only numbers"),
    ("score_video", {"path": "cuts.mp4", "settings": {"generator.soundfont": "/etc/passwd"}}, "only numbers"),
    ("score_video", {"path": "cuts.mp4", "tags": {"caption": "a" * 20_000}}, "more than 10,000"),
    ("score_video", {"path": "cuts.mp4", "settings": {"mix": "mine.yaml"}}, "'mix' is a group of values"),
    ("score_video", {"path": "cuts.mp4", "settings": {f"mix.{n}": n for n in range(500)}}, "settings: "),
    ("score_video", {"path": "long.mp4"}, "long.mp4"),
    ("tag_video", {"path": "long.mp4"}, "more than 10 s"),
    ("inpaint_video", {"path": "cuts.mp4", "result": "cuts.mp4", "start": 2, "end": 1}, "start 2 is not before end 1"),
    ("inpaint_video", {"path": "cuts.mp4", "result": "cuts.mp4", "start": 1, "end": 2}, "no sidecar"),
    ("inpaint_video", {"path": "cuts.mp4", "result": "deep.mp4", "start": 1, "end": 2}, "no sidecar"),
    *[
        (
            "inpaint_video",
            {"path": "cuts.mp4", "result": name, "start": 1, "end": 2},
            "json' is no file below the allowed",
        )
        for name in ("linked.mp4", "pipe_beside.mp4", "take.seed4.mp4", "music.mp4")
    ],
    ("inpaint_video", {"path": "cuts.mp4", "result": "../secret.mp4", "start": 1, "end": 2}, "is no file below"),
    ("inpaint_video", {"path": "cuts.mp4", "result": "forged.mp4", "start": 1, "end": 2}, "names no value of a recipe"),
    ("list_recipes", {"names": ["../../etc/passwd"]}, "unknown recipe"),
    ("rm", {"path": "cuts.mp4"}, "there is no tool 'rm'"),
]


@pytest.fixture
def hostile(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a clip, and ways out of it; a forged sidecar sets what no caller may."""
    folder = tmp_path_factory.mktemp("hostile") / "allowed"
    folder.mkdir()
    results = ("forged", "deep", "linked", "pipe_beside", "take.seed4", "music")
    for path in (folder / "cuts.mp4", *(folder / f"{name}.mp4" for name in results), folder.parent / "secret.mp4"):
        shutil.copy(clip, path)
    shutil.copy(EXAMPLE, folder / "long.mp4")
    (folder / "link.mp4").symlink_to(folder.parent / "secret.mp4")
    (folder / "linked").symlink_to(folder.parent)
    os.mkfifo(folder / "pipe.mp4")
    (folder / "notes.mp4").write_text("these are no pictures")
    (folder / "mine.yaml").write_text("generator: {class_path: os.system}\n")
    settings = {"mix": {"original": "replace"}, "tags": {"..": {"class_path": "os.system"}}, "start": None}
    record = {"recipe": "sketch", "settings": {**settings, "align_to_cuts": True}, "seed": [1]}
    record["input"] = {"sha256": sha256_file(clip)}
    (folder / "forged.json").write_text(json.dumps(record))
    (folder / "deep.json").write_text("[" * 100_000)
    (folder.parent / "secret.json").write_text(json.dumps({**record, "settings": {"tags": {"key": "secret"}}}))
    (folder / "linked.json").symlink_to(folder.parent / "secret.json")
    for name in ("pipe_beside", "take", "sound"):
        os.mkfifo(folder / f"{name}.json")
    shutil.copy(folder / "forged.json", folder / "music.json")
    (folder / "sound.wav").touch()
    (folder / "music.wav").symlink_to(folder / "sound.wav")
    return folder


def test_wrong_and_hostile_arguments_are_errors_of_one_line(hostile: Path) -> None:
    async def work(client: Client) -> None:
        problems = []
        for tool, given, message in WRONG:
            values = json.loads(json.dumps(given).replace("{parent}", str(hostile.parent)))
            text = line(await client.call_tool(tool, values))
            if message not in text or "bug" in text or len(text) > 1000:
                problems.append((given, text))
        assert not problems
        assert not (await client.call_tool("tag_video", {"path": "cuts.mp4"})).is_error, "the server still works"

    run(work, hostile, "--seconds", "10")
    assert not (hostile / "out").exists() or names(hostile / "out") == []


def test_a_job_ends_after_its_minutes(clip: Path) -> None:
    async def work(client: Client) -> None:
        assert "it took more than 0.001 minutes" in line(await client.call_tool("score_video", {"path": clip.name}))

    run(work, clip.parent, "--minutes", "0.001")
    assert names(clip.parent / "out") == []


def test_a_cancelled_call_ends_its_work_and_the_next_one_is_done(clip: Path) -> None:
    shutil.copy(EXAMPLE, clip.parent / "long.mp4")

    async def work(client: Client) -> None:
        with anyio.CancelScope() as scope:

            async def cancel(progress: float, total: float | None, message: str | None) -> None:
                if message == "Writing the music":
                    scope.cancel()

            await client.call_tool("score_video", {"path": "long.mp4"}, progress_callback=cancel)
        assert scope.cancelled_caught
        result = await client.call_tool("score_video", {"path": clip.name})
        assert Path(result.structured_content["video"]).is_file()
        assert names(clip.parent / "out") == ["cuts"]

    run(work, clip.parent)


def test_a_second_call_waits_for_the_first(clip: Path) -> None:
    messages: list[str | None] = []

    async def work(client: Client) -> None:
        async def follow(progress: float, total: float | None, message: str | None) -> None:
            messages.append(message)

        async def score() -> None:
            result = await client.call_tool("score_video", {"path": clip.name}, progress_callback=follow)
            assert not result.is_error, result.content

        async with anyio.create_task_group() as group:
            group.start_soon(score)
            group.start_soon(score)

    run(work, clip.parent)
    assert messages.count("Waiting for the call before this one") == 1
    assert names(clip.parent / "out") == ["cuts", "cuts-2"]


def test_recipes_wait_for_a_job_only_where_one_is_not_known_yet(clip: Path) -> None:
    shutil.copy(EXAMPLE, clip.parent / "long.mp4")
    messages: list[str | None] = []

    async def work(client: Client) -> None:
        begun = anyio.Event()

        async def follow(progress: float, total: float | None, message: str | None) -> None:
            begun.set()

        async with anyio.create_task_group() as group:
            group.start_soon(partial(client.call_tool, "score_video", {"path": "long.mp4"}, progress_callback=follow))
            await begun.wait()
            known = (await client.call_tool("list_recipes", {"names": ["sketch"] * 3})).structured_content
            assert [each["name"] for each in known["recipes"]] == ["sketch"]
            with anyio.CancelScope() as scope:

                async def cancel(progress: float, total: float | None, message: str | None) -> None:
                    messages.append(message)
                    scope.cancel()

                await client.call_tool("list_recipes", {"names": ["vidmuse"]}, progress_callback=cancel)
            group.cancel_scope.cancel()

    run(work, clip.parent)
    assert messages == ["Waiting for the call before this one"]


SHORT_END = """
import sys
from v2m.service import mcp
mcp.END_S = float(sys.argv[1])
from v2m.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


@contextmanager
def process(folder: Path, end_s: float | None = None, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Yield a server that has answered the handshake, with pipes. `end_s` is in the place of its `END_S`."""
    module, program, *words = arguments(folder)
    start = [module, program] if end_s is None else ["-c", SHORT_END, str(end_s)]
    options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if sys.platform != "win32":
        options["preexec_fn"] = partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup
    command, environment = [sys.executable, *start, *words], {**os.environ, **variables}
    with subprocess.Popen(command, cwd=folder, env=environment, text=True, **options) as server:
        info = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        send(server, {"id": 1, "method": "initialize", "params": info})
        assert json.loads(read(server))["result"]["serverInfo"]["name"] == "v2m"
        send(server, {"method": "notifications/initialized"})
        try:
            yield server
        finally:
            server.kill()


def send(server: subprocess.Popen[str], message: dict[str, Any]) -> None:
    assert server.stdin is not None
    server.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    server.stdin.flush()


def read(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    return server.stdout.readline()


def call(server: subprocess.Popen[str], tool: str, values: dict[str, Any]) -> None:
    """Send a call of number 2, which reports its progress."""
    params = {"name": tool, "arguments": values, "_meta": {"progressToken": 1}}
    send(server, {"id": 2, "method": "tools/call", "params": params})


def search_path(folder: Path, hook: str) -> str:
    """The variable PYTHONPATH by which every Python runs `hook` when it starts."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(hook)
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


def test_what_libraries_print_goes_to_standard_error(clip: Path, tmp_path: Path) -> None:
    """A hook prints and writes to descriptor 1 when a module is imported, in the server and in its worker."""
    with process(clip.parent, PYTHONPATH=search_path(tmp_path / "hooks", PRINTING)) as server:
        assert server.stdin is not None
        server.stdin.write("this is no JSON\n\n[1]\n")
        send(
            server, {"id": 2, "method": "tools/call", "params": {"name": "tag_video", "arguments": {"path": clip.name}}}
        )
        lines = [read(server)]
        while json.loads(lines[-1]).get("id") != 2:
            lines.append(read(server))
        out, err = server.communicate()  # which ends its standard input
        assert server.returncode == 0
    messages = [json.loads(text) for text in [*lines, *out.splitlines()]]
    assert all(message["jsonrpc"] == "2.0" for message in messages)
    assert messages[-1]["result"]["structuredContent"]["tags"]["genres"]
    assert err.count("printed") == err.count("written") >= 2


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_server_and_the_job_under_way(clip: Path, number: signal.Signals, code: int) -> None:
    shutil.copy(EXAMPLE, clip.parent / "long.mp4")
    with process(clip.parent) as server:
        call(server, "score_video", {"path": "long.mp4"})
        assert json.loads(read(server))["method"] == "notifications/progress"
        server.send_signal(number)
        assert server.wait(120) == code
    assert names(clip.parent / "out") == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_signal_ends_a_server_whose_disk_does_not_answer(clip: Path, tmp_path: Path) -> None:
    clip.with_name("cuts.json").touch()
    with process(clip.parent, 1.0, PYTHONPATH=search_path(tmp_path / "hooks", HANGING)) as server:
        call(server, "inpaint_video", {"path": "cuts.mp4", "result": "cuts.mp4", "start": 1, "end": 2})
        assert server.stderr is not None
        assert server.stderr.readline() == "hangs\n"
        server.send_signal(signal.SIGTERM)
        assert server.wait(40) == 143


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="counts processes by /proc")
def test_a_cancelled_look_at_a_recipe_ends_its_process(tmp_path: Path) -> None:
    with process(tmp_path) as server:
        call(server, "list_recipes", {"names": ["vidmuse"]})
        assert "Looking at vidmuse" in read(server)
        begin = time.monotonic()
        while not workers(server.pid):
            assert time.monotonic() < begin + 30
        send(server, {"method": "notifications/cancelled", "params": {"requestId": 2}})
        begin = time.monotonic()
        while workers(server.pid):
            assert time.monotonic() < begin + 10
            time.sleep(0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--folder", "gone"], "v2m mcp: 'gone' is no folder"),
        (["--out", "cuts.mp4"], "v2m mcp: --out 'cuts.mp4' is no folder"),
        (["--seconds", "0"], "v2m mcp: seconds 0.0 must be above 0"),
        (["--minutes", "-1"], "v2m mcp: minutes -1.0 must be above 0"),
        (["--folders", "."], "v2m mcp: unknown option --folders: did you mean --folder?"),
    ],
)
def test_wrong_options_are_one_line(
    clip: Path, options: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(clip.parent)
    assert main(options) == 2
    assert capsys.readouterr() == ("", f"{message}\n")
