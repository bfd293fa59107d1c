"""SONIQUE's real size on a GPU: `uv run python -m bench.diffusion_gpu`.

The generator's engine with random weights of the published sizes: music for 23 s of video with SONIQUE's own settings
(300 steps, guided), the second of two runs, and the peak of the device's memory; then four candidates in a batch, and
one with --low-memory. A guided step of the U-Net, of 1, 4 and 16 clips: as it is, as a CUDA graph, by each of PyTorch's
attention kernels, and compiled, in a graph, too. Each line is one JSON object, the last one with all figures.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from bench import roofline
from bench.gpu_figures import Figures, preferred_backends
from tests.fixtures.tiny import sonique as tiny
from v2m.core.types import Tags, Video
from v2m.generators.options import DiffusionSampling
from v2m.generators.sonique.checkpoint import SoniqueComponents
from v2m.generators.sonique.engine import SoniqueEngine
from v2m.generators.sonique.unet import UNet, UNetConfig
from v2m.generators.sonique.windowed_sampling import CFGCondition, Velocity, cfg_velocity
from v2m.mappings import stable_audio
from v2m.models.conditioning import Condition
from v2m.models.inference.cuda_graph import CapturedStep
from v2m.pretrained.codecs.oobleck import OobleckAutoencoder
from v2m.pretrained.text import ClapTextEncoder

SECONDS = 23.0
TAGS = Tags(instruments=["piano", "strings"], genres=["ambient"], tempo=90)
WARMUP_STEPS, SHORT_STEPS = 10, 60  # of a batch and of --low-memory, whose ratios do not depend on the number
BATCHES = (1, 4, 16)


def random_components(folder: Path, device: torch.device, small: bool) -> SoniqueComponents:
    """Return the components with random weights; CLAP's text branch has 3 of its 12 layers."""
    settings = tiny.make_config() if small else tiny.published_config()
    config = stable_audio.parse_config(settings)
    torch.manual_seed(0)
    with torch.device(device):
        unet = UNet(UNetConfig(**config.unet)).eval().requires_grad_(False)
        autoencoder = OobleckAutoencoder(config.autoencoder).eval().requires_grad_(False)
    dim = config.unet["context_dim"]
    clap = tiny.write_clap(folder / "clap.ckpt", dim)
    text_encoder = ClapTextEncoder.load(clap, tiny.write_tokenizer(folder), layer=config.clap_layer)
    embeddings = {name: torch.randn(high - low + 1, dim) for name, (low, high) in config.number_ranges.items()}
    return SoniqueComponents(config, unet, autoencoder, text_encoder, embeddings, ())


class Clips:
    """Music for one video by one engine."""

    def __init__(self, components: SoniqueComponents, device: torch.device, args: argparse.Namespace) -> None:
        self.components, self.device, self.steps = components, device, args.steps
        self.overlap = 0.3 if args.small else 6.0
        self.video = Video(Path("clip.mp4"), "mp4", "h264", 16, 16, 0, 25.0, args.seconds, np.zeros(1), 0.0, ())

    def generate(self, count: int, steps: int, low_memory: bool = False) -> float:
        """Return the seconds of `count` candidates in a batch, with the loaded model."""
        engine = SoniqueEngine(self.components, self.device, None, low_memory)
        sampling, seeds = DiffusionSampling(steps=steps), range(count)
        start = roofline.clock(self.device)
        soundtracks = engine.generate(
            self.video, TAGS, seeds, sampling=sampling, overlap=self.overlap, batch_size=count
        )
        taken = roofline.clock(self.device) - start
        assert all(np.isfinite(soundtrack.audio.samples).all() for soundtrack in soundtracks)
        return taken

    def peak_gib(self) -> float | None:
        return torch.cuda.max_memory_allocated() / 2**30 if self.device.type == "cuda" else None

    def reset_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def measure_clips(figures: Figures, clips: Clips) -> None:
    """Add the seconds and the memory of whole clips."""
    clips.generate(1, min(WARMUP_STEPS, clips.steps))
    clips.reset_peak()
    figures.add(seconds_for_clip=clips.generate(1, clips.steps), steps=clips.steps)
    figures.add(peak_gib=clips.peak_gib())
    short = min(SHORT_STEPS, clips.steps)
    with figures.attempt("batch4"):
        one, four = (clips.generate(count, short) for count in (1, 4))
        figures.add(batch4_cost_ratio=four / one / 4)


def captured(velocity: Velocity, x: Tensor, time: Tensor, capture: bool) -> Callable[[], None]:
    """Return one call of `velocity` as a CUDA graph."""
    out = torch.empty_like(x)

    def step() -> None:
        out.copy_(velocity(x, time))

    return CapturedStep(step, capture=capture)


@torch.inference_mode()
def measure_steps(figures: Figures, unet: UNet, frames: int, device: torch.device, args: argparse.Namespace) -> None:
    """Add the milliseconds of a guided step of each variant, the important ones first."""
    config, times = unet.config, 2 if args.small else 8
    mask = torch.arange(config.num_tokens, device=device)[None] < 20
    condition = Condition(torch.randn(1, config.num_tokens, config.context_dim, device=device), mask)
    on_gpu = device.type == "cuda"

    def variant(name: str, clips: int, model: Any, graph: bool) -> None:
        velocity = cfg_velocity(model, CFGCondition(condition, None, 6.0, 0.4))
        x = torch.randn(clips, config.latent_dim, frames, device=device)
        time = torch.full((clips,), 0.5, device=device)
        run = captured(velocity, x, time, on_gpu) if graph else partial(velocity, x, time)
        for _ in range(4):
            run()
        figures.add(step_ms={name: 1000 * roofline.median_seconds(run, device, times)})

    for clips in BATCHES:
        for name, graph in (("eager", False), ("graph", True)):
            with figures.attempt(f"{name}_b{clips}"):
                variant(f"{name}_b{clips}", clips, unet, graph)
    for name, backends in preferred_backends().items():
        with figures.attempt(f"graph_{name}_b1"), sdpa_kernel(backends, set_priority=True):
            variant(f"graph_{name}_b1", 1, unet, True)
    add_fastest(figures)
    if not args.without_compile:
        with figures.attempt("graph_compiled_b1"):
            variant("graph_compiled_b1", 1, CompiledUNet(unet), True)
            add_fastest(figures)


def add_fastest(figures: Figures) -> None:
    """Name the fastest variant of each batch, and what 300 steps of one clip would take by it."""
    step_ms: dict[str, float] = figures.values.get("step_ms", {})
    for clips in BATCHES:
        variants = {name: value for name, value in step_ms.items() if name.endswith(f"_b{clips}")}
        if variants:
            figures.add(fastest={f"b{clips}": min(variants, key=lambda name: variants[name])})
    if best := figures.values.get("fastest", {}).get("b1"):
        figures.add(seconds_of_300_steps_by_fastest=0.3 * step_ms[best])


class CompiledUNet:
    """The U-Net with fused kernels; all else is the network's."""

    def __init__(self, unet: UNet) -> None:
        self.null_tokens = unet.null_tokens
        self._forward = torch.compile(unet.forward, dynamic=False)

    def __call__(self, *args: Tensor) -> Tensor:
        return self._forward(*args)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--small", action="store_true", help="the tiny model, to try this script")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--without-compile", action="store_true", help="leave out variants with torch.compile")
    args = parser.parse_args()
    if args.small:
        args.steps, args.seconds = 4, 1.0
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("this needs a CUDA device; try this script with --small --device cpu")
    device, figures = torch.device(args.device), Figures()
    figures.add(device=roofline.describe(device)["device"])
    with tempfile.TemporaryDirectory() as name:
        components = random_components(Path(name), device, args.small)
    clips = Clips(components, device, args)
    figures.add(unet_m=sum(value.numel() for value in components.unet.parameters()) / 1e6)
    with figures.attempt("clips"):
        measure_clips(figures, clips)
    config = components.config
    frames = config.window_samples // config.hop_length
    with figures.attempt("steps"):
        measure_steps(figures, components.unet, frames, device, args)
    with figures.attempt("low_memory"):
        components.unet.to("cpu")
        components.autoencoder.to("cpu")
        clips.reset_peak()
        seconds = clips.generate(1, min(SHORT_STEPS, args.steps), low_memory=True)
        figures.add(low_memory_s=seconds, low_memory_peak_gib=clips.peak_gib())


if __name__ == "__main__":
    main()
