"""A chat model in memory, and a conversation with it in its own template.

S prompt tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoTokenizer, GenerationConfig

from v2m.core.errors import DependencyError, UsageError, is_out_of_memory
from v2m.core.lazy_model import choose_device
from v2m.pretrained import transformers_loader
from v2m.pretrained.safe_load import read_json

ENDS = ("<|im_end|>", "<end_of_turn>", "<|eot_id|>", "<|end|>")  # of a turn, where the checkpoint does not say it


@dataclass(frozen=True)
class Chat:
    """The model with its tokenizer."""

    model: Any
    tokenizer: Any

    @torch.inference_mode()
    def answer(self, role: str, turns: Sequence[str], most: int, streamer: Any = None) -> str:
        """At most `most` tokens, the likeliest each time, after turns of the user and, between them, of the model.

        Raises:
            UsageError: They are longer than what the model can read.
        """
        inputs = {name: value.to(self.model.device) for name, value in self._read(role, turns).items()}
        length = inputs["input_ids"].shape[1]
        room = int(self.model.config.get_text_config().max_position_embeddings) - length
        if room < most:
            raise UsageError(
                f"{length} tokens that are asked and {most} of an answer are {most - room} more than the model can "
                "read: give fewer --tagger.max_new_tokens or --tagger.retries"
            )
        written = self.model.generate(**inputs, max_new_tokens=most, streamer=streamer)
        return str(self.tokenizer.decode(written[0, length:], skip_special_tokens=True))

    def _read(self, role: str, turns: Sequence[str]) -> dict[str, Tensor]:
        """(1, S) tokens and their mask. Where the template knows no system, the user says what the model is."""
        said = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(turns)]
        system = {"role": "system", "content": role}
        opening = {"role": "user", "content": f"{role}\n\n{turns[0]}"}
        settings: Any = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
        try:
            made = self.tokenizer.apply_chat_template([system, *said], **settings)
        except TemplateError:
            made = self.tokenizer.apply_chat_template([opening, *said[1:]], **settings)
        return {name: made[name] for name in ("input_ids", "attention_mask")}


def check(folder: Path) -> type[Any]:
    """The class of the model in `folder`.

    Raises:
        DependencyError: It is none that writes text, or one that transformers does not have.
    """
    name = str(read_json(folder / "config.json").get("model_type"))
    if name not in CONFIG_MAPPING or CONFIG_MAPPING[name] not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise DependencyError(f"{str(folder)!r} is no chat model: its config.json says model_type {name!r}")
    return cast("type[Any]", MODEL_FOR_CAUSAL_LM_MAPPING[CONFIG_MAPPING[name]])


def load(folder: Path, device: str, bits: Literal[4, 8] | None) -> Chat:
    """The model of a folder in transformers' layout, ready to answer. None of its code is run.

    Raises:
        DependencyError: The folder holds no chat model, or files are missing, broken or do not fit.
        UsageError: There is no such device, or it has no kernels for `bits`.
    """
    kind, place = check(folder), choose_device(device)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # of any kind: the files decide which
        if is_out_of_memory(error):
            raise
        said = " ".join(str(error).split())[:200]
        raise DependencyError(f"the tokenizer in {str(folder)!r} cannot be read ({said}): fetch it again") from error
    if not tokenizer.chat_template:
        raise DependencyError(
            f"{str(folder)!r} has no chat template: give a model that chats, an -Instruct or -Chat one"
        )
    model: Any = transformers_loader.load_model(kind, folder, place, bits=bits, description="a chat model")
    ends = _ends(folder, tokenizer)
    model.generation_config = GenerationConfig(do_sample=False, eos_token_id=ends, pad_token_id=ends[0])
    return Chat(model, tokenizer)


def _ends(folder: Path, tokenizer: Any) -> list[int]:
    """The tokens that end an answer, by all that the checkpoint says of them."""
    there = folder / "generation_config.json"
    told = read_json(there).get("eos_token_id") if there.is_file() else None
    vocabulary = tokenizer.get_vocab()
    listed = told if isinstance(told, list) else [told]
    found = {*listed, tokenizer.eos_token_id, *(vocabulary[name] for name in ENDS if name in vocabulary)} - {None}
    if not found:
        raise DependencyError(f"nothing in {str(folder)!r} says which token ends an answer: fetch it again")
    return sorted(found)
