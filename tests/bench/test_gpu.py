"""All GPU measurements in one run, at tiny size on the CPU: figures are kept as they are made, whatever is cut off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

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


def is_running(text: str) -> bool:
    """Whether a process has `text` in its command."""
    commands = (path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists())
    return any(text.encode() in command for command in commands)


def test_a_part_that_is_cut_off_leaves_its_figures(tmp_path: Path) -> None:
    results = tmp_path / "gpu.json"
    limits = ["--limits", "device=25", "--total", "25"]
    process = start(results, "--parts", "device", "lm", "--options", ENDLESS, *limits)
    stdout, stderr = process.communicate(timeout=240)
    assert process.returncode == 0, stderr
    parts = json.loads(stdout.splitlines()[-1])["parts"]
    assert parts["device"]["state"] == "cut off at its limit of 25 s"
    assert parts["device"]["figures"]["bandwidth_gb_s"] > 0
    assert parts["device"]["figures"]["bf16_tflops"] > 0
    assert parts["lm"] == {"state": "not run, no time was left", "figures": {}}
    assert json.loads(results.read_text())["parts"] == parts
    table = results.with_suffix(".md").read_text()
    assert "| device | a copy, GB a second read and written |" in table
    assert "| device | – | cut off at its limit of 25 s after" in table
    assert table in "".join(line for line in stdout.splitlines(keepends=True) if line.startswith("|"))
    assert not is_running(str(TIMES))


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_its_figures(tmp_path: Path, number: int) -> None:
    results = tmp_path / "gpu.json"
    process = start(results, "--parts", "device", "--options", ENDLESS)
    wait_for(results, "device", "bf16_tflops", process)
    pid = int(subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout)
    process.send_signal(number)
    process.communicate(timeout=60)
    if number == signal.SIGTERM:
        assert not Path(f"/proc/{pid}").exists()
    else:
        os.kill(pid, signal.SIGKILL)  # nobody is left to end it
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
def test_every_part_gives_its_figures(tmp_path: Path) -> None:
    results = tmp_path / "gpu.json"
    limits = [f"{name}=600" for name in ("device", "lm", "train", "yue", "diffusion", "online")]
    process = start(results, "--limits", *limits, "--total", "3600")
    stdout, stderr = process.communicate(timeout=3600)
    assert process.returncode == 0, stderr
    parts = json.loads(stdout.splitlines()[-1])["parts"]
    assert {name: part["state"] for name, part in parts.items()} == dict.fromkeys(parts, "done"), stderr
    assert {name: part["figures"].get("failed") for name, part in parts.items()} == dict.fromkeys(parts)
    table = results.with_suffix(".md").read_text()
    labels = ("fastest steps", "SONIQUE: a clip of 23 s, s", "YuE: 30 s, s", "training on features against")
    assert not [label for label in labels if label not in table]
    steps = parts["lm"]["figures"]["step_ms"]
    assert {"graphs_b1", "graphs_b16", "no_graphs_b1", "transformers_b1", "transformers_b16"} <= set(steps)
    assert {"eager_b1", "eager_b2", "eager_cudnn_b2", "eager_recomputed_b2"} <= set(
        parts["train"]["figures"]["variants"]
    )
    assert {"eager_b1", "graph_b1", "graph_b16", "graph_flash_b1"} <= set(parts["diffusion"]["figures"]["step_ms"])
