"""All GPU measurements in one run of at most ten minutes: `python -m bench.gpu`.

    python -m bench.gpu                              # every part, 565 s at most
    python -m bench.gpu --parts lm train --limits lm=200 train=200
    python -m bench.gpu --device cpu --small         # every part at tiny size

Each part is a process of its own with its own limit; it prints its figures whole after each addition. They are written
to the results file (`--results`; $OUT/gpu.json where OUT is set) as they come, so that a part that is cut off leaves
what it has, and so does this script. A part whose packages are missing says which. Its rows of the table, a JSON object
on a line, and the end of its errors are printed when it ends; the table is also in gpu.md beside the results file. The
last line is one JSON object with all parts. This script itself needs no package.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, NamedTuple

ROOT = Path(__file__).parents[1]
TOTAL_S = 565.0
ERROR_LINES = 12


class Part(NamedTuple):
    """A module to run, seconds that it may take, packages that it needs, and its options."""

    module: str
    limit: float
    packages: tuple[str, ...]
    options: tuple[str, ...] = ()
    can_compile: bool = True  # whether it has variants with torch.compile


class Row(NamedTuple):
    """A figure of a part for the table, with the goal on an H100 or H200 where there is one."""

    part: str
    figure: str
    label: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def goal(self) -> str:
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        return "" if self.at_most is None else f"≤ {self.at_most:g}"

    def is_met(self, value: float) -> bool:
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


MODELS = ("torch", "numpy", "transformers", "safetensors", "tokenizers", "huggingface_hub")
TRAINING = (*MODELS, "lightning", "webdataset", "braceexpand", "jsonargparse", "docstring_parser")
ONLINE_VIDEO = ("--sizes", "small", "--video", "data/examples/bunny_wakes.mp4")
PARTS = {
    "device": Part("bench.gpu_device", 45, ("torch", "numpy"), can_compile=False),
    "lm": Part("bench.lm_gpu", 130, MODELS),
    "train": Part("bench.train_gpu", 120, TRAINING),
    "yue": Part("bench.yue_gpu", 100, (*MODELS, "torchaudio", "sentencepiece", "google.protobuf", "yaml"), (), False),
    "diffusion": Part("bench.diffusion_gpu", 100, MODELS),
    "online": Part("bench.train_step", 65, TRAINING, (*ONLINE_VIDEO, "--batch", "4", "--steps", "3"), False),
}
ROWS = (
    Row("device", "device", "device"),
    Row("device", "driver", "driver"),
    Row("device", "bandwidth_gb_s", "a copy, GB a second read and written"),
    Row("device", "bf16_tflops", "a product of bfloat16 matrices, 10¹² operations a second"),
    Row("device", "bf16_share_of_published", "of the published peak"),
    Row("device", "launch_us", "launching a tiny kernel, µs"),
    Row("device", "fastest_attention", "fastest attention kernels"),
    Row("lm", "seconds_for_30s", "MusicGen-small's size: 30 s of audio, s", at_most=3),
    Row("lm", "vs_transformers_eager", "against transformers, one clip", at_least=8),
    Row("lm", "bandwidth_share", "share of the bandwidth's floor, one clip", at_least=0.5),
    Row("lm", "vs_transformers_eager_b16", "against transformers, 16 clips"),
    Row("lm", "seconds_for_30s_b16", "16 clips of 30 s of audio, s"),
    Row("lm", "prefill_fastest", "fastest attention kernel of a prompt"),
    Row("lm", "fastest", "fastest steps"),
    Row("train", "mfu", "training: share of the published peak", at_least=0.4),
    Row("train", "share_of_peak", "training: share of the measured product"),
    Row("train", "tokens_s", "training: steps of the language model a second"),
    Row("train", "fastest", "training: fastest"),
    Row("train", "trainer_data_wait_ms", "training: wait for data, ms a step"),
    Row("yue", "seconds_for_30s", "YuE: 30 s, s", at_most=30),
    Row("yue", "bandwidth_share", "YuE: stage 1, share of the bandwidth's floor"),
    Row("yue", "peak_gb", "YuE: peak, GB"),
    Row("yue", "fastest", "YuE: fastest"),
    Row("diffusion", "seconds_for_clip", "SONIQUE: a clip of 23 s, s", at_most=5),
    Row("diffusion", "peak_gib", "SONIQUE: peak, GiB", at_most=8),
    Row("diffusion", "seconds_of_300_steps_by_fastest", "SONIQUE: 300 steps by the fastest variant, s"),
    Row("diffusion", "fastest", "SONIQUE: fastest steps"),
    Row("online", "speedup", "training on features against encoding online", at_least=5),
    Row("online", "speedup_decoding_hidden", "the same, decoding ahead"),
)
TABLE_HEAD = "| part | figure | measured | goal | met |\n|---|---|---|---|---|\n"


class Results:
    """Results of all parts, in a file and a table that are replaced with each figure."""

    def __init__(self, path: Path, head: dict[str, Any], has_goals: bool) -> None:
        self.path, self.head, self.has_goals = path, head, has_goals
        self.parts: dict[str, dict[str, Any]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)

    def update(self, name: str, **values: Any) -> None:
        self.parts[name] = {**self.parts.get(name, {}), **values}
        self._replace(self.path, json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n")
        table = TABLE_HEAD + "".join(self.rows(part) for part in self.parts)
        self._replace(self.path.with_suffix(".md"), table)

    def to_dict(self) -> dict[str, Any]:
        return {**self.head, "parts": self.parts}

    def rows(self, name: str) -> str:
        """Return the rows of a part: its figures, and its end where it is not that of a whole run."""
        result = self.parts[name]
        figures: dict[str, Any] = result["figures"]
        lines: list[str] = []
        for row in ROWS:
            value = figures.get(row.figure)
            if row.part == name and value is not None:
                goal = row.goal if self.has_goals else ""
                met = ("yes" if row.is_met(value) else "no") if goal else ""
                lines.append(f"| {name} | {row.label} | {to_text(value)} | {goal} | {met} |\n")
        failures = figures.get("failed", {})
        lines += [f"| {name} | {variant} | failed: {to_text(reason)} | | |\n" for variant, reason in failures.items()]
        lines += [f"| {name} | a warning | {to_text(message)} | | |\n" for message in figures.get("warnings", [])]
        if result["state"] != "done":
            lines.append(f"| {name} | – | {result['state']} after {result.get('seconds', 0):g} s | | |\n")
        return "".join(lines)

    @staticmethod
    def _replace(path: Path, text: str) -> None:
        """Write the file under another name first: it is whole at any time."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)


def to_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {to_text(item)}" for key, item in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "/")


def parse_line(line: str) -> dict[str, Any] | None:
    """Return the figures of a line; None where it is not one whole JSON object."""
    try:
        value = json.loads(line) if line.endswith("\n") else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def missing_packages(names: tuple[str, ...]) -> list[str]:
    """Return those of the packages that this Python does not have."""

    def is_missing(name: str) -> bool:
        try:
            return find_spec(name) is None
        except ModuleNotFoundError:  # the package above it
            return True

    return [name for name in names if is_missing(name)]


def run_part(name: str, command: list[str], limit: float, results: Results) -> str:
    """Run a part for `limit` seconds at most, and note its figures; return the end of its errors."""
    results.update(name, state="running", figures={}, command=" ".join(command[1:]))
    start = time.monotonic()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True, process_group=0,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"},
        )  # fmt: skip
        assert process.stdout is not None
        reader = threading.Thread(target=read_figures, args=(process.stdout, name, results), daemon=True)
        reader.start()
        try:
            code = process.wait(limit)
            state = "done" if code == 0 else f"failed with exit code {code}"
        except subprocess.TimeoutExpired:
            state = f"cut off at its limit of {limit:g} s"
        finally:
            end(process)
            reader.join(10)
        errors.seek(0)
        tail = "".join(errors.readlines()[-ERROR_LINES:])
    reason = {} if state == "done" else {"errors": tail}
    results.update(name, state=state, seconds=round(time.monotonic() - start, 1), **reason)
    return "" if state == "done" else tail


def read_figures(stream: IO[str], name: str, results: Results) -> None:
    for line in stream:
        if (figures := parse_line(line)) is not None:
            results.update(name, figures=figures)


def end(process: subprocess.Popen[str]) -> None:
    """End the part with the processes that it started."""
    with suppress(ProcessLookupError):  # all of them have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def part_command(part: Part, args: argparse.Namespace) -> list[str]:
    small = ["--small"] if args.small else []
    compile_option = ["--without-compile"] if args.without_compile and part.can_compile else []
    return [sys.executable, "-m", part.module, "--device", args.device, *part.options, *small, *compile_option]


def by_part(texts: list[str]) -> dict[str, str]:
    """Return values by part, of texts such as `lm=200`."""
    values = {name: value for name, _, value in (text.partition("=") for text in texts)}
    if unknown := set(values) - set(PARTS):
        raise SystemExit(f"there is no part {', '.join(sorted(unknown))}: the parts are {', '.join(PARTS)}")
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the parts")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--limits", nargs="+", default=[], metavar="PART=SECONDS")
    parser.add_argument("--options", nargs="+", default=[], metavar="PART=OPTIONS", help='such as "train=--steps 30"')
    parser.add_argument("--total", type=float, default=TOTAL_S, help="seconds of all parts together")
    parser.add_argument("--without-compile", action="store_true", help="leave out variants with torch.compile")
    folder = Path(os.environ["OUT"]) if os.environ.get("OUT") else ROOT / "bench" / "results"
    parser.add_argument("--results", type=Path, default=folder / "gpu.json")
    args = parser.parse_args()
    limits, options = by_part(args.limits), by_part(args.options)
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # a part is ended, too
    head = {"command": "python -m bench.gpu " + " ".join(sys.argv[1:]), "date": date}
    results = Results(args.results, head, has_goals=args.device == "cuda" and not args.small)
    start = time.monotonic()
    print(TABLE_HEAD, end="", flush=True)
    for name in args.parts:
        part, left = PARTS[name], args.total - (time.monotonic() - start)
        missing = missing_packages(part.packages)
        tail = ""
        if missing:
            results.update(name, state=f"not run, packages are missing: {', '.join(missing)}", figures={})
        elif left <= 1:
            results.update(name, state="not run, no time was left", figures={})
        else:
            command = [*part_command(part, args), *shlex.split(options.get(name, ""))]
            tail = run_part(name, command, min(float(limits.get(name, part.limit)), left), results)
        print(results.rows(name), end="")
        print(json.dumps({"part": name, **results.parts[name]}), flush=True)
        print(tail, end="", file=sys.stderr, flush=True)
    print(json.dumps(results.to_dict()))


if __name__ == "__main__":
    main()
