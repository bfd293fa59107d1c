"""MusicGen-small's size on a GPU, guided, against transformers: `uv run python -m bench.lm_gpu`.

The same random weights in bfloat16, a memory of 3000 tokens. transformers' decoder as it is, and compiled with caches
of fixed size where that works; ours as CUDA graphs. Batches of 1 and 16 clips; a step is one pass, so that 16 clips
write 16 frames in it. Then 30 s of audio from a prompt of 64 tokens: codes, and their decoding by an EnCodec of the
published size. `bandwidth_share` is the share of a step, one clip, that reading weights and memory alone would take.
Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import MusicgenForCausalLM, StaticCache

from bench.lm_decoding import (
    Implementation,
    bytes_read,
    clock,
    random_lm,
    step_ms,
    to_transformers,
    with_transformers,
    with_v2m,
)
from tests.fixtures.tiny import encodec as tiny
from v2m.core.types import SamplingConfig
from v2m.models.conditioning import CFGBranch, Condition
from v2m.models.inference.decoder import Decoder
from v2m.models.lm import LMConfig
from v2m.pretrained.codecs import encodec

SECONDS = 30
FRAME_RATE = 50
WORDS = 64  # tokens of a text
SHORT, LONG = 8, 136  # frames: a graph is captured in the shorter, too
BATCHES = (1, 16)
GUIDANCE = 3.0


def bandwidth(device: torch.device) -> float:
    """Return the bytes per second read and written by a copy, the best of a few."""
    block = torch.ones(2**26, device=device)
    target = torch.empty_like(block)
    best = 0.0
    for _ in range(7):
        start = clock()
        target.copy_(block)
        best = max(best, 8 * block.numel() / (clock() - start))
    return best


def cfg_branches(condition: Tensor) -> list[CFGBranch]:
    return [CFGBranch(1 - GUIDANCE, None), CFGBranch(GUIDANCE, Condition.from_tokens(condition))]


def static_caches(reference: Any, tokens: int) -> tuple[StaticCache, StaticCache]:
    """Return transformers' static caches: with others it compiles anew at each step."""
    return StaticCache(reference.config, 2 * LONG), StaticCache(reference.config, tokens)


def make_implementations(decoder: Decoder, reference: Any, memory: Tensor) -> dict[str, Implementation]:
    """Return transformers' eager and compiled steps, and ours, for each batch."""
    compiled: Any = MusicgenForCausalLM(reference.config)
    compiled.to(memory.device, memory.dtype).eval()
    compiled.load_state_dict(reference.state_dict())
    compiled.forward = torch.compile(compiled.forward, mode="reduce-overhead")
    implementations: dict[str, Implementation] = {}
    for clips in BATCHES:
        condition = memory.expand(clips, -1, -1).contiguous()
        implementations[f"eager_b{clips}"] = with_transformers(reference, condition), SHORT, LONG
        implementations[f"ours_b{clips}"] = with_v2m(decoder, cfg_branches(condition), clips=clips), SHORT, LONG
        static = with_transformers(compiled, condition, partial(static_caches, reference, memory.shape[1]))
        try:
            static(LONG)
        except Exception as error:  # of any kind: the failure is the result
            print(f"transformers cannot be compiled so: {type(error).__name__}: {str(error).splitlines()[:1]}")
        else:
            implementations[f"compiled_b{clips}"] = static, SHORT, LONG
    return implementations


def time_half_minute(decoder: Decoder, device: torch.device) -> float:
    """Return the seconds from text embeddings to samples, of the second of two runs."""
    with tempfile.TemporaryDirectory() as name:
        settings = tiny.make_config(codebook_size=decoder.config.codebook_size, hidden_size=128, num_filters=64)
        tiny.make_model(settings).save_pretrained(name)
        codec = encodec.load_encodec(Path(name), device)
    branches = cfg_branches(torch.randn(1, WORDS, decoder.config.dim, device=device))
    elapsed = 0.0
    for seed in (0, 1):
        start = clock()
        codes = decoder.generate(branches, SECONDS * FRAME_RATE, sampling=SamplingConfig(), seeds=[seed])
        audio = codec.decode(codes).cpu()
        elapsed = clock() - start
        assert audio.shape[-1] == SECONDS * codec.spec.sample_rate
    return elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tokens", type=int, default=3000)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--times", type=int, default=5)
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("this needs a CUDA device")
    config = LMConfig(dim=args.width, num_layers=args.layers, num_heads=args.heads)
    lm = random_lm(config).to(torch.bfloat16)
    reference = to_transformers(lm).to(device, torch.bfloat16)
    decoder = Decoder(lm.to(device), precision="bf16")
    memory = torch.randn(1, args.tokens, args.width, device=device, dtype=torch.bfloat16)
    ms = step_ms(make_implementations(decoder, reference, memory), args.times)
    for name, value in ms.items():
        print(f"{name:14} {value:8.3f} ms a step, {1000 / value:7.1f} steps a second")
    rate = bandwidth(device)
    ideal = 1000 * bytes_read(config, args.tokens, (SHORT + LONG) / 2, 2, 2) / rate
    figures: dict[str, Any] = {
        **{f"steps_s_b{clips}": round(1000 / ms[f"ours_b{clips}"], 1) for clips in BATCHES},
        "vs_transformers_eager": round(ms["eager_b1"] / ms["ours_b1"], 2),
        "vs_transformers_eager_b16": round(ms["eager_b16"] / ms["ours_b16"], 2),
        "vs_transformers_compiled": round(ms["compiled_b1"] / ms["ours_b1"], 2) if "compiled_b1" in ms else None,
        "bandwidth_share": round(ideal / ms["ours_b1"], 3),
        "bandwidth_gb_s": round(rate / 1e9, 1),
        "seconds_for_30s": round(time_half_minute(decoder, device), 2),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
