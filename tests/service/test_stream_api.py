"""The streaming dialect, with a client that follows its protocol."""

from __future__ import annotations

import base64
import io
import json
import time
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient

from tests.service.conftest import DEADLINE_S
from v2m.service.service import Service
from v2m.service.stream_api import MusicForm


def post(client: TestClient, video: bytes, **fields: Any) -> Any:
    files = {"video": ("a.mp4", io.BytesIO(video), "video/mp4")}
    return client.post("/v1/video-to-music", files=files, data={name: str(value) for name, value in fields.items()})


def read_lines(text: str) -> tuple[dict[int, bytes], list[dict[str, Any]]]:
    """Return the sound of each stream, and the other events."""
    events = [json.loads(line) for line in text.splitlines()]
    streams: dict[int, bytes] = {}
    for event in events:
        if event["type"] == "audio_chunk":
            streams[event["stream_index"]] = streams.get(event["stream_index"], b"") + base64.b64decode(event["data"])
            assert event["num_streams"] >= len(streams)
    return streams, [event for event in events if event["type"] != "audio_chunk"]


def wait_for_task(client: TestClient, task_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + DEADLINE_S
    task: dict[str, Any] = {}
    while time.monotonic() < deadline:
        task = client.get(f"/v1/tasks/{task_id}").json()
        if task["status"] in {"succeeded", "failed"}:
            return task
        time.sleep(0.1)
    raise AssertionError(f"not ended in time: {task}")


def test_the_answer_is_the_music_line_by_line(client: TestClient, short_video: bytes) -> None:
    answer = post(client, short_video, prompt="calm piano, 84 bpm", variants_num=2)
    assert answer.headers["content-type"] == "application/x-ndjson"
    streams, events = read_lines(answer.text)
    assert sorted(streams) == [0, 1]
    assert streams[0] != streams[1]
    assert [event["type"] for event in events][-2:] == ["title", "complete"]
    with av.open(io.BytesIO(streams[0])) as container:
        (stream,) = container.streams
        assert (stream.type, stream.codec_context.name) == ("audio", "aac")
    job = client.get("/v1/jobs?limit=1").json()[0]
    assert job["tags"]["tempo"] == 84


def test_an_error_ends_the_stream(client: TestClient) -> None:
    streams, events = read_lines(post(client, b"no video" * 100).text)
    assert not streams
    assert events[-1]["type"] == "error"
    assert events[-1]["message"]


def test_a_task_has_files_whose_addresses_need_no_key(client: TestClient, short_video: bytes) -> None:
    answer = post(client, short_video, mode="async", ducking="true", stems="true", output_format="wav", variants_num=2)
    assert answer.status_code == 202
    task = wait_for_task(client, answer.json()["task_id"])
    assert (task["type"], task["status"]) == ("video_to_music", "succeeded")
    assert [entry["stream_index"] for entry in task["audio"]] == [0, 1]
    entries = [*task["audio"], *task["mux"], *task["ducked"], *task["stems"][0].values()]
    entries = [entry for entry in entries if isinstance(entry, dict)]
    without_key = {"Authorization": ""}
    for entry in entries:
        path = entry["url"].removeprefix("http://testserver")
        sound = client.get(path, headers=without_key)
        assert (sound.status_code, sound.headers["content-type"]) == (200, entry["content_type"])
        assert len(sound.content) > 1000
        forged = path.replace("signature=", "signature=0")
        assert client.get(forged, headers=without_key).status_code == 404
    other = entries[0]["url"].removeprefix("http://testserver").replace("music-1", "music-2")
    assert client.get(other, headers=without_key).status_code == 404, "a signature is for one file"


def test_stems_add_up_to_the_music(client: TestClient, short_video: bytes, service: Service) -> None:
    answer = post(client, short_video, mode="async", stems="true", prompt="rock")
    task = wait_for_task(client, answer.json()["task_id"])
    stems = [entry for name, entry in task["stems"][0].items() if name in {"drums", "bass", "other"}]
    assert stems
    lengths = set()
    for entry in stems:
        content = client.get(entry["url"].removeprefix("http://testserver")).content
        lengths.add(soundfile.info(io.BytesIO(content)).frames)
    assert len(lengths) == 1
    folder = next(service.folders.job(answer.json()["task_id"]).glob("attempt-*"))
    urls = [entry["url"].removeprefix("http://testserver") for entry in stems]
    total = np.sum([soundfile.read(io.BytesIO(client.get(url).content))[0] for url in urls], axis=0)
    expected = np.sum([soundfile.read(path)[0] for path in (folder / "result.v2m.stems").glob("*.wav")], axis=0)
    assert np.abs(total - expected).max() < 1e-5


@pytest.mark.parametrize(
    "fields",
    [
        {"variants_num": 0},
        {"variants_num": 11},
        {"prompt_influence": 2},
        {"mode": "now"},
        {"output_format": "mp9"},
        {"segments": '[{"start": 0, "end": 1, "prompt": "x"}]'},
        {"prompt": "x" * 6000},
        {"recipe": "none"},
        {"video_url": "http://x.test/a.mp4"},
    ],
)
def test_wrong_fields_are_refused(client: TestClient, short_video: bytes, fields: dict[str, Any]) -> None:
    answer = post(client, short_video, **fields)
    assert answer.status_code == 422
    assert answer.json()["message"]


def test_a_tempo_in_the_prompt_is_the_tempo_of_the_tags() -> None:
    assert MusicForm(prompt="fast, 150 BPM").settings()["tags"]["tempo"] == 150
    assert "tempo" not in MusicForm(prompt="at 999 bpm").settings()["tags"]
    assert MusicForm().settings()["tags"] == {}


def test_the_account_names_the_service_and_its_limits(client: TestClient, service: Service) -> None:
    account = client.get("/v1/account/services").json()
    assert account["available_services"] == ["video_to_music"]
    assert account["max_upload_size_mb"] == service.config.upload_mb
    assert client.get("/v1/tasks/none").status_code == 404
