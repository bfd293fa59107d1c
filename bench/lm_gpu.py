"""MusicGen-small's size on a GPU, guided, against transformers: `uv run python -m bench.lm_gpu`.

The same random weights in bfloat16, a memory of 3000 tokens, 1 and 16 clips; a step is one pass, so that 16 clips write
16 frames in it. Ours: as CUDA graphs, without, and with layers fused by `torch.compile` in the graphs. transformers'
decoder: as it is, and compiled with caches of fixed size where that works. 30 s of audio: codes from a prompt of 64
tokens, and their decoding by an EnCodec of the published size. The prefill of 1000 frames by each of PyTorch's
attention kernels. `bandwidth_share` is the share of a step, one clip, that reading weights and memory alone would take
by a copy measured in the same run. Each line is one JSON object, the last one with all figures.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import sdpa_kernel
from transformers import MusicgenForCausalLM, StaticCache

from bench import roofline
from bench.gpu_figures import Figures, preferred_backends
from bench.lm_decoding import Implementation, bytes_read, clock, random_lm, step_ms, to_transformers, with_transformers
from tests.fixtures.tiny import encodec as tiny
from v2m.core.types import SamplingConfig
from v2m.models.conditioning import CFGBranch, Condition
from v2m.models.inference.decoder import Decoder, GenerationState
from v2m.models.inference.inference_lm import InferenceLM
from v2m.models.lm import LM, LMConfig

FRAME_RATE = 50
WORDS = 64  # tokens of a text
BATCHES = (1, 16)
GUIDANCE = 3.0
SMALL_CONFIG = LMConfig(dim=64, num_layers=2, num_heads=4, codebook_size=64)


class CompiledLM(InferenceLM):
    """Layers that `torch.compile` fuses into fewer kernels."""

    def __init__(self, lm: LM) -> None:
        super().__init__(lm, "bf16")
        self._compiled = torch.compile(super().__call__, dynamic=False)

    def __call__(self, *args: Any) -> Tensor:
        return self._compiled(*args)


class CompiledDecoder(Decoder):
    """A decoder with these layers."""

    def __init__(self, lm: LM) -> None:
        super().__init__(lm, precision="bf16")
        with torch.inference_mode():
            self._lm = CompiledLM(lm)


class Sizes:
    """Lengths of the runs: small ones try this script."""

    def __init__(self, small: bool, compile: bool) -> None:
        self.compile = compile
        self.config = SMALL_CONFIG if small else LMConfig()
        self.tokens, self.prompt, self.seconds = (20, 30, 1) if small else (3000, 1000, 30)
        self.short, self.long = (2, 22) if small else (8, 136)  # frames: a graph is captured in the shorter, too
        self.times = 1 if small else 3
        self.codec_channels = 4 if small else 64


def cfg_branches(condition: Tensor) -> list[CFGBranch]:
    return [CFGBranch(1 - GUIDANCE, None), CFGBranch(GUIDANCE, Condition.from_tokens(condition))]


def run_decoder(decoder: Decoder, condition: Tensor, frames: int, *, capture: bool | None = None) -> Tensor:
    """Return the codes of a clip for each row of the condition (B, S, D)."""
    seeds = range(len(condition))
    sampling = SamplingConfig()
    return decoder.generate(cfg_branches(condition), frames, sampling=sampling, seeds=seeds, capture=capture)


def static_caches(reference: Any, positions: int, tokens: int) -> tuple[StaticCache, StaticCache]:
    """Return transformers' static caches: with others it compiles anew at each step."""
    return StaticCache(reference.config, positions), StaticCache(reference.config, tokens)


def compile_reference(reference: Any) -> Any:
    """Return a copy of transformers' decoder with a compiled forward."""
    with torch.device(reference.device):
        compiled: Any = MusicgenForCausalLM(reference.config)
    compiled.to(reference.device, reference.dtype).eval()
    compiled.load_state_dict(reference.state_dict())
    compiled.forward = torch.compile(compiled.forward, mode="reduce-overhead")
    return compiled


def time_generation(decoder: Decoder, codec: Any, clips: int, seconds: int, device: torch.device) -> float:
    """Return the seconds from text embeddings to samples, of the second of two runs."""
    condition = torch.randn(clips, WORDS, decoder.config.dim, device=device)
    elapsed = 0.0
    for _ in range(2):
        start = clock()
        codes = run_decoder(decoder, condition, seconds * FRAME_RATE)
        audio = torch.cat([codec.decode(row[None]) for row in codes]).cpu()
        elapsed = clock() - start
        assert audio.shape[-1] == seconds * codec.spec.sample_rate
    return elapsed


@torch.inference_mode()
def prefill(decoder: Decoder, memory: Tensor, prompt: Tensor) -> None:
    """Read a prompt (1, K, T), without drawing."""
    frames = prompt.shape[2] + 1
    options: Any = {"sampling": SamplingConfig(), "seeds": [0], "prompt": prompt}
    GenerationState(decoder._lm, cfg_branches(memory), frames, **options).prefill()


def measure_prefill(figures: Figures, decoder: Decoder, memory: Tensor, sizes: Sizes) -> None:
    lm, device = sizes.config, memory.device
    prompt = torch.randint(lm.codebook_size, (1, lm.num_codebooks, sizes.prompt), device=device)
    run = partial(prefill, decoder, memory, prompt)
    figures.add(prefill_ms={"default": 1000 * roofline.median_seconds(run, device, sizes.times)})
    for name, backends in preferred_backends().items():
        with figures.attempt(f"prefill_{name}"), sdpa_kernel(backends, set_priority=True):
            figures.add(prefill_ms={name: 1000 * roofline.median_seconds(run, device, sizes.times)})
    figures.fastest("prefill_fastest", "prefill_ms")


def measure_decoding(figures: Figures, lm: LM, reference: Any, memory: Tensor, sizes: Sizes) -> None:
    """Add the milliseconds of a step of each variant, the most important ones first."""
    decoder, times = Decoder(lm, precision="bf16"), sizes.times
    codec = make_codec(sizes, memory.device)
    conditions = {clips: memory.expand(clips, -1, -1).contiguous() for clips in BATCHES}
    bandwidth = figures.values["bandwidth_gb_s"] * 1e9
    floor = 1000 * bytes_read(sizes.config, sizes.tokens, (sizes.short + sizes.long) / 2, 2, 2) / bandwidth

    def step(name: str, function: Callable[[int], object]) -> None:
        with figures.attempt(name):
            run: Implementation = function, sizes.short, sizes.long
            function(sizes.long)  # kernels are chosen and compiled
            figures.add(step_ms={name: step_ms({name: run}, times)[name]})

    def ratios(clips: int, suffix: str) -> None:
        milliseconds = figures.values.get("step_ms", {})
        ours, theirs = milliseconds.get(f"graphs_b{clips}"), milliseconds.get(f"transformers_b{clips}")
        if ours and theirs:
            figures.add(**{f"vs_transformers_eager{suffix}": theirs / ours})

    step("graphs_b1", partial(run_decoder, decoder, conditions[1]))
    ours = figures.values.get("step_ms", {}).get("graphs_b1")
    if ours:
        figures.add(steps_s_b1=1000 / ours, bandwidth_share=floor / ours, floor_ms=floor)
    step("transformers_b1", with_transformers(reference, conditions[1]))
    ratios(1, "")
    with figures.attempt("seconds_for_30s"):
        figures.add(seconds_for_30s=time_generation(decoder, codec, 1, sizes.seconds, memory.device))
    step("graphs_b16", partial(run_decoder, decoder, conditions[16]))
    with figures.attempt("seconds_for_30s_b16"):
        figures.add(seconds_for_30s_b16=time_generation(decoder, codec, 16, sizes.seconds, memory.device))
    step("transformers_b16", with_transformers(reference, conditions[16]))
    ratios(16, "_b16")
    for clips in BATCHES:
        step(f"no_graphs_b{clips}", partial(run_decoder, decoder, conditions[clips], capture=False))
    with figures.attempt("prefill"):
        measure_prefill(figures, decoder, memory, sizes)
    if sizes.compile:
        with figures.attempt("graphs_compiled"):
            compiled = CompiledDecoder(lm)
            for clips in BATCHES:
                step(f"graphs_compiled_b{clips}", partial(run_decoder, compiled, conditions[clips]))


def measure_compiled_reference(figures: Figures, reference: Any, memory: Tensor, sizes: Sizes) -> None:
    compiled = compile_reference(reference)
    for clips in BATCHES:
        name = f"transformers_compiled_b{clips}"
        with figures.attempt(name):
            condition = memory.expand(clips, -1, -1).contiguous()
            caches = partial(static_caches, reference, 2 * sizes.long, memory.shape[1])
            run = with_transformers(compiled, condition, caches)
            for frames in (sizes.long, sizes.short):
                run(frames)  # compiles
            figures.add(step_ms={name: step_ms({name: (run, sizes.short, sizes.long)}, sizes.times)[name]})


def make_codec(sizes: Sizes, device: torch.device) -> Any:
    """Return an EnCodec with random weights, of the published size or a small one."""
    from v2m.pretrained.codecs import encodec  # noqa: PLC0415 (another module of the same name is imported above)

    size = {"codebook_size": sizes.config.codebook_size, "num_filters": sizes.codec_channels}
    size |= {"hidden_size": 2 * sizes.codec_channels}
    with tempfile.TemporaryDirectory() as name:
        tiny.make_model(tiny.make_config(**size)).save_pretrained(name)
        return encodec.load_encodec(Path(name), device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--small", action="store_true", help="a small model, to try this script")
    parser.add_argument("--without-compile", action="store_true", help="leave out variants with torch.compile")
    args = parser.parse_args()
    device, figures, sizes = torch.device(args.device), Figures(), Sizes(args.small, not args.without_compile)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("this needs a CUDA device; try this script with --small --device cpu")
    figures.add(device=roofline.describe(device)["device"])
    figures.add(bandwidth_gb_s=roofline.copy_bandwidth(device, args.small) / 1e9)
    with torch.device(device):
        lm = random_lm(sizes.config).to(torch.bfloat16)
        reference = to_transformers(lm).to(device, torch.bfloat16)
    memory = torch.randn(1, sizes.tokens, sizes.config.dim, device=device, dtype=torch.bfloat16)
    measure_decoding(figures, lm, reference, memory, sizes)
    if sizes.compile:
        with figures.attempt("transformers_compiled"):
            measure_compiled_reference(figures, reference, memory, sizes)
    figures.add(
        fastest={
            f"b{clips}": min(variants, key=lambda name: variants[name], default="")
            for clips in BATCHES
            for variants in [{k: v for k, v in figures.values.get("step_ms", {}).items() if k.endswith(f"_b{clips}")}]
        }
    )


if __name__ == "__main__":
    main()
