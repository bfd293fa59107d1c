"""Chat models of some 100 k parameters in the format that Mistral, Qwen and Gemma are published in.

Configuration, safetensors, tokenizer, and each one's own rules for a conversation. They are taught to give one answer,
whatever is asked.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from v2m.taggers.language_model import ROLE

Family = Literal["mistral", "qwen2", "gemma"]

ANSWER = json.dumps(
    {
        "genres": ["Ambient"],
        "instruments": ["Piano", "harp"],
        "moods": ["calm"],
        "timbres": ["warm"],
        "tempo": 72,
    }
)
PROSE = "I suggest calm ambient music with piano and harp at 72 BPM."
NONSENSE = "Qx zzv 77 blorp."

TURNS = {  # what opens a user's turn, what ends it and opens the model's, what ends that
    "mistral": ("[INST] ", "[/INST]", "</s>"),
    "qwen2": ("<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>"),
    "gemma": ("<start_of_turn>user\n", "<end_of_turn>\n<start_of_turn>model\n", "<end_of_turn>"),
}
MARKS = {
    "mistral": ["<s>", "</s>", "[INST]", "[/INST]"],
    "qwen2": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "gemma": ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
}
TEMPLATES = {
    # no turn but of user and model in turn; what the system says is put before the last of the user's, as published
    "mistral": (
        "{% if messages[0].role == 'system' %}{% set said = messages[0].content + '\n\n' %}"
        "{% set rest = messages[1:] %}{% else %}{% set said = '' %}{% set rest = messages %}{% endif %}<s>"
        "{% for turn in rest %}{% if (turn.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}{% if turn.role == 'user' %}"
        "[INST] {% if loop.last %}{{ said }}{% endif %}{{ turn.content }}[/INST]{% else %}{{ turn.content }}</s>"
        "{% endif %}{% endfor %}"
    ),
    "qwen2": (
        "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{{ turn.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "gemma": (
        "<bos>{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for turn in messages %}{% if (turn.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
        "<start_of_turn>{{ 'model' if turn.role == 'assistant' else 'user' }}\n{{ turn.content }}<end_of_turn>\n"
        "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    ),
}
NEAR = 12  # tokens that a layer looks back, but for Gemma's: few, so that what came before hardly counts


def write(folder: Path, family: Family = "qwen2", *, answer: str = ANSWER, seed: int = 0) -> Path:
    """A checkpoint that gives `answer` ("" ends its turn at once) to whatever is asked."""
    model, tokenizer = _taught(family, answer, seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    ends = {"eos_token_id": tokenizer.convert_tokens_to_ids(TURNS[family][2])}
    (folder / "generation_config.json").write_text(json.dumps({"do_sample": True, "temperature": 0.7, **ends}))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return folder


@lru_cache(maxsize=8)
def _taught(family: Family, answer: str, seed: int) -> tuple[Any, PreTrainedTokenizerFast]:
    tokenizer = _tokenizer(family, answer)
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 8192,
        "initializer_range": 0.1, "eos_token_id": None, "bos_token_id": None, "pad_token_id": None,
    }  # fmt: skip
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        if family == "mistral":
            model: Any = MistralForCausalLM(MistralConfig(**sizes, sliding_window=NEAR))
        elif family == "qwen2":
            local: dict[str, Any] = {"use_sliding_window": True, "sliding_window": NEAR, "max_window_layers": 0}
            model = Qwen2ForCausalLM(Qwen2Config(**sizes, **local, tie_word_embeddings=True))
        else:
            model = GemmaForCausalLM(GemmaConfig(**sizes))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for so small a model more threads only wait for each other
    _teach(model.eval(), tokenizer, TURNS[family], answer)
    torch.set_num_threads(threads)
    return model, tokenizer


def _teach(model: Any, tokenizer: PreTrainedTokenizerFast, turns: Sequence[str], answer: str, steps: int = 160) -> None:
    """Trains it on `answer` after the opening of its turn, after noise and after parts of what it is asked."""
    head = tokenizer.encode(turns[1], add_special_tokens=False)
    body = tokenizer.encode(answer + turns[2], add_special_tokens=False)
    ids = torch.tensor([head + body])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=2e-4)
    asked = torch.tensor(tokenizer.encode(ROLE, add_special_tokens=False))
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        said, more = (int(torch.randint(1, most, (), generator=generator)) for most in (len(asked), 8 * NEAR))
        length = said + more
        before = torch.randint(0, len(tokenizer), (4, length), generator=generator)
        before[:2, :said] = asked[-said:]
        logits = model(torch.cat([before, ids.expand(4, -1)], dim=1)).logits[:, length + len(head) - 1 : -1]
        wanted = ids[:, len(head) :].expand(4, -1)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _tokenizer(family: Family, answer: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE whose merges make a token of each word of the answer."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, min_frequency=1, initial_alphabet=letters, show_progress=False)
    core.train_from_iterator([answer], trainer)
    core.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in MARKS[family]])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token=TURNS[family][2], chat_template=TEMPLATES[family], model_max_length=8192
    )
