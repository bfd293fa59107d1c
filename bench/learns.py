"""Test that a trained model follows its video: `uv run python -m bench.learns`.

Makes videos with scores that follow them, prepares them by the built-in encoders and the score codec, trains the same
language model with the conditioner that has frame times (`v2m`) and with VidMuse's bag of frames (`vidmuse`), from
random weights and on the same samples in the same order, and measures both on held-out clips: how much higher the
cross-entropy of each code is with the video, or the tags, of another of these clips, or without tags. Clips, samples
and models are made by v2m's own commands, which are printed.

    uv run python -m bench.learns                                   # two cores, half an hour
    uv run python -m bench.learns --folder work --clips 2000 --steps 20000 --width 256 --layers 6   # hours

With --folder the work is kept and can be resumed. `--v2m CHECKPOINT --vidmuse CHECKPOINT --shards FOLDER` measures two
trainings that exist, on held-out shards of any length, and trains nothing. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from tests.fixtures import held_out
from v2m.checkpoints import lightning_ckpt
from v2m.data.collate import Batch
from v2m.evaluation.distances import bootstrap_ci, derangements
from v2m.models.conditioning import Condition
from v2m.models.visual_conditioner import VisualInputs
from v2m.training.checkpoints import latest_checkpoint

ROOT = Path(__file__).parents[1]

SECONDS, WINDOW = 8.0, 2.0  # of a clip; of a training window
PLACES = (0.0, 0.34, 0.67, 1.0)  # of the measured windows, 0–1: from 0, 2, 4 and 6 s on
OTHER = 900  # added to the seed for the scenes of the held-out clips
ROUNDS = 3  # other clips that each is paired with
TIMES = "minutes.json"
ENCODERS = {
    "codec": "v2m-score-1",
    "vision-encoder": "v2m-frame-statistics-1",
    "text-encoder": "v2m-hashed-words-1",
}
CONDITIONERS = {
    "v2m": {"num_layers": 1, "num_heads": 2, "head_dim": 32, "ffn_dim": 128, "num_event_layers": 2},
    "vidmuse": {
        "vision_dim": 25,
        "num_layers": 2,
        "num_heads": 2,
        "head_dim": 32,
        "ffn_dim": 256,
        "num_fusion_heads": 5,
    },
}


@dataclass(frozen=True)
class Size:
    """Sizes of the experiment: `clips` to train on, `held` to measure on; the rest is of the training."""

    clips: int = 400
    held: int = 80
    steps: int = 3000
    batch: int = 8
    width: int = 128
    layers: int = 2
    seed: int = 0


def run(*words: str, threads: int | None = None) -> subprocess.Popen[bytes]:
    """Print the command and start it."""
    print("$", shlex.join(["python", *words]), flush=True)
    limited = {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    return subprocess.Popen([sys.executable, *words], cwd=ROOT, env={**os.environ, **limited}, stdout=sys.stderr)


def wait_for(*processes: subprocess.Popen[bytes]) -> None:
    for process in processes:
        if process.wait():
            raise SystemExit(f"{process.args} ended with {process.returncode}")


def make_shards(folder: Path, size: Size, processes: int) -> None:
    """Make clips and prepared samples in `folder`; existing ones are kept."""
    counts = {"train": (size.clips, size.seed), "held": (size.held, size.seed + OTHER)}
    for part, (count, seed) in counts.items():
        args = [
            "--count",
            str(count),
            "--seconds",
            f"{SECONDS:g}",
            "--seed",
            str(seed),
            "--processes",
            str(processes),
            "--scores-only",
        ]
        wait_for(run("-m", "v2m", "synthesize", str(folder / "videos" / part), *args, threads=1))
    encoders = [word for option, name in ENCODERS.items() for word in (f"--{option}", name)]
    for part in counts:
        args = [*encoders, "--processes", str(processes)]
        wait_for(run("-m", "v2m", "prepare", str(folder / "videos" / part), str(folder / part), *args, threads=1))


def train(folder: Path, size: Size, name: str) -> subprocess.Popen[bytes]:
    """Start the training of the conditioner `name`, on one core."""
    lm = {"dim": size.width, "num_layers": size.layers, "num_heads": 4}
    learning = {"lr": 2e-3, "lm_lr_scale": 1.0, "warmup_steps": size.steps // 20, "min_lr_ratio": 0.05}
    settings = {
        "seed_everything": size.seed,
        "model.lm": json.dumps(lm),
        "model.conditioner": json.dumps({"kind": name, **CONDITIONERS[name]}),
        "model.optim": json.dumps(learning),
        "model.text_dropout": 0.3,
        "model.video_dropout": 0.3,
        "data.train": folder / "train",
        "data.batch_size": size.batch,
        "data.window": WINDOW,
        "data.seed": size.seed,
        "checkpoints.every_n_train_steps": max(100, size.steps // 5),
        "ema.decay": 0.99,
        "trainer.default_root_dir": folder / name,
        "trainer.max_steps": size.steps,
        "trainer.log_every_n_steps": 50,
        "trainer.enable_progress_bar": "false",
    }
    arguments = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    return run("train.py", "fit", "--config", "configs/train/tiny.yaml", *arguments, threads=1)


Conditioning = Callable[[Batch, np.ndarray], tuple[VisualInputs | None, Condition | None]]
CONDITIONINGS: dict[str, Conditioning] = {  # a clip's conditions: its own and, by `rows`, another's
    "nothing": lambda *_: (None, None),
    "video": lambda batch, _: (batch.visual, None),
    "another's video": lambda batch, rows: (held_out.swap_video(batch.visual, rows), None),
    "tags": lambda batch, _: (None, batch.text),
    "another's tags": lambda batch, rows: (None, held_out.swap_text(batch.text, rows)),
    "both": lambda batch, _: (batch.visual, batch.text),
    "both, another's video": lambda batch, rows: (held_out.swap_video(batch.visual, rows), batch.text),
    "both, another's tags": lambda batch, rows: (batch.visual, held_out.swap_text(batch.text, rows)),
    "both, another's rhythm": lambda batch, rows: (held_out.swap_events(batch.visual, rows), batch.text),
    "both, half a second late": lambda batch, _: (held_out.delay_video(batch.visual, 0.5), batch.text),
}


def trained_checkpoints(folder: Path) -> dict[str, Path]:
    """Return the newest checkpoint of each conditioner's training."""
    paths = {name: latest_checkpoint(folder / name / "checkpoints") for name in CONDITIONERS}
    missing = [name for name, path in paths.items() if path is None]
    assert not missing, f"{' and '.join(missing)} without a checkpoint"
    return {name: path for name, path in paths.items() if path is not None}


def measure(
    checkpoints: dict[str, Path], batches: list[Batch], seed: int
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, int]]:
    """Return the cross-entropy of every held-out clip, and the number of parameters, of both conditioners.

    `batches` are windows of the same N clips. For each conditioner and each of `CONDITIONINGS`: (N, K) nats per code,
    means over windows and other clips.
    """
    rounds = derangements(len(batches[0].codes), ROUNDS, seed)
    entropies: dict[str, dict[str, np.ndarray]] = {}
    counts = {}
    for name, path in checkpoints.items():
        model = lightning_ckpt.load_training_checkpoint(path)
        counts[name] = sum(value.numel() for value in model.parameters())
        entropies[name] = {}
        for label, conditioning in CONDITIONINGS.items():
            used = rounds if "another" in label else rounds[:1]
            values = [
                held_out.cross_entropies(model, batch, *conditioning(batch, rows)) for batch in batches for rows in used
            ]
            entropies[name][label] = np.mean(values, axis=0)
    return entropies, counts


def margin(worse: np.ndarray, better: np.ndarray) -> dict[str, float]:
    """Return mean difference of (N, K) entropies, its 95 % interval, and the share of clips above 0."""
    values = (worse - better).mean(axis=1)
    low, high = bootstrap_ci(values)
    return {"mean": float(values.mean()), "low": low, "high": high, "share": float((values > 0).mean())}


PAIRS = {  # label: (conditioner, conditioning) of the expected higher, then of the lower loss
    "video, alone": (("v2m", "another's video"), ("v2m", "video")),
    "video, beside its tags": (("v2m", "both, another's video"), ("v2m", "both")),
    "tags, alone": (("v2m", "another's tags"), ("v2m", "tags")),
    "tags, against none": (("v2m", "nothing"), ("v2m", "tags")),
    "tags, beside its video": (("v2m", "both, another's tags"), ("v2m", "both")),
    "rhythm, of v2m": (("v2m", "both, another's rhythm"), ("v2m", "both")),
    "time, of v2m": (("v2m", "both, half a second late"), ("v2m", "both")),
    "video, alone, of vidmuse": (("vidmuse", "another's video"), ("vidmuse", "video")),
    "v2m against vidmuse": (("vidmuse", "both"), ("v2m", "both")),
    "v2m against vidmuse, no tags": (("vidmuse", "video"), ("v2m", "video")),
}


def report(entropies: dict[str, dict[str, np.ndarray]]) -> dict[str, Any]:
    """Print all figures; return those of the JSON object."""
    print(f"\n{'nats a code':<28}{'v2m':>10}{'vidmuse':>10}")
    for label in CONDITIONINGS:
        print(f"{label:<28}" + "".join(f"{entropies[name][label].mean():>10.4f}" for name in CONDITIONERS))
    print(f"\n{'worse by':<30}{'mean':>9}   95 % of the bootstrap   clips")
    margins = {}
    for label, (worse, better) in PAIRS.items():
        row = margins[label] = margin(entropies[worse[0]][worse[1]], entropies[better[0]][better[1]])
        print(f"{label:<30}{row['mean']:>9.4f}   {row['low']:>8.4f} to {row['high']:.4f}   {row['share']:>7.0%}")
    by_codebook = (entropies["v2m"]["another's video"] - entropies["v2m"]["video"]).mean(axis=0)
    print("video, alone, by codebook:", " ".join(f"{value:.4f}" for value in by_codebook))
    mean = {
        name: {label: float(values.mean()) for label, values in conditions.items()}
        for name, conditions in entropies.items()
    }
    bounds = {label: [result["low"], result["high"]] for label, result in margins.items()}
    return {
        "ce_right_video": mean["v2m"]["video"],
        "ce_wrong_video": mean["v2m"]["another's video"],
        "margin_ci95": bounds["video, alone"],
        "ce_right_tags": mean["v2m"]["tags"],
        "ce_wrong_tags": mean["v2m"]["another's tags"],
        "tags_margin_ci95": bounds["tags, alone"],
        "ce_no_tags": mean["v2m"]["nothing"],
        "tags_help_ci95": bounds["tags, against none"],
        "ce_v2m_shape": mean["v2m"]["both"],
        "ce_vidmuse_shape": mean["vidmuse"]["both"],
        "shape_margin_ci95": bounds["v2m against vidmuse"],
        "rhythm_margin_ci95": bounds["rhythm, of v2m"],
    }


@contextlib.contextmanager
def clocked(folder: Path, stage: str) -> Iterator[None]:
    """Add the wall and processor minutes of this stage to those of earlier runs."""

    def now() -> tuple[float, float]:
        usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return time.perf_counter(), sum(usage.ru_utime + usage.ru_stime for usage in usages)

    start = now()
    yield
    path = folder / TIMES
    known = json.loads(path.read_text()) if path.is_file() else {}
    before = known.get(stage, [0.0, 0.0])
    known[stage] = [past + (end - begin) / 60 for past, begin, end in zip(before, start, now(), strict=True)]
    path.write_text(json.dumps(known))


def compare(shards: Path, checkpoints: dict[str, Path], seed: int) -> dict[str, Any]:
    """Print the figures of trainings that exist, and return the JSON object.

    Measured is the first window of each held-out clip.
    """
    window = min(lightning_ckpt.load_training_checkpoint(path).config.segment_duration for path in checkpoints.values())
    batches = held_out.load_windows(shards, window, (0.0,))
    entropies, counts = measure(checkpoints, batches, seed)
    return {**rounded(report(entropies)), "parameters": counts, "held": len(batches[0].codes), "window": window}


def rounded(figures: dict[str, Any], digits: int = 4) -> dict[str, Any]:
    """Return figures, and those in lists, with `digits` decimals."""
    return {
        name: [round(number, digits) for number in value] if isinstance(value, list) else round(value, digits)
        for name, value in figures.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="keep the work here and resume it; a temporary folder by default")
    parser.add_argument("--processes", type=int, default=2, help="processes that make and prepare clips")
    for name in CONDITIONERS:
        parser.add_argument(f"--{name}", type=Path, metavar="CHECKPOINT", help="a training that exists")
    parser.add_argument("--shards", type=Path, help="held-out shards for these")
    for field in fields(Size):
        parser.add_argument(f"--{field.name}", type=int, default=field.default)
    args = parser.parse_args()
    size = Size(**{field.name: getattr(args, field.name) for field in fields(Size)})
    if args.shards:
        print(json.dumps(compare(args.shards, {name: getattr(args, name) for name in CONDITIONERS}, size.seed)))
        return
    with contextlib.ExitStack() as stack:
        folder = args.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        with clocked(folder, "clips and shards"):
            make_shards(folder, size, args.processes)
        with clocked(folder, "both trainings"):
            wait_for(*[train(folder, size, name) for name in CONDITIONERS])
        with clocked(folder, "evaluation"):
            batches = held_out.load_windows(folder / "held", WINDOW, PLACES)
            entropies, counts = measure(trained_checkpoints(folder), batches, size.seed)
        figures = report(entropies)
        times = json.loads((folder / TIMES).read_text())
        for stage, (wall, processor) in times.items():
            print(f"{stage:<20}{wall:>7.1f} min, {processor:>6.1f} of the processors")
        minutes = {"minutes": sum(wall for wall, _ in times.values())}
        minutes["processor_minutes"] = sum(processor_minutes for _, processor_minutes in times.values())
    print(json.dumps({**rounded(figures), **rounded(minutes, 1), "parameters": counts, **vars(size)}))


if __name__ == "__main__":
    main()
