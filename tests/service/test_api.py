"""The HTTP routes, with the real worker."""

from __future__ import annotations

import io
import json
from http.server import BaseHTTPRequestHandler

import soundfile
from fastapi.testclient import TestClient

from tests.conftest import EXAMPLE
from tests.fixtures.http_server import serve
from tests.service.conftest import OTHER_KEY, submit, wait
from v2m.service.service import Service

OTHER = {"Authorization": f"Bearer {OTHER_KEY}"}


def code(answer: object) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]  # type: ignore[attr-defined]


def test_a_job_ends_with_its_files_for_its_owner_alone(client: TestClient, short_video: bytes) -> None:
    request = {"settings": {"tags": {"genres": ["jazz"], "tempo": 110}, "seed": 4}, "extras": {"midi": True}}
    job = wait(client, submit(client, short_video, **request))
    assert (job["state"], job["error"]) == ("done", None)
    assert job["tags"]["genres"] == ["jazz"]
    assert job["record"]["seed"] == 4
    assert [candidate["seed"] for candidate in job["candidates"]] == [4]
    files = {file["name"]: file for file in job["files"]}
    assert set(files) == {f"result.v2m.{suffix}" for suffix in ("mp4", "json", "mid", "wav")}
    for file in files.values():
        answer = client.get(file["url"])
        assert (answer.status_code, len(answer.content)) == (200, file["bytes"])
        assert client.get(file["url"], headers=OTHER).status_code == 404
    part = client.get(files["result.v2m.mp4"]["url"], headers={"Range": "bytes=0-9"})
    assert (part.status_code, len(part.content)) == (206, 10)
    sound = soundfile.info(io.BytesIO(client.get(files["result.v2m.wav"]["url"]).content))
    assert abs(sound.duration - 2.2) < 0.05, "as long as the video, whose copy ends at a whole group of frames"
    assert "/tmp" not in json.dumps(job), "no folder of the machine is told"
    assert client.get(f"/v1/jobs/{job['id']}", headers=OTHER).status_code == 404
    assert job["id"] in [entry["id"] for entry in client.get("/v1/jobs").json()]
    assert client.get("/v1/jobs", headers=OTHER).json() == []


def test_events_end_with_the_job(client: TestClient, short_video: bytes) -> None:
    job_id = submit(client, short_video).json()["id"]
    with client.stream("GET", f"/v1/jobs/{job_id}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in stream.iter_lines() if line.startswith("data: ")]
    assert json.loads(lines[-1])["state"] == "done"


def test_a_part_of_a_finished_job_is_written_anew(client: TestClient, short_video: bytes) -> None:
    first = wait(client, submit(client, short_video, settings={"seed": 1}))
    inpaint = {"start": 0.5, "end": 1.5, "job": first["id"]}
    second = wait(client, submit(client, short_video, settings={"seed": 2}, inpaint=inpaint))
    assert second["error"] is None
    assert second["record"]["settings"]["inpaint"] == "0.5:1.5"
    assert code(submit(client, short_video, inpaint={**inpaint, "job": "none"})) == (404, "not_found")
    assert submit(client, short_video, inpaint=inpaint, headers=OTHER).status_code == 404
    refused = submit(client, EXAMPLE.read_bytes(), inpaint=inpaint)
    assert code(refused) == (422, "invalid_request")
    assert "is of another video" in refused.json()["message"]


def test_videos_by_path_and_by_address(client: TestClient, short_video: bytes) -> None:
    assert wait(client, submit(client, None, path="short.mp4"))["state"] == "done"
    assert code(submit(client, None, path="../../etc/passwd")) == (422, "invalid_request")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/elsewhere"):
                self.send_response(302)
                self.send_header("Location", "http://localhost/a.mp4")
                self.end_headers()
                return
            self.send_response(200 if self.path == "/a.mp4" else 403)
            self.end_headers()
            self.wfile.write(short_video)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with serve(Handler) as address:
        assert wait(client, submit(client, None, url=f"{address}/a.mp4"))["state"] == "done"
        assert code(submit(client, None, url=f"{address}/b.mp4")) == (422, "fetch_failed")
        assert code(submit(client, None, url=f"{address}/elsewhere")) == (422, "host_not_allowed")
    for url in ("http://localhost/a.mp4", "file:///etc/passwd", "http://127.0.0.1@evil.test/", "http://[", "x"):
        assert submit(client, None, url=url).status_code == 422


def test_the_same_idempotency_key_makes_one_job(client: TestClient, short_video: bytes, service: Service) -> None:
    headers = {"Idempotency-Key": "once"}
    first = submit(client, short_video, headers=headers).json()["id"]
    assert submit(client, short_video, headers=headers).json()["id"] == first
    assert code(submit(client, short_video + b"\0", headers=headers)) == (409, "idempotency_key_reused")
    assert code(submit(client, short_video, settings={"seed": 9}, headers=headers)) == (409, "idempotency_key_reused")
    folders = {path.name for path in service.folders.root.iterdir()}
    assert folders == {job["id"] for job in client.get("/v1/jobs?limit=200").json()}, "no folder is left behind"


def test_waiting_and_running_jobs_are_cancelled_and_removed(client: TestClient, short_video: bytes) -> None:
    running, waiting = (submit(client, short_video).json()["id"] for _ in range(2))
    assert client.post(f"/v1/jobs/{waiting}/cancel").json()["state"] == "cancelled"
    assert client.post(f"/v1/jobs/{running}/cancel").json()["state"] == "cancelled"
    assert client.delete(f"/v1/jobs/{running}", headers=OTHER).status_code == 404
    assert client.delete(f"/v1/jobs/{running}").status_code == 204
    assert client.get(f"/v1/jobs/{running}").status_code == 404
    assert wait(client, submit(client, short_video))["state"] == "done", "the next job has a worker"


def test_a_video_that_cannot_be_scored_fails_with_its_reason(client: TestClient, service: Service) -> None:
    job = wait(client, submit(client, b"no video at all" * 100))
    assert job["state"] == "failed"
    assert job["error"]["code"] == 3
    assert str(service.config.data) not in job["error"]["message"]
    assert job["files"] == []


def test_wrong_requests_are_answered_with_a_code(client: TestClient, short_video: bytes) -> None:
    assert code(submit(client, None)) == (422, "no_video")
    assert code(submit(client, b"")) == (422, "empty_file")
    assert code(submit(client, short_video, path="short.mp4")) == (422, "invalid_request")
    assert code(submit(client, short_video, recipe="none")) == (422, "invalid_request")
    assert code(submit(client, short_video, settings={"generator.class_path": "os.system"})) == (422, "invalid_request")
    assert code(submit(client, short_video, settings={"tags.tempo": "many"})) == (422, "invalid_request")
    assert code(submit(client, short_video, unknown=1)) == (422, "invalid_request")
    assert code(submit(client, short_video, headers={"Idempotency-Key": "k" * 300})) == (422, "invalid_request")
    assert code(submit(client, bytes(10_000_000))) == (413, "too_large")
    form = {"files": {"video": ("a.mp4", short_video)}, "data": {"request": "{"}}
    assert code(client.post("/v1/jobs", **form)) == (400, "invalid_json")  # type: ignore[arg-type]
    assert code(client.post("/v1/jobs", content=b"{" * 100_000, headers={"content-type": "application/json"}))[0] == 400
    assert code(client.post("/v1/jobs", files={"other": ("a.mp4", short_video)})) == (422, "invalid_request")
    broken = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/v1/jobs", content=b"--y\r\n\r\n", headers=broken).status_code in {400, 422}
    assert code(client.get("/v1/jobs?limit=9999")) == (422, "invalid_request")
    assert code(client.get("/v1/none")) == (404, "not_found")
    assert code(client.put("/v1/jobs")) == (405, "method_not_allowed")


def test_files_outside_the_results_are_not_served(client: TestClient, short_video: bytes) -> None:
    job = wait(client, submit(client, short_video))
    for name in ("../../secret", "..%2f..%2fsecret", "%2fetc%2fpasswd", "input/video.mp4", "x", ""):
        assert client.get(f"/v1/jobs/{job['id']}/files/{name}").status_code == 404


def test_keys_are_asked_for(client: TestClient) -> None:
    wrong = {"Authorization": "Bearer wrong-key-of-nobody"}
    for path in ("/v1/jobs", "/v1/recipes", "/metrics", "/v1/account/services", "/v1/jobs/x", "/v1/tasks/x"):
        assert code(client.get(path, headers=wrong)) == (401, "unauthorized")
    assert code(client.post("/v1/jobs", headers=wrong)) == (401, "unauthorized")
    assert client.get("/healthz", headers=wrong).json()["status"] == "ok"


def test_recipes_metrics_and_description(client: TestClient) -> None:
    recipes = {recipe["name"]: recipe for recipe in client.get("/v1/recipes").json()}
    assert recipes["sketch"]["is_checked"]
    assert recipes["sketch"]["missing"] is None
    assert "inpaint" in recipes["sketch"]["capabilities"]
    client.get("/v1/none/of/these")
    lines = client.get("/metrics").text.splitlines()
    assert "v2m_scheduler_up 1.0" in lines
    assert any(
        line.startswith('v2m_http_requests_total{method="GET",route="/v1/recipes",status="200"}') for line in lines
    )
    assert not [line for line in lines if "/v1/none" in line], "an unknown path makes no series"
    schema = client.get("/openapi.json").json()
    assert {"/v1/jobs", "/v1/jobs/{job_id}/events", "/v1/video-to-music"} <= set(schema["paths"])
    assert "access-control-allow-origin" not in client.get("/v1/recipes", headers={"Origin": "http://x.test"}).headers


def test_queue_full_is_429_with_a_time(client: TestClient, short_video: bytes) -> None:
    answers = [submit(client, short_video, settings={"seed": seed}) for seed in range(9)]
    assert code(answers[-1]) == (429, "queue_full")
    assert int(answers[-1].headers["retry-after"]) > 0
    for answer in answers[:-1]:
        client.delete(f"/v1/jobs/{answer.json()['id']}")
