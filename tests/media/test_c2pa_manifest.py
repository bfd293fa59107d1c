"""C2PA manifests: signed, read back with the reference reader, and void after a change of one byte."""

from __future__ import annotations

import hashlib
import json
import math
import resource
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
from c2pa import Context, Reader
from cryptography.hazmat.primitives.serialization import PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

import v2m
from tests.conftest import ffmpeg, names
from tests.fixtures.certificates import Signer, make_signer
from v2m.cli.score import main
from v2m.core import disk_space
from v2m.core.errors import DISK, USAGE, DiskFullError, UsageError, exit_code
from v2m.core.types import Controls, Tags
from v2m.generators.sketch import Sketch
from v2m.media.c2pa_manifest import (
    COMPOSITE,
    EKUS,
    SOURCE_TYPES,
    UNTRUSTED,
    C2paCredentials,
    MusicOrigin,
    read_manifest,
    sign,
    signed_format,
)
from v2m.media.verify import fingerprint_streams
from v2m.pipeline.batch import process_videos
from v2m.pipeline.recipes import Recipe
from v2m.pipeline.score import score_video


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return make_signer(tmp_path_factory.mktemp("signer"))


@pytest.fixture(scope="module")
def credentials(signer: Signer) -> C2paCredentials:
    return C2paCredentials(signer.chain, signer.key)


@pytest.fixture(scope="module")
def signed(media: Path, credentials: C2paCredentials, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed copy of `cuts.mp4`, beside it."""
    folder = tmp_path_factory.mktemp("private name")
    source = Path(shutil.copy(media / "cuts.mp4", folder / "secret holiday.mp4"))
    out = Path(shutil.copy(source, folder / "out.mp4"))
    sign(out, source, credentials, MusicOrigin("trainedAlgorithmicMedia", "learned"))
    return out


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def media_byte(path: Path) -> int:
    """Place of a byte amid the media data of an MP4 file."""
    data = path.read_bytes()
    return (data.index(b"mdat") + len(data)) // 2


def test_reader_finds_signature_and_hashes_valid_and_the_signer_untrusted(signed: Path, signer: Signer) -> None:
    report = read_manifest(signed)
    assert (report.state, report.problems, report.is_intact) == ("Valid", (UNTRUSTED,), True)
    trusting = Context.from_dict({"trust": {"user_anchors": signer.root.read_text()}})
    with signed.open("rb") as file, Reader("video/mp4", file, context=trusting) as reader:
        assert reader.get_validation_state() == "Trusted"
        results = reader.get_validation_results()
    assert results is not None
    codes = {status["code"] for status in results["activeManifest"]["success"]}
    assert {"claimSignature.validated", "assertion.bmffHash.match", "assertion.hashedURI.match"} <= codes


def test_manifest_says_what_was_opened_and_what_was_added(signed: Path) -> None:
    source = signed.with_name("secret holiday.mp4")
    report = read_manifest(signed)
    generator = report.manifest["claim_generator_info"][0]
    assert (generator["name"], generator["version"]) == ("v2m", v2m.__version__)
    opened, edited = report.actions
    assert (opened["action"], edited["action"]) == ("c2pa.opened", "c2pa.edited")
    assert edited["digitalSourceType"] == SOURCE_TYPES + COMPOSITE
    assert edited["parameters"]["v2m.music.digitalSourceType"] == f"{SOURCE_TYPES}trainedAlgorithmicMedia"
    assert edited["parameters"]["v2m.recipe"] == "learned"
    (ingredient,) = report.manifest["ingredients"]
    assert ingredient["relationship"] == "parentOf"
    assert ingredient["instance_id"] == f"urn:sha256:{sha256(source)}"
    assert opened["parameters"]["ingredients"][0]["url"].endswith(ingredient["label"])


def test_neither_names_nor_folders_of_the_user_are_in_the_file(signed: Path) -> None:
    data = signed.read_bytes()
    assert not [word for word in (b"secret", b"holiday", b"private name", str(signed.parent).encode()) if word in data]


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".avi"])
def test_one_changed_byte_of_the_media_is_detected(
    media: Path, credentials: C2paCredentials, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"out{suffix}"
    codecs = ["-c:v", "copy"] if suffix != ".avi" else ["-c:v", "mpeg4"]
    ffmpeg("-i", media / "cuts.mp4", *codecs, "-c:a", "aac" if suffix != ".avi" else "pcm_s16le", out)
    sign(out, media / "cuts.mp4", credentials, MusicOrigin())
    assert read_manifest(out).is_intact
    data = bytearray(out.read_bytes())
    data[len(data) // 2 if suffix == ".avi" else media_byte(out)] ^= 1
    out.write_bytes(data)
    report = read_manifest(out)
    assert not report.is_intact
    assert report.state == "Invalid"
    assert set(report.problems) - {UNTRUSTED} <= {"assertion.bmffHash.mismatch", "assertion.dataHash.mismatch"}


def test_signing_keeps_pictures_and_sound_and_leaves_no_other_file(
    media: Path, credentials: C2paCredentials, tmp_path: Path
) -> None:
    out = Path(shutil.copy(media / "cuts.mp4", tmp_path / "out.mp4"))
    before = fingerprint_streams(out)
    sign(out, media / "cuts.mp4", credentials, MusicOrigin())
    assert read_manifest(out).is_intact
    assert fingerprint_streams(out) == before
    assert names(tmp_path) == ["out.mp4"]


def test_file_stays_as_it_was_where_it_cannot_be_signed(credentials: C2paCredentials, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    out.write_bytes(b"no video")
    with pytest.raises(RuntimeError, match="was not signed"):
        sign(out, out, credentials, MusicOrigin())
    assert out.read_bytes() == b"no video"
    assert names(tmp_path) == ["out.mp4"]


@pytest.mark.parametrize("share", [0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95])
def test_disk_that_is_full_while_signing_is_no_bug(
    media: Path, credentials: C2paCredentials, tmp_path: Path, share: float
) -> None:
    """The SDK reports its own error where a write fails; which one depends on where that is."""
    out = tmp_path / "out.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=s=640x360:d=2", "-c:v", "mpeg4", "-q:v", "2", out)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * out.stat().st_size), limits[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            sign(out, media / "cuts.mp4", credentials, MusicOrigin())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert exit_code(caught.value) == DISK
    assert names(tmp_path) == ["out.mp4"]


def test_signing_needs_room_for_a_copy(
    media: Path, credentials: C2paCredentials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copy(media / "cuts.mp4", tmp_path / "out.mp4"))
    monkeypatch.setattr(disk_space, "free_bytes", lambda _: out.stat().st_size - 1)
    with pytest.raises(DiskFullError):
        sign(out, media / "cuts.mp4", credentials, MusicOrigin())


def test_room_for_the_signed_copy_is_asked_for_before_work(
    clip: Path, credentials: C2paCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unused(Sketch):
        def prepare(self, tags: Tags, controls: Controls) -> None:
            raise AssertionError("work was begun")

    silent = clip.with_name("silent.mp4")
    ffmpeg("-i", clip, "-an", "-c", "copy", silent)
    room = 1.5 * silent.stat().st_size
    monkeypatch.setattr(disk_space, "free_bytes", lambda folder: room if folder == clip.parent else math.inf)
    with pytest.raises(DiskFullError, match="the files to write take"):
        score_video(silent, generator=Unused(), c2pa=credentials)
    score_video(silent, end=1)


@pytest.mark.parametrize("place", [0.02, 0.3, 0.6])
@pytest.mark.parametrize("value", [0x00, 0xFF])
def test_damaged_manifest_gives_a_report(signed: Path, tmp_path: Path, place: float, value: int) -> None:
    data = bytearray(signed.read_bytes())
    start = data.index(b"jumb")
    length = int.from_bytes(data[start - 4 : start], "big")
    first = start + round(place * length)
    data[first : first + 16] = bytes([value]) * 16
    (tmp_path / "damaged.mp4").write_bytes(data)
    report = read_manifest(tmp_path / "damaged.mp4")
    assert (report.state, report.is_intact) == ("Invalid", False)
    assert report.problems


def test_manifest_that_points_to_no_assertions_gives_a_report(signed: Path, tmp_path: Path) -> None:
    data, place = signed.read_bytes(), b"self#jumbf=c2pa.assertions/c2pa.actions"
    (tmp_path / "damaged.mp4").write_bytes(data.replace(place, place.replace(b".", b"/", 1)))
    report = read_manifest(tmp_path / "damaged.mp4")
    assert (report.state, report.is_intact, dict(report.manifest)) == ("Invalid", False, {})


def test_earlier_manifest_of_the_input_is_carried_on(
    signed: Path, credentials: C2paCredentials, tmp_path: Path
) -> None:
    out = Path(shutil.copy(signed.with_name("secret holiday.mp4"), tmp_path / "out.mp4"))
    sign(out, signed, credentials, MusicOrigin())
    (ingredient,) = read_manifest(out).manifest["ingredients"]
    assert ingredient["active_manifest"] == read_manifest(signed).label


@pytest.mark.parametrize("name", ["in.mkv", "fake.mp4"])
def test_input_that_holds_no_manifest_is_known_by_its_hash(
    media: Path, credentials: C2paCredentials, tmp_path: Path, name: str
) -> None:
    ffmpeg("-i", media / "cuts.mp4", "-c", "copy", "-f", "matroska", tmp_path / name)
    out = Path(shutil.copy(media / "cuts.mp4", tmp_path / "out.mp4"))
    sign(out, tmp_path / name, credentials, MusicOrigin())
    (ingredient,) = read_manifest(out).manifest["ingredients"]
    assert ingredient["instance_id"] == f"urn:sha256:{sha256(tmp_path / name)}"


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".ts", ".3gp", ".wmv"])
def test_other_containers_are_refused(suffix: str) -> None:
    cure = "score it alone with `out` NAME.mp4"
    with pytest.raises(UsageError, match=f"out{suffix}: {suffix} holds no C2PA manifest: {cure}"):
        signed_format(Path(f"out{suffix}"))


@pytest.mark.parametrize("kind", ["rsa", "ed25519", "p384"])
def test_every_usual_kind_of_key_signs(tmp_path: Path, kind: str) -> None:
    files = make_signer(tmp_path, kind=kind)
    assert C2paCredentials(files.chain, files.key).validate().is_intact


@pytest.mark.parametrize("usage", EKUS)
def test_every_usage_that_c2pa_accepts_signs(tmp_path: Path, usage: str) -> None:
    files = make_signer(tmp_path, usage=ObjectIdentifier(usage))
    assert C2paCredentials(files.chain, files.key).validate().is_intact


def test_traditional_key_file_signs(tmp_path: Path) -> None:
    files = make_signer(tmp_path, pem=PrivateFormat.TraditionalOpenSSL)
    assert "EC PRIVATE KEY" in files.key.read_text()
    assert C2paCredentials(files.chain, files.key).validate().is_intact


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"valid_days": -5}, "cannot sign|not valid"),
        ({"usage": ExtendedKeyUsageOID.SERVER_AUTH}, r"(cannot sign|not valid).* \(needs RSA of 2048 bits"),
        ({"usage": None}, r"(cannot sign|not valid).* \(needs RSA of 2048 bits .* extended key usage"),
        ({"kind": "rsa1024"}, r"(cannot sign|not valid).* \(needs RSA of 2048 bits"),
        ({"kind": "secp256k1"}, "of kind secp256k1"),
        ({"password": b"x"}, "has a password"),
    ],
)
def test_credentials_whose_signatures_would_be_void_are_refused(
    tmp_path: Path, options: dict[str, Any], text: str
) -> None:
    files = make_signer(tmp_path, **options)
    with pytest.raises(UsageError, match=text):
        C2paCredentials(files.chain, files.key).validate()


def test_mismatched_or_other_files_are_refused(signer: Signer, tmp_path: Path) -> None:
    other = make_signer(tmp_path / "other")
    with pytest.raises(UsageError, match="is not the key of the first certificate"):
        C2paCredentials(signer.chain, other.key).validate()
    with pytest.raises(UsageError, match="holds no certificate"):
        C2paCredentials(signer.key, signer.key).validate()
    with pytest.raises(UsageError, match="holds no private key"):
        C2paCredentials(signer.chain, signer.chain).validate()
    chain, key, folder = signer.chain, signer.key, tmp_path
    for credentials in (C2paCredentials(folder, key), C2paCredentials(chain, folder)):
        with pytest.raises(UsageError, match=f"{folder} cannot be read"):
            credentials.validate()


def test_credentials_may_be_given_as_text(signer: Signer) -> None:
    files: dict[str, Any] = {"certificate": str(signer.chain), "key": str(signer.key)}
    assert C2paCredentials(**files).validate().is_intact


def test_scored_video_is_signed_without_network_and_the_sidecar_says_so(
    clip: Path, credentials: C2paCredentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a host was looked up")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    result = score_video(clip, generator=Sketch(), recipe="sketch", c2pa=credentials)
    report = read_manifest(result.path)
    assert report.is_intact
    assert "signingCredential.untrusted" in report.problems
    assert report.actions[1]["digitalSourceType"] == f"{SOURCE_TYPES}algorithmicMedia"
    record = json.loads(result.path.with_suffix(".json").read_text())
    assert record["output"]["sha256"] == sha256(result.path)
    assert record["c2pa"]["manifest"] == report.label
    assert record["c2pa"]["validation"] == "Valid"
    assert record["c2pa"]["signer"] == "Test signer"
    assert record["c2pa"]["certificate_sha256"] == credentials.sha256()
    assert record["c2pa"]["input"] == f"urn:sha256:{sha256(clip)}"
    assert names(clip.parent) == ["cuts.mp4", "cuts.v2m.json", "cuts.v2m.mp4"]


def test_manifest_is_gone_after_a_copy_by_ffmpeg_and_by_v2m(
    clip: Path, credentials: C2paCredentials, tmp_path: Path
) -> None:
    """Each copy is another file: v2m writes no void signature, and signs again only where it is asked to."""
    scored = score_video(clip, c2pa=credentials, end=1).path
    ffmpeg("-i", scored, "-map", "0", "-c", "copy", tmp_path / "copy.mp4")
    again = score_video(scored, tmp_path / "again.mp4", end=1).path
    for path in (tmp_path / "copy.mp4", again):
        with pytest.raises(UsageError, match="has no C2PA manifest"):
            read_manifest(path)
    twice = score_video(scored, tmp_path / "twice.mp4", end=1, c2pa=credentials).path
    (ingredient,) = read_manifest(twice).manifest["ingredients"]
    assert ingredient["active_manifest"] == read_manifest(scored).label


def test_container_without_manifest_is_refused_before_work(clip: Path, credentials: C2paCredentials) -> None:
    class Unused(Sketch):
        def prepare(self, tags: Tags, controls: Controls) -> None:
            raise AssertionError("work was begun")

    with pytest.raises(UsageError, match="holds no C2PA manifest"):
        score_video(clip, clip.with_name("out.mkv"), generator=Unused(), c2pa=credentials)
    assert names(clip.parent) == ["cuts.mp4"]


def test_batch_writes_unsigned_outputs_again_when_asked_to_sign(clip: Path, credentials: C2paCredentials) -> None:
    (first,) = process_videos([clip], None, Recipe(end=1.0))
    (second,) = process_videos([clip], None, Recipe(end=1.0), c2pa=credentials)
    assert (first.status, second.status) == ("done", "done"), second.detail
    assert read_manifest(clip.with_name("cuts.v2m.mp4")).is_intact
    (third,) = process_videos([clip], None, Recipe(end=1.0), c2pa=credentials)
    assert third.status == "unchanged"


def test_command_line_signs(clip: Path, signer: Signer, capsys: pytest.CaptureFixture[str]) -> None:
    words = [str(clip), "--end", "1", "--quiet", "--c2pa", str(signer.chain), str(signer.key)]
    assert main(words) == 0, capsys.readouterr().err
    assert read_manifest(clip.with_name("cuts.v2m.mp4")).is_intact
    settings = json.loads(clip.with_name("cuts.v2m.json").read_text())["settings"]
    assert settings["c2pa_certificate_sha256"] == C2paCredentials(signer.chain, signer.key).sha256()
    assert str(signer.key) not in json.dumps(settings)
    assert main([str(clip), "--c2pa", str(signer.chain), "missing.pem"]) == USAGE
    assert "c2pa 'missing.pem': no such file" in capsys.readouterr().err
    assert main([str(clip), "--c2pa", str(signer.chain), str(clip.parent)]) == USAGE
    assert f"c2pa {str(clip.parent)!r}: is no file" in capsys.readouterr().err
