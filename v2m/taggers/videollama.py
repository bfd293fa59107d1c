"""Tags from VideoLLaMA3, a frozen vision-language model (Zhang et al., arXiv 2501.13106).

F frames, H height, W width.

Nothing here imports torch, so that a wrong command or video is reported at once. There is no TYPE_CHECKING block
either: jsonargparse runs those of the modules whose classes a recipe names.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np

from v2m.core.errors import UsageError
from v2m.core.lazy_model import LazyModel, choose_device
from v2m.core.licenses import LicensedComponent
from v2m.core.timing import sample_frames
from v2m.core.types import Pixels, ProgressFn, Tags, Video, WeightsInfo
from v2m.pretrained.weights import fetch
from v2m.taggers.base import TaggerBase
from v2m.taggers.heuristic import HeuristicTagger
from v2m.taggers.llm_answers import answer_form, tags_schema
from v2m.taggers.llm_tagger import ProgressRange, complete_tags, describe_hints, read_lyrics, read_tags

logger = logging.getLogger(__name__)

FILES = (
    *("config.json", "*.json", "*.safetensors|pytorch_model*.bin", "tokenizer.json|merges.txt"),
    "chat_template.jinja|chat_template.json|tokenizer_config.json",
)
PIXELS_PER_TOKEN = 28 * 28  # patches of 14 × 14, merged 2 × 2
MIN_TOKENS = 16  # of a frame, where the budget allows it
MAX_ASPECT_RATIO = 200  # that the model's processor takes
LICENSE = "apache-2.0"
DOWNLOAD_SIZES = {"2b": 3_920_000_000, "7b": 16_090_000_000}  # bytes, from the number of parameters in bfloat16
OOM_HINT = "give `tagger.bits=4`, fewer `tagger.max_frames` or `tagger.pixels`, or `low_memory=True`"


class VideoLLaMA3(TaggerBase):
    """Tags from VideoLLaMA3, which reads frames of the video.

    It decodes greedily, whatever generation_config.json says: the same video gives the same tags. The answer is JSON
    of the tags' schema. Where it is cut off, what it leaves open of genres, instruments and moods is measured from the
    picture (`HeuristicTagger`).

    Args:
        model: A folder, or a repository of the hub, in transformers' layout (lkhl/VideoLLaMA3-2B-Image-HF, …) or in
            the authors' (DAMO-NLP-SG/VideoLLaMA3-2B, -7B, …), which is converted as it is loaded.
        prompt: The question for a caption and tags; the form of the answer is added.
        lyrics_prompt: The question for lyrics, where there shall be vocals and no lyrics are given.
        fps: Frames per second to look at, at the times that the authors' loader takes.
        max_frames: Frames to look at, at most; of a longer video they are spread evenly.
        pixels: Pixels of a frame, at most; 784 of them cost the model a token.
        fast_frames: Decode at reduced size, in less time; frames differ by some gray levels from the authors'.
        device: auto, cpu, cuda or mps.
        bits: Hold the weights in 4 or 8 bits (needs bitsandbytes).
        low_memory: Four bits unless `bits` says otherwise, at most 16 frames, of at most 50176 pixels.
        max_new_tokens: Length of an answer, at most.
    """

    def __init__(
        self,
        model: str = "lkhl/VideoLLaMA3-2B-Image-HF",
        *,
        prompt: str,
        lyrics_prompt: str,
        fps: float = 1.0,
        max_frames: int = 32,
        pixels: int = 100_352,
        fast_frames: bool = False,
        device: str = "auto",
        bits: Literal[4, 8] | None = None,
        low_memory: bool = False,
        max_new_tokens: int = 384,
    ) -> None:
        problems = [f"fps must be above 0, not {fps:g}"] if not 0 < fps < float("inf") else []
        problems += [f"pixels must be {PIXELS_PER_TOKEN} or more, not {pixels}"] if pixels < PIXELS_PER_TOKEN else []
        for name, value in (("max_frames", max_frames), ("max_new_tokens", max_new_tokens)):
            problems += [f"{name} must be 1 or more, not {value}"] if value < 1 else []
        prompts = {"prompt": prompt, "lyrics_prompt": lyrics_prompt}
        problems += [f"{name} must not be empty" for name, text in prompts.items() if not text.strip()]
        if problems:
            raise UsageError("; ".join(problems))
        self.model, self.device = model, device
        self.bits: Literal[4, 8] | None = bits or (4 if low_memory else None)
        self.fps, self.fast_frames = fps, fast_frames
        self.max_frames = min(max_frames, 16) if low_memory else max_frames
        self.pixels = min(pixels, 50_176) if low_memory else pixels
        self.prompt, self.lyrics_prompt = prompt, lyrics_prompt
        self.max_new_tokens = max_new_tokens
        self.weights: tuple[WeightsInfo, ...] = ()
        self._lazy_model: LazyModel[Any] = LazyModel(self._load, OOM_HINT)

    def components(self) -> list[LicensedComponent]:
        """Return the model, with its license."""
        from v2m.pretrained.licenses import model_component

        return [model_component("tagger", self.model, "tagger.model")]

    def prepare(self) -> None:
        """Fetch missing weights.

        Raises:
            DependencyError: They cannot be fetched, or are another model's.
            UsageError: There is no such device.
        """
        choose_device(self.device)
        size = next((size for name, size in DOWNLOAD_SIZES.items() if f"-{name}" in self.model.lower()), None)
        self.weights = (fetch(self.model, FILES, license=LICENSE, download_size=size),)
        from v2m.taggers.videollama_model import check_videollama

        check_videollama(self.weights[0].folder)

    def tag(self, video: Video, hints: Tags, progress: ProgressFn | None = None) -> Tags:
        """Tags, and lyrics where `hints` asks for vocals and has none; what `hints` sets is returned as given.

        Raises:
            DependencyError: The weights are missing, broken or another model's.
            MemoryError: There is too little for the model and the frames.
            UsageError: The frames do not fit into what the model can read.
        """
        progress_range = ProgressRange(progress)
        if _is_too_narrow(video):
            logger.warning("the video is too narrow for VideoLLaMA3: tags were measured from the picture")
            return HeuristicTagger().tag(video, hints, progress)
        frames = self._read_frames(video)
        progress_range.report(0.1)
        decided = describe_hints(hints)
        with self._lazy_model.model() as model:
            tags = Tags()
            if not hints.is_complete:
                progress_range.set_range(0.4, 0.85)
                question = f"{self.prompt}\n{answer_form(with_caption=True)}{decided}"
                schema = tags_schema(with_caption=True)
                tags = read_tags(self._ask(model, frames, question, progress_range, schema), "VideoLLaMA3")
            if hints.vocals and not hints.lyrics:
                progress_range.set_range(0.85, 1.0)
                answer = self._ask(model, frames, self.lyrics_prompt + decided, progress_range)
                tags = replace(tags, lyrics=read_lyrics(answer, "VideoLLaMA3"))
        progress_range.report(1.0)
        return tags.overridden_by(hints) if hints.is_complete else complete_tags(video, tags, hints, "VideoLLaMA3")

    def describe(self, video: Video, question: str, progress: ProgressFn | None = None) -> str:
        """Answer to `question` about the video, verbatim; for a video too narrow, its measured caption.

        Raises:
            DependencyError, MemoryError, UsageError: As in `tag`.
        """
        if _is_too_narrow(video):
            return HeuristicTagger().tag(video, Tags(), progress).caption
        progress_range = ProgressRange(progress)
        frames = self._read_frames(video)
        with self._lazy_model.model() as model:
            progress_range.set_range(0.4, 1.0)
            return self._ask(model, frames, question, progress_range)

    def release(self) -> None:
        """Free the model; the next `tag` loads it again."""
        self._lazy_model.release()

    def _load(self) -> Any:
        from v2m.taggers.videollama_model import load_videollama

        self.prepare()
        return load_videollama(self.weights[0].folder, self.device, self.bits)

    def _read_frames(self, video: Video) -> tuple[Pixels, list[float]]:
        """Frames (F, H, W, 3) and the times, in seconds, that the model is told."""
        times, told = sample_frames(video.timestamps, video.duration, self.fps, self.max_frames)
        if self.fast_frames:
            width = round(2 * float(np.sqrt(self.pixels * video.width / video.height)))  # twice the model's input
            return video.frames(times.tolist(), max(2, min(width, video.width))), told.tolist()
        size = input_size(video.width, video.height, self.pixels)
        return video.frames(times.tolist(), convert=partial(resize_frames, size=size)), told.tolist()

    def _ask(
        self,
        model: Any,
        frames: tuple[Pixels, list[float]],
        question: str,
        progress_range: ProgressRange,
        schema: Mapping[str, Any] | None = None,
    ) -> str:
        inputs = model.prepare_inputs(*frames, question, self.pixels)
        return model.generate(inputs, self.max_new_tokens, schema, progress_range.token_counter(self.max_new_tokens))


def input_size(width: int, height: int, max_pixels: int) -> tuple[int, int]:
    """Return width and height of the model's input for a frame, as its image processor computes them."""
    side = float(np.sqrt(PIXELS_PER_TOKEN))
    sides = [round(length / side) * side for length in (width, height)]
    min_pixels = min(MIN_TOKENS * PIXELS_PER_TOKEN, max_pixels)
    if np.prod(sides) > max_pixels:
        scale = np.sqrt(max_pixels / (width * height))
        sides = [max(1, np.floor(length * scale / side)) * side for length in (width, height)]
    elif np.prod(sides) < min_pixels:
        scale = np.sqrt(min_pixels / (width * height))
        sides = [np.ceil(length * scale / side) * side for length in (width, height)]
    return int(sides[0]), int(sides[1])


def resize_frames(frames: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize frames (F, H, W, 3) to width and height by PIL's bicubic filter, as in training."""
    from PIL import Image

    return np.stack([np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)) for frame in frames])


def _is_too_narrow(video: Video) -> bool:
    return max(video.width, video.height) >= MAX_ASPECT_RATIO * min(video.width, video.height)
