"""Size and speed of a fresh install: `python -m bench.install`, with git and a supported Python.

A copy of HEAD in a temporary folder, empty caches of uv and pip, and the README's first command, `pip install uv`
included. Sizes are sums of file sizes in MB after that command, and after everything was installed, which
`--skip-all` leaves out. Needs the package index. Writes bench/results/install.json; last line: one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "bench" / "results" / "install.json"
SCRIPTS = "Scripts" if sys.platform == "win32" else "bin"
IMPORT = "import time; t = time.perf_counter(); import v2m; print(time.perf_counter() - t)"


def processor() -> str:
    """Return the name of the processor, as the system reports it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def megabytes(folder: Path) -> float:
    """Return the sum of the sizes of all files below a folder, in MB."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir()) / 1e6


def run_seconds(command: list[str | Path], folder: Path, environment: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run([str(word) for word in command], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def checkout(folder: Path) -> None:
    """Write the files of HEAD."""
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")


def measure(folder: Path, everything: bool, runs: int) -> dict[str, float | int | None]:
    ignored = {"VIRTUAL_ENV", "PYTHONPATH", "UV_PROJECT_ENVIRONMENT", "UV_CACHE_DIR", "PIP_CACHE_DIR"}
    environment = {name: value for name, value in os.environ.items() if name not in ignored}
    environment |= {"UV_CACHE_DIR": str(folder / "uv-cache"), "PIP_CACHE_DIR": str(folder / "pip-cache")}
    clone, bare = folder / "clone", folder / "bare"
    clone.mkdir()
    checkout(clone)
    venv.create(bare, with_pip=True)
    uv, own = bare / SCRIPTS / "uv", clone / ".venv" / SCRIPTS
    first = run_seconds([bare / SCRIPTS / "pip", "install", "uv"], clone, environment)
    first += run_seconds([uv, "run", "infer.py", "data/examples/bunny_wakes.mp4"], clone, environment)
    base, packages = megabytes(clone / ".venv"), len(list((clone / ".venv").rglob("*.dist-info/RECORD")))
    usage = [run_seconds([own / "v2m", "--help"], clone, environment) for _ in range(runs)]
    command = [str(own / "python"), "-c", IMPORT]
    imports = [
        float(subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout)
        for _ in range(runs)
    ]
    if everything:
        run_seconds([uv, "sync", "--all-extras", "--all-groups"], clone, environment)
    return {
        "base_mb": round(base, 1),
        "base_first_command_s": round(first, 1),
        "all_mb": round(megabytes(clone / ".venv"), 1) if everything else None,
        "help_s": round(min(usage), 3),
        "import_s": round(min(imports), 4),
        "base_packages": packages - 1,  # the synthesizer's lies inside v2m's
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--skip-all", action="store_true", help="do not install everything, which takes 7 GB twice")
    parser.add_argument("--runs", type=int, default=3, help="runs of the short commands; the fastest counts")
    args = parser.parse_args()
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None  # processes at work beside it
    with tempfile.TemporaryDirectory() as name:
        figures = measure(Path(name), not args.skip_all, args.runs)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    record = {
        "command": " ".join(["python -m bench.install", *sys.argv[1:]]),
        "commit": commit.stdout.strip(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "load": load,
        },
        **figures,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for figure, value in figures.items():
        print(f"{figure:<22} {value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
