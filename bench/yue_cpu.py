"""YuE at its real size on the CPU, in 4 bits: `uv run python -m bench.yue_cpu`.

Random Llamas of the published sizes (stage 2's, whose config was not seen, from the size of its file), made layer by
layer in 4 or 8 bits, so that the bfloat16 weights are never in memory together. Stage 1 writes `--seconds` of a song
with guidance after `--context` tokens; stage 2 refines both its stems, six seconds in a window. Seconds of work for a
second of song, by the clock, all threads. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from bench.lm_decoding import bandwidth
from tests.fixtures.tiny import yue_lm, yue_tokenizer
from v2m.core.timing import codec_frames
from v2m.core.types import Tags
from v2m.generators.yue import stage1, stage2, tokenizer
from v2m.generators.yue.decoder import PackedLinear
from v2m.generators.yue.prompt import PromptEncoder, instrumental_sections
from v2m.generators.yue.stage1 import SectionPlan
from v2m.generators.yue.tokenizer import CODEBOOK_SIZE, FRAME_RATE, Tokenizer
from v2m.models.inference.cpu_kernels import cpu_name
from v2m.models.inference.fast_linear import Precision
from v2m.models.inference.kernel_choice import choose_kernel

STAGE_1: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}
STAGE_1 |= {"num_key_value_heads": 4, "vocab_size": yue_lm.STAGE_1_VOCAB}
STAGE_2: dict[str, Any] = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
}
STAGE_2 |= {"num_key_value_heads": 16, "vocab_size": yue_lm.STAGE_2_VOCAB}
WINDOW_S = 6


@torch.inference_mode()
def random_llama(sizes: dict[str, Any], precision: Precision) -> Any:
    """Return a random Llama whose linear layers are rounded, all else in bfloat16."""
    config = LlamaConfig(**sizes, max_position_embeddings=16384, rms_norm_eps=1e-5, tie_word_embeddings=False)
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(config).eval().requires_grad_(False)
    kernel = choose_kernel(precision, model, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    for block in model.model.layers:
        for part in (block.self_attn, block.mlp):
            for name, layer in list(part.named_children()):
                if type(layer) is nn.Linear:
                    layer.weight = nn.Parameter(torch.randn(layer.weight.shape, generator=generator) / 64, False)
                    setattr(part, name, PackedLinear(layer, kernel, 2))
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    for name, weight in list(model.named_parameters()):
        if weight.is_meta:
            owner, _, attribute = name.rpartition(".")
            values = torch.randn(weight.shape, generator=generator, dtype=torch.float32)
            values = (1 + 0.1 * values if weight.ndim == 1 else values).bfloat16()
            setattr(model.get_submodule(owner), attribute, nn.Parameter(values, False))
    return model


def stage_1_cost(model: Any, seconds: float, context: int) -> float:
    """Return the seconds of work for a second of song, after a prompt of about `context` tokens."""
    with tempfile.TemporaryDirectory() as folder:
        prompt = PromptEncoder(Tokenizer(yue_tokenizer.write(Path(folder) / "tokenizer.model")))
    parts = instrumental_sections(1)
    head = prompt.head(Tags(genres=["cinematic"], instruments=["piano"]), parts)
    head = [*head, *[tokenizer.FIRST_CODE] * (context - len(head))]

    def run(frames: int) -> float:
        start = time.perf_counter()
        stage1.generate_codes(model, prompt, head, [SectionPlan(parts[0], frames)], seed=0)
        return time.perf_counter() - start

    frames = codec_frames(seconds, FRAME_RATE)
    return (run(frames + 2) - run(2)) / seconds  # the prompt is read once, whatever the length


def stage_2_cost(model: Any, seconds: float, frames: int) -> float:
    """Return the seconds of work for a second of song: both stems, `frames` of each window."""
    windows = round(seconds / WINDOW_S)
    stream = torch.randint(CODEBOOK_SIZE, (frames * windows,), generator=torch.Generator().manual_seed(1))
    stage2.refine(model, [stream[:3]], window=3)
    start = time.perf_counter()
    stage2.refine(model, [stream, stream], window=frames)
    return (time.perf_counter() - start) / (frames * windows / FRAME_RATE)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bits", type=int, choices=(4, 8), default=4)
    parser.add_argument("--seconds", type=float, default=1.0, help="that stage 1 writes")
    parser.add_argument("--context", type=int, nargs="+", default=[500, 6000])
    parser.add_argument("--song", type=float, default=30.0, help="seconds of the song that stage 2 refines")
    parser.add_argument("--frames", type=int, default=10, help="of each of stage 2's windows; 300 is a whole one")
    args = parser.parse_args()
    precision: Precision = "int4" if args.bits == 4 else "int8"
    figures: dict[str, Any] = {"bits": args.bits, "bandwidth_gb_s": round(bandwidth() / 1e9, 1)}
    model = random_llama(STAGE_1, precision)
    for context in args.context:
        figures[f"stage1_s_per_s_{context}"] = round(stage_1_cost(model, args.seconds, context), 1)
        print(figures, flush=True)
    del model
    model = random_llama(STAGE_2, precision)
    figures["stage2_s_per_s"] = round(stage_2_cost(model, args.song, args.frames), 1)
    print(json.dumps(figures | {"processor": cpu_name(), "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
