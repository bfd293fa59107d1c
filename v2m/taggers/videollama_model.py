"""VideoLLaMA3 in memory, from either layout, and one question to it.

F frames, H height, W width, P patches, S prompt tokens, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import (
    AutoProcessor,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    VideoLlama3ForConditionalGeneration,
    VideoLlama3ImageProcessor,
    VideoLlama3Processor,
    VideoLlama3VideoProcessor,
)
from transformers.video_utils import VideoMetadata

from v2m.core.errors import DependencyError
from v2m.core.lazy_model import choose_device
from v2m.core.types import Pixels
from v2m.mappings.videollama import NATIVE, ORIGINAL, config_to_native, to_native
from v2m.pretrained import transformers_loader
from v2m.pretrained.safe_load import read_json, read_state_dict

VIDEO, IMAGE, END, PAD = "<|video_pad|>", "<|image_pad|>", "<|im_end|>", "<|endoftext|>"
WHAT = "VideoLLaMA3"
# never in fewer bits: the encoder's 4304 columns are no multiple of the blocks of 64 that 4-bit kernels want
WHOLE = ("model.vision_model", "model.projector", "lm_head")
LEAST = 16 * 28 * 28  # pixels: a frame gets 16 tokens where the budget allows it
SYSTEM = "You are a helpful assistant."  # what the authors' examples begin with
TEMPLATE = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\n" + SYSTEM + "<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'video' %}" + VIDEO + "\n{% elif part.type == 'text' %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Streamer(Protocol):
    """Protocol of the streamer that `generate` calls."""

    def put(self, value: Tensor) -> None: ...

    def end(self) -> None: ...


@dataclass(frozen=True)
class Loaded:
    """The model with what prepares its input."""

    model: VideoLlama3ForConditionalGeneration
    processor: VideoLlama3Processor

    @property
    def room(self) -> int:
        """Tokens that the model can read and write."""
        return int(self.model.config.get_text_config().max_position_embeddings)

    def inputs(self, frames: Pixels, ticks: list[int], clock: int, question: str, pixels: int) -> dict[str, Tensor]:
        """Model inputs: the frames (F, H, W, 3), each after its time, then the question.

        Args:
            frames: Upright RGB.
            ticks: When each frame appears; `clock` of them are a second.
            clock: Ticks per second.
            question: What is asked.
            pixels: Of a frame, at most.
        """
        turn = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
        text = self.processor.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        videos = torch.from_numpy(frames).permute(0, 3, 1, 2)  # (F, 3, H, W)
        shown = VideoMetadata(total_num_frames=ticks[-1] + 1, fps=clock, frames_indices=ticks)
        size = {"shortest_edge": min(LEAST, pixels), "longest_edge": pixels * len(frames)}
        made: Any = self.processor(
            text=[text],
            videos=[videos],
            videos_kwargs={"video_metadata": [shown], "do_sample_frames": False, "size": size},
            return_tensors="pt",  # type: ignore[call-arg]
        )
        return {name: value.to(self.model.device) for name, value in made.items() if isinstance(value, Tensor)}

    @torch.inference_mode()
    def answer(self, inputs: dict[str, Tensor], most: int, streamer: Streamer | None = None) -> str:
        """At most `most` tokens after the prompt, the likeliest each time, as text."""
        written: Any = self.model.generate(**inputs, max_new_tokens=most, streamer=streamer)  # type: ignore[arg-type]
        fresh = written[0, inputs["input_ids"].shape[1] :]
        return str(self.processor.tokenizer.decode(fresh, skip_special_tokens=True))


def check(folder: Path) -> str:
    """The layout of the checkpoint in `folder`.

    Raises:
        DependencyError: It is not VideoLLaMA3's.
    """
    kind = read_json(folder / "config.json").get("model_type")
    if kind not in {NATIVE, ORIGINAL}:
        raise DependencyError(f"{str(folder)!r} is no {WHAT}: its config.json says model_type {kind!r}")
    return kind


def load(folder: Path, device: str, bits: Literal[4, 8] | None) -> Loaded:
    """The model of a folder in either layout, ready to answer.

    Raises:
        DependencyError: The folder is another model's, or files are missing, broken or do not fit.
        UsageError: There is no such device, or it has no kernels for `bits`.
    """
    layout, place = check(folder), choose_device(device)
    processor = _processor(folder) if layout == NATIVE else _made_processor(folder)
    vocabulary = processor.tokenizer.get_vocab()
    absent = [name for name in (VIDEO, IMAGE, END) if name not in vocabulary]
    if absent:
        raise DependencyError(f"the tokenizer in {str(folder)!r} has no {' or '.join(absent)}: it is not {WHAT}'s")
    model = _model(folder, layout, place, bits, vocabulary)
    if model.config.video_token_id != vocabulary[VIDEO]:
        raise DependencyError(f"config.json and tokenizer in {str(folder)!r} disagree on {VIDEO}: fetch them again")
    ends = sorted({vocabulary[name] for name in (END, PAD) if name in vocabulary})
    model.generation_config = GenerationConfig(do_sample=False, eos_token_id=ends, pad_token_id=ends[0])
    return Loaded(model, processor)


def _processor(folder: Path) -> VideoLlama3Processor:
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # of any kind: the files decide which
        raise _unreadable(folder, "processor", error) from error
    if not isinstance(processor, VideoLlama3Processor):
        raise DependencyError(f"{str(folder)!r} lacks the processor's files of {WHAT}: fetch it again")
    return processor


def _made_processor(folder: Path) -> VideoLlama3Processor:
    """The authors' settings and vocabulary in transformers' processor."""
    config = read_json(folder / "config.json")
    there = folder / "preprocessor_config.json"
    settings = read_json(there) if there.is_file() else {}
    scaling = {name: settings[name] for name in ("image_mean", "image_std") if name in settings}
    try:
        tokenizer = _made_tokenizer(folder)
        videos = VideoLlama3VideoProcessor(**scaling, use_token_compression=config.get("use_token_compression", True))
        return VideoLlama3Processor(
            image_processor=VideoLlama3ImageProcessor(),
            tokenizer=tokenizer,
            video_processor=videos,
            chat_template=TEMPLATE,
        )
    except DependencyError:
        raise
    except Exception as error:  # of any kind: the files decide which
        raise _unreadable(folder, "tokenizer", error) from error


def _made_tokenizer(folder: Path) -> Any:
    """From tokenizer.json; or from vocab.json, merges.txt and the marks that tokenizer_config.json adds to them.

    Raises:
        DependencyError: It has no place for frames.
        Exception: The files are missing or broken, as tokenizers and transformers say it.
    """
    names = {"image_token": IMAGE, "video_token": VIDEO}
    if (folder / "tokenizer.json").is_file():
        core = Tokenizer.from_file(str(folder / "tokenizer.json"))
    else:
        core = Qwen2Tokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
    known = core.get_vocab()
    if VIDEO not in known or IMAGE not in known:
        raise DependencyError(f"the tokenizer in {str(folder)!r} has no {VIDEO} or {IMAGE}: it is not {WHAT}'s")
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END, pad_token=PAD, extra_special_tokens=names)


def _model(
    folder: Path, layout: str, device: torch.device, bits: Literal[4, 8] | None, vocabulary: dict[str, int]
) -> VideoLlama3ForConditionalGeneration:
    """The weights of either layout; nothing is written."""
    config, state = read_json(folder / "config.json"), read_state_dict(folder)
    if layout == ORIGINAL:
        config, state = config_to_native(config), to_native(state)
        config |= {"image_token_id": vocabulary[IMAGE], "video_token_id": vocabulary[VIDEO]}
    kind = VideoLlama3ForConditionalGeneration
    return transformers_loader.load_model(
        kind, folder, device, bits=bits, description=WHAT, config=config, state=state, skip_quantization=WHOLE
    )


def _unreadable(folder: Path, what: str, error: Exception) -> DependencyError:
    said = " ".join(str(error).split())[:200]
    return DependencyError(f"the {what} of {WHAT} in {str(folder)!r} cannot be read ({said}): fetch it again")
