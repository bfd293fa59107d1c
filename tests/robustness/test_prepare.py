"""Wrong commands and wrong inputs of `v2m prepare`: one line and an exit code each."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.tiny import clip as tiny_clip
from tests.fixtures.tiny import encodec as tiny_encodec
from tests.fixtures.tiny import t5 as tiny_t5
from v2m.cli.prepare import build_parser, main
from v2m.core import errors
from v2m.data.config import PrepareConfig

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("weights")
    tiny_clip.write(root / "clip")
    tiny_encodec.write(root / "encodec")
    tiny_t5.write(root / "t5")
    return root


def command(weights: Path, *more: str | Path) -> list[str]:
    names = {"vision-encoder": "clip", "codec": "encodec", "text-encoder": "t5"}
    given = [f"--{option}={weights / name}" for option, name in names.items()]
    return [*given, "--processes=1", "--quiet", "--device=cpu", "--min-duration-s=2", *map(str, more)]


def _json(folder: Path, text: str) -> Path:
    path = folder / "data.jsonl"
    path.write_text(text)
    return path


def _foreign(folder: Path) -> Path:
    (folder / "out").mkdir()
    (folder / "out" / "thesis.tex").write_text("x")
    return folder


def _file(folder: Path) -> Path:
    (folder / "out").write_text("x")
    return folder


def _mute(folder: Path) -> Path:
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("no video")
    (folder / "cuts.mp4").unlink()
    return folder


WRONG: dict[str, tuple[list[str], Callable[[Path], Path], int, str]] = {
    "a list of nothing": ([], lambda f: _json(f, "not json"), errors.USAGE, "line 1"),
    "nowhere": ([], lambda f: f / "nowhere", errors.USAGE, "no such file or folder"),
    "a folder of other things": ([], _foreign, errors.USAGE, "something else than a dataset"),
    "a file in the place of the folder": ([], _file, errors.USAGE, "is a file"),
    "nothing to learn from": ([], _mute, errors.INPUT_REFUSED, "2 unreadable"),
    "no videos": ([], lambda f: f / "no", errors.INPUT_REFUSED, "no videos"),
    "settings that cannot be": (
        ["--num-long-term-frames=0", "--max-silence=2"],
        lambda f: f,
        errors.USAGE,
        "max_silence 2 must be within 0 and 1",
    ),
    "an unknown option": (["--poolings=all"], lambda f: f, errors.USAGE, "--poolings"),
    "an unknown pool": (["--pooling=mean"], lambda f: f, errors.USAGE, "mean"),
    "no processes": (["--processes=0"], lambda f: f, errors.USAGE, "processes 0"),
    "an unknown tagger": (["--tagger=no.such.Tagger"], lambda f: f, errors.USAGE, "no.such.Tagger"),
    "no such encoder": (["--vision-encoder=/nowhere/clip"], lambda f: f, errors.USAGE, "/nowhere/clip"),
    "an encoder of another kind": (["--codec=CLIP"], lambda f: f, errors.ENVIRONMENT, "model_type 'clip'"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_invalid_input_is_one_line(kind: str, weights: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options, prepare, code, word = WRONG[kind]
    (clip.parent / "no").mkdir()
    given = prepare(clip.parent)
    options = [each.replace("CLIP", str(weights / "clip")) for each in options]
    assert main([*command(weights, *options), str(given), str(clip.parent / "out")]) == code
    said = capsys.readouterr().err
    assert word in said
    assert said.count("\n") == 1
    assert "bug" not in said


def test_other_settings_or_weights_than_before_are_refused_by_name(
    weights: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = clip.parent / "out"
    assert main(command(weights, clip, out)) == 0
    assert main(command(weights, "--max-segment-s=3", "--pooling=all", clip, out)) == errors.USAGE
    said = capsys.readouterr().err
    assert "max_segment_s 120.0, not 3.0" in said
    assert "pooling 'grid', not 'all'" in said
    other = Path(shutil.copytree(weights, clip.parent / "weights"))
    tiny_encodec.write(other / "encodec", seed=1)
    renamed = [each.replace(str(other), str(weights)) for each in command(other, clip, out)]
    kept = weights.with_name("kept")
    weights.rename(kept)
    other.rename(weights)
    try:
        assert main(renamed) == errors.USAGE
    finally:
        weights.rename(other)
        kept.rename(weights)
    assert "codec_sha256" in capsys.readouterr().err


def test_shipped_config_equals_the_signature() -> None:
    path = ROOT / "configs" / "data" / "prepare.yaml"
    found = build_parser().parse_args([f"--config={path}", "videos", "out"])
    usual = PrepareConfig()
    assert all(found[name] == getattr(usual, name) for name in PrepareConfig.__dataclass_fields__)
    assert "v2m prepare --config configs/data/prepare.yaml" in path.read_text().splitlines()[0]


def test_help_is_fast_and_does_not_import_torch() -> None:
    code = "import sys; from v2m.cli.prepare import main; main(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--shard-samples" in done.stdout
