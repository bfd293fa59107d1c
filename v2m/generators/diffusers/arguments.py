"""Arguments of each pipeline from tags and user options.

ACE-Step takes tempo, key, meter and lyrics apart from the prompt, and no negative prompt; Stable Audio takes a prompt
and a negative prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from v2m.core import prompts
from v2m.core.types import Tags

INSTRUMENTAL_ARGUMENTS = {
    "lyrics": "[Instrumental]",
    "vocal_language": "unknown",
}  # as ACE-Step was trained to leave voices out
_NATURAL_PITCHES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


@dataclass(frozen=True)
class DiffusersOptions:
    """User options besides the tags; None is the recommendation of the pipeline's authors.

    steps: denoising steps. cfg_scale: 1 is no guidance. melody_strength: 0–1. meter: beats of a bar. vocal_language:
    of the lyrics, as "en".
    """

    steps: int | None
    cfg_scale: float | None
    melody_strength: float
    meter: Literal[2, 3, 4, 6] | None
    vocal_language: str


def ace_step_arguments(tags: Tags, options: DiffusersOptions) -> dict[str, Any]:
    """Arguments of `AceStepPipeline`."""
    has_lyrics = tags.vocals and bool(tags.lyrics.strip())
    return {
        "prompt": prompts.build_prompt(replace(tags, tempo=None, key=None)),
        **(
            {"lyrics": tags.lyrics.strip(), "vocal_language": options.vocal_language}
            if has_lyrics
            else INSTRUMENTAL_ARGUMENTS
        ),
        "bpm": None if tags.tempo is None else round(tags.tempo),
        "keyscale": key_name(tags),
        "timesignature": None if options.meter is None else str(options.meter),
    }


def stable_audio_arguments(tags: Tags, options: DiffusersOptions) -> dict[str, Any]:
    """Arguments of `StableAudioPipeline` and `StableAudio3Pipeline`."""
    prompt = prompts.build_prompt(tags)
    meter = "" if options.meter is None else f"{options.meter}/{8 if options.meter == 6 else 4} time"
    return {
        "prompt": ", ".join(filter(None, [prompt, meter, "instrumental"])),
        "negative_prompt": prompts.build_negative_prompt(tags) or None,
    }


def key_name(tags: Tags) -> str | None:
    """The key in the form "F# minor", however the user spelled it."""
    if tags.key is None or tags.tonic_and_mode is None:
        return None
    letter = tags.key.strip()[0].upper()
    tonic, mode = tags.tonic_and_mode
    accidental = {0: "", 1: "#", 11: "b"}[(tonic - _NATURAL_PITCHES[letter]) % 12]
    return f"{letter}{accidental} {mode}"
