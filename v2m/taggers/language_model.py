"""Tags from two models: one says what is seen, and a chat model says which music fits that.

As in Zhang and Fuentes, "SONIQUE: Video Background Music Generation Using Unpaired Audio-Visual Data" (2024).

Nothing here imports torch, so that a wrong command or video is told at once. There is no TYPE_CHECKING block either:
jsonargparse runs those of the modules whose classes a recipe names.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from v2m.core.errors import UsageError
from v2m.core.lazy_model import LazyModel, choose_device
from v2m.core.protocols import Tagger
from v2m.core.types import ProgressFn, Tags, Video, WeightsInfo, filter_unwanted
from v2m.pretrained.weights import announce_license, fetch
from v2m.taggers import llm_output, lyrics
from v2m.taggers.base import TaggerBase, as_tagger
from v2m.taggers.llm_common import COUNTED, Steps, completed, count, decided, quoted
from v2m.taggers.videollama import VideoLLaMA3

logger = logging.getLogger(__name__)

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
SCENE = 4000  # characters of what is seen that the chat model is told
CURE = "give --tagger.bits 4, a smaller --tagger.model such as qwen-1.5b, or --low-memory"
QUESTION = "Describe the scene in detail."
ROLE = (
    "You are a composer of background music for films. You are told what a video shows and choose instrumental music "
    "that fits it. Answer in English, with one JSON object and nothing else, in exactly this form: "
    '{"genres": ["one or two"], "instruments": ["two to five"], "moods": ["two or three"], '
    '"timbres": ["two or three"], "tempo": beats per minute as a number}'
)
LYRICS = (
    "Write the lyrics of a short song that fits this video: a verse of four lines under the header [verse], then a "
    "chorus of four lines under the header [chorus]. Lines have at most ten words. Answer only with the lyrics."
)


class LanguageModel(TaggerBase):
    """Asks a chat model which music fits what another tagger has seen. Greedy: the same video gives the same tags.

    What the user gives in genres, instruments, moods and timbres comes first, the model's own words behind it; what is
    the same but for case is named once, and tempo and key are the user's where given. What the model leaves open is
    measured from the picture (`HeuristicTagger`), all of it where its answers cannot be read.

    Args:
        captioner: Describes the video: VideoLLaMA3 (if not given) in detail, HeuristicTagger in a sentence of measured
            light, color and cuts.
        captioner_model: VideoLLaMA3's weights, where no captioner is given: a repository of the hub or a folder.
        model: mistral-7b, qwen-14b, gemma-7b (its license must be accepted on the hub first), qwen-1.5b, qwen-0.5b; or
            any chat model of the hub, or a folder, in transformers' layout and with a chat template.
        question: What the captioner is asked, if it answers questions.
        role: What the chat model is told it is, and the form of its answer.
        lyrics_prompt: What it is asked for when there shall be vocals and no lyrics are given.
        retries: How often it is asked again where its answer is not in that form.
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
        retries: int = 2,
        device: str = "auto",
        bits: Literal[4, 8] | None = None,
        low_memory: bool = False,
        max_new_tokens: int = 384,
    ) -> None:
        asked = {"question": question, "role": role, "lyrics_prompt": lyrics_prompt}
        problems = [f"{name} must not be empty" for name, text in asked.items() if not text.strip()]
        problems += [] if 0 <= retries <= 10 else [f"retries must lie between 0 and 10, not {retries}"]
        problems += [] if max_new_tokens >= 1 else [f"max_new_tokens must be 1 or more, not {max_new_tokens}"]
        if problems:
            raise UsageError("; ".join(problems))
        prompts: dict[str, Any] = {"prompt": question, "retry_prompt": question, "lyrics_prompt": lyrics_prompt}
        fitted: dict[str, Any] = {"device": device, "bits": bits, "low_memory": low_memory}
        self.captioner = (
            as_tagger(captioner) if captioner is not None else VideoLLaMA3(model=captioner_model, **prompts, **fitted)
        )
        self.model, self.device = model, device
        self.question, self.role, self.lyrics_prompt = question, role, lyrics_prompt
        self.retries, self.max_new_tokens = retries, max_new_tokens
        self.bits: Literal[4, 8] | None = bits or (4 if low_memory else None)
        self._own: tuple[WeightsInfo, ...] = ()
        self._holder: LazyModel[Any] = LazyModel(self._load, CURE)

    @property
    def weights(self) -> tuple[WeightsInfo, ...]:  # type: ignore[override]  # of two models
        """Those of both models."""
        return (*self.captioner.weights, *self._own)

    def prepare(self) -> None:
        """Sees to it that the weights of both models are here; one line on stderr says the chat model's license.

        Raises:
            DependencyError: They are not and cannot be fetched, or are of no chat model.
            UsageError: There is no such device.
        """
        choose_device(self.device)
        self.captioner.prepare()
        repository, license, size = MODELS.get(self.model.lower(), (self.model, None, None))
        self._own = (fetch(repository, FILES, license=license, download_size=size),)
        from v2m.taggers.chat_model import check

        check(self._own[0].folder)
        announce_license(self._own[0])

    def tag(self, video: Video, hints: Tags, progress: ProgressFn | None = None) -> Tags:
        """Tags, and lyrics where `hints` asks for vocals and has none. One model is in memory at a time.

        Raises:
            DependencyError: Weights are missing, broken or of no chat model.
            MemoryError: There is too little for the model.
            UsageError: What is asked is longer than what the model can read.
        """
        steps = Steps(progress)
        seen = hints.caption or self._seen(video, steps)
        steps.reach(0.5)
        with self._holder.model() as chat:
            steps.span(0.5, 0.9)
            found = self._ask(chat, seen, hints, steps)
            if hints.vocals and not hints.lyrics:
                said = self._say(chat, [f"The video shows: {seen}\n{self.lyrics_prompt}{decided(hints)}"], steps)
                found = replace(found, lyrics=lyrics.clean(said))
                if not found.lyrics:
                    logger.warning("%s wrote no lyrics that can be sung (%s)", self.model, quoted(said))
        steps.reach(1.0)
        return merged(completed(video, replace(found, caption=seen), hints, self.model), found, hints)

    def measure(self, video: Video) -> Any:
        """Values that the captioner measures, if any."""
        return self.captioner.measure(video)

    def release(self) -> None:
        """Frees both models; the next `tag` loads them again."""
        self._holder.release()
        self._free_captioner()

    def _load(self) -> Any:
        from v2m.taggers.chat_model import load

        self.prepare()
        return load(self._own[0].folder, self.device, self.bits)

    def _free_captioner(self) -> None:
        self.captioner.release()

    def _seen(self, video: Video, steps: Steps) -> str:
        """Answer of the captioner about the video; its model is freed, and so is the chat model's before."""

        def half(fraction: float) -> None:
            steps.reach(0.5 * fraction)

        self._holder.release()
        seen = self.captioner.describe(video, self.question, half)
        self._free_captioner()
        return " ".join(str(seen).split())[:SCENE]

    def _ask(self, chat: Any, seen: str, hints: Tags, steps: Steps) -> Tags:
        """The first answer that is in the form asked for, else the one that says most; empty tags if none says any."""
        turns = [f"The video shows: {seen or 'nothing that could be described'}{decided(hints)}"]
        best, first = Tags(), ""
        for _ in range(self.retries + 1):
            said = self._say(chat, turns, steps)
            first = first or said
            found, wrong = llm_output.parse(said), problems(said)
            if not wrong:
                return found
            best = max(best, found, key=count)
            turns += [said, f"{'; '.join(wrong)}. Answer only with the JSON object."]
        if not count(best):
            logger.warning(
                "%s's answers could not be read (%s): tags were measured from the picture", self.model, quoted(first)
            )
        return best

    def _say(self, chat: Any, turns: Sequence[str], steps: Steps) -> str:
        """The answer to turns of the user and, between them, of the model."""
        return chat.answer(self.role, turns, self.max_new_tokens, steps.counting(self.max_new_tokens))


def problems(said: str) -> list[str]:
    """Faults of an answer: it must be one JSON object with genres, instruments, moods and a tempo."""
    loaded = llm_output.first_json(said)
    if not isinstance(loaded, dict):
        return ["That is no JSON object"]
    found = llm_output.parse(said)
    lacking = [name for name in ("genres", "instruments", "moods") if not getattr(found, name)]
    return [f"It names no {name}" for name in lacking] + (["It gives no tempo"] if found.tempo is None else [])


def merged(tags: Tags, found: Tags, hints: Tags) -> Tags:
    """`tags`, which are what was `found` under what `hints` sets, with the words that were found behind the user's.

    Words that are the same but for case and spaces are one: the user's.
    """
    lists: dict[str, Any] = {}
    for name in COUNTED:
        if given := getattr(hints, name):
            known = {_plain(word) for word in given}
            more = [word for word in filter_unwanted(getattr(found, name), hints.negative) if _plain(word) not in known]
            lists[name] = (*given, *more)
    return replace(tags, **lists)


def _plain(word: str) -> str:
    return " ".join(word.casefold().split())
