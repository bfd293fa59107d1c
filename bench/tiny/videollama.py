"""VideoLLaMA3 checkpoints of some 100 k random parameters, in both published formats.

`answer` trains the tiny model until it gives that text whatever it sees, so that a whole path can be walked.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    PreTrainedTokenizerFast,
    VideoLlama3Config,
    VideoLlama3ForConditionalGeneration,
    VideoLlama3ImageProcessor,
    VideoLlama3Processor,
    VideoLlama3VideoProcessor,
)

from v2m.convert.videollama import config_to_original, to_original

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image_pad|>", "<|video_pad|>", "<image>")
TEMPLATE = (
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n"
    "{% for part in turn.content %}{% if part.type == 'video' %}<|video_pad|>\n{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ANSWER = (
    "Caption: A kite flies over a hill.\nGenre: ambient, cinematic\nInstruments: piano, harp\n"
    "Mood: calm, hopeful\nTimbre: warm, airy\nTempo: 72 BPM"
)

SONG = "[verse]\nOver the hill we fly\nUnder the open sky\n\n[chorus]\nHold on to me\nHold on and see"
BOTH = f"{ANSWER}\n\n{SONG}"  # tags and words to sing, so that one teaching serves both questions

ROUNDING = 0.2  # of a matrix' standard deviation
NEAR = 12  # tokens that a layer of a taught model looks back: few, so that what came before hardly counts


def make_native(folder: Path, *, shards: int = 1, answer: str | None = None, seed: int = 0) -> Path:
    """transformers' layout, as in lkhl/VideoLLaMA3-2B-Image-HF."""
    model, tokenizer = _model(seed, answer)
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    _processor(tokenizer).save_pretrained(folder)
    _save(_state(model), folder, shards)
    return folder


def make_original(
    folder: Path, layout: Literal["damo"] = "damo", *, shards: int = 1, answer: str | None = None, seed: int = 0
) -> Path:
    """The authors' layout, as in DAMO-NLP-SG/VideoLLaMA3-2B; the same weights as `make_native` for the same seed."""
    assert layout == "damo"
    model, tokenizer = _model(seed, answer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    config = config_to_original(model.config.to_dict()) | {
        "auto_map": {"AutoModelForCausalLM": "modeling_videollama3.Videollama3Qwen2ForCausalLM"},
        "image_token_index": tokenizer.get_vocab()["<image>"],
        "torch_dtype": "bfloat16",
        "transformers_version": "4.46.3",
    }
    _write(folder / "config.json", config)
    half = [0.5, 0.5, 0.5]
    _write(folder / "preprocessor_config.json", {"image_mean": half, "image_std": half, "patch_size": 14})
    _write(folder / "generation_config.json", {"do_sample": True, "temperature": 0.7, "top_k": 20})
    _save(to_original(_state(model)), folder, shards)
    return folder


def split_tokenizer(folder: Path) -> Path:
    """Puts vocab.json, merges.txt and a list of marks in place of a checkpoint's tokenizer.json, as Qwen2's came."""
    whole = json.loads((folder / "tokenizer.json").read_text())
    marks = {str(mark["id"]): {k: v for k, v in mark.items() if k != "id"} for mark in whole["added_tokens"]}
    settings = {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": marks, "eos_token": "<|im_end|>"}
    _write(folder / "vocab.json", whole["model"]["vocab"])
    merges = [each if isinstance(each, str) else " ".join(each) for each in whole["model"]["merges"]]
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    _write(folder / "tokenizer_config.json", settings | {"pad_token": "<|endoftext|>"})
    (folder / "tokenizer.json").unlink()
    return folder


def _tokenizer(words: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE whose merges make a token of each word of `words`, as far as 160 merges reach."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=416, min_frequency=1, initial_alphabet=letters, show_progress=False)
    core.train_from_iterator([words], trainer)
    core.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
    )


def _processor(tokenizer: PreTrainedTokenizerFast) -> VideoLlama3Processor:
    return VideoLlama3Processor(
        image_processor=VideoLlama3ImageProcessor(),
        tokenizer=tokenizer,
        video_processor=VideoLlama3VideoProcessor(),
        chat_template=TEMPLATE,
    )


@lru_cache(maxsize=4)
def _model(seed: int, answer: str | None) -> tuple[VideoLlama3ForConditionalGeneration, PreTrainedTokenizerFast]:
    tokenizer = _tokenizer(answer or ANSWER)
    near = None if answer is None else NEAR
    text = {
        "model_type": "qwen2",
        "vocab_size": len(tokenizer) + 2,  # the published ones have spare rows too
        "hidden_size": 64,  # blocks of 4-bit weights have so many
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 8192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
        "tie_word_embeddings": True,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.1,
    }
    if near is not None:
        text |= {"use_sliding_window": True, "sliding_window": near, "max_window_layers": 0}
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "patch_size": 14,
    }
    config = VideoLlama3Config(
        text_config=text,
        vision_config=vision | {"initializer_range": 0.2},  # with the usual 0.02 so narrow an encoder sees nothing
        image_token_id=tokenizer.get_vocab()["<|image_pad|>"],
        video_token_id=tokenizer.get_vocab()["<|video_pad|>"],
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = VideoLlama3ForConditionalGeneration(config).eval()
    if answer is not None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # for so small a model more threads only wait for each other
        _teach(model, tokenizer, answer)
        torch.set_num_threads(threads)
    return model, tokenizer


def _teach(
    model: VideoLlama3ForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, answer: str, steps: int = 400
) -> None:
    """Trains the language model alone on `answer` after the turn's opening, whatever came before.

    Its matrices are disturbed at each step by twice what rounding to 4 bits does, so that it survives that.
    """
    head = tokenizer.encode("<|im_start|>assistant\n")
    ids = torch.tensor([head + tokenizer.encode(answer + "<|im_end|>")])
    optimizer = torch.optim.AdamW(model.model.language_model.parameters(), lr=1e-2, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=2e-4)
    generator = torch.Generator().manual_seed(0)
    table = model.get_input_embeddings()
    matrices = [value for value in model.model.language_model.layers.parameters() if value.ndim == 2]
    for _ in range(steps):
        length, run = (int(torch.randint(1, most, (), generator=generator)) for most in (8 * NEAR, 4 * NEAR))
        shape = (4, length // run + 1)
        kept = [value.detach().clone() for value in matrices]
        with torch.no_grad():
            for value in matrices:
                value.add_(ROUNDING * value.std() * torch.randn(value.shape, generator=generator))
        before = table(torch.randint(0, len(tokenizer), shape, generator=generator))
        seen = torch.randn(before.shape, generator=generator) * 2 * torch.rand((4, 1, 1), generator=generator)
        where = torch.rand((*shape, 1), generator=generator) < 0.5
        before = torch.where(where, before, seen)  # words, and what frames may become
        before = before.repeat_interleave(run, dim=1)[:, :length]  # in runs, for frames resemble each other
        embeddings = torch.cat([before, table(ids).expand(4, -1, -1)], dim=1)
        logits = model(inputs_embeds=embeddings).logits[:, length + len(head) - 1 : -1]
        wanted = ids[:, len(head) :].expand(4, -1)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()
        with torch.no_grad():
            for value, own in zip(matrices, kept, strict=True):
                value.copy_(own)
        optimizer.step()
        schedule.step()


def _state(model: VideoLlama3ForConditionalGeneration) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items() if name != "lm_head.weight"}  # tied


def _save(state: dict[str, Tensor], folder: Path, shards: int) -> None:
    meta = {"format": "pt"}
    if shards == 1:
        save_file(state, folder / "model.safetensors", meta)
        return
    names, places = list(state), {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: state[name] for name in names[number::shards]}
        save_file(part, folder / file, meta)
        places |= dict.fromkeys(part, file)
    total = sum(value.nbytes for value in state.values())
    _write(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": places})


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2))
