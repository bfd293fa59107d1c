"""Text prompts for MusicGen."""

from __future__ import annotations

import pytest

from v2m.core.prompts import build_negative_prompt, build_prompt
from v2m.core.types import Tags


@pytest.mark.parametrize(
    ("tags", "prompt"),
    [
        (
            Tags(
                caption="A kite flies.", genres="ambient, cinematic", instruments="piano, harp, strings",
                moods="calm, warm", timbres="airy", tempo=96, key="F minor",
            ),
            "calm, warm ambient and cinematic music with piano, harp and strings, airy, 96 bpm, F minor",
        ),
        (Tags(genres="jazz"), "jazz music"),
        (Tags(instruments="piano"), "music with piano"),
        (Tags(tempo=76.3), "music, 76 bpm"),
        (Tags(key="Bb"), "music, Bb"),
        (Tags(caption="A kite\n flies."), "A kite flies."),
        (Tags(caption="A kite flies.", moods="calm"), "calm music"),
        (Tags(), ""),
        (Tags(vocals=True, lyrics="[verse]\nla"), ""),
    ],
)  # fmt: skip
def test_build_prompt_writes_a_line_of_english(tags: Tags, prompt: str) -> None:
    assert build_prompt(tags) == prompt


def test_negative_words_are_in_the_negative_prompt_only() -> None:
    tags = Tags(genres="rock", instruments="electric guitar, drums, bass", negative="drum, guitars")
    assert build_prompt(tags) == "rock music with bass"
    assert build_negative_prompt(tags) == "drum, guitars"
    assert build_prompt(Tags(instruments="drums", negative="drums", tempo=90)) == "music, 90 bpm"
