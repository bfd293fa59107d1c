"""The page in a real browser, as people use it."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.browser import DRIVER, Visitor, served
from tests.conftest import EXAMPLE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(DRIVER is None, reason="a browser is needed: apt-get install chromium chromium-driver"),
]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with served("--upload_mb", "2", "--seconds", "30") as found:
        yield found


@pytest.fixture
def visitor(address: str, tmp_path: Path) -> Iterator[Visitor]:
    with Visitor(address, tmp_path) as found:
        yield found


def test_a_video_goes_in_and_comes_out_with_its_music(visitor: Visitor, tmp_path: Path) -> None:
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


def test_cancelling_frees_the_desk_and_music_can_be_made_again(visitor: Visitor) -> None:
    visitor.upload(EXAMPLE)
    visitor.until_status("tags were found")
    visitor.press("make")
    visitor.until_status("%")
    visitor.press("cancel")
    visitor.until_status("Cancelled", 5)
    visitor.press("make")
    visitor.until_status("Done", 120)


def test_what_is_no_video_is_told_and_the_page_goes_on(visitor: Visitor, tmp_path: Path) -> None:
    bad = tmp_path / "notes.mp4"
    bad.write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    visitor.upload(bad)
    said = visitor.until_status("notes.mp4")
    assert "/tmp" not in said
    assert "passwd" not in said
    visitor.press("make")
    assert "notes.mp4" in visitor.until_status("notes.mp4")


def test_a_file_that_is_too_large_is_refused(visitor: Visitor, tmp_path: Path) -> None:
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(3 << 20))
    visitor.upload(large)
    visitor.wait(lambda: "size" in visitor.browser.find_element("tag name", "body").text.lower(), "it was taken", 20)


def test_two_people_at_once_both_get_their_music(address: str, tmp_path: Path) -> None:
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


@pytest.mark.parametrize("path", ["/etc/passwd", "pyproject.toml", "v2m/app/page.py", "../../../../etc/passwd"])
def test_no_file_of_the_machine_is_given_out(address: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{address}/gradio_api/file={path}", timeout=20)
    assert caught.value.code in {403, 404}


def test_a_password_is_asked_for() -> None:
    with served("--user", "me", environment={"V2M_PASSWORD": "secret"}) as address:
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{address}/config", timeout=20)
        assert caught.value.code == 401
