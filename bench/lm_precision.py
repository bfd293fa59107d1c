"""Divergence of a trained music LM with rounded weights: `uv run python -m bench.lm_precision`.

The shipped v2m-learned-1 writes pieces in float32 without a condition. Every precision then reads the same codes step
by step, weights and KV cache rounded as in use, and its next-code distributions stand against those of float32: the
Kullback-Leibler divergence in nats, beside the entropy, and how often the likeliest code is another. Last line: one
JSON object.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
from torch import Tensor

from v2m.checkpoints import V2M
from v2m.core.types import SamplingConfig
from v2m.models import patterns
from v2m.models.conditioning import CFGBranch
from v2m.models.inference.cpu_kernels import cpu_name
from v2m.models.inference.decoder import Decoder, GenerationState
from v2m.models.inference.fast_linear import Precision
from v2m.models.inference.inference_lm import InferenceLM
from v2m.models.lm import LM

PRECISIONS: tuple[Precision, ...] = ("bf16", "int8", "int4")


@torch.inference_mode()
def step_distributions(lm: LM, codes: Tensor, precision: Precision) -> tuple[Tensor, str]:
    """Log-probabilities (steps · B · K, V) of codes (B, K, T), one step at a time, and the kernel."""
    fast_lm, seeds = InferenceLM(lm, precision), list(range(len(codes)))
    state = GenerationState(
        fast_lm, [CFGBranch(1.0, None)], codes.shape[2], sampling=SamplingConfig(), seeds=seeds, prompt=codes[..., :1]
    )
    config = lm.config
    state.sequence = patterns.apply_delays(codes, config.delay_pattern, config.special_token_id)
    state.prefill()
    steps = range(state.sequence.shape[2] - state.first_step)
    return torch.cat([state.next_logits().log_softmax(dim=-1).flatten(0, 1) for _ in steps]), fast_lm.kernel


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="v2m-learned-1")
    parser.add_argument("--pieces", type=int, default=4)
    parser.add_argument("--frames", type=int, default=500)
    args = parser.parse_args()
    lm = V2M.from_pretrained(args.model).lm.eval().requires_grad_(False)
    branches, seeds = [CFGBranch(1.0, None)], range(args.pieces)
    codes = Decoder(lm, precision="fp32").generate(branches, args.frames, sampling=SamplingConfig(), seeds=seeds)
    exact, _ = step_distributions(lm, codes, "fp32")
    entropy = -(exact.exp() * exact.clamp_min(-1e4)).sum(dim=-1)
    figures: dict[str, Any] = {"entropy_nats": round(float(entropy.mean()), 4), "distributions": len(exact)}
    for precision in PRECISIONS:
        rounded, kernel = step_distributions(lm, codes, precision)
        divergence = (exact.exp() * (exact.clamp_min(-1e4) - rounded.clamp_min(-1e4))).sum(dim=-1).mean()
        changed = (exact.argmax(dim=-1) != rounded.argmax(dim=-1)).float().mean()
        figures[precision] = {"kernel": kernel, "kl_nats": float(f"{float(divergence):.2g}")}
        figures[precision]["other_likeliest"] = round(float(changed), 4)
        print(precision, figures[precision], flush=True)
    print(json.dumps({**figures, "model": args.model, "processor": cpu_name()}))


if __name__ == "__main__":
    main()
