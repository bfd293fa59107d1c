"""What the music should be, in a line of English as MusicGen was trained on and its authors' examples show."""

from __future__ import annotations

from collections.abc import Sequence

from v2m.core.types import Tags, filter_unwanted


def line(tags: Tags) -> str:
    """ "calm, warm ambient and cinematic music with piano and strings, airy, 96 bpm, F minor"; empty where no tag says
    anything.

    What `tags.negative` names is left out: "no drums" would call for drums. The caption says what is seen, and stands
    only where nothing else does; vocals are not among what the model was trained on.
    """
    moods, genres, instruments, timbres = (
        filter_unwanted(words, tags.negative) for words in (tags.moods, tags.genres, tags.instruments, tags.timbres)
    )
    players = f"with {_listed(instruments)}" if instruments else ""
    measures = [f"{tags.tempo:g} bpm" if tags.tempo else "", tags.key or ""]
    if not (moods or genres or instruments or timbres or any(measures)):
        return " ".join(tags.caption.split())
    opening = " ".join(filter(None, [", ".join(moods), _listed(genres), "music", players]))
    return ", ".join(filter(None, [opening, *timbres, *measures]))


def unwanted(tags: Tags) -> str:
    """What the music is to be led away from; empty where nothing is."""
    return ", ".join(tags.negative)


def _listed(words: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
