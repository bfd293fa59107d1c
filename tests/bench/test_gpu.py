"""All GPU measurements in one run, at tiny size on the CPU: figures are kept as they are made, whatever is cut off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked for in /proc")

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "bench.gpu", "--device", "cpu", "--small", "--without-compile"]
TIMES = 10**9 + os.getpid()  # without an end; the figures before them are made within seconds
ENDLESS = f"device=--times {TIMES}"


def start(results: Path, *options: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*COMMAND, "--results", str(results), *options]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def figures_of(results: Path, part: str) -> dict[str, Any]:
    try:
        return json.loads(results.read_text())["parts"][part]["figures"]
    except (FileNotFoundError, KeyError):
        return {}


def wait_for(results: Path, part: str, figure: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while figure not in figures_of(results, part):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, f"no {figure} of {part}"
        time.sleep(0.1)


def endless_parts() -> list[int]:
    """Process ids of parts with `ENDLESS`."""
    found = list[int]()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            words = path.read_bytes().split(b"\0")
            if b"bench.gpu_device" in words and str(TIMES).encode() in words:
                found.append(int(path.parent.name))
    return found


@pytest.fixture(autouse=True)
def _end_parts() -> Iterator[None]:
    yield
    for pid in endless_parts():
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_its_figures(tmp_path: Path, number: int) -> None:
    results = tmp_path / "gpu.json"
    process = start(results, "--parts", "device", "--options", ENDLESS)
    wait_for(results, "device", "bf16_tflops", process)
    assert endless_parts()
    process.send_signal(number)
    process.communicate(timeout=60)
    assert bool(endless_parts()) == (number == signal.SIGKILL)  # after which nobody is left to end it
    assert figures_of(results, "device")["bandwidth_gb_s"] > 0
    assert "| device | a product of bfloat16 matrices" in results.with_suffix(".md").read_text()


def test_a_part_names_its_missing_packages(tmp_path: Path) -> None:
    """Isolated from the packages of this environment, as on a machine that holds none."""
    results = tmp_path / "gpu.json"
    command = [sys.executable, "-S", *COMMAND[1:], "--results", str(results), "--parts", "device", "train"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    parts = json.loads(done.stdout.splitlines()[-1])["parts"]
    assert parts["device"]["state"] == "not run, packages are missing: torch, numpy"
    assert "webdataset" in parts["train"]["state"]


@pytest.mark.slow
def test_every_part_gives_its_figures_and_one_is_cut_off(tmp_path: Path) -> None:
    results = tmp_path / "gpu.json"
    limits = [f"{name}=900" for name in ("lm", "train", "yue", "diffusion", "online")]
    process = start(results, "--options", ENDLESS, "--limits", "device=60", *limits, "--total", "3600")
    stdout, stderr = process.communicate(timeout=3600)
    assert process.returncode == 0, stderr
    parts = json.loads(stdout.splitlines()[-1])["parts"]
    assert json.loads(results.read_text())["parts"] == parts
    table = results.with_suffix(".md").read_text()
    assert table == "".join(line for line in stdout.splitlines(keepends=True) if line.startswith("|"))

    device = parts.pop("device")
    assert device["state"] == "cut off at its limit of 60 s"
    assert device["figures"]["bandwidth_gb_s"] > 0
    assert "| device | a copy, GB a second read and written |" in table
    assert "| device | – | cut off at its limit of 60 s after" in table
    assert not endless_parts()

    assert {name: part["state"] for name, part in parts.items()} == dict.fromkeys(parts, "done"), stderr
    assert {name: part["figures"].get("failed") for name, part in parts.items()} == dict.fromkeys(parts)
    labels = ("fastest steps", "SONIQUE: a clip of 23 s, s", "YuE: 30 s, s", "training on features against")
    assert not [label for label in labels if label not in table]
    steps = parts["lm"]["figures"]["step_ms"]
    assert {"graphs_b1", "graphs_b16", "no_graphs_b1", "transformers_b1", "transformers_b16"} <= set(steps)
    assert {"eager_b1", "eager_b2", "eager_cudnn_b2", "eager_recomputed_b2"} <= set(
        parts["train"]["figures"]["variants"]
    )
    assert {"eager_b1", "graph_b1", "graph_b16", "graph_flash_b1"} <= set(parts["diffusion"]["figures"]["step_ms"])
