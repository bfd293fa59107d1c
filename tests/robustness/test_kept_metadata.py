"""Metadata beside the tracks, titles, languages and alpha: kept, or named."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ffmpeg
from tests.robustness.media_audit import find_losses, silent_losses
from tests.robustness.record_makers import PLACED, SOUND, add_at, box, decodes_alike, describe, run_mix, write_clip


@pytest.mark.parametrize("target", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("name", PLACED)
def test_boxes_beside_the_tracks_are_kept_or_named(name: str, target: str, tmp_path: Path) -> None:
    clip = add_at(write_clip(tmp_path / "in.mp4"), *PLACED[name])
    report = run_mix(clip, tmp_path / f"out{target}")
    losses = find_losses(clip, tmp_path / f"out{target}")
    assert decodes_alike(clip, tmp_path / f"out{target}")
    assert silent_losses(losses, "\n".join(report.warnings)) == []
    if target != ".mkv":
        assert (losses, report.warnings) == ([], ())


def test_signature_of_the_file_is_named_instead_of_kept(tmp_path: Path) -> None:
    """C2PA's signature is over the bytes of the input: a copy that held it would look forged."""
    clip = add_at(write_clip(tmp_path / "in.mp4"), (), box(b"uuid", bytes.fromhex("d8fec3d61b0e483c92975828877ec481")))
    report = run_mix(clip, tmp_path / "out.mp4")
    assert report.warnings == ("records_lost: mp4 does not hold C2PA signature of the file",)


@pytest.mark.parametrize("target", [".mp4", ".mov", ".mkv"])
def test_keys_of_a_phone_are_kept_with_their_types(target: str, tmp_path: Path) -> None:
    """Players read Android's frame rate of slow motion as a number of 32 bits."""
    value = box(b"data", struct.pack(">IIf", 23, 0, 240.0))
    keys = box(b"keys", struct.pack(">II", 0, 1) + box(b"mdta", b"com.android.capture.fps"))
    handler = box(b"hdlr", bytes(8) + b"mdta" + bytes(13))
    boxes = box(b"meta", handler + keys + box(b"ilst", struct.pack(">II", 8 + len(value), 1) + value))
    clip = add_at(write_clip(tmp_path / "in.mp4", "-metadata", "title=Race"), (b"moov",), boxes)
    report = run_mix(clip, tmp_path / f"out{target}")
    assert (find_losses(clip, tmp_path / f"out{target}"), report.warnings) == ([], ())
    if target != ".mkv":
        assert value in (tmp_path / f"out{target}").read_bytes()
    assert "comment         : generated" in describe(tmp_path / f"out{target}").lower()


@pytest.mark.parametrize("target", [".mp4", ".mov"])
def test_titles_and_languages_of_tracks_are_kept(target: str, tmp_path: Path) -> None:
    tags = ("-metadata:s:v", "title=Camera", "-metadata:s:a", "title=Comment", "-metadata:s:a", "language=deu")
    clip = write_clip(tmp_path / "in.mkv", *tags)
    report = run_mix(clip, tmp_path / f"out{target}")
    assert (find_losses(clip, tmp_path / f"out{target}"), report.warnings) == ([], ())
    back = run_mix(tmp_path / f"out{target}", tmp_path / "back.mkv")
    assert (find_losses(tmp_path / f"out{target}", tmp_path / "back.mkv"), back.warnings) == ([], ())


@pytest.mark.parametrize(("target", "kept"), [(".webm", True), (".mkv", True), (".mp4", False)])
def test_alpha_channel_is_kept_or_named(target: str, kept: bool, tmp_path: Path) -> None:
    picture = ("-f", "lavfi", "-i", "color=red@0.5:s=64x48:r=25:d=0.4,format=yuva420p")
    codec = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus")
    ffmpeg(*picture, *SOUND, *codec, tmp_path / "in.webm")
    report = run_mix(tmp_path / "in.webm", tmp_path / f"out{target}")
    lost = "records_lost: mp4 does not hold alpha channel of video track 1"
    assert report.warnings == (() if kept else (lost,))
    decoded = ("-c:v", "libvpx-vp9", "-i", tmp_path / f"out{target}", "-vf", "alphaextract", "-frames:v", "1")
    if kept:
        ffmpeg(*decoded, "-f", "rawvideo", tmp_path / "alpha")
        assert np.frombuffer((tmp_path / "alpha").read_bytes(), np.uint8).mean() == pytest.approx(128, abs=4)
