"""Growth of `v2m prepare` on a Ray cluster: speed, the driver's memory, and a killed worker.

    uv run --all-extras python -m bench.scale                # 10 clips
    uv run --all-extras python -m bench.scale --count 100
    uv run --all-extras python -m bench.scale --count 1000

`v2m synthesize` makes the clips, with scores and without sound; encoders are the built-in ones. They are prepared by
the local engine, by one worker of Ray, by two, and by two of which one is killed after the first video. Whole commands
are timed, the start of the cluster included.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from bench.default_recipe import ROOT, process_tree, resident_mb

BUILT_IN = (
    "--codec=v2m-score-1",
    "--vision-encoder=v2m-frame-statistics-1",
    "--text-encoder=v2m-hashed-words-1",
)
POLL_S = 0.05


class Run(NamedTuple):
    """One run of the command: wall seconds, and the largest resident memory of the driver alone, in MB."""

    seconds: float
    driver_mb: float


def prepare(clips: Path, out: Path, *options: str, kill: bool = False) -> Run:
    """Prepare `clips`; with `kill`, end one worker as soon as a video is finished."""
    command = [sys.executable, "-m", "v2m", "prepare", *BUILT_IN, "--shard-samples=20", "--quiet", *options]
    start, peak, killed = time.perf_counter(), 0.0, False
    process = subprocess.Popen([*command, str(clips), str(out)], cwd=ROOT, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, resident_mb(process.pid))
        if kill and not killed and (out / "prepared.jsonl").exists():
            killed = kill_worker(process.pid)
        time.sleep(POLL_S)
    assert process.returncode == 0, f"{command} ended with {process.returncode}"
    assert killed or not kill, "no worker was killed: give more clips"
    return Run(time.perf_counter() - start, peak)


def kill_worker(driver: int) -> bool:
    """End a process of the cluster that works on a video; return False where there is none at the moment."""
    for pid in process_tree(driver):
        with suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::_Worker.apply"):
                os.kill(pid, signal.SIGKILL)
                return True
    return False


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.suffix}


def kept(folder: Path) -> int:
    """Return the number of videos in the shards."""
    records = map(json.loads, (folder / "prepared.jsonl").read_text().splitlines())
    return sum(record["part"] is not None for record in records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=6.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        clips = folder / "clips"
        make = ["synthesize", str(clips), f"--count={args.count}", f"--seconds={args.seconds}", "--scores-only"]
        subprocess.run([sys.executable, "-m", "v2m", *make], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        runs = {
            "local": prepare(clips, folder / "local", "--processes=1"),
            "ray 1": prepare(clips, folder / "ray 1", "--engine=ray", "--processes=1"),
            "ray 2": prepare(clips, folder / "ray 2", "--engine=ray", "--processes=2"),
            "killed": prepare(clips, folder / "killed", "--engine=ray", "--processes=2", kill=True),
        }
        expected, most = digests(folder / "local"), kept(folder / "local")
        equal = all(digests(folder / name) == expected for name in runs)
        lost = most - kept(folder / "killed")
        shards = sum(path.stat().st_size for path in (folder / "local").glob("*.tar"))
        ledger = (folder / "local" / "prepared.jsonl").stat().st_size
        manifest = (folder / "local" / "dataset.json").stat().st_size
    print("| engine and workers | seconds | videos an hour | driver, MB |\n|---|---|---|---|")
    for name, run in runs.items():
        print(f"| {name} | {run.seconds:.1f} | {3600 * args.count / run.seconds:.0f} | {run.driver_mb:.0f} |")
    print(
        f"{most} of {args.count} clips kept; shards {shards / 1e6:.2f} MB, records {ledger} bytes, manifest {manifest}"
    )
    figures = {
        "clips": args.count,
        "equal_shards": equal,
        "lost_after_kill": lost,
        "driver_mb": round(max(run.driver_mb for name, run in runs.items() if name != "local"), 1),
        "videos_per_hour_1": round(3600 * args.count / runs["ray 1"].seconds, 1),
        "videos_per_hour_2": round(3600 * args.count / runs["ray 2"].seconds, 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
