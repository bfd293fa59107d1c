"""Text prompts in the form of SONIQUE's training: tags separated by commas, the tempo last."""

from __future__ import annotations

from v2m.core.types import Tags, filter_unwanted


def build_prompt(tags: Tags) -> str:
    """Build the prompt, such as "piano, strings, ambient, calm, warm, f minor, 96 bpm"; "" for empty tags.

    Words that `tags.negative` rules out are left out. The caption stands in only where no other tag does.
    """
    words = filter_unwanted([*tags.instruments, *tags.genres, *tags.moods, *tags.timbres], tags.negative)
    words += [tags.key] if tags.key else []
    words += [f"{tags.tempo:g} BPM"] if tags.tempo else []
    return ", ".join(dict.fromkeys(word.lower() for word in words)) or " ".join(tags.caption.lower().split())


def build_negative_prompt(tags: Tags) -> str:
    """Build the negative prompt of `tags.negative`; "" where it is empty."""
    return ", ".join(word.lower() for word in tags.negative)
