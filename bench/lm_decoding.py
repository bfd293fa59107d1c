"""A step of MusicGen-small, guided, on the CPU: `uv run python -m bench.lm_decoding`.

The same random weights in audiocraft's unedited `LMModel`, transformers' `MusicgenForCausalLM` and here, through the
converters. One clip with guidance: a branch that listens to 3000 tokens, and one that hears nothing, for which both
libraries attend to zeros. Each writes the same few frames; a step's time is that of the longer run less that of the
shorter, by the steps between, so that what is done once is left out. Runs are taken in turn, and medians are given:
milliseconds by the clock, with all threads. audiocraft takes seconds a step and has fewer steps.

Last line: one JSON object. `vs_transformers` divides transformers' time in float32 by ours; `vs_audiocraft` is for
bfloat16; `vs_transformers_full_memory` is where ours, too, attends to 3000 tokens in both branches.
`bandwidth_share` is the share of the time, in bfloat16, that reading weights and memory alone would take, by the
bandwidth of a copy measured before. `int8_logit_error` is the largest error of a logit after a short prompt, against
the largest logit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache, MusicgenDecoderConfig, MusicgenForCausalLM

from tests.fixtures.tiny import musicgen as tiny
from v2m.core.types import SamplingConfig
from v2m.mappings import audiocraft, musicgen
from v2m.models.conditioning import CFGBranch, Condition
from v2m.models.inference.decoder import Decoder, GenerationState
from v2m.models.inference.fast_linear import Precision
from v2m.models.inference.inference_lm import InferenceLM
from v2m.models.lm import LM, LMConfig

SHORT, LONG = 8, 40  # frames
Way = tuple[Callable[[int], object], int, int]  # what writes so many frames, and how many in a shorter and a longer run
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")


def model(config: LMConfig) -> LM:
    torch.manual_seed(0)
    lm = LM(config).eval().requires_grad_(False)
    for name, weight in lm.named_parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=1.0 if "embeddings" in name else config.dim**-0.5)
    return lm


def theirs(lm: LM) -> Any:
    """Transformers' decoder with the weights of `lm`."""
    config = lm.config
    special: dict[str, Any] = {"pad_token_id": config.special_token_id, "bos_token_id": config.special_token_id}
    sizes: dict[str, Any] = {
        "vocab_size": config.codebook_size,
        "hidden_size": config.dim,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "ffn_dim": config.inner_dim,
        "num_codebooks": config.num_codebooks,
        "max_position_embeddings": 2048,
    }
    found: Any = MusicgenForCausalLM(MusicgenDecoderConfig(**sizes, **special)).eval()
    state = {f"lm.{name}": value for name, value in lm.state_dict().items()}
    missing = found.load_state_dict(musicgen.from_v2m(state, composite=False), strict=False)
    assert not missing.unexpected_keys, missing.unexpected_keys
    assert not [name for name in missing.missing_keys if "embed_positions" not in name], missing.missing_keys
    return found


def by_transformers(
    found: Any, heard: Tensor, caches: Callable[[], tuple[Any, Any]] = lambda: (DynamicCache(), DynamicCache())
) -> Callable[[int], object]:
    """Guide clips from zeros to the condition `heard` (B, S, D).

    With the cache that the whole MusicGen has: the one that
    `generate` gives a decoder on its own, in 5.23, mixes the keys of both attentions, grows by the memory at each step
    and writes other codes than no cache.
    """
    config, clips = found.config, len(heard)
    special = config.vocab_size
    codebooks = config.num_codebooks
    both = torch.cat([heard, torch.zeros_like(heard)])

    def write(frames: int) -> object:
        return found.generate(
            inputs=torch.full((clips * codebooks, 1), special, device=heard.device),
            encoder_hidden_states=both,
            attention_mask=torch.ones(clips, 1, dtype=torch.long, device=heard.device),
            guidance_scale=3.0,
            do_sample=True,
            top_k=250,
            past_key_values=EncoderDecoderCache(*caches()),
            num_return_sequences=1,
            max_new_tokens=frames + codebooks - 1,
            pad_token_id=special,
            bos_token_id=special,
            decoder_start_token_id=special,
        )

    return write


def by_audiocraft(lm: LM, memory: Tensor) -> Callable[[int], object]:
    from audiocraft.modules.conditioners import ConditioningAttributes  # noqa: PLC0415 (it takes seconds)

    config = lm.config
    settings = tiny.audiocraft_config()
    sizes = {"n_q": config.num_codebooks, "card": config.codebook_size, "dim": config.dim}
    settings["transformer_lm"] |= {**sizes, "num_heads": config.num_heads, "num_layers": config.num_layers}
    found = tiny.audiocraft_model(settings)
    state = {f"lm.{name}": value for name, value in lm.state_dict().items()}
    missing = found.load_state_dict(audiocraft.from_v2m(state), strict=False)
    assert not missing.unexpected_keys, missing.unexpected_keys
    found.condition_provider = tiny.FixedTextConditioner(memory)
    said = [ConditioningAttributes(text={"description": "calm"})]

    def write(frames: int) -> object:
        return found.generate(conditions=said, max_gen_len=frames, use_sampling=True, top_k=250, cfg_coef=3.0)

    return write


def by_us(
    decoder: Decoder, branches: Sequence[CFGBranch], *, clips: int = 1, prompt: Tensor | None = None
) -> Callable[[int], Tensor]:
    seeds = range(clips)
    return lambda frames: decoder.generate(branches, frames, sampling=SamplingConfig(), seeds=seeds, prompt=prompt)


def clock() -> float:
    """Seconds, when all that was asked for is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


@torch.inference_mode()
def step_ms(ways: dict[str, Way], times: int) -> dict[str, float]:
    """Milliseconds a step of each way."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(times):
        for name, (write, short, long) in ways.items():
            seconds: list[float] = []
            for frames in (short, long):
                begun = clock()
                write(frames)
                seconds.append(clock() - begun)
            found[name].append(1000 * (seconds[1] - seconds[0]) / (long - short))
    return {name: statistics.median(each) for name, each in found.items()}


def bandwidth() -> float:
    """Bytes a second that are read, the best of a few sums over 512 MiB."""
    block = torch.ones(2**27)  # not zeros, which the system would lay on one page
    best = 0.0
    for _ in range(7):
        begun = time.perf_counter()
        block.sum()
        best = max(best, 4 * block.numel() / (time.perf_counter() - begun))
    return best


def bytes_read(config: LMConfig, tokens: int, frames: float, rows: int, size: int) -> float:
    """Bytes read in a step with `rows` rows after `frames` frames, one of which attends to `tokens`."""
    area = config.dim**2
    layer = (4 + 2) * area + 2 * config.dim * config.inner_dim
    weights = config.num_layers * layer + config.num_codebooks * config.codebook_size * config.dim
    return size * (weights + 2 * config.num_layers * config.dim * (tokens + rows * frames))


@torch.inference_mode()
def logit_error(lm: LM) -> float:
    """Relative error of the first logits after a prompt: 8-bit weights against float32."""
    codes = torch.randint(lm.config.codebook_size, (1, lm.config.num_codebooks, 16))

    def next_logits(precision: Precision) -> Tensor:
        fast_lm, branches = InferenceLM(lm, precision), [CFGBranch(1.0, None)]
        state = GenerationState(fast_lm, branches, 17, sampling=SamplingConfig(), seeds=[0], prompt=codes)
        state.prefill()
        return state.next_logits()

    exact, rounded = next_logits("fp32"), next_logits("int8")
    return float((rounded - exact).abs().max() / exact.abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=3000)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--without-audiocraft", action="store_true")
    options = parser.parse_args()
    config = LMConfig(dim=options.width, num_layers=options.layers, num_heads=options.heads)
    lm = model(config)
    memory, null = torch.randn(2, 1, options.tokens, options.width).unbind(0)
    found = theirs(lm)
    rate = bandwidth()
    heard, unheard = Condition.from_tokens(memory), Condition.from_tokens(null)
    ways: dict[str, Way] = {
        "transformers_fp32": (by_transformers(found, memory), SHORT, LONG),
    }
    for precision in PRECISIONS:
        decoder = Decoder(lm, precision=precision)
        ways[f"ours_{precision}"] = by_us(decoder, [CFGBranch(-2.0, None), CFGBranch(3.0, heard)]), SHORT, LONG
        ways[f"full_{precision}"] = by_us(decoder, [CFGBranch(-2.0, unheard), CFGBranch(3.0, heard)]), SHORT, LONG
    ms = step_ms(ways, options.times)
    if not options.without_audiocraft:
        ms |= step_ms({"audiocraft": (by_audiocraft(lm, memory), 1, 3)}, 2)
    for name, each in ms.items():
        print(f"{name:28} {each:9.1f} ms a step")
    other = ms["transformers_fp32"]
    ideal = bytes_read(config, options.tokens, (SHORT + LONG) / 2, 2, 2) / rate
    figures: dict[str, Any] = {
        "audiocraft_ms": round(ms["audiocraft"], 1) if "audiocraft" in ms else None,
        "transformers_fp32_ms": round(other, 1),
        **{f"ours_{precision}_ms": round(ms[f"ours_{precision}"], 1) for precision in PRECISIONS},
        "vs_audiocraft": round(ms["audiocraft"] / ms["ours_bf16"], 1) if "audiocraft" in ms else None,
        "vs_transformers": {each: round(other / ms[f"ours_{each}"], 2) for each in PRECISIONS},
        "vs_transformers_full_memory": {each: round(other / ms[f"full_{each}"], 2) for each in PRECISIONS},
        "bandwidth_share": round(1000 * ideal / ms["ours_bf16"], 2),
        "bandwidth_gb_s": round(rate / 1e9, 1),
        "int8_logit_error": round(logit_error(lm), 4),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
