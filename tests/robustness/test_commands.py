"""What people get wrong at the command line: one clear line, the right exit code, nothing left behind."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import ffmpeg, names
from v2m.cli.score import main, parse

ROOT = Path(__file__).parents[2]


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str]:
    code = main([str(word) for word in words])
    return code, capsys.readouterr().err


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that a flag may name."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (folder / "other.yaml").write_text("recipe: other")
    (folder / "empty.yaml").write_text(" \n\n")
    return folder


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--recipe", "nope"], "'nope': give one of acestep, learned, magnet, musicgen, sketch, sonique"),
        (["--recipe", "gone.yaml"], "unknown recipe 'gone.yaml'"),
        (["--recipe"], "--recipe"),
        (["--tags.tmpo", "90"], "unknown option --tags.tmpo: did you mean --tags.tempo"),
        (["--tags.tempo", "0"], "tempo 0 is outside 30 to 300"),
        (["--tags.tempo", "10000"], "tempo 10000 is outside 30 to 300"),
        (["--tags.tempo", "fast"], "fast"),
        (["--tags.key", "H"], "key 'H' is not a tonic and mode"),
        (["--start", "3", "--end", "2"], "end 2 s must lie after start 3 s"),
        (["--start", "3.9999999"], "is shorter than 0.01 s"),
        (["--config", "binary.yaml"], "not UTF-8 text"),
        (["--recipe", "binary.yaml"], "not UTF-8 text"),
        (["--config", "other.yaml"], "recipe 'other' in a configuration has no effect: give --recipe other"),
        (["--start", "99"], "start 99 s lies outside the video"),
        (["--start", "-1"], "start -1 s lies before the video"),
        (["--candidates", "0"], "candidates must be 1 or more"),
        (["--align-to-cuts", "perhaps"], "perhaps"),
        (["--mix.original", "drop"], "drop"),
        (["--mix.lufs", "3"], "lufs"),
        (["--markers", "xml"], "xml"),
        (["--generator", "v2m.taggers.heuristic.HeuristicTagger"], "does not implement protocol MusicGenerator"),
        (["--generator", "no.such.Class"], "no.such.Class"),
        (["--reference", "gone.wav"], "reference 'gone.wav': no such file"),
        (["--reference", "other.yaml"], "the generator Sketch cannot do --reference"),
        (["--reference", "other.yaml"] * 3, "takes one sound file, or two"),
        (["--low-memory"], "recipe 'sketch' has nothing to lower"),
        (["--lyrics", "gone.txt"], "'gone.txt': No such file"),
        (["--lyrics", "binary.yaml"], "not UTF-8 text"),
        (["--lyrics", "empty.yaml"], "empty.yaml' holds no words"),
        (["--lyrics", "other.yaml", "--tags.lyrics", "la"], "not both"),
        (["--seed", "one"], "one"),
        (["--seed", "-1"], "seed"),
        (["-o", "no/such/folder/out.mp4"], "no/such/folder"),
        (["-o", "out.xyz"], "out.xyz"),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, list) else None,
)
def test_wrong_flag_is_one_line_with_exit_code_2(
    clip: Path, given: Path, capsys: pytest.CaptureFixture[str], flags: list[str], words: str
) -> None:
    flags = [str(given / flag) if flag.endswith(("y.yaml", "r.yaml")) else flag for flag in flags]
    code, err = run(capsys, clip, *flags)
    said = [line for line in err.splitlines() if "100% |" not in line]
    assert (code, len(said)) == (2, 1), err
    assert words in said[0]
    assert names(clip.parent) == ["cuts.mp4"]


def test_missing_video_argument_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    code, err = run(capsys)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "videos" in err


def test_missing_files_and_folders_without_videos_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, expected in ((tmp_path / "gone.mp4", 2), (tmp_path, 3)):
        code, err = run(capsys, path)
        assert (code, len(err.splitlines())) == (expected, 1), err
        assert path.name in err


@pytest.mark.parametrize("kind", ["itself", "symlink", "hard link"])
def test_output_equal_to_the_input_is_refused(clip: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    before = hashlib.sha256(clip.read_bytes()).hexdigest()
    out = clip if kind == "itself" else clip.with_name("other.mp4")
    if kind == "symlink":
        out.symlink_to(clip)
    elif kind == "hard link":
        out.hardlink_to(clip)
    code, err = run(capsys, clip, "-o", out, "--overwrite")
    assert (code, len(err.splitlines())) == (2, 1), err
    assert hashlib.sha256(clip.read_bytes()).hexdigest() == before


def test_existing_output_is_kept(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = clip.with_name("cuts.v2m.mp4")
    out.write_bytes(b"mine")
    code, err = run(capsys, clip)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "--overwrite" in err
    assert out.read_bytes() == b"mine"


@pytest.mark.parametrize(
    "name", ["-y.mp4", "two words.mp4", "qu'ote\".mp4", "new\nline.mp4", "음악🎵.mp4", "$(touch x).mp4"]
)
def test_odd_file_names_are_scored(clip: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    clip.rename(clip.with_name(name))
    monkeypatch.chdir(clip.parent)
    assert main([name]) == 0
    stem = name.removesuffix(".mp4")
    assert names(Path()) == sorted([name, f"{stem}.v2m.mp4", f"{stem}.v2m.json"])


def start(clip: Path, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "v2m", str(clip), *flags]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # where the tests run in the background it is ignored
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heard,  # noqa: PLW1509 - there are none
    )


@pytest.mark.parametrize(
    ("length", "flags", "name"),
    [(251, [], ".json"), (250, ["--stems"], ".stems"), (250, ["--candidates", "2"], ".seed0.wav")],
)
def test_too_long_name_of_any_output_is_refused_before_work(
    clip: Path, capsys: pytest.CaptureFixture[str], length: int, flags: list[str], name: str
) -> None:
    """The default name of the output adds four bytes to the video's."""
    video = clip.rename(clip.with_name("a" * (length - 4) + ".mp4"))
    code, err = run(capsys, video, *flags)
    assert code == 2
    assert f"…{name[name.rfind('.') :]} would have" in err
    assert "give a shorter --out" in err
    assert names(clip.parent) == [video.name]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse names that are no text")
@pytest.mark.parametrize("kind", ["edl", "otio"])
def test_undecodable_name_under_an_ascii_locale_gets_all_outputs(clip: Path, kind: str) -> None:
    video = clip.rename(os.fsdecode(os.fsencode(clip.parent) + b"/inv\xff.mp4"))
    words = ["--midi", "--wav", "--report", "--markers", kind]
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "infer.py", video, *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    written = {path.suffix for path in clip.parent.iterdir() if path != video}
    assert written == {".mp4", ".json", ".mid", ".wav", ".png", f".{kind}"}
    assert r"inv\udcff" in video.with_name(f"{video.stem}.v2m.{kind}").read_text(encoding="utf-8").replace("\\\\", "\\")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_during_work_leaves_no_files_and_a_message(media: Path, tmp_path: Path, number: int, code: int) -> None:
    clip = tmp_path / "long.mp4"
    ffmpeg("-stream_loop", "20", "-i", media / "cuts.mp4", "-c", "copy", clip)
    process = start(clip, "--candidates", "50")
    assert process.stderr is not None
    assert "Analyzing the picture" in process.stderr.readline()
    time.sleep(0.5)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code
    assert "no unfinished file is left behind" in err
    assert "Traceback" not in err
    assert names(tmp_path) == ["long.mp4"]


@pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="a tiny file system needs root to mount")
def test_full_disk_is_exit_code_6_and_leaves_no_files(clip: Path, tmp_path: Path) -> None:
    tiny = tmp_path / "tiny"
    tiny.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", tiny], capture_output=True, check=False
    ).returncode:
        pytest.skip("this machine does not allow mounting")
    try:
        process = start(clip, "-o", str(tiny / "out.mp4"))
        _, err = process.communicate(timeout=120)
        assert process.returncode == 6, err
        assert "Traceback" not in err
        assert names(tiny) == []
    finally:
        subprocess.run(["umount", tiny], check=True)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_file_size_limit_of_a_shell_is_exit_code_6_and_leaves_no_files(clip: Path) -> None:
    """Python ignores the signal of the limit; ffmpeg ends by it."""
    line = f"ulimit -f 20; exec {sys.executable} infer.py {clip} -o {clip.parent / 'out.mp4'}"
    done = subprocess.run(["sh", "-c", line], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 6, done.stderr
    assert "File too large" in done.stderr
    assert names(clip.parent) == [clip.name]


def test_unwritable_folder_is_exit_code_6_or_2(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, err = run(capsys, clip, "-o", "/proc/out.mp4")
    assert code in {2, 6}
    assert len([line for line in err.splitlines() if "100% |" not in line]) == 1


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs another's files, and no rights")
@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["shut/cuts.mp4"], 3, "may not be read"),
        (["shut"], 3, "may not be read"),
        (["ours/cuts.mp4", "-o", "shut/x.mp4"], 6, "cannot be written"),
        (["ours/cuts.mp4", "-o", "shown/x.mp4"], 6, "cannot be written"),
        (["shown/cuts.mp4"], 6, "cannot be written"),
    ],
)
def test_missing_permissions_are_reported(clip: Path, words: list[str], code: int, said: str) -> None:
    for name, mode in (("shut", 0o700), ("shown", 0o755), ("ours", 0o755)):
        folder = clip.with_name(name)
        folder.mkdir(mode)
        shutil.copy(clip, folder)
        if name != "ours":
            os.chown(folder, 65534, 65534)
    command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", sys.executable, str(ROOT / "infer.py")]
    done = subprocess.run([*command, *words], cwd=clip.parent, capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), done.stderr
    assert said in done.stderr
    assert {str(path.relative_to(clip.parent)) for path in clip.parent.glob("*/*")} == {
        "ours/cuts.mp4", "shown/cuts.mp4", "shut/cuts.mp4",
    }  # fmt: skip


@pytest.mark.parametrize("program", ["/nowhere/ffmpeg", "true", "false"])
def test_missing_ffmpeg_is_exit_code_4(
    clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], program: str
) -> None:
    monkeypatch.setenv("V2M_FFMPEG", program)
    code, err = run(capsys, clip)
    assert code == 4
    assert "V2M_FFMPEG" in err
    assert names(clip.parent) == ["cuts.mp4"]


def in_a_shell(clip: Path, line: str) -> subprocess.CompletedProcess[str]:
    """`line` run beside `clip`, with `v2m` for the command."""
    line = line.replace("v2m", f"{sys.executable} {ROOT / 'infer.py'}", 1)
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], cwd=clip.parent, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("line", "code", "written"),
    [
        ("v2m cuts.mp4 --quiet >&-", 0, True),
        ("v2m cuts.mp4 2>&-", 0, True),
        ("v2m cuts.mp4 <&- >&- 2>&-", 0, True),
        ("v2m gone.mp4 2>&-", 2, False),
        ("v2m cuts.mp4 --quiet | head -c 0", 141, True),
        ("v2m cuts.mp4 2>&1 >/dev/null | head -c 0", 141, False),
    ],
)
def test_closed_standard_streams_do_not_matter(clip: Path, line: str, code: int, written: bool) -> None:
    done = in_a_shell(clip, line)
    assert (done.returncode, done.stderr) == (code, "")
    assert names(clip.parent) == (["cuts.mp4", "cuts.v2m.json", "cuts.v2m.mp4"] if written else ["cuts.mp4"])


def test_deleted_working_directory_is_reported(clip: Path) -> None:
    done = in_a_shell(clip, f"mkdir gone; cd gone; rmdir ../gone; v2m {clip}")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "current folder has been deleted" in done.stderr


@pytest.mark.parametrize("module", ["infer", "v2m"])
def test_ctrl_c_during_startup_prints_no_traceback(module: str) -> None:
    entry = {"infer": "v2m.cli.score", "v2m": "v2m.cli.main"}[module]
    code = f"import runpy, sys; sys.modules['{entry}'] = type('Stop', (), {{'__getattr__': stop}})()"
    code = f"def stop(*_): raise KeyboardInterrupt\n{code}; runpy.run_module('{module}', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "")


def test_insufficient_memory_is_exit_code_5(clip: Path) -> None:
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (260 << 20, 260 << 20)); "
    limited += "from v2m.cli.score import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", limited, str(clip)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode in {3, 5}, done.stderr
    assert "Traceback" not in done.stderr
    assert names(clip.parent) == ["cuts.mp4"]


@pytest.mark.parametrize(
    ("flags", "times"),
    [
        (["--start", "0:03", "--end", "1:02.5"], (3.0, 62.5)),
        (["--start=00:00:03"], (3.0, None)),
        (["--config", "times.yaml"], (1.5, 90.0)),
    ],
)
def test_times_are_read_as_people_type_them(
    flags: list[str], times: tuple[float, float | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("times.yaml").write_text("start: 0:01.5\nend: 1:30\n", encoding="utf-8")
    recipe = parse(["clip.mp4", *flags]).recipe
    assert (recipe.start, recipe.end) == times
    assert (recipe.settings["start"], recipe.settings["end"]) == times


def test_minutes_are_read_wherever_an_option_is_in_seconds() -> None:
    assert parse(["clip.mp4", "--limits.duration", "2:00"]).recipe.limits.duration == 120.0
    inpaint = parse(["clip.mp4", "--inpaint", "0:08-1:12.5"]).controls.inpaint
    assert inpaint is not None
    assert (inpaint.start, inpaint.end) == (8.0, 72.5)
