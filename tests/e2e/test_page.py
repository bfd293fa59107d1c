"""The page in a real browser, as people use it."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from tests.conftest import EXAMPLE, ffmpeg
from tests.fixtures.browser import DRIVER, Visitor, served

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(DRIVER is None, reason="a browser is needed: apt-get install chromium chromium-driver"),
]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served("--upload-mb", "2", "--seconds", "30") as found:
        yield found


@pytest.fixture
def visitor(address: str, tmp_path: Path) -> Iterator[Visitor]:
    with Visitor(address, tmp_path) as found:
        yield found


def test_uploaded_video_is_returned_with_music(visitor: Visitor, tmp_path: Path) -> None:
    visitor.upload(EXAMPLE)
    visitor.until_status("tags were found")
    genres = visitor.find("#genres textarea, #genres input")
    assert genres.get_attribute("value")
    visitor.press("make")
    said = visitor.until_status("Done", 120)
    assert "17.3 s of music" in said
    assert "LUFS" in said
    assert visitor.playable() == pytest.approx(17.3, abs=0.1)
    visitor.find("#report img")
    names = [link.get_attribute("download") for link in visitor.all("#files a")]
    assert {f"bunny_wakes.v2m.{suffix}" for suffix in ("mp4", "wav", "mid", "edl", "json", "png")} <= set(names)
    visitor.find("#files a[download$='.v2m.json']").click()
    found = tmp_path / "bunny_wakes.v2m.json"
    visitor.wait(found.is_file, "nothing was downloaded")
    assert '"recipe": "sketch"' in found.read_text()


def test_candidates_are_compared_in_place(visitor: Visitor) -> None:
    visitor.upload(EXAMPLE)
    visitor.until_status("tags were found")
    visitor.browser.execute_script("arguments[0].click()", visitor.find("#controls button"))
    count = visitor.find("#count input[type=number]")
    visitor.browser.execute_script("arguments[0].select()", count)
    count.send_keys("2")
    visitor.press("make")
    visitor.until_status("Done", 120)
    assert visitor.playable() == pytest.approx(17.3, abs=0.1)
    first, picture = visitor.source("#result video"), visitor.source("#report img")
    visitor.all("#takes input")[1].click()
    visitor.wait(lambda: visitor.source("#result video") != first, "the other take was not shown")
    visitor.wait(lambda: visitor.source("#report img") != picture, "its report was not shown")
    assert visitor.playable() == pytest.approx(17.3, abs=0.1)
    names = [link.get_attribute("download") for link in visitor.all("#files a")]
    assert {name.split(".")[-1] for name in names} == {"mp4", "wav", "png"}
    assert all(".seed" in name for name in names)


def test_range_selected_on_the_report_is_inpainted(visitor: Visitor, tmp_path: Path) -> None:
    visitor.upload(EXAMPLE)
    visitor.until_status("tags were found")
    assert visitor.find("#anew").get_attribute("disabled")
    visitor.press("make")
    visitor.until_status("Done", 120)
    picture = visitor.source("#report img")
    visitor.click_at("#report img", 0.3)
    visitor.wait(lambda: visitor.value("#begin"), "no first second")
    assert visitor.find("#anew").get_attribute("disabled")
    visitor.click_at("#report img", 0.5)
    visitor.wait(lambda: visitor.value("#until"), "no second second")
    begin, end = float(visitor.value("#begin")), float(visitor.value("#until"))
    assert (begin, end) == (pytest.approx(4.6, abs=0.4), pytest.approx(8.5, abs=0.4))
    visitor.wait(lambda: visitor.source("#report img") != picture, "the part was not marked")
    visitor.wait(lambda: not visitor.find("#anew").get_attribute("disabled"), "it cannot be pressed")
    visitor.press("anew")
    visitor.wait(lambda: "anew" in visitor.text("#takes"), "there is no other take", 120)
    assert f"{begin:g} to {end:g} s of 1 anew" in visitor.text("#takes")
    assert visitor.playable() == pytest.approx(17.3, abs=0.1)
    visitor.find("#files a[download$='.v2m.json']").click()
    found = tmp_path / "bunny_wakes.v2m.json"
    visitor.wait(found.is_file, "nothing was downloaded")
    assert json.loads(found.read_text())["music"]["inpainted"] == [begin, end]


def test_typed_range_is_inpainted_and_invalid_ranges_are_reported(visitor: Visitor) -> None:
    visitor.upload(EXAMPLE)
    visitor.until_status("tags were found")
    visitor.press("make")
    visitor.until_status("Done", 120)
    for name, second in (("begin", "15"), ("until", "99")):
        visitor.find(f"#{name} input").send_keys(second)
    visitor.wait(lambda: not visitor.find("#anew").get_attribute("disabled"), "it cannot be pressed")
    visitor.press("anew")
    assert "“Part from second” 15:99 lies outside of the video" in visitor.until_status("lies outside")
    visitor.find("#until input").send_keys(Keys.BACKSPACE, Keys.BACKSPACE, "2")
    visitor.wait(lambda: visitor.find("#anew").get_attribute("disabled"), "seconds that fall were taken")


def test_cancel_frees_the_queue_and_a_new_job_runs(visitor: Visitor) -> None:
    visitor.upload(EXAMPLE)
    visitor.until_status("tags were found")
    visitor.press("make")
    visitor.until_status("%")
    visitor.press("cancel")
    assert "Done" not in visitor.until_status("Cancelled")
    visitor.press("make")
    assert "Cancelled" not in visitor.until_status("Done", 120)


def test_non_video_upload_is_reported_and_the_page_stays_usable(visitor: Visitor, tmp_path: Path) -> None:
    bad = tmp_path / "notes.mp4"
    bad.write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    visitor.upload(bad)
    said = visitor.until_status("notes.mp4")
    assert "/tmp" not in said
    assert "passwd" not in said
    visitor.press("make")
    assert "notes.mp4" in visitor.until_status("notes.mp4")


def test_too_large_upload_is_refused(visitor: Visitor, tmp_path: Path) -> None:
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(3 << 20))
    visitor.upload(large)
    visitor.wait(lambda: "size" in visitor.browser.find_element("tag name", "body").text.lower(), "it was taken")
    assert "tags were found" not in visitor.browser.find_element("tag name", "body").text


def test_too_long_video_is_refused(visitor: Visitor, tmp_path: Path) -> None:
    long = tmp_path / "long.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x36:r=5:d=31", "-pix_fmt", "yuv420p", long)
    visitor.upload(long)
    said = visitor.until_status("long.mp4")
    assert "30" in said
    assert "/tmp" not in said


def test_queued_user_sees_the_position_and_can_cancel(address: str, tmp_path: Path) -> None:
    with Visitor(address, tmp_path) as one, Visitor(address, tmp_path) as two:
        for each in (one, two):
            each.upload(EXAMPLE)
        for each in (one, two):
            each.until_status("tags were found")
        one.press("make")
        one.until_status("%")
        two.press("make")
        two.until_status("Waiting for its turn")
        two.press("cancel")
        two.until_status("Cancelled")
        for pause in (0.0, 0.05, 0.1, 0.2, 0.4):
            two.press("make")
            time.sleep(pause)
            two.press("cancel")
        one.until_status("Done", 120)
        assert two.text("#status") == "Cancelled"
        assert "Error" not in two.text("body")
        two.press("make")
        two.until_status("Done", 120)


def test_files_are_deleted_when_the_session_ends(tmp_path: Path) -> None:
    def videos() -> list[Path]:
        return list(tmp_path.glob("v2m-page-*/sessions/*/*.mp4"))

    with served(environment={"TMPDIR": str(tmp_path)}) as address, Visitor(address, tmp_path) as visitor:
        visitor.upload(EXAMPLE)
        visitor.until_status("tags were found")
        visitor.press("make")
        visitor.until_status("Done", 120)
        assert [path.name for path in videos()] == ["bunny_wakes.v2m.mp4"]
        visitor.browser.get("about:blank")
        visitor.wait(lambda: not videos(), "they are there")
    assert not list(tmp_path.glob("v2m-page-*"))


def test_two_concurrent_users_both_get_music(address: str, tmp_path: Path) -> None:
    with Visitor(address, tmp_path) as one, Visitor(address, tmp_path) as two:
        for each in (one, two):
            each.upload(EXAMPLE)
        for each in (one, two):
            each.until_status("tags were found")
        for each in (one, two):
            each.press("make")
        for each in (one, two):
            each.until_status("Done", 180)
            assert each.playable() == pytest.approx(17.3, abs=0.1)


def answer(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=20) as found:
            return found.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


@pytest.mark.parametrize("path", ["/etc/passwd", "pyproject.toml", "v2m/webapp/handlers.py", "../../../../etc/passwd"])
def test_files_of_the_server_are_not_served(address: str, path: str) -> None:
    assert answer(f"{address}/gradio_api/file={path}") in {403, 404}


def test_password_is_required() -> None:
    with served("--user", "me", environment={"V2M_PASSWORD": "secret"}) as address:
        assert answer(f"{address}/config") == 401
