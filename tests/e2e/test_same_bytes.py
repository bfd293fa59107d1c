"""The same command gives the same bytes, in another folder and at another time, whatever it writes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.conftest import ffmpeg
from tests.fixtures.tiny import clip as tiny_clip
from tests.fixtures.tiny import encodec as tiny_encodec
from tests.fixtures.tiny import musicgen, shards
from tests.fixtures.tiny import t5 as tiny_t5
from tests.media.audio_checks import tone
from v2m.cli import convert, evaluate, prepare, score, synthesize, tag, train
from v2m.core.errors import OK
from v2m.media import video
from v2m.mixing import mixer

ROOT = Path(__file__).parents[2]
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac")
CODECS = {
    **dict.fromkeys((".mp4", ".mov", ".mkv", ".ts", ".avi", ".flv"), H264),
    ".webm": ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-c:a", "libopus"),
    ".ogv": ("-c:v", "libtheora", "-c:a", "libvorbis"),
    ".mpg": ("-c:v", "mpeg2video", "-c:a", "mp2"),
    ".wmv": ("-c:v", "wmv2", "-c:a", "wmav2"),
}
ALL_EXTRAS = ["--wav", "--stems", "--midi", "--report", "--candidates", "2"]


def make_inputs(folder: Path) -> None:
    """Write a clip of two shots in each container, and tiny weights."""
    picture = "testsrc2=s=96x54:r=25:d=1[a];mandelbrot=s=96x54:r=25,trim=duration=1.2[b];[a][b]concat=n=2:v=1[v]"
    for suffix, codecs in CODECS.items():
        sound = ("-f", "lavfi", "-i", "sine=330:d=2.2:r=48000")
        path = folder / f"clip{suffix}"
        ffmpeg(*sound, "-filter_complex", picture, "-map", "[v]", "-map", "0:a", *codecs, path)
    for name, write in (("clip", tiny_clip.write), ("encodec", tiny_encodec.write), ("t5", tiny_t5.write)):
        write(folder / name)
    musicgen.write_transformers(folder / "musicgen")
    shards.write(folder / "shards", (3,), seconds=2.0)


def make_outputs(inputs: Path, out: Path) -> None:
    """Run each command that writes files, with its outputs below the new folder `out`."""
    for name in ("score", "edl", "otio", "tags"):
        (out / name).mkdir(parents=True)
    for folder, extras in (("score", [*ALL_EXTRAS, "--markers", "otio"]), ("edl", ["--markers"])):
        assert score.main([str(inputs / "clip.mp4"), "-o", str(out / folder), "--quiet", *extras]) == OK
    tables = ["--csv", str(out / "measures.csv"), "--summary", str(out / "measures.summary.csv")]
    assert evaluate.main([str(out / "score/clip.v2m.mp4"), *tables]) == OK
    for suffix in CODECS:
        mixer.mix(video.open(inputs / f"clip{suffix}"), tone(2.0, 0.3), out / f"mixed{suffix}")
    assert synthesize.main([str(out / "synthetic"), "--count", "1", "--seconds", "3"]) == OK
    encoders = {"vision-encoder": inputs / "clip", "codec": inputs / "encodec", "text-encoder": inputs / "t5"}
    settings = {"min-duration-s": 2, "max-segment-s": 4, "num-long-term-frames": 4, "processes": 1, "device": "cpu"}
    words = [f"--{name}={value}" for name, value in {**encoders, **settings}.items()]
    assert prepare.main([str(inputs / "clip.mp4"), str(out / "shards"), "--quiet", *words]) == OK
    cpu = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    assert tag.main(["--data.videos", str(inputs / "clip.mp4"), "--data.out", str(out / "tags"), *cpu]) == OK
    fit = {"config": ROOT / "configs/train/tiny.yaml", "data.train": inputs / "shards", "data.window": 1}
    fit |= {"data.batch_size": 2, "model.lm.dim": 32, "model.lm.num_layers": 1, "trainer.max_steps": 2}
    fit |= {"trainer.default_root_dir": out / "training", "trainer.logger": "false"}
    quiet = [*cpu[2:], "--trainer.enable_model_summary", "false"]
    words = [word for name, value in fit.items() for word in (f"--{name}", str(value))]
    assert train.main(["fit", *words, *quiet]) == OK
    checkpoint = next((out / "training/checkpoints").glob("*.ckpt"))
    assert convert.main([str(checkpoint), str(out / "exported")]) == OK
    for layout in ("v2m", "transformers", "audiocraft"):
        assert convert.main([str(inputs / "musicgen"), str(out / layout), "--to", layout]) == OK


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two folders with all outputs; a second or more lies between the same file of the one and of the other."""
    inputs = tmp_path_factory.mktemp("inputs")
    make_inputs(inputs)
    first, second = tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("later")
    make_outputs(inputs, first)
    time.sleep(1.1)  # times in files have a resolution of a second at best
    make_outputs(inputs, second)
    return first, second


KINDS = {
    **{f"the mix in {suffix[1:]}": [f"mixed{suffix}"] for suffix in CODECS},
    "video": ["score/clip.v2m.mp4", "edl/clip.v2m.mp4"],
    "sidecar": ["score/clip.v2m.json", "edl/clip.v2m.json"],
    "sound": ["score/clip.v2m.wav", "score/clip.v2m.stems/*.wav"],
    "candidate": ["score/clip.v2m.seed?.wav", "score/clip.v2m.seed?.png"],
    "MIDI": ["score/clip.v2m.mid"],
    "markers": ["score/clip.v2m.otio", "edl/clip.v2m.edl"],
    "report": ["score/clip.v2m.png"],
    "evaluate": ["measures.csv", "measures.summary.csv"],
    "synthesize": ["synthetic/*.mp4", "synthetic/*.wav", "synthetic/*.mid", "synthetic/*.json"],
    "prepare": ["shards/*.tar", "shards/*.json", "shards/*.jsonl"],
    "tag": ["tags/*.json"],
    "training": ["training/checkpoints/*.ckpt"],
    "export": ["exported/*"],
    "v2m": ["v2m/*", "v2m/*/*"],
    "transformers": ["transformers/*"],
    "audiocraft": ["audiocraft/*"],
}


def read_files(folder: Path, patterns: list[str]) -> dict[str, bytes]:
    paths = [path for pattern in patterns for path in folder.glob(pattern) if path.is_file()]
    assert len(paths) >= len(patterns)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("kind", KINDS)
def test_same_command_gives_the_same_bytes(kind: str, folders: tuple[Path, Path]) -> None:
    first, later = (read_files(folder, KINDS[kind]) for folder in folders)
    assert first.keys() == later.keys()
    assert [name for name, content in first.items() if content != later[name]] == []


def test_every_file_that_a_command_writes_is_compared(folders: tuple[Path, Path]) -> None:
    """But for the settings of a training run, which name its folder, and the lock of `v2m prepare`."""
    compared = {name for patterns in KINDS.values() for name in read_files(folders[0], patterns)}
    written = {path.relative_to(folders[0]).as_posix() for path in folders[0].rglob("*") if path.is_file()}
    assert written - compared == {"training/config.yaml", "shards/.lock"}
