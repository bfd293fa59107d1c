"""What becomes of training where W&B's server is away, or goes: `uv run python bench/wandb_away.py`.

Each row is a real run of train.py with a key, against a server on this machine that is there or not in one way. "first
step": until the checkpoint of step 1 lies there, beside that of a run without a logger. Addresses outside this machine
are never asked.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.tiny import shards
from bench.tiny.training import records
from bench.tiny.wandb_server import MANNERS, Manner, serving

ROOT = Path(__file__).parents[1]
KEY = "0123456789abcdef" * 2 + "01234567"  # of the right length, and nobody's
STEPS = 12
LONGEST = 300.0


def run(folder: Path, root: Path, address: str | None) -> dict[str, float]:
    """Seconds to the first step and to the end, the exit code, the steps taken, and rows of figures kept here."""
    words = ["--config", "configs/train/tiny.yaml", "--data.train", str(folder), "--trainer.max_steps", str(STEPS)]
    words += ["--trainer.default_root_dir", str(root), "--data.window", "1", "--data.batch", "2", "--listening.every", "0"]
    words += ["--checkpoints.every", "1", "--checkpoints.keep", "100", "--trainer.log_every_n_steps", "1"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    if address is None:
        words += ["--trainer.logger", "false"]
    else:
        words += ["--trainer.logger", "v2m.training.wandb.Wandb", "--trainer.logger.init_args.save_dir", str(root)]
        environment |= {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": address}
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "train.py", "fit", *words], cwd=ROOT, env=environment,
        stdout=(root.parent / f"{root.name}.txt").open("w"), stderr=subprocess.STDOUT,
    )  # fmt: skip
    first, place = float("nan"), root / "checkpoints/step00000001.ckpt"
    while process.poll() is None and time.monotonic() - begun < LONGEST:
        if first != first and place.exists():
            first = time.monotonic() - begun
        time.sleep(0.02)
    if process.poll() is None:
        process.kill()
    took = time.monotonic() - begun
    kept = [each for path in root.rglob("*.wandb") for each in records(path) if each.HasField("history")]
    steps = len(list((root / "checkpoints").glob("step*.ckpt")))
    return {"first": first, "took": took, "exit": process.wait(), "steps": steps, "kept": len(kept)}


def main(manners: tuple[Manner, ...]) -> None:
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="v2m-") as place:
        home = Path(place)
        folder = shards.write(home / "shards", (3, 3), seconds=2.0)
        run(folder, home / "warm", None)
        found["no logger"] = run(folder, home / "none", None)
        for manner in manners:
            with serving(manner) as (address, server):
                found[manner] = run(folder, home / manner, address)
                found[manner]["sent"] = 0 if server is None else server.rows
    print(f"{'server':12}{'first step, s':>15}{'command, s':>12}{'exit':>6}{'steps':>7}{'rows kept':>11}{'rows sent':>11}")
    for name, each in found.items():
        sent = each.get("sent", "")
        print(f"{name:12}{each['first']:15.1f}{each['took']:12.1f}{each['exit']:6}{each['steps']:7}", end="")
        print(f"{each['kept']:11}{sent:>11}")
    print(json.dumps({name: {k: round(v, 1) for k, v in each.items()} for name, each in found.items()}))


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or MANNERS)  # type: ignore[arg-type]
