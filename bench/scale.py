"""Growth of `v2m prepare` on a Ray cluster: speed, memory, a killed worker, an S3 server, bookkeeping.

    uv run --all-extras --all-groups python -m bench.scale                 # 10 clips
    uv run --all-extras --all-groups python -m bench.scale --count 100
    uv run --all-extras --all-groups python -m bench.scale --count 1000 --growth-only
    uv run --all-extras --all-groups python -m bench.scale --count 200 --s3
    uv run --all-extras --all-groups python -m bench.scale --bookkeeping 10000 100000 1000000

`v2m synthesize` makes the clips, with scores and without sound; encoders are the built-in ones. They are prepared by
the local engine, by one worker of Ray, by two, and by two of which one is killed after the first video; then once more,
which does nothing. Whole commands are timed, the start of the cluster included. With `--s3` the last two runs read from
and write to a bucket of a real S3 server on the loopback address. `--bookkeeping` measures what a dataset of so many
videos costs beside its samples: listing its files, and reading its records and its manifest, each in a process of its
own, with made records.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import fsspec
from moto.server import ThreadedMotoServer

from bench.default_recipe import ROOT, process_tree, resident_mb
from tests.fixtures.tiny.shards import KEPT
from v2m.core import remote
from v2m.data import progress_log, sources
from v2m.data.progress_log import PrepareRecord
from v2m.data.schema import Manifest, Shard
from v2m.data.writer import VideoPart

BUILT_IN = (
    "--codec=v2m-score-1",
    "--vision-encoder=v2m-frame-statistics-1",
    "--text-encoder=v2m-hashed-words-1",
)
POLL_S = 0.05
SHARD_SAMPLES = 20
BUCKET = "s3://scale"
FILES_PER_FOLDER = 1000  # of made ones
PARTS = ("listing", "records", "manifest")


class Run(NamedTuple):
    """One run of the command: wall seconds, and the largest resident memory of the driver alone, in MB."""

    seconds: float
    driver_mb: float


def prepare(clips: Path | str, out: Path | str, *options: str, kill_when: tuple[Path, str] | None = None) -> Run:
    """Prepare `clips`.

    `kill_when` is a folder and a pattern: as soon as such a file is there, one worker is killed.
    """
    command = [sys.executable, "-m", "v2m", "prepare", *BUILT_IN, f"--shard-samples={SHARD_SAMPLES}", "--quiet"]
    start, peak, killed = time.perf_counter(), 0.0, False
    process = subprocess.Popen([*command, *options, str(clips), str(out)], cwd=ROOT, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, resident_mb(process.pid))
        if kill_when is not None and not killed and any(kill_when[0].glob(kill_when[1])):
            killed = kill_worker(process.pid)
        time.sleep(POLL_S)
    assert process.returncode == 0, f"{command} ended with {process.returncode}"
    assert killed or kill_when is None, "no worker was killed: give more clips"
    return Run(time.perf_counter() - start, peak)


def kill_worker(driver: int) -> bool:
    """End a process of the cluster that works on a video; return False where there is none at the moment."""
    for pid in process_tree(driver):
        with suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::_Worker.apply"):
                os.kill(pid, signal.SIGKILL)
                return True
    return False


def digests(place: Path | str) -> dict[str, str]:
    """Return the SHA-256 of shards, manifest and settings in a folder or at an address."""
    if isinstance(place, Path):
        contents = {path.name: path.read_bytes() for path in place.iterdir() if path.suffix}
    else:
        contents = {file.name: remote.read_bytes(file.address) for file in remote.list_files(f"{place}/")}
    return {
        name: hashlib.sha256(content).hexdigest()
        for name, content in contents.items()
        if name.endswith((".tar", "dataset.json", "settings.json"))
    }


def kept(folder: Path) -> int:
    """Return the number of videos in the shards."""
    records = map(json.loads, (folder / "prepared.jsonl").read_text().splitlines())
    return sum(record["part"] is not None for record in records)


@contextmanager
def s3_server(cache: Path) -> Iterator[None]:
    """Run an S3 server on the loopback address, with a bucket.

    The variables by which it is reached are set.
    """
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it reports each request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ |= {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "V2M_CACHE": str(cache)}
    try:
        fsspec.filesystem("s3").mkdir(BUCKET.partition("://")[2])
        yield
    finally:
        server.stop()


def measure(count: int, seconds: float, *, s3: bool, growth_only: bool, folder: Path) -> dict[str, float | bool]:
    """Run all, print a table, and return the figures."""
    clips, one, two = folder / "clips", ("--engine=ray", "--processes=1"), ("--engine=ray", "--processes=2")
    make = ["synthesize", str(clips), f"--count={count}", f"--seconds={seconds}", "--scores-only"]
    subprocess.run([sys.executable, "-m", "v2m", *make], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    runs = {"ray 1": prepare(clips, folder / "ray 1", *one), "ray 2": prepare(clips, folder / "ray 2", *two)}
    figures: dict[str, float | bool] = {}
    if not growth_only:
        runs["local"] = prepare(clips, folder / "local", "--processes=1")
        with s3_server(folder / "cache") if s3 else nullcontext():
            figures |= measure_kill(clips, folder, runs, s3=s3)
    equal = all(digests(folder / name) == digests(folder / "ray 1") for name in ("ray 2", "local") if name in runs)
    sizes = {name: (folder / "ray 1" / name).stat().st_size for name in ("prepared.jsonl", "dataset.json")}
    shards = [path.stat().st_size for path in (folder / "ray 1").glob("*.tar")]
    print("| run | seconds | videos an hour | driver, MB |\n|---|---|---|---|")
    for name, run in runs.items():
        print(f"| {name} | {run.seconds:.1f} | {3600 * count / run.seconds:.0f} | {run.driver_mb:.0f} |")
    return {
        "clips": count,
        "s3": s3,
        "equal_shards": equal and bool(figures.pop("equal_after_kill", True)),
        **figures,
        "driver_mb": round(max(run.driver_mb for name, run in runs.items() if name != "local"), 1),
        "videos_per_hour_1": round(3600 * count / runs["ray 1"].seconds, 1),
        "videos_per_hour_2": round(3600 * count / runs["ray 2"].seconds, 1),
        "ledger_bytes_per_video": round(sizes["prepared.jsonl"] / count, 1),
        "manifest_bytes_per_shard": round(sizes["dataset.json"] / len(shards), 1),
        "shard_bytes_per_second": round(sum(shards) / (count * seconds), 1),
    }


def measure_kill(clips: Path, folder: Path, runs: dict[str, Run], *, s3: bool) -> dict[str, float | bool]:
    """Prepare with two workers, one of which is killed, and once more.

    Add the runs, and return the figures.
    """
    source: Path | str = clips
    out: Path | str = folder / "killed"
    records = "killed/prepared.jsonl"
    if s3:
        for path in clips.iterdir():
            remote.write_file(path, f"{BUCKET}/clips/{path.name}")
        source, out, records = f"{BUCKET}/clips", f"{BUCKET}/shards", "cache/datasets/*/prepared.jsonl"
    two = ("--engine=ray", "--processes=2")
    runs["killed"] = prepare(source, out, *two, kill_when=(folder, records))
    made = digests(out)
    if s3:
        (folder / "prepared.jsonl").write_bytes(remote.read_bytes(f"{BUCKET}/shards/prepared.jsonl"))
    lost = kept(folder / "local") - kept(folder if s3 else folder / "killed")
    runs["again"] = prepare(source, out, *two)
    equal, unchanged = made == digests(folder / "local"), digests(out) == made
    return {"equal_after_kill": equal, "lost_after_kill": lost, "unchanged_by_second_run": unchanged}


def make_bookkeeping(count: int, folder: Path) -> None:
    """Write empty videos, records and a manifest, as of a dataset of `count` videos."""
    for number in range(count):
        parent = folder / "videos" / f"{number // FILES_PER_FOLDER:06d}"
        if number % FILES_PER_FOLDER == 0:
            parent.mkdir(parents=True)
        (parent / f"{number:09d}.mp4").touch()
    with (folder / "prepared.jsonl").open("wb") as file:
        for number in range(count):
            name = f"{number // FILES_PER_FOLDER:06d}/{number:09d}.mp4"
            key = hashlib.sha256(name.encode()).hexdigest()
            state = [["video", name, 12_345_678, 1_760_000_000_000_000_000]]
            part = VideoPart(f"{number:09d}-{key[:10]}", 1, 10.0, 123_456, key)
            file.write(PrepareRecord(name, part.key, state, part).to_line())
    shards = tuple(
        Shard(f"{number:06d}-{number:010x}.tar", 12_345_678, f"{number:064x}", 100, 1000.0)
        for number in range(count // 100)
    )
    (folder / "dataset.json").write_text(json.dumps(asdict(KEPT) | {"shards": [asdict(shard) for shard in shards]}))


def bookkeeping_part(part: str, folder: Path) -> None:
    """Do one part of the bookkeeping; print its seconds and the memory that it took, in MB."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    if part == "listing":
        found: object = sources.discover_videos([folder / "videos"])
    else:
        found = progress_log.read_records(folder) if part == "records" else Manifest.read(folder)
    seconds = time.perf_counter() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert found
    print(json.dumps([round(seconds, 3), round(grown, 1)]))


def measure_bookkeeping(counts: list[int]) -> dict[str, dict[str, list[float]]]:
    """Print a table of seconds and MB, and return the figures by number of videos and part."""
    figures: dict[str, dict[str, list[float]]] = {}
    print("| videos | listing | records | manifest |\n|---|---|---|---|")
    for count in counts:
        with tempfile.TemporaryDirectory() as temporary:
            make_bookkeeping(count, Path(temporary))
            rows = {}
            for part in PARTS:
                command = [sys.executable, "-m", "bench.scale", "--part", part, temporary]
                rows[part] = json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
        print(f"| {count:,} | " + " | ".join(f"{s:.2f} s, {mb:.0f} MB" for s, mb in rows.values()) + " |")
        figures[str(count)] = rows
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--s3", action="store_true", help="the last two runs from and to a bucket")
    parser.add_argument("--growth-only", action="store_true", help="one worker and two, and nothing else")
    parser.add_argument("--bookkeeping", type=int, nargs="+", metavar="VIDEOS")
    parser.add_argument("--part", nargs=2, metavar=("PART", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        bookkeeping_part(args.part[0], Path(args.part[1]))
        return
    if args.bookkeeping:
        print(json.dumps({"seconds_and_mb": measure_bookkeeping(args.bookkeeping)}))
        return
    with tempfile.TemporaryDirectory() as temporary:
        figures = measure(args.count, args.seconds, s3=args.s3, growth_only=args.growth_only, folder=Path(temporary))
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
