"""Discovery of videos with their audio files, and the keys of their samples."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from v2m.core.errors import InvalidInputError, UsageError
from v2m.data.sources import discover_music, discover_remote, discover_videos, read_tags


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_folder_gives_videos_by_name_with_their_audio_files(tmp_path: Path) -> None:
    touch(tmp_path, "b.mp4", "b.wav", "a.MKV", "deep/er/c.webm", "deep/er/c.tags.json", "lonely.wav", "notes.txt")
    touch(tmp_path, ".hidden.mp4", ".cache/d.mp4", "a.v2m.mp4")
    videos = discover_videos([tmp_path])
    assert [item.name for item in videos] == ["a.MKV", "b.mp4", "deep/er/c.webm"]
    assert [item.audio for item in videos] == [None, tmp_path / "b.wav", None]
    assert [item.tags for item in videos] == [None, None, tmp_path / "deep/er/c.tags.json"]


def test_keys_are_ascii_unique_and_independent_of_the_folder(tmp_path: Path) -> None:
    names = ("one/clip.mp4", "two/clip.mp4", "Größe & Co. (final).mp4", "夜.mp4", "x" * 200 + ".mp4")
    for place in ("here", "there"):
        touch(tmp_path / place, *names)
    first_keys, second_keys = (
        [item.key for item in discover_videos([tmp_path / place])] for place in ("here", "there")
    )
    assert first_keys == second_keys
    assert len(set(first_keys)) == len(names)
    assert all(key.replace("-", "").isalnum() and key.isascii() and len(key) <= 51 for key in first_keys)
    all_keys = [item.key for item in discover_videos([tmp_path / "here", tmp_path / "there"])]
    assert len(set(all_keys)) == 2 * len(names), "two of the same name"
    assert all_keys[: len(names)] == first_keys


def test_repeated_video_is_listed_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    assert len(discover_videos([tmp_path, tmp_path / "a.mp4"])) == 1


def test_vidmuse_lists_give_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Near the list, or from where the command is run, as theirs are."""
    touch(tmp_path, "lists/near.mp4", "lists/near.wav", "far/far.mp4", "far/far.wav")
    usual = {"duration": 30.0, "sample_rate": 32000, "amplitude": None, "weight": None, "info_path": None}
    lines = [
        {"path": f"{name}.wav", "video_path": f"{name}.mp4"} | usual
        for name in ("near", "far/far", str(tmp_path / "no"))
    ]
    listing = tmp_path / "lists" / "data.jsonl"
    listing.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    monkeypatch.chdir(tmp_path)
    videos = discover_videos([Path("lists/data.jsonl")])
    assert [item.video for item in videos] == [tmp_path / item for item in ("lists/near.mp4", "far/far.mp4", "no.mp4")]
    assert [item.audio for item in videos] == [tmp_path / item for item in ("lists/near.wav", "far/far.wav", "no.wav")]


def test_invalid_lines_of_a_list_are_named_by_number(tmp_path: Path) -> None:
    listing = tmp_path / "data.jsonl"
    good = '{"video_path": "a.mp4"}'
    listing.write_text("\n".join([good, "{", "[]", '{"path": "a.wav"}', '{"video_path": 3}', good]))
    with pytest.raises(UsageError, match=r"line 2 .*line 3 .*line 4 .* and 1 more"):
        discover_videos([listing])


def test_inputs_without_videos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no videos"):
        discover_videos([tmp_path])
    with pytest.raises(UsageError, match="no such file or folder"):
        discover_videos([tmp_path / "nowhere"])


def test_file_state_changes_with_each_file(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "a.wav", "a.tags.json")
    before = discover_videos([tmp_path])[0].file_state()
    assert discover_videos([tmp_path])[0].file_state() == before
    for name in ("a.mp4", "a.wav", "a.tags.json"):
        stat = (tmp_path / name).stat()
        os.utime(tmp_path / name, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
        after = discover_videos([tmp_path])[0].file_state()
        assert after != before
        before = after


def test_companions_are_found_whatever_the_case_of_their_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "a.WAV", "a.TAGS.json", "b.MOV", "b.Flac", "b.wav", "b.tags.JSON")
    assert [(item.audio, item.tags) for item in discover_videos([tmp_path])] == [
        (tmp_path / "a.WAV", tmp_path / "a.TAGS.json"),
        (tmp_path / "b.wav", tmp_path / "b.tags.JSON"),
    ]


def test_byte_order_marks_of_tags_and_lists_are_skipped(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    (tmp_path / "a.tags.json").write_text('{"genres": ["jazz"], "tempo": 90}', encoding="utf-8-sig")
    (tmp_path / "list.jsonl").write_text('{"video_path": "a.mp4"}\n', encoding="utf-8-sig")
    [source] = discover_videos([tmp_path / "list.jsonl"])
    assert source.tags is not None
    assert read_tags(source.tags) == {"genres": ["jazz"], "tempo": 90}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"genre": "jazz"}', "genre"),
        ('{"tempo": "fast"}', "tempo.*fast"),
        ('{"genres": 3}', "genres"),
        ('{"vocals": "maybe"}', "vocals"),
        ('["jazz"]', "not a JSON object"),
        ('{"tempo": 1000}', "outside 30 to 300"),
        ("{", "holds no tags"),
    ],
)
def test_wrong_tags_are_named_in_words_not_in_python(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.tags.json"
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=said) as caught:
        read_tags(path)
    assert "__init__" not in str(caught.value)
    assert "NoneType" not in str(caught.value)


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[str]:
    """An address whose files are also those of `tmp_path`."""
    names = ("ok.mp4", "ok.wav", "ok.tags.json", "ok.mid", "ok.txt", "other.mp4", "sub/ok.mp4", "sub/ok.flac")
    touch(tmp_path, *names)
    file_system = fsspec.filesystem("memory")
    file_system.pipe({f"/clips/{name}": b"x" for name in names})
    yield "memory://clips"
    file_system.rm("/clips", recursive=True)


@pytest.mark.parametrize(
    "inputs",
    [
        ("", "/ok.mp4", "/"),
        ("/ok.mp4", ""),
        ("/ok.mp4",),
        ("/other.mp4", "/sub/ok.mp4"),
        ("/sub", "/ok.mp4"),
        ("/ok.wav", "/ok.mid", ""),
        ("/ok.mid",),
    ],
)
def test_addresses_give_what_paths_give(inputs: tuple[str, ...], bucket: str, tmp_path: Path) -> None:
    """Each video once, with the files that belong to it."""
    unpaired = inputs[0].endswith(("mid", "wav"))
    discover = discover_music if unpaired else discover_videos
    expected = [
        (
            item.name,
            item.key,
            {
                field: path.relative_to(tmp_path).as_posix()
                for field in ("video", "audio", "tags", "score")
                if (path := getattr(item, field, None)) is not None
            },
        )
        for item in discover([tmp_path / name.strip("/") for name in inputs])
    ]
    found = [
        (item.name, item.key, {field: file.address.removeprefix(f"{bucket}/") for field, file in item.files.items()})
        for item in discover_remote([bucket + name for name in inputs], unpaired=unpaired)
    ]
    assert found == expected
