"""Constrained decoding: random models with real vocabularies give JSON of the tags' schema, and nothing else."""

from __future__ import annotations

import json
import re
from typing import Any

import llguidance.hf
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from tests.fixtures.tiny import chat
from v2m.taggers.chat_model import ChatModel, JsonConstraint, greedy_config
from v2m.taggers.llm_answers import TAG_LISTS, parse_tags, tags_schema

ENOUGH = 1500  # tokens, where each is a single character
SCHEMA = tags_schema(with_caption=True)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def random_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> ChatModel:
    """A model with spare rows beside the vocabulary, as published ones have them."""
    config = chat._build("qwen2", None, 0)[0].config.to_dict() | {"vocab_size": len(tokenizer) + 3}
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(Qwen2Config(**config)).eval()
    model.generation_config = greedy_config(tokenizer.encode(str(tokenizer.eos_token))[-1:])
    return ChatModel(model, tokenizer)


def byte_level(family: chat.Family) -> PreTrainedTokenizerFast:
    """Tokens of bytes and of the words of an answer, as GPT-2, Qwen and Llama 3 have them."""
    return chat._build(family, None, 0)[1]


def sentencepiece() -> PreTrainedTokenizerFast:
    """Pieces with ▁ for a space and bytes for what they lack, as Mistral, Llama 2 and Gemma have them."""
    special = ["<unk>", "<s>", "</s>"]
    letters = [chr(code) for code in range(33, 127)]
    pieces = ["▁", *letters, "▁{", '{"', '",', '":', "▁[", '["', '"],', "▁calm", "pi", "an", "o", "▁piano", "é"]
    vocabulary = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *dict.fromkeys(pieces)]
    core = Tokenizer(
        models.BPE({token: k for k, token in enumerate(vocabulary)}, [], byte_fallback=True, unk_token="<unk>")
    )
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    core.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    template = "{% for turn in messages %}<s>{{ turn.content }}{% endfor %}"
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", chat_template=template)


VOCABULARIES: dict[str, Any] = {"byte-level": lambda: byte_level("qwen2"), "sentencepiece": sentencepiece}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_random_model_answers_in_json_that_becomes_tags(vocabulary: str, seed: int) -> None:
    model = random_model(VOCABULARIES[vocabulary](), seed)
    inputs = model.prepare_inputs("A composer.", "Which music?")
    with pytest.raises(json.JSONDecodeError):
        json.loads(model.generate(inputs, 200))
    answer = model.generate(inputs, ENOUGH, SCHEMA)
    content = json.loads(answer)
    assert list(content)[:6] == ["caption", *TAG_LISTS, "tempo"]
    assert 30 <= content["tempo"] <= 300
    assert 2 <= len(content["caption"]) <= 300
    tags = parse_tags(answer)
    assert tags.caption
    assert tags.tempo == content["tempo"]
    for name, (fewest, most, _) in TAG_LISTS.items():
        assert fewest <= len(content[name]) <= most
        assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9 &'-]{1,47}", word) for word in content[name])
        assert getattr(tags, name)
    assert model.generate(inputs, ENOUGH, SCHEMA) == answer


def answer_ids(tokenizer: PreTrainedTokenizerFast, caption: str) -> list[int]:
    text = f'{{"caption": "{caption}", "genres": ["R&B"], "instruments": ["piano", "harp"], "moods": ["calm"], '
    return tokenizer.encode(text + '"timbres": ["warm"], "tempo": 72}')


def constraint_of(tokenizer: PreTrainedTokenizerFast, num_scores: int) -> tuple[JsonConstraint, int]:
    """The constraint, and the end token."""
    end = tokenizer.encode(str(tokenizer.eos_token))[-1]
    return JsonConstraint(llguidance.hf.from_tokenizer(tokenizer, num_scores, [end]), SCHEMA), end


def allowed_tokens(constraint: JsonConstraint, ids: list[list[int]], num_scores: int) -> list[list[int]]:
    """Tokens that may follow each row."""
    scores = constraint(torch.tensor(ids), torch.zeros(len(ids), num_scores))
    return [torch.isfinite(row).nonzero().flatten().tolist() for row in scores]


def test_end_token_is_allowed_only_after_complete_json() -> None:
    tokenizer = byte_level("qwen2")
    num_scores = len(tokenizer) + 5
    constraint, end = constraint_of(tokenizer, num_scores)
    ids = answer_ids(tokenizer, "A hill.")
    for length, token in enumerate([*ids, end]):
        (allowed,) = allowed_tokens(constraint, [[0, *ids[:length]]], num_scores)
        assert token in allowed
        assert (end in allowed) == (length == len(ids))
        assert max(allowed) < len(tokenizer)  # spare rows of the model's output have no token


def test_rows_of_a_batch_end_independently() -> None:
    tokenizer = byte_level("qwen2")
    constraint, end = constraint_of(tokenizer, len(tokenizer))
    short, long = (answer_ids(tokenizer, caption) for caption in ("A hill.", "A hill and a kite."))
    padded = short + [end] * (len(long) + 1 - len(short))  # as `generate` does it
    for length, token in enumerate([*long, end]):
        rows = [[0, *padded[:length]], [0, *long[:length]]]
        first, second = allowed_tokens(constraint, rows, len(tokenizer))
        assert padded[length] in first
        assert token in second
        assert (end in first) == (length >= len(short))
        assert (end in second) == (length == len(long))


BESIDE = ('{"caption": 5', '{"genres"', " {", '{"caption": "A hill.", "genres": []', '{"caption": "é')


@pytest.mark.parametrize("text", BESIDE)
def test_tokens_outside_the_schema_are_not_allowed(text: str) -> None:
    tokenizer = byte_level("qwen2")
    constraint, _ = constraint_of(tokenizer, len(tokenizer))
    ids = tokenizer.encode(text)
    prefixes = ([0, *ids[:length]] for length in range(len(ids)))
    allowed = (allowed_tokens(constraint, [prefix], len(tokenizer))[0] for prefix in prefixes)
    assert any(token not in tokens for token, tokens in zip(ids, allowed, strict=True))
