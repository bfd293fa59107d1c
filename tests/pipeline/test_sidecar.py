"""Sidecars: digests, odd file names and invalid values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from v2m.pipeline import sidecar


def test_settings_digest_ignores_order_and_changes_with_values() -> None:
    first = sidecar.settings_digest({"seed": 1, "mix": {"lufs": -14, "original": "keep"}})
    assert first == sidecar.settings_digest({"mix": {"original": "keep", "lufs": -14}, "seed": 1})
    assert first != sidecar.settings_digest({"seed": 1, "mix": {"lufs": -16, "original": "keep"}})


def test_unusual_file_names_round_trip(tmp_path: Path) -> None:
    record = {"file": "음악 \udcff\n.mp4"}  # also a byte that is no UTF-8
    sidecar.write(record, tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_bytes()) == record


def test_values_without_json_form_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        sidecar.write({"loudness": float("nan")}, tmp_path / "x.json")
    assert not list(tmp_path.iterdir())


def test_container_comment_names_the_recipe() -> None:
    assert sidecar.container_comment("vidmuse")["comment"].endswith("recipe vidmuse.")
    assert sidecar.container_comment("/home/somebody/own.yaml")["comment"].endswith("recipe own.yaml.")
    assert sidecar.container_comment(None)["comment"].endswith("recipe custom.")


def test_packages_not_installed_are_left_out() -> None:
    assert sidecar._versions("numpy", "no-such-package").keys() == {"numpy"}
