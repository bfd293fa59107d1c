"""Steps of training a second on prepared features, against decoding and encoding frames in every step.

    uv run python -m bench.train_step                    # some minutes
    uv run python -m bench.train_step --sizes small      # MusicGen-small's: 12 GB, half an hour
    uv run python -m bench.train_step --sizes small --device cuda --batch 8

One run for both: its steps take turns. All of them read shards of the published sizes and train the whole model,
optimizer included. Every second step does besides what VidMuse does: it decodes the frames of the clip (2 a second) and
some of the whole video with decord, at 224 by 224 pixels, and CLIP ViT-B/32 with random weights encodes them. Codes and
text are prepared in both. `decoding_hidden` is what is left where others decode ahead: encoding alone. Medians; on a
CPU of processor time on one thread, so that other work beside it matters little. The figures on top are those of the
first size; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import decord
import numpy as np
import torch
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel

from bench.prepare import videos
from tests.fixtures import train_setup
from v2m.data.collate import Batch
from v2m.data.module import ShardData
from v2m.pretrained.vision import FrozenVisionEncoder
from v2m.training.module import LitMusicLM

ROOT = Path(__file__).parents[1]

SIDE = 224  # pixels that CLIP sees
COUNT = 2  # videos, which take turns


class TakingTurns(LitMusicLM):
    """Trains on prepared features, then on ones made in the step, and so on."""

    def __init__(self, eyes: FrozenVisionEncoder, folder: Path, now: Callable[[], float], **given: Any) -> None:
        super().__init__(**given)
        self.eyes, self.videos = eyes, sorted(folder.iterdir())
        self.decoding, self.encoding, self.now, self.turn = list[float](), list[float](), now, 0

    def training_step(self, batch: Batch, _: int) -> Tensor:
        self.turn += 1
        if self.turn % 2 == 0:
            near, whole = (torch.stack(each) for each in zip(*map(self._seen, range(len(batch.codes))), strict=True))
            batch = batch._replace(visual=batch.visual._replace(short_term=near.float(), long_term=whole.float()))
        return super().training_step(batch, _)

    def _seen(self, row: int) -> tuple[Tensor, Tensor]:
        """Tokens of the clip's frames and of the whole video's, of a video's first seconds."""
        began, path = self.now(), str(self.videos[row % len(self.videos)])
        reader = decord.VideoReader(path, width=SIDE, height=SIDE, num_threads=1)
        rate, near = reader.get_avg_fps(), int(self._window * train_setup.KEPT.video_frame_rate)
        places = np.round(np.arange(near) / train_setup.KEPT.video_frame_rate * rate).astype(int)
        over = np.linspace(0, len(reader) - 1, train_setup.KEPT.num_long_term_frames).astype(int)
        frames = reader.get_batch([*places, *over]).asnumpy()
        decoded = self.now()
        tokens = self.eyes.encode(frames)
        if tokens.is_cuda:
            torch.cuda.synchronize()
        self.decoding.append(decoded - began)
        self.encoding.append(self.now() - decoded)
        return tokens[:near], tokens[near:]


def eyes(folder: Path, device: str) -> FrozenVisionEncoder:
    """CLIP ViT-B/32 with random weights."""
    torch.manual_seed(0)
    CLIPVisionModel(CLIPVisionConfig()).save_pretrained(folder)
    return FrozenVisionEncoder.load(folder, torch.device(device), name="rng_state")


def clock(device: str) -> Callable[[], float]:
    return time.perf_counter if device == "cuda" else time.process_time


def measured(size: str, asked: argparse.Namespace, folder: Path, seer: FrozenVisionEncoder) -> dict[str, float]:
    """Medians of a size, in seconds and steps a second."""
    config = train_setup.SIZES[size]
    given: dict[str, Any] = {"lm": config, "conditioner": train_setup.CONDITIONER, "window": asked.window}
    now = clock(asked.device)
    model = TakingTurns(seer, folder / "videos", now, **given, gradient_checkpointing=asked.recompute)
    steps = train_setup.Clock(now)
    data = ShardData(folder / "shards", batch_size=asked.batch, window=asked.window, num_workers=asked.workers)
    precision = "bf16-mixed" if asked.device == "cuda" else "32-true"
    train_setup.trainer(2 * asked.steps + 2, asked.device, precision, steps).fit(model, data)
    seconds = steps.seconds[1:]  # step 1 after step 0, whose end began the clock, warms up
    features, online = median(seconds[::2]), median(seconds[1::2])
    per_step = len(model.encoding) / (asked.steps + 1)
    encoding = per_step * median(model.encoding)
    return {
        "weights_m": round(sum(value.numel() for value in model.music_model.parameters()) / 1e6, 1),
        "steps_s_features": round(1 / features, 4),
        "steps_s_online": round(1 / online, 4),
        "speedup": round(online / features, 2),
        "speedup_decoding_hidden": round((features + encoding) / features, 2),
        "decode_s": round(per_step * median(model.decoding), 3),
        "encode_s": round(encoding, 3),
    }


def loaded(asked: argparse.Namespace, folder: Path) -> float:
    """Samples a second that the loader gives where nobody trains."""
    data = ShardData(folder / "shards", batch_size=asked.batch, window=asked.window, num_workers=asked.workers)
    data.setup("fit")
    now, rates = clock(asked.device), []
    for _ in range(5):
        began, count = now(), 0
        while count < 8 * asked.batch:
            for batch in data.train_dataloader():
                count += len(batch.codes)
        rates.append(count / (now() - began))
    return median(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=train_setup.SIZES, default=["tiny", "middle"])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=7, help="of each kind")
    parser.add_argument("--window", type=float, default=30.0)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--video", default="640x360")
    parser.add_argument("--recompute", action="store_true")
    asked = parser.parse_args()
    if asked.device == "cpu":
        torch.set_num_threads(1)
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        train_setup.write(folder / "shards", max(8, asked.batch), 2 * asked.window)
        videos(folder / "videos", COUNT, 2 * asked.window, asked.video)
        seer, rate = eyes(folder / "clip", asked.device), loaded(asked, folder)
        for size in asked.sizes:
            found[size] = measured(size, asked, folder, seer)
            consumed = asked.batch * found[size]["steps_s_features"]
            found[size]["loader_headroom"] = round(rate / consumed, 1)
            print(size, *(f"{name} {value}" for name, value in found[size].items()), sep="\n  ")
    about = {
        "model": asked.sizes[0],
        "batch": asked.batch,
        "window_s": asked.window,
        "loader_samples_s": round(rate, 1),
    }
    device = torch.cuda.get_device_name() if asked.device == "cuda" else "cpu, one thread"
    print(json.dumps({**found[asked.sizes[0]], **about, "video": asked.video, "device": device, "by_size": found}))


if __name__ == "__main__":
    main()
