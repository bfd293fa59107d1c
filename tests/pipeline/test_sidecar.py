"""The record beside each output."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from v2m.pipeline import sidecar


def test_settings_have_one_digest_whatever_their_order_and_another_when_one_changes() -> None:
    first = sidecar.settings_digest({"seed": 1, "mix": {"lufs": -14, "original": "keep"}})
    assert first == sidecar.settings_digest({"mix": {"original": "keep", "lufs": -14}, "seed": 1})
    assert first != sidecar.settings_digest({"seed": 1, "mix": {"lufs": -16, "original": "keep"}})


def test_any_name_can_be_written_and_read_back(tmp_path: Path) -> None:
    record = {"file": "음악 \udcff\n.mp4"}  # also a byte that is no UTF-8
    sidecar.write(record, tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_bytes()) == record


def test_what_is_no_json_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        sidecar.write({"loudness": float("nan")}, tmp_path / "x.json")
    assert not list(tmp_path.iterdir())


def test_the_mark_names_the_recipe() -> None:
    assert sidecar.container_comment("vidmuse")["comment"].endswith("recipe vidmuse.")
    assert sidecar.container_comment(None)["comment"].endswith("recipe custom.")


def test_a_package_that_is_not_installed_is_left_out() -> None:
    assert sidecar._versions("numpy", "no-such-package").keys() == {"numpy"}
