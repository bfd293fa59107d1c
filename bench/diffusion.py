"""SONIQUE's latent diffusion on a CPU: `uv run python -m bench.diffusion`.

Every sampler against a version written out step by step, in double precision; what lies outside of a part that is
written anew, on a tiny model; then the model of the published size (906.7 M parameters in the U-Net, 133.4 M in the
autoencoder), with random weights, guided: seconds of a step for one take and for four side by side, and of the cores'
time, the fastest of a few; seconds that a window's sound takes; the peak of resident memory. Last line: one JSON
object.
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


def real(device: torch.device) -> tuple[UNet, OobleckAutoencoder, stable_audio.StableAudioConfig]:
    """The published sizes with random weights."""
    settings = stable_audio.parse_config(tiny.published_config())
    torch.manual_seed(0)
    with torch.device(device):
        network = UNet(UNetConfig(**settings.unet)).eval().requires_grad_(False)
        autoencoder = OobleckAutoencoder(settings.autoencoder).eval().requires_grad_(False)
    return network, autoencoder, settings


def step(
    network: UNet, settings: stable_audio.StableAudioConfig, takes: int, device: torch.device
) -> Callable[[], Any]:
    """One guided question to the model."""
    sizes, frames = network.config, settings.window_samples // settings.hop_length
    mask = torch.arange(sizes.num_tokens, device=device)[None] < 20
    words = Condition(torch.randn(1, sizes.num_tokens, sizes.context_dim, device=device), mask)
    denoise = velocity_denoiser(cfg_velocity(network, CFGCondition(words, None, 6.0, 0.4)))
    x = SIGMA * torch.randn(takes, sizes.latent_dim, frames, device=device)
    return lambda: denoise(x, SIGMA)


def fastest(work: Callable[[], Any], times: int) -> tuple[float, float]:
    """Seconds that pass, and seconds that the cores work, which other work beside it hardly changes."""
    passed, worked = [], []
    for _ in range(times):
        begun, cores = time.perf_counter(), time.process_time()
        work()
        passed.append(time.perf_counter() - begun)
        worked.append(time.process_time() - cores)
    return min(passed), min(worked)


def sampler_differences() -> dict[str, float]:
    """The largest relative difference of each sampler."""
    found = {}
    names: tuple[SamplerName, ...] = get_args(SamplerName)
    for name in names:
        pairs = [solvers.compare_with_reference(name, steps) for steps in STEPS]
        found[name] = max(float(np.abs(ours - wanted).max() / np.abs(wanted).max()) for ours, wanted in pairs)
    return found


def outside(folder: Path) -> float:
    """Largest change outside of inpainted ranges."""
    generator = Sonique(
        model=str(tiny.write(folder / "model")), sampling=DiffusionSampling(steps=4), overlap=0.3, device="cpu"
    )
    video = Video(Path("clip.mp4"), "mp4", "h264", 16, 16, 0, 25.0, 4.0, np.zeros(1), 0.0, ())
    earlier = generator.generate(video, Tags(genres=["rock"]), 1).audio
    save(earlier, folder / "earlier.wav")
    worst = 0.0
    for begin, end in ((0.0, 0.7), (1.3, 1.9), (0.4, 3.5), (3.2, 4.0)):
        asked = Controls(inpaint=InpaintRequest(begin, end, folder / "earlier.wav"))
        made = generator.generate(video, Tags(genres=["rock"]), 2, controls=asked).audio
        change = np.abs(made.samples - earlier.samples)[0]
        low, high = (round(second * earlier.sample_rate) for second in (begin, end))
        assert change[low:high].max() > 0.01, "the part is not new"
        worst = max(worst, float(np.delete(change, np.s_[low:high]).max()))
    return worst


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args()
    differences = sampler_differences()
    for name, value in differences.items():
        print(f"{name:24} {value:.1e} from the version written out")
    with tempfile.TemporaryDirectory() as name:
        changed = outside(Path(name))
    print(f"outside of a part that is written anew: {changed}")
    cpu = torch.device("cpu")
    network, autoencoder, settings = real(cpu)
    counts = [sum(value.numel() for value in each.parameters()) / 1e6 for each in (network, autoencoder)]
    print(f"U-Net {counts[0]:.1f} M, autoencoder {counts[1]:.1f} M, {torch.get_num_threads()} threads")
    fastest(step(network, settings, 1, cpu), 1)  # the first is slower
    one, four = (fastest(step(network, settings, takes, cpu), options.times) for takes in (1, 4))
    for takes, (passed, worked) in ((1, one), (4, four)):
        print(f"a guided step, {takes} takes side by side: {passed:.2f} s, {worked:.2f} s of the cores' time")
    latents = torch.randn(1, settings.autoencoder.latent_dim, settings.window_samples // settings.hop_length)
    sound, _ = fastest(lambda: autoencoder.decode(latents), 1)
    seconds = settings.window_samples / settings.sample_rate
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{sound:.1f} s for the sound of a window of {seconds:.2f} s; peak {peak:.1f} GiB")
    figures = {
        "sampler_max_diff": max(differences.values()),
        "outside_inpaint_max_diff": changed,
        "batch4_cost_ratio": round(four[1] / one[1] / 4, 3),
        "batch4_time_ratio": round(four[0] / one[0] / 4, 3),
        "unet_m": round(counts[0], 1),
        "cpu_s_per_step": round(one[0], 2),
        "core_s_per_step": round(one[1], 2),
        "decode_s": round(sound, 1),
        "peak_gb": round(peak, 2),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
