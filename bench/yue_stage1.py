"""YuE stage 1: one guided forward against two passes: `uv run python -m bench.yue_stage1`.

The baseline is transformers' own: each branch has its cache and its forward per token, joined by transformers' logits
processors. Both sample from the same 1024 tokens with the same random numbers, so their output must be the same. The
Llama has random weights and YuE's vocabulary, and is large enough for its weights to be read from memory at each
forward. Times are CPU seconds of one thread, which other load changes little.

Last line: one JSON object. `speedup` and `identical` are in float32. `speedup_whole` is against a baseline that
computes the logits of the whole vocabulary, as the published script has; `speedup_instrumental` is against the
baseline's time for a song of the same length. `speedup_bfloat16` is `speedup` in the type of the published weights,
where another order of sums rounds differently: `same_bfloat16` is the share of tokens before the first that differs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    LlamaForCausalLM,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    UnbatchedClassifierFreeGuidanceLogitsProcessor,
)

from tests.fixtures.tiny import yue_lm, yue_tokenizer
from v2m.core.timing import codec_frames
from v2m.core.types import Tags
from v2m.generators.yue import stage1, tokenizer
from v2m.generators.yue.prompt import PromptEncoder, instrumental_sections
from v2m.generators.yue.stage1 import SectionPlan, YuESampling
from v2m.generators.yue.tokenizer import Tokenizer
from v2m.models.inference.sampling import gumbel_argmax
from v2m.models.inference.windows import window_seed

ALLOWED = torch.arange(tokenizer.FIRST_CODE, tokenizer.first_id(1))
SILENCE = 0
Result = TypeVar("Result")


class Branch:
    """The model as transformers' guidance calls it, with logits (1, 1, 1024)."""

    def __init__(self, model: LlamaForCausalLM, whole: bool) -> None:
        self.model, self.whole = model, whole
        self.out = model.lm_head.weight[ALLOWED].float()

    def __call__(self, input_ids: Tensor, past_key_values: Any = None, **_: Any) -> Any:
        cache = DynamicCache(config=self.model.config) if past_key_values is None else past_key_values
        hidden = self.model.model(input_ids=input_ids, past_key_values=cache, use_cache=True).last_hidden_state[:, -1:]
        logits = self.model.lm_head(hidden)[..., ALLOWED] if self.whole else hidden.float() @ self.out.T
        return Output(logits=logits.float(), past_key_values=cache)


class Output(SimpleNamespace):
    """Output of a model by attribute and by name, as transformers' own."""

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self, name, default)


@torch.inference_mode()
def generate_two_passes(
    model: LlamaForCausalLM,
    prompt: PromptEncoder,
    head: Sequence[int],
    passages: Sequence[SectionPlan],
    *,
    seed: int,
    whole: bool,
) -> list[Tensor]:
    """Return the codes of `stage1.generate_codes`, with a forward pass per branch."""
    settings, branch = YuESampling(), Branch(model, whole)
    penalty = RepetitionPenaltyLogitsProcessor(settings.repetition_penalty)
    narrowing = (
        TemperatureLogitsWarper(settings.temperature),
        TopKLogitsWarper(settings.top_k),
        TopPLogitsWarper(settings.top_p),
    )
    context, cache, sections = list(head), None, list[Tensor]()
    for number, passage in enumerate(passages):
        unread = context[cache.get_seq_length() :] if cache is not None else context[:]
        opening = prompt.section(passage.lyrics)
        guidance = UnbatchedClassifierFreeGuidanceLogitsProcessor(settings.section_cfg_scale(number), branch)
        generator = torch.Generator().manual_seed(window_seed(seed, number))
        ids, new_codes = torch.tensor([unread + opening]), list[int]()
        previous = to_choices([*context, *opening])
        for _ in range(2 * passage.num_frames):
            out = branch(ids, cache)
            cache = out.past_key_values
            last = torch.tensor([[tokenizer.XCODEC]]) if not new_codes else ids
            scores = penalty(previous, guidance(last, out.logits[:, -1]))  # pyright: ignore[reportArgumentType]
            for step in narrowing:
                scores = step(previous, scores)  # pyright: ignore[reportArgumentType]
            token = gumbel_argmax(scores, generator)
            new_codes.append(int(token))
            previous = torch.cat([previous, token[None]], dim=1)
            ids = ALLOWED[token][None]
        codes = torch.tensor(new_codes).reshape(-1, 2).T
        context += [
            *opening,
            *(codes.T.flatten() + tokenizer.FIRST_CODE).tolist(),
            tokenizer.EOA,
            *prompt.end_of_segment,
        ]
        sections.append(codes)
    return sections


def to_choices(context: Sequence[int]) -> Tensor:
    """(1, n): the indices in `ALLOWED` of the ids in `context` that are allowed."""
    index = {int(token): choice for choice, token in enumerate(ALLOWED)}
    return torch.tensor([[index[token] for token in context if token in index]], dtype=torch.long)


def time_call(function: Callable[[], Result], name: str) -> tuple[Result, float]:
    start = time.process_time()
    result = function()
    seconds = time.process_time() - start
    print(f"{name:44} {seconds:8.1f} s", flush=True)
    return result, seconds


def equal_prefix_share(tokens: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the share of the tokens before the first that differs."""
    ids, others = (torch.cat([codes.T.flatten() for codes in passage]) for passage in (tokens, expected))
    return int((ids == others).long().cumprod(0).sum()) / len(ids)


def measure(model: LlamaForCausalLM, prompt: PromptEncoder, seconds: float, seed: int) -> dict[str, Any]:
    """Print the times; return the last line's figures. Converts `model` from float32 to bfloat16."""
    parts = instrumental_sections(2)
    passages = [SectionPlan(part, codec_frames(seconds, tokenizer.FRAME_RATE)) for part in parts]
    head = prompt.head(Tags(genres=["cinematic"], instruments=["piano"]), parts)

    def one_pass(silence: int | None = None) -> list[Tensor]:
        return stage1.generate_codes(model, prompt, head, passages, seed=seed, silence_code=silence)

    def two_passes(whole: bool = False) -> list[Tensor]:
        return generate_two_passes(model, prompt, head, passages, seed=seed, whole=whole)

    stage1.generate_codes(model, prompt, head, [SectionPlan(parts[0], 5)], seed=0)  # a warm-up run
    fast, fast_s = time_call(one_pass, "one forward for both branches")
    _, instrumental_s = time_call(lambda: one_pass(SILENCE), "the same, instrumental")
    slow, slow_s = time_call(two_passes, "two passes, the same 1024 logits")
    whole, whole_s = time_call(lambda: two_passes(whole=True), "two passes, the whole vocabulary")
    torch.nn.Module.to(model, torch.bfloat16)
    stage1.generate_codes(model, prompt, head, [SectionPlan(parts[0], 5)], seed=0)
    half, half_s = time_call(one_pass, "one forward, bfloat16")
    slow_half, slow_half_s = time_call(two_passes, "two passes, bfloat16")
    count = sum(2 * passage.num_frames for passage in passages)
    return {
        "speedup": round(slow_s / fast_s, 2),
        "identical": equal_prefix_share(fast, slow) == equal_prefix_share(fast, whole) == 1.0,
        "speedup_whole": round(whole_s / fast_s, 2),
        "speedup_instrumental": round(slow_s / instrumental_s, 2),
        "speedup_bfloat16": round(slow_half_s / half_s, 2),
        "same_bfloat16": round(equal_prefix_share(half, slow_half), 3),
        "tokens": count,
        "tokens_per_second": round(count / fast_s, 1),
        "tokens_per_second_bfloat16": round(count / half_s, 1),
        "slow_s": round(slow_s, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each of the two sections")
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        shape = {"hidden": args.hidden, "heads": 16, "kv_heads": 2, "ffn": 11 * args.hidden // 4}
        path = yue_lm.write(Path(folder), layers=args.layers, **shape)
        model = LlamaForCausalLM.from_pretrained(path).eval()
        prompt = PromptEncoder(Tokenizer(yue_tokenizer.write(path / "tokenizer.model")))
    figures = measure(model, prompt, args.seconds, args.seed)
    print(json.dumps(figures))
    sys.exit(0 if figures["identical"] else 1)


if __name__ == "__main__":
    main()
