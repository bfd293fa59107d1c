"""What the music should be, as SONIQUE was trained on it: tags with commas between, the tempo last."""

from __future__ import annotations

from v2m.core.types import Tags, filter_unwanted


def build_prompt(tags: Tags) -> str:
    """ "piano, strings, ambient, calm, warm, f minor, 96 bpm", in small letters; empty where no tag says anything.

    What `tags.negative` names is left out. The caption says what is seen, and stands only where nothing else does.
    """
    words = filter_unwanted([*tags.instruments, *tags.genres, *tags.moods, *tags.timbres], tags.negative)
    words += [tags.key] if tags.key else []
    words += [f"{tags.tempo:g} BPM"] if tags.tempo else []
    return ", ".join(dict.fromkeys(word.lower() for word in words)) or " ".join(tags.caption.lower().split())


def build_negative_prompt(tags: Tags) -> str:
    """What the music is to be led away from; empty where nothing is."""
    return ", ".join(word.lower() for word in tags.negative)
