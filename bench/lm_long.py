"""Cost of generation by the length generated so far, on the CPU: `uv run python -m bench.lm_long`.

A model of MusicGen-small's size with random weights, guided, in bfloat16. First a step after 1, 5, 15 and 30 s of
prompt: the time of a longer run less that of a shorter, by the steps between, medians of several turns. Then whole
pieces of 30 to 300 s in windows of 30 s that begin 18 s apart, with a new condition for each window. Last line: one
JSON object. `total_s_per_audio_s_*` is seconds of work for a second of music, condition and prompt included; it takes
about twenty minutes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence

import torch

from bench.lm_decoding import Implementation, random_lm, step_ms, with_v2m
from v2m.core.types import SamplingConfig
from v2m.models.conditioning import CFGBranch, Condition
from v2m.models.inference import windows
from v2m.models.inference.decoder import Decoder
from v2m.models.lm import LMConfig

FRAME_RATE = 50
WINDOW, STRIDE = 30 * FRAME_RATE, 18 * FRAME_RATE
STEPS = 25  # that are timed


def continue_from(decoder: Decoder, branches: Sequence[CFGBranch], seconds: float) -> Implementation:
    """Return the generation of a few frames after a prompt of `seconds`."""
    config = decoder.config
    prompt = torch.randint(config.codebook_size, (1, config.num_codebooks, round(seconds * FRAME_RATE)))
    num_prompt_frames = prompt.shape[2]
    return with_v2m(decoder, branches, prompt=prompt), num_prompt_frames + 1, num_prompt_frames + 1 + STEPS


def cost_of_piece(decoder: Decoder, seconds: int, tokens: int) -> float:
    """Return the seconds of work for each second of a piece."""

    def branches(begin: int, end: int) -> list[CFGBranch]:
        torch.manual_seed(begin + end)
        condition = Condition.from_tokens(torch.randn(1, tokens, decoder.config.dim))
        return [CFGBranch(-2.0, None), CFGBranch(3.0, condition)]

    start = time.perf_counter()
    codes = windows.generate_long(
        decoder,
        seconds * FRAME_RATE,
        window=WINDOW,
        stride=STRIDE,
        branches=branches,
        sampling=SamplingConfig(),
        seeds=[0],
    )
    elapsed = time.perf_counter() - start
    assert codes.shape[2] == seconds * FRAME_RATE
    return elapsed / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=3000, help="of the condition")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--heads", type=int, default=16)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--precision", choices=("fp32", "bf16", "int8"), default="bf16")
    args = parser.parse_args()
    config = LMConfig(dim=args.width, num_layers=args.layers, num_heads=args.heads)
    decoder = Decoder(random_lm(config), precision=args.precision)
    condition = Condition.from_tokens(torch.randn(1, args.tokens, args.width))
    branches: list[CFGBranch] = [CFGBranch(-2.0, None), CFGBranch(3.0, condition)]
    implementations = {
        f"{seconds}s": continue_from(decoder, branches, seconds - STEPS / FRAME_RATE) for seconds in (1, 5, 15, 30)
    }
    figures: dict[str, float | str] = {}
    for name, ms in step_ms(implementations, args.times).items():
        print(f"a step at {name:4} {ms:7.1f} ms", flush=True)
        figures[f"ms_per_step_{name}"] = round(ms, 1)
    for seconds in (30, 60, 120, 300):
        cost = cost_of_piece(decoder, seconds, args.tokens)
        print(f"{seconds:4} s of music: {cost * seconds:7.1f} s, {cost:.2f} s each", flush=True)
        figures[f"total_s_per_audio_s_{seconds}"] = round(cost, 2)
    print(json.dumps(figures | {"precision": args.precision, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
