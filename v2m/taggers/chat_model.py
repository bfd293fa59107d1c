"""A chat model in memory, questions in its own template, and answers that follow a JSON schema.

B batch, S prompt tokens, V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import llguidance.hf
import numpy as np
import torch
from jinja2 import TemplateError
from llguidance import LLMatcher, LLTokenizer
from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    PreTrainedTokenizerFast,
)

from v2m.core.errors import DependencyError, UsageError
from v2m.core.lazy_model import choose_device
from v2m.pretrained import transformers_loader
from v2m.pretrained.safe_load import read_json

END_TOKENS = ("<|im_end|>", "<end_of_turn>", "<|eot_id|>", "<|end|>")  # of a turn, where the checkpoint names none
# as json.dumps writes it: free white space would let a model fill its answer with blanks
JSON_STYLE: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class JsonConstraint(LogitsProcessor):
    """Allow only tokens that keep an answer to a JSON schema, and the end token where it is complete.

    For one call of `generate`. The matcher works on the tokens' bytes, so that byte-level and SentencePiece
    vocabularies are alike to it.

    Args:
        tokenizer: The model's vocabulary, as llguidance holds it.
        schema: JSON schema of the answer.
    """

    def __init__(self, tokenizer: LLTokenizer, schema: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        self._grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=JSON_STYLE)
        self._matchers: list[LLMatcher] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, S) tokens so far and (B, V) scores → scores, −∞ where a token is not allowed."""
        if not self._matchers:
            self._matchers = [LLMatcher(self._tokenizer, self._grammar) for _ in input_ids]
        else:
            for matcher, token in zip(self._matchers, input_ids[:, -1].tolist(), strict=True):
                if not matcher.is_stopped():
                    matcher.consume_token(token)
        allowed = np.stack([np.frombuffer(matcher.compute_logit_bias(), np.uint8) for matcher in self._matchers]) > 0
        return scores.masked_fill(~torch.from_numpy(allowed).to(scores.device), float("-inf"))


@dataclass(frozen=True)
class TextModel:
    """A model that writes text greedily, with its tokenizer."""

    model: Any
    tokenizer: Any
    context_hint: ClassVar[str] = "give fewer `tagger.max_new_tokens`"

    @cached_property
    def _vocabulary(self) -> LLTokenizer:
        num_scores = self.model.get_output_embeddings().weight.shape[0]  # spare rows are more than the tokenizer has
        ends = self.model.generation_config.eos_token_id
        return llguidance.hf.from_tokenizer(self.tokenizer, num_scores, ends)

    @torch.inference_mode()
    def generate(
        self,
        inputs: Mapping[str, Tensor],
        max_new_tokens: int,
        schema: Mapping[str, Any] | None = None,
        streamer: Any = None,
    ) -> str:
        """Text of at most `max_new_tokens` tokens after the prompt, the likeliest each time.

        With a `schema` it is JSON that follows it, cut off where the tokens do not suffice; a tokenizer without a fast
        backend, which llguidance cannot read, leaves it free.

        Raises:
            UsageError: The prompt and the answer are longer than what the model can read.
        """
        length = inputs["input_ids"].shape[1]
        excess = length + max_new_tokens - int(self.model.config.get_text_config().max_position_embeddings)
        if excess > 0:
            raise UsageError(
                f"a prompt of {length} tokens and max_new_tokens={max_new_tokens} are {excess} tokens more than the "
                f"model can read: {self.context_hint}"
            )
        processors = []
        if schema is not None and isinstance(self.tokenizer, PreTrainedTokenizerFast):
            processors.append(JsonConstraint(self._vocabulary, schema))
        output = self.model.generate(
            **{name: value.to(self.model.device) for name, value in inputs.items()},
            max_new_tokens=max_new_tokens,
            streamer=streamer,
            logits_processor=processors,
        )
        return str(self.tokenizer.decode(output[0, length:], skip_special_tokens=True))


class ChatModel(TextModel):
    """A language model with a chat template."""

    def prepare_inputs(self, role: str, question: str) -> dict[str, Tensor]:
        """Tokens (1, S) and their mask of the system's message, `role`, and the user's.

        A template without system messages gets the role in the user's message.
        """
        settings: Any = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
        system, user = {"role": "system", "content": role}, {"role": "user", "content": question}
        merged = {"role": "user", "content": f"{role}\n\n{question}"}
        try:
            inputs = self.tokenizer.apply_chat_template([system, user], **settings)
        except TemplateError:
            inputs = self.tokenizer.apply_chat_template([merged], **settings)
        return {name: inputs[name] for name in ("input_ids", "attention_mask")}


def greedy_config(end_tokens: Sequence[int]) -> GenerationConfig:
    """Return the settings of greedy decoding up to one of `end_tokens`."""
    return GenerationConfig(do_sample=False, eos_token_id=list(end_tokens), pad_token_id=end_tokens[0])


def check_chat_model(folder: Path) -> type[Any]:
    """Return the class of the model in `folder`.

    Raises:
        DependencyError: It writes no text, or transformers does not have it.
    """
    name = str(read_json(folder / "config.json").get("model_type"))
    if name not in CONFIG_MAPPING or CONFIG_MAPPING[name] not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise DependencyError(f"{str(folder)!r} is no chat model: its config.json says model_type {name!r}")
    return cast("type[Any]", MODEL_FOR_CAUSAL_LM_MAPPING[CONFIG_MAPPING[name]])


def load_chat_model(folder: Path, device: str, bits: Literal[4, 8] | None) -> ChatModel:
    """Load the model of a folder in transformers' layout, ready to answer. None of its code is run.

    Raises:
        DependencyError: The folder holds no chat model, or files are missing, broken or do not fit.
        UsageError: There is no such device, or it has no kernels for `bits`.
    """
    model_class, target = check_chat_model(folder), choose_device(device)
    failure = f"the tokenizer in {str(folder)!r} cannot be read"
    tokenizer = transformers_loader.load_processor(AutoTokenizer, folder, failure)
    if not tokenizer.chat_template:
        raise DependencyError(
            f"{str(folder)!r} has no chat template: give a model that chats, an -Instruct or -Chat one"
        )
    model: Any = transformers_loader.load_model(model_class, folder, target, bits=bits, description="a chat model")
    model.generation_config = greedy_config(_end_tokens(folder, tokenizer))
    return ChatModel(model, tokenizer)


def _end_tokens(folder: Path, tokenizer: Any) -> list[int]:
    """Tokens that end an answer, by all that the checkpoint says of them."""
    path = folder / "generation_config.json"
    configured = read_json(path).get("eos_token_id") if path.is_file() else None
    vocabulary = tokenizer.get_vocab()
    ids = {*(configured if isinstance(configured, list) else [configured]), tokenizer.eos_token_id}
    ids |= {vocabulary[name] for name in END_TOKENS if name in vocabulary}
    ids.discard(None)
    if not ids:
        raise DependencyError(f"nothing in {str(folder)!r} says which token ends an answer: fetch it again")
    return sorted(ids)
