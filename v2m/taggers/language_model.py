"""Tags from two models: one describes the video, a chat model chooses music by the description.

As in Zhang and Fuentes, "SONIQUE: Video Background Music Generation Using Unpaired Audio-Visual Data" (2024).

Nothing here imports torch, so that a wrong command or video is reported at once. There is no TYPE_CHECKING block
either: jsonargparse runs those of the modules whose classes a recipe names.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from v2m.core.errors import UsageError
from v2m.core.lazy_model import LazyModel, choose_device
from v2m.core.licenses import LicensedComponent
from v2m.core.protocols import Tagger
from v2m.core.types import ProgressFn, Tags, Video, WeightsInfo, filter_unwanted
from v2m.pretrained.weights import announce_license, fetch
from v2m.taggers.base import TaggerBase, as_tagger
from v2m.taggers.llm_answers import TAG_LISTS, answer_form, tags_schema
from v2m.taggers.llm_tagger import ProgressRange, complete_tags, describe_hints, read_lyrics, read_tags
from v2m.taggers.videollama import VideoLLaMA3

MODELS = {  # short name → repository of the hub, license, bytes of its weights by the number of parameters
    "mistral-7b": ("mistralai/Mistral-7B-Instruct-v0.3", "apache-2.0", 14_500_000_000),
    "qwen-14b": ("Qwen/Qwen1.5-14B-Chat", "tongyi-qianwen", 28_300_000_000),
    "gemma-7b": ("google/gemma-7b-it", "gemma", 17_100_000_000),
    "qwen-1.5b": ("Qwen/Qwen2.5-1.5B-Instruct", "apache-2.0", 3_100_000_000),
    "qwen-0.5b": ("Qwen/Qwen2.5-0.5B-Instruct", "apache-2.0", 1_000_000_000),
}
FILES = (
    *("config.json", "*.json", "model.safetensors|model-*.safetensors", "tokenizer.json|tokenizer.model|merges.txt"),
    "chat_template.jinja|chat_template.json|tokenizer_config.json",
)
MAX_DESCRIPTION_LENGTH = 4000  # characters
OOM_HINT = "give `tagger.bits=4`, a smaller `tagger.model` such as qwen-1.5b, or `low_memory=True`"
QUESTION = "Describe the scene in detail."
ROLE = (
    "You are a composer of background music for films. You are told what a video shows and choose instrumental music "
    "that fits it."
)
LYRICS = (
    "Write the lyrics of a short song that fits this video: a verse of four lines under the header [verse], then a "
    "chorus of four lines under the header [chorus]. Lines have at most ten words. Answer only with the lyrics."
)


class LanguageModel(TaggerBase):
    """Tags from a chat model that reads a description of the video.

    It decodes greedily: the same video gives the same tags. The answer is JSON of the tags' schema. The user's genres,
    instruments, moods and timbres come first, the model's own words behind them; what is the same but for case is named
    once, and tempo and key are the user's where given. Where the answer is cut off, what it leaves open is measured
    from the picture (`HeuristicTagger`).

    Args:
        captioner: Describes the video: VideoLLaMA3 (if not given) in detail, HeuristicTagger in a sentence of measured
            light, color and cuts.
        captioner_model: VideoLLaMA3's weights, where no captioner is given: a repository of the hub or a folder.
        model: mistral-7b, qwen-14b, gemma-7b (its license must be accepted on the hub first), qwen-1.5b, qwen-0.5b; or
            any chat model of the hub, or a folder, in transformers' layout and with a chat template.
        question: The captioner's question, if it answers questions.
        role: The chat model's system message; the form of the answer is added.
        lyrics_prompt: The question for lyrics, where there shall be vocals and no lyrics are given.
        device: auto, cpu, cuda or mps.
        bits: Hold the weights in 4 or 8 bits (needs bitsandbytes).
        low_memory: Four bits unless `bits` says otherwise.
        max_new_tokens: Length of an answer, at most.
    """

    merges_hints = True

    def __init__(
        self,
        captioner: Tagger | None = None,
        *,
        captioner_model: str = "lkhl/VideoLLaMA3-2B-Image-HF",
        model: str = "mistral-7b",
        question: str = QUESTION,
        role: str = ROLE,
        lyrics_prompt: str = LYRICS,
        device: str = "auto",
        bits: Literal[4, 8] | None = None,
        low_memory: bool = False,
        max_new_tokens: int = 384,
    ) -> None:
        prompts = {"question": question, "role": role, "lyrics_prompt": lyrics_prompt}
        problems = [f"{name} must not be empty" for name, text in prompts.items() if not text.strip()]
        problems += [] if max_new_tokens >= 1 else [f"max_new_tokens must be 1 or more, not {max_new_tokens}"]
        if problems:
            raise UsageError("; ".join(problems))
        if captioner is None:
            captioner = VideoLLaMA3(
                captioner_model,
                prompt=question,
                lyrics_prompt=lyrics_prompt,
                device=device,
                bits=bits,
                low_memory=low_memory,
            )
        self.captioner = as_tagger(captioner)
        self.model, self.device = model, device
        self.question, self.role, self.lyrics_prompt = question, role, lyrics_prompt
        self.max_new_tokens = max_new_tokens
        self.bits: Literal[4, 8] | None = bits or (4 if low_memory else None)
        self._chat_weights: tuple[WeightsInfo, ...] = ()
        self._lazy_model: LazyModel[Any] = LazyModel(self._load, OOM_HINT)

    @property
    def weights(self) -> tuple[WeightsInfo, ...]:  # type: ignore[override]  # of two models
        """Weights of both models."""
        return (*self.captioner.weights, *self._chat_weights)

    def components(self) -> list[LicensedComponent]:
        """Return both models, with their licenses."""
        from v2m.pretrained.licenses import model_component

        repository, *_ = MODELS.get(self.model.lower(), (self.model,))
        return [*self.captioner.components(), model_component("chat model", repository, "tagger.model")]

    def prepare(self) -> None:
        """Fetch missing weights of both models; one line on stderr names the chat model's license.

        Raises:
            DependencyError: They cannot be fetched, or are of no chat model.
            UsageError: There is no such device.
        """
        choose_device(self.device)
        self.captioner.prepare()
        repository, license, size = MODELS.get(self.model.lower(), (self.model, None, None))
        self._chat_weights = (fetch(repository, FILES, license=license, download_size=size),)
        from v2m.taggers.chat_model import check_chat_model

        check_chat_model(self._chat_weights[0].folder)
        announce_license(self._chat_weights[0])

    def tag(self, video: Video, hints: Tags, progress: ProgressFn | None = None) -> Tags:
        """Tags, and lyrics where `hints` asks for vocals and has none. One model is in memory at a time.

        Raises:
            DependencyError: Weights are missing, broken or of no chat model.
            MemoryError: There is too little for the model.
            UsageError: The question is longer than what the model can read.
        """
        progress_range = ProgressRange(progress)
        description = hints.caption or self._describe(video, progress_range)
        progress_range.report(0.5)
        scene, decided = f"The video shows: {description or 'nothing that could be described'}", describe_hints(hints)
        role, schema = f"{self.role} {answer_form(with_caption=False)}", tags_schema(with_caption=False)
        with self._lazy_model.model() as chat:
            progress_range.set_range(0.5, 0.9)
            tags = read_tags(self._ask(chat, role, scene + decided, progress_range, schema), self.model)
            if hints.vocals and not hints.lyrics:
                answer = self._ask(chat, self.role, f"{scene}\n{self.lyrics_prompt}{decided}", progress_range)
                tags = replace(tags, lyrics=read_lyrics(answer, self.model))
        progress_range.report(1.0)
        return merge_hints(complete_tags(video, replace(tags, caption=description), hints, self.model), tags, hints)

    def measure(self, video: Video) -> Any:
        """Values that the captioner measures, if any."""
        return self.captioner.measure(video)

    def release(self) -> None:
        """Free both models; the next `tag` loads them again."""
        self._lazy_model.release()
        self.captioner.release()

    def _load(self) -> Any:
        from v2m.taggers.chat_model import load_chat_model

        self.prepare()
        return load_chat_model(self._chat_weights[0].folder, self.device, self.bits)

    def _describe(self, video: Video, progress_range: ProgressRange) -> str:
        """Answer of the captioner about the video; the chat model is freed before, the captioner after."""
        self._lazy_model.release()

        def report_half(fraction: float) -> None:
            progress_range.report(0.5 * fraction)

        description = self.captioner.describe(video, self.question, report_half)
        self.captioner.release()
        return " ".join(str(description).split())[:MAX_DESCRIPTION_LENGTH]

    def _ask(
        self, chat: Any, role: str, question: str, progress_range: ProgressRange, schema: dict[str, Any] | None = None
    ) -> str:
        inputs = chat.prepare_inputs(role, question)
        return chat.generate(inputs, self.max_new_tokens, schema, progress_range.token_counter(self.max_new_tokens))


def merge_hints(tags: Tags, answer: Tags, hints: Tags) -> Tags:
    """Return `tags` with the answer's words after the user's in each list that `hints` sets.

    `tags` are `answer` under `hints`. Words that differ only in case and spaces are one: the user's.
    """
    lists: dict[str, Any] = {}
    for name in TAG_LISTS:
        if hinted := getattr(hints, name):
            known = {_fold(word) for word in hinted}
            added = filter_unwanted(getattr(answer, name), hints.negative)
            lists[name] = (*hinted, *(word for word in added if _fold(word) not in known))
    return replace(tags, **lists)


def _fold(word: str) -> str:
    return " ".join(word.casefold().split())
