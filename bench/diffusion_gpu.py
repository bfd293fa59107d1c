"""SONIQUE's real size on a GPU: `uv run python -m bench.diffusion_gpu`.

A checkpoint of the published sizes with random weights, in the published layout, through the generator as a recipe
loads it: music for 23 s of video with SONIQUE's own settings (300 steps, guided), the second of two runs, and the peak
of the device's memory; then four candidates in a batch, and one with --low-memory. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.fixtures.tiny import sonique as tiny
from v2m.core.types import Tags, Video
from v2m.generators.options import DiffusionSampling
from v2m.generators.sonique import Sonique

SECONDS = 23.0
TAGS = Tags(instruments=["piano", "strings"], genres=["ambient"], tempo=90)


def measure(folder: Path, args: argparse.Namespace, count: int, **settings: Any) -> tuple[float, float]:
    """Return the seconds of the second run, and the GiB of the device at the peak of both."""
    generator = Sonique(
        model=str(folder),
        sampling=DiffusionSampling(steps=args.steps),
        device=args.device,
        keep_loaded=True,
        **settings,
    )
    video = Video(Path("clip.mp4"), "mp4", "h264", 16, 16, 0, 25.0, args.seconds, np.zeros(1), 0.0, ())
    gpu = args.device.startswith("cuda")
    elapsed = 0.0
    if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    for run in range(2):
        start = time.perf_counter()
        soundtracks = generator.generate_batch(video, TAGS, [10 * run + number for number in range(count)])
        elapsed = time.perf_counter() - start
        assert all(np.isfinite(soundtrack.audio.samples).all() for soundtrack in soundtracks)
    generator._engine.release()
    return elapsed, torch.cuda.max_memory_allocated() / 2**30 if gpu else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--tiny", action="store_true", help="the tiny model, to try this script")
    args = parser.parse_args()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("this needs a CUDA device")
    with tempfile.TemporaryDirectory() as name:
        folder = tiny.write(Path(name) / "model", tiny.make_config() if args.tiny else tiny.published_config())
        settings = {"overlap": 0.3} if args.tiny else {}
        variants = {"one": (1, {}), "four": (4, {}), "low_memory": (1, {"low_memory": True})}
        results = {name: measure(folder, args, count, **settings, **extra) for name, (count, extra) in variants.items()}
    for variant, (seconds, peak) in results.items():
        print(f"{variant:12} {seconds:8.2f} s, {peak:6.2f} GiB")
    figures = {
        "seconds_for_clip": round(results["one"][0], 2),
        "peak_gb": round(results["one"][1], 2),
        "batch4_cost_ratio": round(results["four"][0] / results["one"][0] / 4, 3),
        "peak_gb_low_memory": round(results["low_memory"][1], 2),
        "steps": args.steps,
        "device": torch.cuda.get_device_name() if args.device.startswith("cuda") else args.device,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
