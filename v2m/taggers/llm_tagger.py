"""Parts that the taggers with a language model share: progress, hints, missing tags, warnings."""

from __future__ import annotations

import logging
from dataclasses import fields, replace
from typing import Any

from v2m.core.types import ProgressFn, Tags, Video, filter_unwanted
from v2m.taggers.heuristic import HeuristicTagger
from v2m.taggers.llm_answers import TAG_LISTS, parse_lyrics, parse_tags

logger = logging.getLogger(__name__)

REQUIRED_TAGS = ("genres", "instruments", "moods")  # that no generator should be without


class ProgressRange:
    """Progress over the parts of the work; never falls."""

    def __init__(self, progress: ProgressFn | None) -> None:
        self._progress, self._low, self._high, self._last = progress, 0.0, 1.0, 0.0

    def set_range(self, low: float, high: float) -> None:
        """Set the share of the work in which the next tokens are counted."""
        self._low, self._high = low, high
        self.report(low)

    def report(self, fraction: float) -> None:
        self._last = max(self._last, fraction)
        if self._progress is not None:
            self._progress(self._last)

    def token_counter(self, max_tokens: int) -> TokenCounter:
        return TokenCounter(self, self._low, (self._high - self._low) / max_tokens)


class TokenCounter:
    """Streamer for `generate`: receives the prompt first, then each token."""

    def __init__(self, progress: ProgressRange, start: float, step: float) -> None:
        self._progress, self._fraction, self._step = progress, start - step, step

    def put(self, value: Any) -> None:  # noqa: ARG002 - transformers' signature
        self._fraction += self._step
        self._progress.report(self._fraction)

    def end(self) -> None:
        pass


def describe_hints(hints: Tags) -> str:
    """Sentence with the user's hints, for the other tags to match; "" if there are none."""
    parts: list[str] = []
    for field in fields(hints):
        value: Any = getattr(hints, field.name)
        if value and field.name in {*TAG_LISTS, "tempo", "key", "caption"}:
            words = f"{value:g} BPM" if field.name == "tempo" else value if isinstance(value, str) else ", ".join(value)
            parts.append(f"{field.name}: {words}")
    if hints.negative:
        parts.append(f"avoid: {', '.join(hints.negative)}")
    return f"\nThis is decided already: {'; '.join(parts)}." if parts else ""


def complete_tags(video: Video, answer: Tags, hints: Tags, model_name: str) -> Tags:
    """Put `answer` under `hints`, without unwanted words; measure what is missing from the picture."""
    if not _names_any(answer):
        return replace(HeuristicTagger().tag(video, hints), lyrics=hints.lyrics or answer.lyrics)
    wanted = {name: filter_unwanted(getattr(answer, name), hints.negative) for name in TAG_LISTS}
    tags = replace(answer, **wanted).overridden_by(hints)
    if not hints.negative:  # what the model would avoid, unless it or the user has chosen it
        chosen = [word for name in TAG_LISTS for word in getattr(tags, name)]
        tags = replace(tags, negative=[word for word in answer.negative if filter_unwanted(chosen, [word]) == chosen])
    missing = [name for name in REQUIRED_TAGS if not getattr(tags, name)]
    if not missing:
        return tags
    logger.warning("%s named no %s: measured from the picture", model_name, " and no ".join(missing))
    measured = HeuristicTagger().tag(video, Tags(genres=tags.genres, negative=tags.negative))
    return replace(tags, **{name: getattr(measured, name) for name in missing})


def read_tags(answer: str, model_name: str) -> Tags:
    """Tags in an answer; warn where it names none."""
    tags = parse_tags(answer)
    if not _names_any(tags):
        problem = f"{model_name}'s answer could not be read ({_quote(answer)})"
        logger.warning("%s: tags were measured from the picture", problem)
    return tags


def read_lyrics(answer: str, model_name: str) -> str:
    """Lyrics in an answer; warn where there are none."""
    lyrics = parse_lyrics(answer)
    if not lyrics:
        logger.warning("%s wrote no lyrics that can be sung (its answer: %s)", model_name, _quote(answer))
    return lyrics


def _names_any(tags: Tags) -> bool:
    return any(getattr(tags, name) for name in TAG_LISTS)


def _quote(answer: str) -> str:
    text = " ".join(answer.split())
    return f"{text[:60]!r}{' …' if len(text) > 60 else ''}" if text else "it is empty"
