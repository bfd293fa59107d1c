"""SONIQUE's latent diffusion on a CPU: `uv run python -m bench.diffusion`.

Every sampler against a step-by-step reference in double precision; the change outside of inpainted ranges, on a tiny
model; then the model of the published size (906.7 M parameters in the U-Net, 133.4 M in the autoencoder) with random
weights and guidance: wall and CPU seconds of a step for one candidate and for a batch of four, the fastest of a few
runs; seconds to decode a window; peak resident memory. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from tests.fixtures.tiny import solvers
from tests.fixtures.tiny import sonique as tiny
from v2m.core.types import Controls, InpaintRequest, Tags, Video
from v2m.generators.options import DiffusionSampling, SamplerName
from v2m.generators.sonique import Sonique
from v2m.generators.sonique.unet import UNet, UNetConfig
from v2m.generators.sonique.windowed_sampling import CFGCondition, cfg_velocity, velocity_denoiser
from v2m.mappings import stable_audio
from v2m.media.audio import save
from v2m.models.conditioning import Condition
from v2m.pretrained.codecs.oobleck import OobleckAutoencoder

STEPS = (2, 5, 20, 60)
SIGMA = 3.0


def build_published_size(device: torch.device) -> tuple[UNet, OobleckAutoencoder, stable_audio.StableAudioConfig]:
    """Return the U-Net and autoencoder of the published sizes with random weights, and their settings."""
    settings = stable_audio.parse_config(tiny.published_config())
    torch.manual_seed(0)
    with torch.device(device):
        network = UNet(UNetConfig(**settings.unet)).eval().requires_grad_(False)
        autoencoder = OobleckAutoencoder(settings.autoencoder).eval().requires_grad_(False)
    return network, autoencoder, settings


def make_guided_step(
    network: UNet, settings: stable_audio.StableAudioConfig, candidates: int, device: torch.device
) -> Callable[[], Any]:
    """Return a function that makes one guided denoising step."""
    sizes, frames = network.config, settings.window_samples // settings.hop_length
    mask = torch.arange(sizes.num_tokens, device=device)[None] < 20
    condition = Condition(torch.randn(1, sizes.num_tokens, sizes.context_dim, device=device), mask)
    denoise = velocity_denoiser(cfg_velocity(network, CFGCondition(condition, None, 6.0, 0.4)))
    x = SIGMA * torch.randn(candidates, sizes.latent_dim, frames, device=device)
    return lambda: denoise(x, SIGMA)


def fastest(function: Callable[[], Any], times: int) -> tuple[float, float]:
    """Return wall and CPU seconds, the least of several runs; other load hardly changes the latter."""
    wall_times, cpu_times = [], []
    for _ in range(times):
        start, cpu_start = time.perf_counter(), time.process_time()
        function()
        wall_times.append(time.perf_counter() - start)
        cpu_times.append(time.process_time() - cpu_start)
    return min(wall_times), min(cpu_times)


def sampler_differences() -> dict[str, float]:
    """Return the largest relative difference of each sampler from its reference."""
    differences = {}
    names: tuple[SamplerName, ...] = get_args(SamplerName)
    for name in names:
        pairs = [solvers.compare_with_reference(name, steps) for steps in STEPS]
        differences[name] = max(
            float(np.abs(samples - expected).max() / np.abs(expected).max()) for samples, expected in pairs
        )
    return differences


def outside_inpaint_difference(folder: Path) -> float:
    """Return the largest change outside of inpainted ranges."""
    generator = Sonique(
        model=str(tiny.write(folder / "model")), sampling=DiffusionSampling(steps=4), overlap=0.3, device="cpu"
    )
    video = Video(Path("clip.mp4"), "mp4", "h264", 16, 16, 0, 25.0, 4.0, np.zeros(1), 0.0, ())
    previous = generator.generate(video, Tags(genres=["rock"]), 1).audio
    save(previous, folder / "earlier.wav")
    worst = 0.0
    for start, end in ((0.0, 0.7), (1.3, 1.9), (0.4, 3.5), (3.2, 4.0)):
        controls = Controls(inpaint=InpaintRequest(start, end, folder / "earlier.wav"))
        inpainted = generator.generate(video, Tags(genres=["rock"]), 2, controls=controls).audio
        change = np.abs(inpainted.samples - previous.samples)[0]
        low, high = (round(second * previous.sample_rate) for second in (start, end))
        assert change[low:high].max() > 0.01, "the range was not inpainted"
        worst = max(worst, float(np.delete(change, np.s_[low:high]).max()))
    return worst


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--times", type=int, default=3)
    args = parser.parse_args()
    differences = sampler_differences()
    for name, value in differences.items():
        print(f"{name:24} {value:.1e} from the reference version")
    with tempfile.TemporaryDirectory() as name:
        outside_difference = outside_inpaint_difference(Path(name))
    print(f"largest change outside of inpainted ranges: {outside_difference}")
    cpu = torch.device("cpu")
    network, autoencoder, settings = build_published_size(cpu)
    counts = [sum(value.numel() for value in module.parameters()) / 1e6 for module in (network, autoencoder)]
    print(f"U-Net {counts[0]:.1f} M, autoencoder {counts[1]:.1f} M, {torch.get_num_threads()} threads")
    fastest(make_guided_step(network, settings, 1, cpu), 1)  # the first is slower
    one, four = (fastest(make_guided_step(network, settings, candidates, cpu), args.times) for candidates in (1, 4))
    for candidates, (wall_s, cpu_s) in ((1, one), (4, four)):
        print(f"a guided step, {candidates} candidates in a batch: {wall_s:.2f} s, {cpu_s:.2f} s of CPU time")
    latents = torch.randn(1, settings.autoencoder.latent_dim, settings.window_samples // settings.hop_length)
    decode_s, _ = fastest(lambda: autoencoder.decode(latents), 1)
    seconds = settings.window_samples / settings.sample_rate
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{decode_s:.1f} s to decode a window of {seconds:.2f} s; peak {peak:.1f} GiB")
    figures = {
        "sampler_max_diff": max(differences.values()),
        "outside_inpaint_max_diff": outside_difference,
        "batch4_cost_ratio": round(four[1] / one[1] / 4, 3),
        "batch4_time_ratio": round(four[0] / one[0] / 4, 3),
        "unet_m": round(counts[0], 1),
        "cpu_s_per_step": round(one[0], 2),
        "core_s_per_step": round(one[1], 2),
        "decode_s": round(decode_s, 1),
        "peak_gb": round(peak, 2),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
