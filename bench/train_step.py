"""Steps of training a second on prepared features, against decoding and encoding frames in every step.

    uv run python -m bench.train_step                    # some minutes
    uv run python -m bench.train_step --sizes small      # MusicGen-small's: 12 GB, half an hour
    uv run python -m bench.train_step --sizes small --device cuda --batch 8

One run for both: its steps alternate. All of them read shards of the published sizes and train the whole model,
optimizer included. Every second step does besides what VidMuse does: it decodes the frames of the clip (2 a second) and
some of the whole video with decord, at 224 by 224 pixels, and CLIP ViT-B/32 with random weights encodes them. Codes and
text are prepared in both. `speedup_decoding_hidden` is the speedup where decoding runs ahead: encoding alone. Without
decord nothing is decoded: random frames are encoded, and the two are one. `--video` is a size to make videos of, or a
file, whose last frame stands for those beyond its end. Medians; on a CPU of processor time on one thread, so that other
work beside it matters little. `train_profile.py` says what bounds a step. Each line is one JSON object, the last one
with all figures; the top-level ones are those of the first size.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel

from bench import roofline
from bench.gpu_figures import Figures
from tests.fixtures import train_setup
from v2m.data.collate import Batch
from v2m.data.module import ShardData
from v2m.pretrained.vision import FrozenVisionEncoder
from v2m.training.module import LitMusicLM

SIDE = 224  # pixels of CLIP's input
COUNT = 2  # videos, used in turn


class AlternatingLM(LitMusicLM):
    """Train on prepared features and on features encoded in the step, alternately."""

    def __init__(
        self, vision_encoder: FrozenVisionEncoder, videos: list[Path], now: Callable[[], float], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.vision_encoder, self.videos = vision_encoder, videos
        self.decoding, self.encoding, self.now, self.turn = list[float](), list[float](), now, 0

    def setup(self, stage: str) -> None:
        """Build the model on its device, where random weights are drawn fast."""
        with torch.device(self.trainer.strategy.root_device):
            super().setup(stage)

    def training_step(self, batch: Batch, _: int) -> Tensor:
        self.turn += 1
        if self.turn % 2 == 0:
            pairs = [self._encode_online(row) for row in range(len(batch.codes))]
            short_term, long_term = (torch.stack(tokens).float() for tokens in zip(*pairs, strict=True))
            batch = batch._replace(visual=batch.visual._replace(short_term=short_term, long_term=long_term))
        return super().training_step(batch, _)

    def _encode_online(self, row: int) -> tuple[Tensor, Tensor]:
        """Decode and encode frames; return the tokens of the clip's frames and of the whole video's."""
        start, num_frames = self.now(), int(self._window * train_setup.KEPT.video_frame_rate)
        frames = decode_frames(self.videos[row % len(self.videos)], num_frames)
        decoded = self.now()
        tokens = self.vision_encoder.encode(frames)
        if tokens.is_cuda:
            torch.cuda.synchronize()
        self.decoding.append(decoded - start)
        self.encoding.append(self.now() - decoded)
        return tokens[:num_frames], tokens[num_frames:]


def decode_frames(path: Path, num_frames: int) -> np.ndarray:
    """Return the frames of a clip, and behind them those of its whole video; random ones without decord."""
    num_long_term = train_setup.KEPT.num_long_term_frames
    if find_spec("decord") is None:
        shape = (num_frames + num_long_term, SIDE, SIDE, 3)
        return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    import decord  # noqa: PLC0415 (not everywhere)

    reader = decord.VideoReader(str(path), width=SIDE, height=SIDE, num_threads=1)
    rate, last = reader.get_avg_fps(), len(reader) - 1
    indices = np.round(np.arange(num_frames) / train_setup.KEPT.video_frame_rate * rate).astype(int)
    long_term_indices = np.linspace(0, last, num_long_term).astype(int)
    return reader.get_batch([*indices.clip(max=last), *long_term_indices]).asnumpy()


def find_videos(text: str, folder: Path, seconds: float) -> list[Path]:
    """Return the videos: the file `text`, or new ones of the size `text`."""
    if Path(text).suffix:
        return [Path(text)]
    from bench.prepare import make_videos  # noqa: PLC0415 (it needs ffmpeg)

    make_videos(folder, COUNT, seconds, text)
    return sorted(folder.iterdir())


def random_vision_encoder(folder: Path, device: str, small: bool) -> FrozenVisionEncoder:
    """Return CLIP ViT-B/32 with random weights; a `small` one has one layer."""
    torch.manual_seed(0)
    CLIPVisionModel(CLIPVisionConfig(num_hidden_layers=1 if small else 12)).save_pretrained(folder)
    return FrozenVisionEncoder.load(folder, torch.device(device), name="random")


def clock(device: str) -> Callable[[], float]:
    return time.perf_counter if device == "cuda" else time.process_time


def measure(
    size: str, args: argparse.Namespace, shards: Path, videos: list[Path], vision_encoder: FrozenVisionEncoder
) -> dict[str, float]:
    """Return medians for a model size, in seconds and steps a second."""
    config = train_setup.SIZES[size]
    settings: dict[str, Any] = {"lm": config, "conditioner": train_setup.CONDITIONER, "window": args.window}
    now = clock(args.device)
    model = AlternatingLM(vision_encoder, videos, now, **settings, gradient_checkpointing=args.recompute)
    steps = train_setup.Clock(now)
    data = ShardData(shards, batch_size=args.batch, window=args.window, num_workers=args.workers)
    train_setup.trainer(2 * args.steps + 2, args.device, args.precision, steps).fit(model, data)
    seconds = steps.seconds[1:]  # step 1 warms up; the clock starts at the end of step 0
    features, online = median(seconds[::2]), median(seconds[1::2])
    per_step = len(model.encoding) / (args.steps + 1)
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


def loader_rate(args: argparse.Namespace, shards: Path) -> float:
    """Return the samples per second of the loader without training."""
    data = ShardData(shards, batch_size=args.batch, window=args.window, num_workers=args.workers)
    data.setup("fit")
    now, rates = clock(args.device), []
    for _ in range(5):
        start, count = now(), 0
        while count < 8 * args.batch:
            for batch in data.train_dataloader():
                count += len(batch.codes)
        rates.append(count / (now() - start))
    return median(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=train_setup.SIZES, default=["tiny", "middle"])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=7, help="of each kind")
    parser.add_argument("--window", type=float, default=30.0)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--video", default="640x360", help="size, or a file")
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed"))
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--small", action="store_true", help="the smallest sizes, to try this script")
    args = parser.parse_args()
    if args.small:
        args.sizes, args.batch, args.steps, args.window = ["tiny"], 1, 1, 2.0
    if args.device == "cpu":
        torch.set_num_threads(1)
    args.precision = args.precision or ("bf16-mixed" if args.device == "cuda" else "32-true")
    figures, device = Figures(), roofline.describe(torch.device(args.device))["device"]
    figures.add(device=device if args.device == "cuda" else f"{device}, one thread", precision=args.precision)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shards = train_setup.write(folder / "shards", max(8, args.batch), 2 * args.window)
        videos = find_videos(args.video, folder / "videos", 2 * args.window)
        vision_encoder = random_vision_encoder(folder / "clip", args.device, args.small)
        rate = loader_rate(args, shards)
        figures.add(loader_samples_s=rate, batch=args.batch, window_s=args.window, video=args.video)
        figures.add(decodes=find_spec("decord") is not None)
        for index, size in enumerate(args.sizes):
            result: dict[str, Any] = measure(size, args, shards, videos, vision_encoder)
            result["loader_headroom"] = rate / (args.batch * result["steps_s_features"])
            figures.add(**({"model": size, **result} if index == 0 else {}), by_size={size: result})


if __name__ == "__main__":
    main()
