"""What becomes of training where W&B's server is away, or goes: `uv run python -m bench.wandb_away`.

Each row has a key, and a server on this machine that is there or not in one way
(`tests/fixtures/tiny/wandb_server.py`). "begin"
and "end" are the seconds that the logger alone takes before its first figure and after its last; the rest is what a
real run of train.py came to. Addresses outside this machine are never asked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.fixtures.tiny import shards
from tests.fixtures.tiny.training import read_wandb_records
from tests.fixtures.tiny.wandb_server import MANNERS, Manner, serving

ROOT = Path(__file__).parents[1]
KEY = "0123456789abcdef" * 2 + "01234567"  # of the right length, and nobody's
STEPS = 12
LONGEST = 900.0
ALONE = """
import sys, time
import wandb
from v2m.training.wandb_logger import ResilientWandbLogger
begun = time.perf_counter()
logger = ResilientWandbLogger(save_dir=sys.argv[1])
logger.experiment
begin = time.perf_counter() - begun
for step in range(3):
    logger.log_metrics({"x": step}, step)
    time.sleep(2)
begun = time.perf_counter()
try:
    wandb.finish()
except ConnectionError:  # W&B's own process has crashed
    pass
print("seconds", begin, time.perf_counter() - begun, flush=True)
"""


def environment(address: str | None) -> dict[str, str]:
    held = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    return held if address is None else held | {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": address}


def alone(root: Path, address: str) -> dict[str, float]:
    """Seconds that the logger takes at the begin and at the end."""
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(root)], cwd=ROOT, env=environment(address), capture_output=True, text=True,
        timeout=LONGEST, check=True,
    )  # fmt: skip
    _, begin, end = next(line for line in done.stdout.splitlines() if line.startswith("seconds ")).split()
    return {"begin": float(begin), "end": float(end)}


def run(folder: Path, root: Path, address: str) -> dict[str, float]:
    """The exit code, the steps taken, and the rows of figures kept here."""
    words = ["--config", "configs/train/tiny.yaml", "--data.train", str(folder), "--trainer.max_steps", str(STEPS)]
    words += ["--trainer.default_root_dir", str(root), "--data.window", "1", "--data.batch", "2"]
    words += ["--checkpoints.every", "1", "--checkpoints.keep", "100", "--trainer.log_every_n_steps", "1"]
    words += [
        "--trainer.logger",
        "v2m.training.wandb_logger.ResilientWandbLogger",
        "--trainer.logger.init_args.save_dir",
        str(root),
    ]
    done = subprocess.run(
        [sys.executable, "train.py", "fit", *words], cwd=ROOT, env=environment(address), capture_output=True,
        timeout=LONGEST, check=False,
    )  # fmt: skip
    kept = [each for path in root.rglob("*.wandb") for each in read_wandb_records(path) if each.HasField("history")]
    steps = len(list((root / "checkpoints").glob("step*.ckpt")))
    return {"exit": done.returncode, "steps": steps, "kept": len(kept)}


def main(manners: Sequence[Manner]) -> None:
    found: dict[str, dict[str, float]] = {}
    print(f"{'server':10}{'begin, s':>10}{'end, s':>8}{'exit':>6}{'steps':>7}{'rows kept':>11}{'rows sent':>11}")
    with tempfile.TemporaryDirectory(prefix="v2m-") as place:
        home = Path(place)
        folder = shards.write(home / "shards", (3, 3), seconds=2.0)
        for manner in manners:
            with serving(manner) as (address, _):
                each = alone(home / f"{manner}-alone", address)
            with serving(manner) as (address, server):
                each |= run(folder, home / manner, address)
                each["sent"] = 0 if server is None else server.rows
            found[manner] = each
            print(f"{manner:10}{each['begin']:10.1f}{each['end']:8.1f}{each['exit']:6}{each['steps']:7}", end="")
            print(f"{each['kept']:11}{each['sent']:11}", flush=True)
    print(json.dumps({name: {k: round(v, 1) for k, v in each.items()} for name, each in found.items()}))


if __name__ == "__main__":
    main([name for name in MANNERS if name in sys.argv[1:]] or MANNERS)
