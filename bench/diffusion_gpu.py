"""SONIQUE's real size on a GPU: `uv run python -m bench.diffusion_gpu`.

A checkpoint of the published sizes with random weights, in the published layout, through the generator as a recipe
loads it: music for 23 s of video with SONIQUE's own settings (300 steps, guided), the second of two runs, and the peak
of the device's memory; then four takes side by side, and one with --low-memory. Last line: one JSON object.
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


def measured(folder: Path, options: argparse.Namespace, takes: int, **settings: Any) -> tuple[float, float]:
    """Seconds of the second run, and GiB of the device at the peak of both."""
    generator = Sonique(
        model=str(folder),
        sampling=DiffusionSampling(steps=options.steps),
        device=options.device,
        keep_loaded=True,
        **settings,
    )
    video = Video(Path("clip.mp4"), "mp4", "h264", 16, 16, 0, 25.0, options.seconds, np.zeros(1), 0.0, ())
    gpu = options.device.startswith("cuda")
    took = 0.0
    if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    for run in range(2):
        begun = time.perf_counter()
        scores = generator.generate_batch(video, TAGS, [10 * run + take for take in range(takes)])
        took = time.perf_counter() - begun
        assert all(np.isfinite(score.audio.samples).all() for score in scores)
    generator._engine.release()
    return took, torch.cuda.max_memory_allocated() / 2**30 if gpu else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--tiny", action="store_true", help="the tiny model, to try this script")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("this needs a CUDA device")
    with tempfile.TemporaryDirectory() as name:
        folder = tiny.write(Path(name) / "model", tiny.make_config() if options.tiny else tiny.published_config())
        given = {"overlap": 0.3} if options.tiny else {}
        ways = {"one": (1, {}), "four": (4, {}), "low_memory": (1, {"low_memory": True})}
        found = {way: measured(folder, options, takes, **given, **more) for way, (takes, more) in ways.items()}
    for way, (seconds, peak) in found.items():
        print(f"{way:12} {seconds:8.2f} s, {peak:6.2f} GiB")
    figures = {
        "seconds_for_clip": round(found["one"][0], 2),
        "peak_gb": round(found["one"][1], 2),
        "batch4_cost_ratio": round(found["four"][0] / found["one"][0] / 4, 3),
        "peak_gb_low_memory": round(found["low_memory"][1], 2),
        "steps": options.steps,
        "device": torch.cuda.get_device_name() if options.device.startswith("cuda") else options.device,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
