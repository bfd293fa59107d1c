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
the largest logit; `int4_logit_error` the same of 4-bit weights.
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
Implementation = tuple[
    Callable[[int], object], int, int
]  # a function that generates n frames; n of a short and of a long run
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8", "int4")


def random_lm(config: LMConfig) -> LM:
    torch.manual_seed(0)
    lm = LM(config).eval().requires_grad_(False)
    for name, weight in lm.named_parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=1.0 if "embeddings" in name else config.dim**-0.5)
    return lm


def to_transformers(lm: LM) -> Any:
    """Return transformers' decoder with the weights of `lm`."""
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
    decoder: Any = MusicgenForCausalLM(MusicgenDecoderConfig(**sizes, **special)).eval()
    state = {f"lm.{name}": value for name, value in lm.state_dict().items()}
    missing = decoder.load_state_dict(musicgen.from_v2m(state, composite=False), strict=False)
    differing = [*missing.unexpected_keys, *missing.missing_keys]  # some versions do not save their positions
    assert not [name for name in differing if "embed_positions" not in name], differing
    return decoder


def with_transformers(
    reference: Any, condition: Tensor, caches: Callable[[], tuple[Any, Any]] = lambda: (DynamicCache(), DynamicCache())
) -> Callable[[int], object]:
    """Guide clips from zeros to the condition `condition` (B, S, D).

    The cache is the one of the whole MusicGen. The one that `generate` of 5.23 gives a decoder alone mixes the keys of
    both attentions, grows by the memory at each step, and gives other codes than decoding without a cache.
    """
    config, clips = reference.config, len(condition)
    special = config.vocab_size
    codebooks = config.num_codebooks
    guided = torch.cat([condition, torch.zeros_like(condition)])

    def write(frames: int) -> object:
        return reference.generate(
            inputs=torch.full((clips * codebooks, 1), special, device=condition.device),
            encoder_hidden_states=guided,
            attention_mask=torch.ones(clips, 1, dtype=torch.long, device=condition.device),
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


def with_audiocraft(lm: LM, memory: Tensor) -> Callable[[int], object]:
    from audiocraft.modules.conditioners import ConditioningAttributes  # noqa: PLC0415 (it takes seconds)

    config = lm.config
    settings = tiny.audiocraft_config()
    sizes = {"n_q": config.num_codebooks, "card": config.codebook_size, "dim": config.dim}
    settings["transformer_lm"] |= {**sizes, "num_heads": config.num_heads, "num_layers": config.num_layers}
    reference = tiny.audiocraft_model(settings)
    state = {f"lm.{name}": value for name, value in lm.state_dict().items()}
    missing = reference.load_state_dict(audiocraft.from_v2m(state), strict=False)
    assert not missing.unexpected_keys, missing.unexpected_keys
    reference.condition_provider = tiny.FixedTextConditioner(memory)
    attributes = [ConditioningAttributes(text={"description": "calm"})]

    def write(frames: int) -> object:
        return reference.generate(conditions=attributes, max_gen_len=frames, use_sampling=True, top_k=250, cfg_coef=3.0)

    return write


def with_v2m(
    decoder: Decoder, branches: Sequence[CFGBranch], *, clips: int = 1, prompt: Tensor | None = None
) -> Callable[[int], Tensor]:
    seeds = range(clips)
    return lambda frames: decoder.generate(branches, frames, sampling=SamplingConfig(), seeds=seeds, prompt=prompt)


def clock() -> float:
    """Return the time in seconds after all queued work of the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


@torch.inference_mode()
def step_ms(implementations: dict[str, Implementation], times: int) -> dict[str, float]:
    """Return the median milliseconds of a step of each implementation."""
    times_ms: dict[str, list[float]] = {name: [] for name in implementations}
    for _ in range(times):
        for name, (write, short, long) in implementations.items():
            seconds: list[float] = []
            for frames in (short, long):
                start = clock()
                write(frames)
                seconds.append(clock() - start)
            times_ms[name].append(1000 * (seconds[1] - seconds[0]) / (long - short))
    return {name: statistics.median(values) for name, values in times_ms.items()}


def bandwidth() -> float:
    """Return the bytes read per second, the best of a few sums over 512 MiB."""
    block = torch.ones(2**27)  # not zeros, which the system would lay on one page
    best = 0.0
    for _ in range(7):
        start = time.perf_counter()
        block.sum()
        best = max(best, 4 * block.numel() / (time.perf_counter() - start))
    return best


def bytes_read(config: LMConfig, tokens: int, frames: float, rows: int, size: float) -> float:
    """Bytes read in a step with `rows` rows after `frames` frames, one of which attends to `tokens`."""
    area = config.dim**2
    layer = (4 + 2) * area + 2 * config.dim * config.inner_dim
    weights = config.num_layers * layer + config.num_codebooks * config.codebook_size * config.dim
    return size * (weights + 2 * config.num_layers * config.dim * (tokens + rows * frames))


@torch.inference_mode()
def next_logits(lm: LM, precision: Precision, codes: Tensor) -> Tensor:
    """Return the logits after `codes` (1, K, T), unguided."""
    fast_lm, branches = InferenceLM(lm, precision), [CFGBranch(1.0, None)]
    state = GenerationState(fast_lm, branches, codes.shape[2] + 1, sampling=SamplingConfig(), seeds=[0], prompt=codes)
    state.prefill()
    return state.next_logits()


def logit_error(lm: LM, precision: Precision) -> float:
    """Relative error of the first logits after a prompt: rounded weights against float32."""
    codes = torch.randint(lm.config.codebook_size, (1, lm.config.num_codebooks, 16))
    exact, rounded = next_logits(lm, "fp32", codes), next_logits(lm, precision, codes)
    return float((rounded - exact).abs().max() / exact.abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=3000)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--without-audiocraft", action="store_true")
    args = parser.parse_args()
    config = LMConfig(dim=args.width, num_layers=args.layers, num_heads=args.heads)
    lm = random_lm(config)
    memory, null = torch.randn(2, 1, args.tokens, args.width).unbind(0)
    reference = to_transformers(lm)
    rate = bandwidth()
    condition, null_condition = Condition.from_tokens(memory), Condition.from_tokens(null)
    implementations: dict[str, Implementation] = {
        "transformers_fp32": (with_transformers(reference, memory), SHORT, LONG),
    }
    for precision in PRECISIONS:
        decoder = Decoder(lm, precision=precision)
        implementations[f"ours_{precision}"] = (
            with_v2m(decoder, [CFGBranch(-2.0, None), CFGBranch(3.0, condition)]),
            SHORT,
            LONG,
        )
        implementations[f"full_{precision}"] = (
            with_v2m(decoder, [CFGBranch(-2.0, null_condition), CFGBranch(3.0, condition)]),
            SHORT,
            LONG,
        )
    ms = step_ms(implementations, args.times)
    if not args.without_audiocraft:
        ms |= step_ms({"audiocraft": (with_audiocraft(lm, memory), 1, 3)}, 2)
    for name, value in ms.items():
        print(f"{name:28} {value:9.1f} ms a step")
    transformers_ms = ms["transformers_fp32"]
    ideal = bytes_read(config, args.tokens, (SHORT + LONG) / 2, 2, 2) / rate
    figures: dict[str, Any] = {
        "audiocraft_ms": round(ms["audiocraft"], 1) if "audiocraft" in ms else None,
        "transformers_fp32_ms": round(transformers_ms, 1),
        **{f"ours_{precision}_ms": round(ms[f"ours_{precision}"], 1) for precision in PRECISIONS},
        "vs_audiocraft": round(ms["audiocraft"] / ms["ours_bf16"], 1) if "audiocraft" in ms else None,
        "vs_transformers": {name: round(transformers_ms / ms[f"ours_{name}"], 2) for name in PRECISIONS},
        "vs_transformers_full_memory": {name: round(transformers_ms / ms[f"full_{name}"], 2) for name in PRECISIONS},
        "bandwidth_share": round(1000 * ideal / ms["ours_bf16"], 2),
        "bandwidth_gb_s": round(rate / 1e9, 1),
        "int8_logit_error": round(logit_error(lm, "int8"), 4),
        "int4_logit_error": round(logit_error(lm, "int4"), 4),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
