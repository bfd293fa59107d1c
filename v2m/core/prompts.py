"""Text prompts from tags, in the form of MusicGen's training data and its authors' examples."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from v2m.core.types import Tags, filter_unwanted

logger = logging.getLogger(__name__)


def build_prompt(tags: Tags) -> str:
    """Build the prompt, a line of English; "" for empty tags.

    Such as "calm, warm ambient and cinematic music with piano and strings, airy, 96 bpm, F minor". What `tags.negative`
    rules out is left out ("no drums" would call for drums), as are vocals: the model was trained without. The caption
    stands in only where no other tag does.
    """
    moods, genres, instruments, timbres = (
        filter_unwanted(words, tags.negative) for words in (tags.moods, tags.genres, tags.instruments, tags.timbres)
    )
    players = f"with {_join_words(instruments)}" if instruments else ""
    measures = [f"{round(tags.tempo)} bpm" if tags.tempo else "", tags.key or ""]
    if not (moods or genres or instruments or timbres or any(measures)):
        return " ".join(tags.caption.split())
    opening = " ".join(filter(None, [", ".join(moods), _join_words(genres), "music", players]))
    return ", ".join(filter(None, [opening, *timbres, *measures]))


def build_negative_prompt(tags: Tags) -> str:
    """Build the negative prompt of `tags.negative`; "" where it is empty."""
    return ", ".join(tags.negative)


def warn_if_empty(prompt: str) -> None:
    if not prompt:
        logger.warning("no tag says what the music should be: it is written without a prompt; give `tags.genres`")


def _join_words(words: Sequence[str]) -> str:
    """Return "a", "a and b", or "a, b and c"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
