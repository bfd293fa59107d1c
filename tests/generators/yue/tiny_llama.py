"""A tiny Llama model in YuE's format, loaded with from_pretrained."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LlamaForCausalLM

from tests.fixtures.tiny.yue_lm import STAGE_2_VOCAB, write


def load(folder: Path, dtype: torch.dtype = torch.float32, vocab: int = STAGE_2_VOCAB) -> LlamaForCausalLM:
    model = LlamaForCausalLM.from_pretrained(write(folder, vocab, heads=8, kv_heads=2, dtype=dtype), dtype=dtype)
    assert isinstance(model, LlamaForCausalLM)
    return model.eval()
