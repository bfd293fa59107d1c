"""Tags from VideoLLaMA3 (Zhang et al., arXiv 2501.13106), a frozen vision-language model.

F frames, H height, W width, S prompt tokens.

Nothing here imports torch, so that a wrong command or video is told at once. There is no TYPE_CHECKING block either:
jsonargparse runs those of the modules whose classes a recipe names.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol

import numpy as np

from v2m.core.errors import UsageError
from v2m.core.lazy_model import LazyModel, choose_device
from v2m.core.timing import frame_index_at, sample_frame_times, seconds_to_samples
from v2m.core.types import Pixels, ProgressFn, Tags, Video, WeightsInfo
from v2m.pretrained.weights import fetch
from v2m.taggers import llm_output, lyrics
from v2m.taggers.base import TaggerBase
from v2m.taggers.heuristic import HeuristicTagger
from v2m.taggers.llm_common import Steps, completed, count, decided, quoted

logger = logging.getLogger(__name__)

FILES = (
    *("config.json", "*.json", "*.safetensors", "tokenizer.json|merges.txt"),
    "chat_template.jinja|chat_template.json|tokenizer_config.json",
)
ENOUGH = 5  # tags; below that the model is asked once more
TOKEN = 28 * 28  # pixels of a frame that become one token: patches of 14 × 14, merged 2 × 2
CLOCK = 1000  # ticks a second of the times that the model is told
FLATTEST = 200  # the most extreme aspect ratio that the model's processor takes
LICENSE = "apache-2.0"
SIZES = {"2b": 3_920_000_000, "7b": 16_090_000_000}  # bytes, from the parameters' number in bfloat16
CURE = "give --tagger.bits 4, fewer --tagger.max_frames or --tagger.pixels, or --low-memory"


class VideoLLaMA3(TaggerBase):
    """Asks VideoLLaMA3 which music fits the video. Greedy, so that the same video gives the same tags.

    Genres, instruments and moods that the model leaves open are measured from the picture (`HeuristicTagger`), all of
    the tags where its answer cannot be read twice.

    Args:
        model: A folder, or a repository of the hub, in transformers' layout (lkhl/VideoLLaMA3-2B-Image-HF, …) or in
            the authors' (DAMO-NLP-SG/VideoLLaMA3-2B, -7B, …), which is converted as it is loaded.
        prompt: What the model is asked: a caption and tags.
        retry_prompt: What it is asked where fewer than five tags were understood.
        lyrics_prompt: What it is asked for when there shall be vocals and no lyrics are given.
        fps: Frames per second to look at.
        max_frames: Frames to look at, at most; of a longer video they are spread evenly.
        pixels: Pixels of a frame, at most; 784 of them cost the model a token.
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
        retry_prompt: str,
        lyrics_prompt: str,
        fps: float = 1.0,
        max_frames: int = 32,
        pixels: int = 100_352,
        device: str = "auto",
        bits: Literal[4, 8] | None = None,
        low_memory: bool = False,
        max_new_tokens: int = 384,
    ) -> None:
        problems = [f"fps must be above 0, not {fps:g}"] if not 0 < fps < float("inf") else []
        problems += [f"pixels must be {TOKEN} or more, not {pixels}"] if pixels < TOKEN else []
        for name, value in (("max_frames", max_frames), ("max_new_tokens", max_new_tokens)):
            problems += [f"{name} must be 1 or more, not {value}"] if value < 1 else []
        asked = {"prompt": prompt, "retry_prompt": retry_prompt, "lyrics_prompt": lyrics_prompt}
        problems += [f"{name} must not be empty" for name, text in asked.items() if not text.strip()]
        if problems:
            raise UsageError("; ".join(problems))
        self.model, self.device = model, device
        self.bits: Literal[4, 8] | None = bits or (4 if low_memory else None)
        self.fps = fps
        self.max_frames = min(max_frames, 16) if low_memory else max_frames
        self.pixels = min(pixels, 50_176) if low_memory else pixels
        self.prompt, self.retry_prompt, self.lyrics_prompt = prompt, retry_prompt, lyrics_prompt
        self.max_new_tokens = max_new_tokens
        self.weights: tuple[WeightsInfo, ...] = ()
        self._holder = LazyModel(self._load, CURE)

    def prepare(self) -> None:
        """Sees to it that the weights are here.

        Raises:
            DependencyError: They are not and cannot be fetched, or are another model's.
            UsageError: There is no such device.
        """
        choose_device(self.device)
        size = next((size for name, size in SIZES.items() if f"-{name}" in self.model.lower()), None)
        self.weights = (fetch(self.model, FILES, license=LICENSE, download_size=size),)
        from v2m.taggers.videollama_model import check

        check(self.weights[0].folder)

    def tag(self, video: Video, hints: Tags, progress: ProgressFn | None = None) -> Tags:
        """Tags, and lyrics where `hints` asks for vocals and has none; what `hints` sets is returned as given.

        Raises:
            DependencyError: The weights are missing, broken or another model's.
            MemoryError: There is too little for the model and the frames.
            UsageError: The frames do not fit into what the model can read.
        """
        steps = Steps(progress)
        if max(video.width, video.height) >= FLATTEST * min(video.width, video.height):
            logger.warning("the video is too narrow for VideoLLaMA3: tags were measured from the picture")
            return HeuristicTagger().tag(video, hints, progress)
        frames, times = self._look(video)
        steps.reach(0.1)
        with self._holder.model() as loaded:
            steps.reach(0.4)
            found = Tags()
            if not hints.is_complete:
                found = self._ask_for_tags(loaded, (frames, times), hints, steps)
            if hints.vocals and not hints.lyrics:
                steps.span(0.85, 1.0)
                said = self._ask(loaded, (frames, times), self.lyrics_prompt + decided(hints), steps)
                found = replace(found, lyrics=lyrics.clean(said))
                if not found.lyrics:
                    logger.warning("VideoLLaMA3 wrote no lyrics that can be sung (%s)", quoted(said))
        steps.reach(1.0)
        return found.overridden_by(hints) if hints.is_complete else completed(video, found, hints, "VideoLLaMA3")

    def describe(self, video: Video, question: str, progress: ProgressFn | None = None) -> str:
        """Answer to `question` about the video, verbatim; for a video too narrow, its measured caption.

        Raises:
            DependencyError, MemoryError, UsageError: As in `tag`.
        """
        if max(video.width, video.height) >= FLATTEST * min(video.width, video.height):
            return HeuristicTagger().tag(video, Tags(), progress).caption
        steps = Steps(progress)
        seen = self._look(video)
        with self._holder.model() as loaded:
            steps.span(0.4, 1.0)
            return self._ask(loaded, seen, question, steps)

    def release(self) -> None:
        """Frees the model; the next `tag` loads it again."""
        self._holder.release()

    def _load(self) -> _Loaded:
        from v2m.taggers.videollama_model import load

        self.prepare()
        return load(self.weights[0].folder, self.device, self.bits)

    def _look(self, video: Video) -> tuple[Pixels, list[float]]:
        """Frames (F, H, W, 3) and the times, in seconds, at which they appear; no frame twice."""
        wanted = sample_frame_times(video.duration, self.fps, self.max_frames)
        stamps = video.timestamps[np.unique(frame_index_at(video.timestamps, wanted))]
        width = round(2 * float(np.sqrt(self.pixels * video.width / video.height)))  # twice what is left of them
        return video.frames(stamps.tolist(), max(2, min(width, video.width))), stamps.tolist()

    def _ask_for_tags(self, loaded: _Loaded, seen: tuple[Pixels, list[float]], hints: Tags, steps: Steps) -> Tags:
        chosen = decided(hints)
        steps.span(0.4, 0.7)
        said = self._ask(loaded, seen, self.prompt + chosen, steps)
        found = llm_output.parse(said)
        if count(found) < ENOUGH:
            steps.span(0.7, 0.85)
            second = self._ask(loaded, seen, self.retry_prompt + chosen, steps)
            again = llm_output.parse(second)
            found = replace(max(found, again, key=count), caption=found.caption or again.caption)
            if not count(found):
                logger.warning(
                    "VideoLLaMA3's answers could not be read (%s): tags were measured from the picture", quoted(said)
                )
        return found

    def _ask(self, loaded: _Loaded, seen: tuple[Pixels, Sequence[float]], question: str, steps: Steps) -> str:
        """The model's answer to one question on the frames."""
        frames, times = seen
        inputs = loaded.inputs(
            frames, [seconds_to_samples(time, CLOCK) for time in times], CLOCK, question, self.pixels
        )
        room = loaded.room - inputs["input_ids"].shape[1]
        if room < self.max_new_tokens:
            raise UsageError(
                f"{len(frames)} frames and an answer of {self.max_new_tokens} tokens are {self.max_new_tokens - room} "
                "tokens more than the model can read: give fewer --tagger.max_frames or --tagger.pixels"
            )
        return loaded.answer(inputs, self.max_new_tokens, steps.counting(self.max_new_tokens))


class _Loaded(Protocol):
    """Protocol of `videollama_model.Loaded`, whose docstrings define it."""

    @property
    def room(self) -> int: ...

    def inputs(self, frames: Pixels, ticks: list[int], clock: int, question: str, pixels: int) -> Mapping[str, Any]: ...

    def answer(self, inputs: Any, most: int, streamer: Any = None) -> str: ...
