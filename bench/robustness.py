"""Inputs and behaviors that went wrong once: `uv run python -m bench.robustness`.

Each case makes its input, runs the real command and judges its result with readers that v2m does not use
(`tests.robustness.media_audit`): what the input has is in the output, or a warning names it in the terminal and in the
sidecar. `drift_ms` is the largest distance of a click in the output's sound from its place on the input's clock.
`--minutes` is the length of the long clip (`bench.hour_memory`), `--only` a part of the names of cases, and
`--pytest false` leaves out the test files that stand for the page, the runs, training and official files.

Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from tests.conftest import ffmpeg
from tests.media.audio_checks import CLICK, decode_track
from tests.robustness import record_makers as records
from tests.robustness.media_audit import find_losses, silent_losses

ROOT = Path(__file__).parents[1]
TELEMETRY = (b"gpmd", b"djmd", b"rtmd", b"mebx")
TEST_FILES = (
    *("tests/webapp/test_jobs.py", "tests/e2e/test_batch.py", "tests/data/test_prepare_sound.py"),
    *("tests/robustness/test_train.py", "tests/robustness/test_checkpoints.py", "tests/mappings"),
    *("tests/checkpoints/test_audiocraft_training.py", "tests/parity/test_magnet.py", "tests/parity/test_multiband.py"),
    *("tests/parity/test_musicgen_style.py", "tests/pretrained/test_reference_frames.py"),
)
DRIFT_S, CLICK_S = 40, 1.0  # of the drifting clips, and between clicks


@dataclass(frozen=True)
class Result:
    """One case; `silent` counts losses without a warning."""

    name: str
    expected: str
    seen: str
    right: bool
    silent: int = 0
    drift_ms: float = 0.0
    count: int = 1  # of cases


@dataclass(frozen=True)
class Run:
    """A run of infer.py."""

    code: int
    stderr: str
    out: Path

    @property
    def warnings(self) -> list[str]:
        return json.loads(self.out.with_suffix(".json").read_text())["warnings"]

    @property
    def last_line(self) -> str:
        return self.stderr.strip().rpartition("\n")[2]


def infer(source: Path, out: Path, *words: str, before: Callable[[], object] | None = None) -> Run:
    """Run infer.py; the clip's own sound is kept."""
    command = [sys.executable, "infer.py", str(source), "-o", str(out), "--mix.original", "keep", "--overwrite", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, preexec_fn=before)
    return Run(done.returncode, done.stderr.decode("utf-8", "replace"), out)


def copy_case(name: str, source: Path, suffix: str, named: str = "") -> Result:
    """Judge a copy: nothing is lost, or only what warnings name with the word `named`."""
    run = infer(source, source.with_name(f"{source.stem}_out{suffix}"))
    if run.code != 0:
        return Result(f"{name} → {suffix}", "written", run.last_line, False)
    losses = find_losses(source, run.out)
    silent = silent_losses(losses, run.stderr, "\n".join(run.warnings))
    wanted = any(named in warning for warning in run.warnings) if named else not losses
    seen = "; ".join(run.warnings) or "kept"
    seen += "".join(f"; silent: {loss.place} {loss.name}" for loss in silent)
    return Result(
        f"{name} → {suffix}", f"named: {named}" if named else "kept", seen, wanted and not silent, len(silent)
    )


def copies(folder: Path) -> Iterator[Result]:
    """Records, tracks and tags, in every container."""
    sources: list[tuple[str, Path, dict[str, str]]] = []
    mov = {".mp4": "", ".mov": ""}
    for suffix in (".mp4", ".mov"):
        clip = records.write_clip(folder / f"spherical{suffix}")
        sources.append((f"360° {suffix}", records.add_boxes(clip, b"avc1", records.SPHERICAL), {**mov, ".mkv": ""}))
        clip = records.write_clip(folder / f"dolby{suffix}", "-tag:v", "hvc1", codec=records.HEVC)
        sources.append((f"Dolby Vision {suffix}", records.add_boxes(clip, b"hvc1", records.DOLBY), {**mov, ".mkv": ""}))
    for tag in TELEMETRY:
        clip = records.write_telemetry(folder / f"{tag.decode()}.mp4", tag)
        sources.append((f"data {tag.decode()}", clip, {**mov, ".mkv": "data_left_out"}))
    for number, (name, placed) in enumerate(records.PLACED.items()):
        clip = records.add_at(records.write_clip(folder / f"placed{number}.mp4"), *placed)
        sources.append((name, clip, {**mov, ".mkv": "records_lost"}))
    reel = records.write_clip(folder / "reel.mov", "-timecode", "10:11:12:13", "-metadata:s:v", "reel_name=REEL7")
    sources.append(("reel name", reel, {**mov, ".mkv": "reel name"}))
    (folder / "apac").mkdir()
    apac = records.write_unknown_track(folder / "apac", 1)
    sources.append(("APAC second", apac, {".mov": "", ".mp4": "tracks_left_out", ".mkv": "tracks_left_out"}))
    cover = records.write_cover(folder / "cover.mp4")
    sources.append(("cover", cover, {".mp4": "", ".mkv": "", ".mov": ""}))
    tags = ("-metadata", "title=T", "-metadata:s:v", "title=Cam", "-metadata:s:a", "language=deu")
    sources.append(("titles, languages", records.write_clip(folder / "titles.mkv", *tags), {**mov, ".mkv": ""}))
    records.write_pictures_of_text(folder / "p.sup")
    inputs = (*records.PICTURE, *records.SOUND, "-i", folder / "p.sup", "-map", "0", "-map", "1", "-map", "2")
    ffmpeg(*inputs, *records.H264, "-c:s", "copy", folder / "pgs.mkv")
    targets = {".mkv": "", ".mp4": "subtitles_left_out", ".mov": "subtitles_left_out"}
    sources.append(("PGS subtitles", folder / "pgs.mkv", targets))
    for name, source, targets in sources:
        for suffix, named in targets.items():
            yield copy_case(name, source, suffix, named)


def hevc(folder: Path) -> Iterator[Result]:
    source = records.write_clip(folder / "hevc.mkv", codec=records.HEVC)
    for suffix in (".mp4", ".mov"):
        run = infer(source, folder / f"hevc_out{suffix}")
        with av.open(str(run.out)) as media:
            code = media.streams.video[0].codec_context.codec_tag
        yield Result(f"HEVC of Matroska → {suffix}", "hvc1", code, code == "hvc1")


def default_track(folder: Path) -> Iterator[Result]:
    """The second of two audio tracks is the default one: 880 Hz after 220 Hz."""
    sounds = [word for pitch in (220, 880) for word in ("-f", "lavfi", "-i", f"sine={pitch}:d=1:sample_rate=48000")]
    flags = ("-disposition:a:0", "0", "-disposition:a:1", "default")
    maps = ("-map", "0", "-map", "1", "-map", "2")
    ffmpeg(*records.PICTURE, *sounds, *maps, *records.H264, *flags, folder / "two.mkv")
    for words, wanted in (((), 880), (("--mix.track", "1"), 220), (("--mix.track", "2"), 880)):
        run = infer(folder / "two.mkv", folder / "two_out.mkv", "--mix.music_gain", "-60", *words)
        samples, _ = decode_track(run.out)
        pitch = float(np.argmax(np.abs(np.fft.rfft(samples[:48_000]))) * 48_000 / len(samples[:48_000]))
        yield Result(f"default track {shlex.join(words)}", f"{wanted} Hz", f"{pitch:.0f} Hz", abs(pitch - wanted) < 20)


def drift(folder: Path) -> Iterator[Result]:
    """Clicks once a second under a clock that is 0.1 % off; Matroska and MP4, slow and fast."""
    sound = np.zeros(DRIFT_S * 48_000, np.float32)
    for second in np.arange(CLICK_S, DRIFT_S - 1, CLICK_S):
        middle = round(second * 48_000)
        sound[middle - 240 : middle + 240] += CLICK
    (folder / "clicks.raw").write_bytes(sound.tobytes())
    picture = ("-f", "lavfi", "-i", f"testsrc2=s=64x48:r=25:d={DRIFT_S}")
    inputs = (*picture, "-f", "f32le", "-ar", "48000", "-ac", "1", "-i", folder / "clicks.raw")
    for suffix in (".mkv", ".mp4"):
        for factor in (0.999, 1.001):
            source = folder / f"drift{factor}{suffix}"
            clock = ("-bsf:a", f"setts=pts=PTS*{factor}:dts=DTS*{factor}")
            ffmpeg(*inputs, *records.H264[:6], "-c:a", "aac", "-b:a", "192k", *clock, source)
            run = infer(source, folder / f"drift{factor}_out{suffix}", "--mix.music_gain", "-60")
            errors = list(_click_errors(source, run.out))
            worst = max(errors, default=float("inf")) * 1000
            right = run.code == 0 and len(errors) > DRIFT_S - 5 and worst < 5
            yield Result(f"clock × {factor} {suffix}", "< 5 ms", f"{worst:.2f} ms", right, drift_ms=worst)


def _click_errors(source: Path, out: Path) -> Iterator[float]:
    """Yield the distance of each click from its place by the packet times of `source`, in seconds."""
    samples, start = decode_track(out)
    with av.open(str(source)) as media:
        zero = next(frame.time or 0.0 for frame in media.decode(media.streams.video[0]))
    with av.open(str(source)) as media:
        packets = [(frame.time or 0.0, frame.to_ndarray()[0]) for frame in media.decode(media.streams.audio[0])]
    joined = np.concatenate([data for _, data in packets])
    begins = np.cumsum([0, *(len(data) for _, data in packets)])
    shape = CLICK.astype(np.float32)
    for middle in _click_places(joined, shape):
        number = int(np.searchsorted(begins, middle, "right")) - 1
        expected = packets[number][0] + (middle - begins[number]) / 48_000 - zero
        low = round((expected - start - 0.1) * 48_000)
        part = samples[max(low, 0) : low + 9600]
        if low > 0 and len(part) == 9600:
            yield abs((low + int(np.argmax(np.correlate(part, shape, "valid"))) + 240) / 48_000 + start - expected)


def _click_places(samples: np.ndarray, shape: np.ndarray) -> Iterator[int]:
    for second in np.arange(CLICK_S, len(samples) / 48_000 - 1, CLICK_S):
        low = round((second - 0.3) * 48_000)
        yield low + int(np.argmax(np.correlate(samples[low : low + 28_800], shape, "valid"))) + 240


def refusals(folder: Path) -> Iterator[Result]:
    """Outputs that cannot hold the pictures: refused before the work, with a suffix that works."""
    for name, codec, suffix in (("prores.mov", records.PRORES, ".mp4"), ("h264.mp4", records.H264, ".webm")):
        source = records.write_clip(folder / name, codec=codec)
        run = infer(source, folder / f"refused{suffix}")
        hint = re.search(r"give a (\.\w+) output", run.stderr)
        again = infer(source, folder / f"cure{hint[1]}").code if hint else -1
        right = (run.code, again) == (2, 0) and "Writing the music" not in run.stderr
        yield Result(f"{name} → {suffix}", "exit 2, hint works", f"exit {run.code}, then {again}", right)


def names(folder: Path) -> Iterator[Result]:
    base = records.write_clip(folder / "base.mp4").read_bytes()
    for length, words in ((251, ()), (250, ("--stems",)), (250, ("--candidates", "2")), (240, ("--stems", "--wav"))):
        place = folder / f"names{length}{len(words)}{''.join(words)[:8]}"
        place.mkdir()
        source = place / ("a" * (length - 4) + ".mp4")
        source.write_bytes(base)
        run = subprocess.run(
            [sys.executable, "infer.py", str(source), *words], cwd=ROOT, capture_output=True, check=False
        )
        code, left, wanted = run.returncode, len(list(place.iterdir())), 2 if length > 240 else 0
        right = code == wanted and (left == 1 or wanted == 0) and (wanted == 0 or b"give a shorter --out" in run.stderr)
        yield Result(f"name of {length} bytes {shlex.join(words)}", f"exit {wanted}", f"exit {code}", right)
    source = folder / os.fsdecode(b"inv\xff\xfe.mp4")
    source.write_bytes(base)
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "infer.py", source, "--markers", "--wav"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
    files = len([path for path in folder.iterdir() if path.name.startswith("inv")])
    yield Result("undecodable name, LC_ALL=C", "5 files", f"exit {done.returncode}, {files} files", files == 5)


def moving_stills(folder: Path) -> Iterator[Result]:
    """Animations keep their length; one picture under sound lasts as long as the sound."""
    picture = "-f lavfi -i testsrc2=s=96x64:r=10:d=2"
    makers = {
        "anim.webp": f"{picture} -c:v libwebp_anim", "anim.avif": f"{picture} -c:v libaom-av1 -cpu-used 8 -f avif",
        "anim.png": f"{picture} -f apng", "anim.gif": picture,
        "slide.mp4": "-f lavfi -i color=red:s=64x48:r=25:d=0.04 -f lavfi -i sine=d=20 -pix_fmt yuv420p",
    }  # fmt: skip
    for name, words in makers.items():
        ffmpeg(*words.split(), folder / name)
        run = infer(folder / name, folder / f"{name}.v2m.mp4")
        wanted, length = 20.0 if name == "slide.mp4" else 2.0, -1.0
        if run.code == 0:
            with av.open(str(run.out)) as media:
                length = (media.duration or 0) / 1e6
        seen = f"{length:.1f} s" if run.code == 0 else run.last_line
        yield Result(name, f"{wanted:g} s", seen, abs(length - wanted) < 0.15)


def typed_times(folder: Path) -> Iterator[Result]:
    long = records.write_clip(folder / "time.mp4")
    ffmpeg("-stream_loop", "69", "-i", long, "-c", "copy", folder / "minute.mp4")
    for start, end, wanted in (("0:03", "1:02.5", 59.5), ("00:00:03", "00:00:10", 7.0)):
        run = infer(folder / "minute.mp4", folder / "minute_out.mp4", "--start", start, "--end", end)
        found = re.search(r"music\b", run.stderr) is not None or run.code == 0
        record = (
            json.loads(run.out.with_suffix(".json").read_text())["range"] if run.code == 0 else {"start": 0, "end": 0}
        )
        length = record["end"] - record["start"]
        yield Result(f"times {start} {end}", f"{wanted} s", f"{length:.1f} s", found and abs(length - wanted) < 0.05)
    code = infer(folder / "minute.mp4", folder / "limit.mp4", "--limits.duration", "0:30").code
    yield Result("--limits.duration 0:30", "exit 3", f"exit {code}", code == 3)


def ends(folder: Path) -> Iterator[Result]:
    """Signals and quotas: the documented exit code, and nothing left behind."""
    place = folder / "ends"
    place.mkdir()
    source = records.write_clip(place / "in.mp4")
    for number in (signal.SIGINT, signal.SIGTERM):
        command = [sys.executable, "infer.py", str(source), "--candidates", "200"]
        process = subprocess.Popen(
            command, cwd=ROOT, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
        )  # fmt: skip
        assert process.stderr is not None
        process.stderr.readline()
        time.sleep(0.5)
        process.send_signal(number)
        stderr = process.communicate()[1]
        right = process.returncode == 128 + number and len(list(place.iterdir())) == 1 and "Traceback" not in stderr
        yield Result(number.name, f"exit {128 + number}", f"exit {process.returncode}", right)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    run = infer(source, place / "out.mp4", before=limit)
    right = run.code == 6 and "File too large" in run.stderr and len(list(place.iterdir())) == 1
    yield Result("ulimit -f", "exit 6, the reason", f"exit {run.code}: {run.last_line}", right)


def same_bytes(folder: Path) -> Iterator[Result]:
    source = records.write_clip(folder / "same.mp4")
    for suffix in (".mp4", ".mov", ".mkv", ".ts"):
        contents = []
        for number in range(2):
            (folder / f"same{number}{suffix}").mkdir()
            run = infer(
                source, folder / f"same{number}{suffix}" / f"out{suffix}", "--wav", "--midi", "--markers", "--stems"
            )
            files = sorted(path for path in run.out.parent.rglob("*") if path.is_file() and path.suffix != ".json")
            contents.append({path.name: path.read_bytes() for path in files})
        differ = [name for name in contents[0] if contents[0][name] != contents[1].get(name)]
        yield Result(f"same command, {suffix}", "same bytes", f"differ: {', '.join(differ) or 'none'}", not differ)


def two_runs(folder: Path) -> Iterator[Result]:
    place = folder / "shared"
    place.mkdir()
    data = records.write_clip(folder / "twin.mp4").read_bytes()
    for name in ("IMG_0001.MOV", "IMG_0001.MP4", "b.mp4"):
        (place / name).write_bytes(data)
    command = [sys.executable, "infer.py", str(place), "--quiet"]
    runs = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
    codes = [run.wait() for run in runs]
    made = sorted(path.name for path in place.iterdir() if ".v2m" in path.name and path.suffix != ".json")
    right = codes == [0, 0] and made == ["IMG_0001.MOV.v2m.MOV", "IMG_0001.MP4.v2m.MP4", "b.v2m.mp4"]
    yield Result("two runs on a folder with twins", "exit 0, 3 videos", f"exit {codes}, {len(made)} videos", right)


def run_tests() -> Iterator[Result]:
    """The page, runs, training and official files, by their tests; each test is a case."""
    for name in TEST_FILES:
        command = [sys.executable, "-m", "pytest", "-n0", "-q", "--tb=no", "-p", "no:cacheprovider", name]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        marks = "".join(
            line.partition("[")[0] for line in done.stdout.splitlines() if re.fullmatch(r"[.FEsx]+ *\[.*", line)
        )
        passed, failed = marks.count("."), marks.count("F") + marks.count("E")
        if passed:
            yield Result(name, "pass", f"{passed} pass", True, count=passed)
        if failed or not passed:
            yield Result(name, "pass", f"{failed} fail", False, count=max(failed, 1))


GROUPS = (
    *(copies, hevc, default_track, drift, refusals, names, moving_stills, typed_times, ends, same_bytes, two_runs),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--pytest", choices=["true", "false"], default="true")
    args = parser.parse_args()
    results: list[Result] = []
    for group in GROUPS:
        if args.only in group.__name__:
            with tempfile.TemporaryDirectory() as name:
                for result in group(Path(name)):
                    _show(result)
                    results.append(result)
    for result in run_tests() if args.pytest == "true" else ():
        _show(result)
        results.append(result)
    figures = {
        "cases": sum(result.count for result in results),
        "right": sum(result.count for result in results if result.right),
        "drift_ms": round(max((result.drift_ms for result in results), default=0.0), 2),
        "silent_losses": sum(result.silent for result in results),
        "hour_all_extras_mb": None,
        "minutes": args.minutes,
    }
    if args.minutes > 0:
        command = [sys.executable, "-m", "bench.hour_memory", "--minutes", str(args.minutes)]
        output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
        figures["hour_all_extras_mb"] = json.loads(output.strip().rpartition("\n")[2])["hour_all_extras_mb"]
    print(json.dumps(figures))


def _show(result: Result) -> None:
    mark = "right" if result.right else "WRONG"
    print(f"{mark} | {result.name} | {result.expected} | {result.seen[:160]}", flush=True)


if __name__ == "__main__":
    main()
