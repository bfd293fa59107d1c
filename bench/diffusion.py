"""SONIQUE's latent diffusion on a CPU: `uv run python -m bench.diffusion`.

Every sampler against a step-by-step reference in double precision; the change outside of inpainted ranges, and how far
each precision takes the final latent from float32's, on a tiny model. Then the model of the published size (906.7 M
parameters in the U-Net, 133.4 M in the autoencoder) with random weights and guidance, on one thread and by CPU time, in
each precision: a step for one candidate and one for a batch of four by turns, between products of matrices that show
what the core can do; the error of the step; the share of its time that its arithmetic needs at that speed, below which
no batch can bring a candidate's part (`floor_ratio`); seconds to decode a window; peak resident memory.
Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, get_args
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tests.fixtures.tiny import solvers
from tests.fixtures.tiny import sonique as tiny
from v2m.core import compat
from v2m.core.compat import OneDNNInt8Ops, OneDNNOps
from v2m.core.progress import ignore_progress
from v2m.core.types import Controls, InpaintRequest, Tags, Video
from v2m.generators.options import DiffusionPrecision, DiffusionSampling, SamplerName
from v2m.generators.sonique import Sonique
from v2m.generators.sonique.engine import DTYPES
from v2m.generators.sonique.packed_layers import Int8Linear
from v2m.generators.sonique.packed_unet import pack_unet
from v2m.generators.sonique.samplers import SAMPLERS, SolverContext, exponential_sigmas
from v2m.generators.sonique.unet import UNet, UNetConfig
from v2m.generators.sonique.windowed_sampling import CFGCondition, cfg_velocity, velocity_denoiser
from v2m.mappings import stable_audio
from v2m.media.audio import save
from v2m.models.conditioning import Condition
from v2m.pretrained.codecs.oobleck import OobleckAutoencoder

STEPS = (2, 5, 20, 60)
SIGMA = 3.0
CANDIDATES = (1, 4)
GEMM_SHAPES = ((2048, 1024, 1024), (2048, 1024, 4096), (1024, 4096, 1024))  # (M, K, N)
CPU = torch.device("cpu")


class Arithmetic(NamedTuple):
    """Operations of a step in its floating-point type and in 8 bits."""

    floating: int
    int8: int


def published_settings() -> stable_audio.StableAudioConfig:
    """Return the settings of the published model."""
    return stable_audio.parse_config(tiny.published_config())


def build_unet(settings: stable_audio.StableAudioConfig, precision: DiffusionPrecision) -> UNet:
    """Return the U-Net of the published size with random weights, as the generator runs it on a CPU."""
    torch.manual_seed(0)
    network = UNet(UNetConfig(**settings.unet)).eval().requires_grad_(False)
    pack_unet(network, DTYPES[precision], int8=precision == "int8")
    return network


def make_guided_step(
    network: UNet, settings: stable_audio.StableAudioConfig, candidates: int, device: torch.device
) -> Callable[[], Tensor]:
    """Return a function that makes one guided denoising step."""
    sizes, frames = network.config, settings.window_samples // settings.hop_length
    random = torch.Generator().manual_seed(1)
    mask = torch.arange(sizes.num_tokens, device=device)[None] < 20
    condition = Condition(torch.randn(1, sizes.num_tokens, sizes.context_dim, generator=random).to(device), mask)
    denoise = velocity_denoiser(cfg_velocity(network, CFGCondition(condition, None, 6.0, 0.4)))
    x = SIGMA * torch.randn(candidates, sizes.latent_dim, frames, generator=random).to(device)
    return lambda: denoise(x, SIGMA)


def cpu_seconds(function: Callable[[], Any]) -> float:
    """Return the CPU seconds of a call, which other load hardly changes."""
    start = time.process_time()
    function()
    return time.process_time() - start


def gemm_peak(precision: DiffusionPrecision) -> float:
    """Return operations a second of the best product of matrices of the step's sizes, in 10⁹."""
    best, ops = 0.0, compat.onednn_ops()
    assert ops is not None
    for rows, inner, outer in GEMM_SHAPES:
        if precision == "int8":
            layer = Int8Linear(torch.randn(outer, inner), None, torch.bfloat16)
            x = torch.randint(255, (rows, inner), dtype=torch.uint8)
            product = lambda layer=layer, x=x: layer.multiply(x)  # noqa: E731
        else:
            dtype = DTYPES[precision]
            weight, x = ops.reorder(torch.randn(outer, inner).to(dtype), rows), torch.randn(rows, inner).to(dtype)
            product = lambda weight=weight, x=x: ops.linear(x, weight, None, "none", [], "")  # noqa: E731
        product()
        best = max(best, *(2e-9 * rows * inner * outer / cpu_seconds(product) for _ in range(5)))
    return best


@contextmanager
def counted_products() -> Iterator[Counter[str]]:
    """Count the operations of oneDNN's products, for networks that are packed inside."""
    ops, int8_ops, counter = compat.onednn_ops(), compat.onednn_int8_ops(), Counter[str]()
    assert ops is not None

    def counting(function: Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
        def call(x: Tensor, *arguments: Any) -> Tensor:
            out = function(x, *arguments)
            counter[name] += 2 * x.numel() * out.shape[-1]
            return out

        return call

    counting_ops = OneDNNOps(ops.reorder, counting(ops.linear, "floating"), counting(ops.linear_add, "floating"))
    counting_int8_ops = int8_ops and OneDNNInt8Ops(int8_ops.reorder, counting(int8_ops.linear, "int8"))
    with (
        mock.patch.object(compat, "onednn_ops", return_value=counting_ops),
        mock.patch.object(compat, "onednn_int8_ops", return_value=counting_int8_ops),
    ):
        yield counter


def count_arithmetic(step: Callable[[], Tensor], counter: Counter[str]) -> tuple[Arithmetic, Tensor]:
    """Return the operations of `step`, whose network was packed within `counted_products`, and its result."""
    counter.clear()
    with FlopCounterMode(display=False) as rest:  # attention
        result = step()
    return Arithmetic(counter["floating"] + rest.get_total_flops(), counter["int8"]), result


def plain_arithmetic(settings: stable_audio.StableAudioConfig) -> int:
    """Return the operations of a guided step as two rows of the network as it is."""
    with torch.device("meta"):
        network, tokens = UNet(UNetConfig(**settings.unet)), settings.unet["num_tokens"]
        x = torch.empty(2, settings.unet["latent_dim"], settings.window_samples // settings.hop_length)
        context = torch.empty(2, tokens, settings.unet["context_dim"])
        with FlopCounterMode(display=False) as counter:
            network(x, torch.empty(2), context, torch.empty(2, tokens, dtype=torch.bool))
    return counter.get_total_flops()


def measure_precision(
    settings: stable_audio.StableAudioConfig, precision: DiffusionPrecision, times: int, reference: Tensor | None
) -> tuple[dict[str, Any], Tensor]:
    """Return figures of a guided step in one precision, and its result; `reference` is float32's."""
    with counted_products() as counter:
        network = build_unet(settings, precision)
        one, four = (make_guided_step(network, settings, candidates, CPU) for candidates in CANDIDATES)
        arithmetic, result = count_arithmetic(one, counter)
    floating: DiffusionPrecision = "bf16" if precision == "int8" else precision
    seconds: dict[str, list[float]] = {"one": [], "four": [], "ratio": []}
    peak, int8_peak = 0.0, math.inf
    for _ in range(times):
        peak = max(peak, gemm_peak(floating))
        int8_peak = max(0.0 if int8_peak == math.inf else int8_peak, gemm_peak("int8")) if arithmetic.int8 else math.inf
        seconds["one"].append(cpu_seconds(one))
        seconds["four"].append(cpu_seconds(four))
        seconds["ratio"].append(seconds["four"][-1] / seconds["one"][-1] / CANDIDATES[1])
    core_s = statistics.median(seconds["one"])
    floor_s = 1e-9 * (arithmetic.floating / peak + arithmetic.int8 / int8_peak)
    figures = {
        "core_s_per_step": round(core_s, 2),
        "batch4_cost_ratio": round(statistics.median(seconds["ratio"]), 3),
        "floor_s_per_step": round(floor_s, 2),
        "floor_ratio": round(floor_s / core_s, 3),
        "gemm_peak_gflops": round(peak, 1),
        "gflop_per_step": round(1e-9 * sum(arithmetic), 1),
    }
    if arithmetic.int8:
        figures |= {"int8_peak_gops": round(int8_peak, 1), "int8_gop_per_step": round(1e-9 * arithmetic.int8, 1)}
    if reference is not None:
        figures["step_error"] = float(f"{relative_error(result, reference):.2e}")
    return figures, result


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def tiny_final_latent(precision: DiffusionPrecision, cfg_scale: float) -> Tensor:
    """Return the final latents of two pieces of the tiny model by the default sampler and number of steps."""
    network, sampling = tiny.make_unet().requires_grad_(False), DiffusionSampling(cfg_scale=cfg_scale)
    pack_unet(network, DTYPES[precision], int8=precision == "int8")
    sizes, random = network.config, torch.Generator().manual_seed(5)
    mask = torch.arange(sizes.num_tokens)[None] < 20
    condition = Condition(torch.randn(1, sizes.num_tokens, sizes.context_dim, generator=random), mask)
    guidance = CFGCondition(condition, None, sampling.cfg_scale, sampling.cfg_rescale)
    denoise = velocity_denoiser(cfg_velocity(network, guidance))
    sigmas = exponential_sigmas(sampling.steps, sampling.sigma_min, sampling.sigma_max)

    def noise() -> Tensor:
        return torch.randn(2, sizes.latent_dim, tiny.FRAMES, generator=random)

    return SAMPLERS[sampling.sampler](SolverContext(denoise, noise, ignore_progress), sigmas[0] * noise(), sigmas)


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
    torch.set_num_threads(1)
    settings = published_settings()
    precisions = supported_precisions()
    figures: dict[str, Any] = {
        "sampler_max_diff": max(differences.values()),
        "outside_inpaint_max_diff": outside_difference,
        "plain_gflop_per_step": round(1e-9 * plain_arithmetic(settings), 1),
    }
    reference = None
    for precision in precisions:
        figures[precision], result = measure_precision(settings, precision, args.times, reference)
        reference = result if precision == "fp32" else reference
        print(f"{precision}: {figures[precision]}", flush=True)
    for cfg_scale in (1.0, 6.0):
        latents = {precision: tiny_final_latent(precision, cfg_scale) for precision in precisions}
        errors = {name: float(f"{relative_error(x, latents['fp32']):.2e}") for name, x in latents.items()}
        print(f"tiny model, guidance {cfg_scale:g}, error of the final latent: {errors}")
        figures[f"tiny_latent_error_cfg_{cfg_scale:g}"] = errors
    figures |= measure_decoding(settings)
    figures["peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    print(json.dumps(figures))


def supported_precisions() -> list[DiffusionPrecision]:
    """Return the precisions that this CPU multiplies, float32 first."""
    precisions: list[DiffusionPrecision] = ["fp32"]
    if compat.onednn_supports(torch.bfloat16):
        precisions.append("bf16")
        if compat.onednn_int8_ops() is not None:
            precisions.append("int8")
    return precisions


def measure_decoding(settings: stable_audio.StableAudioConfig) -> dict[str, float]:
    """Return CPU seconds to decode a window."""
    torch.manual_seed(0)
    autoencoder = OobleckAutoencoder(settings.autoencoder).eval().requires_grad_(False)
    latents = torch.randn(1, settings.autoencoder.latent_dim, settings.window_samples // settings.hop_length)
    decode_s = cpu_seconds(lambda: autoencoder.decode(latents))
    print(f"{decode_s:.1f} s to decode a window of {settings.window_samples / settings.sample_rate:.2f} s")
    return {"decode_core_s": round(decode_s, 1)}


if __name__ == "__main__":
    main()
