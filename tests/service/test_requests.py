"""What a caller may set, and which files a request may name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from v2m.core.errors import UsageError
from v2m.service.requests import JobRequest, check_request, overrides, resolve_path


def request(**fields: Any) -> JobRequest:
    return JobRequest.model_validate(fields)


def test_nested_and_dotted_settings_are_those_of_the_command() -> None:
    nested = overrides(request(settings={"tags": {"tempo": 90}, "mix": {"duck": {"depth": 6}}, "seed": 3}))
    assert nested == {"tags.tempo": 90, "mix.duck.depth": 6, "seed": 3}
    dotted = overrides(request(settings={"tags.tempo": 90, "generator.variety": 0.5, "generator.init_args.x": True}))
    assert dotted == {"tags.tempo": 90, "generator.init_args.variety": 0.5, "generator.init_args.x": True}


@pytest.mark.parametrize(
    "settings",
    [
        {"generator.class_path": "os.system"},
        {"generator": {"init_args": {"model": "/etc/passwd"}}},
        {"tagger.checkpoint": "x"},
        {"limits.duration": 1e9},
        {"controls.melody": "/etc/passwd"},
        {"out": "/tmp/x"},
        {"mix.lufs": float("inf")},
        {"tags.caption": "x" * 20_000},
        {"tags.caption": "\ud800"},
        {"tags.genres": ["a\0b"]},
        {"tags.genres": ["word"] * 5000},
        {"tags": "/etc/hostname"},
        {"mix": "pyproject.toml"},
        {"tags..tempo": 1},
        {"tags.tempo": 7},
        {"tags.tempo": "many"},
        {"mix.original": "louder"},
        {"candidates": 1000},
        {"candidates": "9"},
        {"commercial_safe": "perhaps"},
        {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": 1}}}}}}}},
    ],
)
def test_a_setting_that_names_files_or_code_or_does_not_fit_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises((UsageError, ValueError)):
        check_request(request(settings=settings))


def test_recipes_by_path_and_unknown_fields_are_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("{}")
    with pytest.raises(UsageError, match="no recipe"):
        check_request(request(recipe=str(recipe)))
    with pytest.raises(ValidationError):
        request(out="x")
    with pytest.raises(UsageError, match="is not before"):
        check_request(request(inpaint={"start": 3, "end": 2, "job": "x"}))


def test_a_valid_request_passes() -> None:
    settings = {"tags.genres": ["jazz"], "tags.tempo": 120, "mix.lufs": -16.0, "candidates": 3, "commercial_safe": True}
    valid = request(settings=settings)
    check_request(valid)
    assert overrides(valid) == settings


def test_paths_stay_below_the_folders(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "a.mp4").write_bytes(b"x")
    (inside / "link.mp4").symlink_to(outside / "a.mp4")
    (inside / "sub").mkdir()
    assert resolve_path("a.mp4", (inside,)) == (inside / "a.mp4").resolve()
    assert resolve_path(str(inside / "a.mp4"), (inside,)) == (inside / "a.mp4").resolve()
    for name in (
        "../out/a.mp4",
        str(outside / "a.mp4"),
        "link.mp4",
        "sub",
        "none.mp4",
        "a.mp4\0",
        "sub/../../out/a.mp4",
    ):
        with pytest.raises(UsageError, match="no such file"):
            resolve_path(name, (inside,))
    with pytest.raises(UsageError, match="upload"):
        resolve_path("a.mp4", ())
