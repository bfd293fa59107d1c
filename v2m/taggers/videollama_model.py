"""VideoLLaMA3 in memory, from either layout, and its answers to questions on frames.

F frames, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import (
    AutoProcessor,
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
from v2m.core.timing import seconds_to_samples
from v2m.core.types import Pixels
from v2m.mappings.videollama import NATIVE, ORIGINAL, config_to_native, to_native
from v2m.pretrained import transformers_loader
from v2m.pretrained.safe_load import read_json, read_state_dict
from v2m.taggers.chat_model import TextModel, greedy_config

VIDEO, IMAGE, END, PAD = "<|video_pad|>", "<|image_pad|>", "<|im_end|>", "<|endoftext|>"
DESCRIPTION = "VideoLLaMA3"
# never in fewer bits: the encoder's 4304 columns are no multiple of the blocks of 64 that 4-bit kernels need
SKIP_QUANTIZATION = ("model.vision_model", "model.projector", "lm_head")
MIN_PIXELS = 16 * 28 * 28  # a frame gets 16 tokens where the budget allows it
CLOCK_RATE = 1000  # ticks per second of the frame times in the prompt
SYSTEM = "You are a helpful assistant."  # as the authors' examples begin
TEMPLATE = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\n" + SYSTEM + "<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'video' %}" + VIDEO + "\n{% elif part.type == 'text' %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class VideoLLaMAModel(TextModel):
    """The model with what prepares its input."""

    processor: VideoLlama3Processor
    context_hint = "give fewer `tagger.max_frames`, `tagger.pixels` or `tagger.max_new_tokens`"

    def prepare_inputs(
        self, frames: Pixels, times: Sequence[float], question: str, max_pixels: int
    ) -> dict[str, Tensor]:
        """Model inputs: the upright RGB frames (F, H, W, 3), each after its time, then the question.

        Args:
            frames: Frames of the video.
            times: Seconds at which they appear.
            question: Text after them.
            max_pixels: Pixels of a frame to which it is scaled down, at most.
        """
        message = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}
        text = self.processor.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
        videos = torch.from_numpy(frames).permute(0, 3, 1, 2)  # (F, 3, H, W)
        ticks = [seconds_to_samples(time, CLOCK_RATE) for time in times]
        metadata = VideoMetadata(total_num_frames=ticks[-1] + 1, fps=CLOCK_RATE, frames_indices=ticks)
        size = {"shortest_edge": min(MIN_PIXELS, max_pixels), "longest_edge": max_pixels * len(frames)}
        inputs: Any = self.processor(
            text=[text],
            videos=[videos],
            videos_kwargs={"video_metadata": [metadata], "do_sample_frames": False, "size": size},
            return_tensors="pt",  # type: ignore[call-arg]
        )
        return {name: value for name, value in inputs.items() if isinstance(value, Tensor)}


def check_videollama(folder: Path) -> str:
    """Return the layout of the checkpoint in `folder`.

    Raises:
        DependencyError: It is not VideoLLaMA3's.
    """
    model_type = read_json(folder / "config.json").get("model_type")
    if model_type not in {NATIVE, ORIGINAL}:
        raise DependencyError(f"{str(folder)!r} is no {DESCRIPTION}: its config.json says model_type {model_type!r}")
    return model_type


def load_videollama(folder: Path, device: str, bits: Literal[4, 8] | None) -> VideoLLaMAModel:
    """Load the model of a folder in either layout, ready to answer; nothing is written.

    Raises:
        DependencyError: The folder is another model's, or files are missing, broken or do not fit.
        UsageError: There is no such device, or it has no kernels for `bits`.
    """
    layout, target = check_videollama(folder), choose_device(device)
    processor = _load_processor(folder) if layout == NATIVE else _convert_processor(folder)
    vocabulary = processor.tokenizer.get_vocab()
    _check_tokens(folder, vocabulary, VIDEO, IMAGE, END)
    config, state = read_json(folder / "config.json"), read_state_dict(folder)
    if layout == ORIGINAL:
        config, state = config_to_native(config), to_native(state)
        config |= {"image_token_id": vocabulary[IMAGE], "video_token_id": vocabulary[VIDEO]}
    model = transformers_loader.load_model(
        VideoLlama3ForConditionalGeneration,
        folder,
        target,
        bits=bits,
        description=DESCRIPTION,
        config=config,
        state=state,
        skip_quantization=SKIP_QUANTIZATION,
    )
    if model.config.video_token_id != vocabulary[VIDEO]:
        raise DependencyError(f"config.json and tokenizer in {str(folder)!r} disagree on {VIDEO}: fetch them again")
    model.generation_config = greedy_config(sorted({vocabulary[name] for name in (END, PAD) if name in vocabulary}))
    return VideoLLaMAModel(model, processor.tokenizer, processor)


def _load_processor(folder: Path) -> VideoLlama3Processor:
    failure = f"the processor of {DESCRIPTION} in {str(folder)!r} cannot be read"
    processor = transformers_loader.load_processor(AutoProcessor, folder, failure)
    if not isinstance(processor, VideoLlama3Processor):
        raise DependencyError(f"{str(folder)!r} lacks the processor's files of {DESCRIPTION}: fetch it again")
    return processor


def _convert_processor(folder: Path) -> VideoLlama3Processor:
    """The authors' settings and vocabulary in transformers' processor."""
    config, path = read_json(folder / "config.json"), folder / "preprocessor_config.json"
    settings = read_json(path) if path.is_file() else {}
    scaling = {name: settings[name] for name in ("image_mean", "image_std") if name in settings}
    try:
        return VideoLlama3Processor(
            image_processor=VideoLlama3ImageProcessor(),
            tokenizer=_convert_tokenizer(folder),
            video_processor=VideoLlama3VideoProcessor(
                **scaling, use_token_compression=config.get("use_token_compression", True)
            ),
            chat_template=TEMPLATE,
        )
    except DependencyError:
        raise
    except Exception as error:  # of any kind: the files decide which
        reason = " ".join(str(error).split())[:200]
        failure = f"the tokenizer of {DESCRIPTION} in {str(folder)!r} cannot be read"
        raise DependencyError(f"{failure} ({reason}): fetch it again") from error


def _convert_tokenizer(folder: Path) -> Any:
    """From tokenizer.json; or from vocab.json, merges.txt and the special tokens of tokenizer_config.json.

    Raises:
        DependencyError: It has no token for frames.
        Exception: The files are missing or broken, as tokenizers and transformers say it.
    """
    if (folder / "tokenizer.json").is_file():
        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    else:
        backend = Qwen2Tokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
    _check_tokens(folder, backend.get_vocab(), VIDEO, IMAGE)
    names = {"image_token": IMAGE, "video_token": VIDEO}
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END, pad_token=PAD, extra_special_tokens=names)


def _check_tokens(folder: Path, vocabulary: Mapping[str, int], *tokens: str) -> None:
    absent = [token for token in tokens if token not in vocabulary]
    if absent:
        raise DependencyError(
            f"the tokenizer in {str(folder)!r} has no {' or '.join(absent)}: it is not {DESCRIPTION}'s"
        )
