"""Lyrics, parsed into the sections that YuE sings one after the other."""

from __future__ import annotations

import re
from dataclasses import dataclass

from v2m.core.errors import UsageError

LABELS = ("verse", "chorus", "bridge", "intro", "outro")  # those that the model's authors name
ALIASES = {
    "pre chorus": "verse",
    "prechorus": "verse",
    "post chorus": "chorus",
    "postchorus": "chorus",
    "refrain": "chorus",
    "hook": "chorus",
    "drop": "chorus",
    "interlude": "bridge",
    "middle eight": "bridge",
    "middle 8": "bridge",
    "inst": "bridge",
    "instrumental": "bridge",
    "break": "bridge",
    "breakdown": "bridge",
    "solo": "bridge",
    "prelude": "intro",
    "opening": "intro",
    "coda": "outro",
    "ending": "outro",
    "end": "outro",
}
_HEADER = re.compile(r"\s*[\[［【]([^\]］】]*)[\]］】](.*)")
_NUMBER = re.compile(r"\s*(?:#\s*)?(?:\d+|[ivx]+)$")
_BRACKETS = str.maketrans("[]［］【】", "()()()")  # in the prompt they are for the marks alone


@dataclass(frozen=True)
class LyricsSection:
    """A section: `label` is one of `LABELS`, `text` its lines without the header, "" where nothing is sung."""

    label: str
    text: str = ""


def parse_lyrics(text: str) -> list[LyricsSection]:
    """Parse the sections of a song.

    A section begins with a line that opens with its name in brackets: `[verse]`, `[Chorus 2]`, `[pre-chorus]`,
    `[guitar solo]`, `[verse 1: Anna]`. Names that the model was not trained on become the nearest of `LABELS`. Words
    before the first header are a verse.

    Raises:
        UsageError: No words at all; or a header that means nothing here, which is named with its line.
    """
    parts: list[tuple[str, list[str]]] = []
    problems: list[str] = []
    for number, line in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        header = _HEADER.match(line)
        if header is None:
            if not parts and line.strip():
                parts.append(("verse", []))
            if parts:
                parts[-1][1].append(_clean_line(line))
            continue
        label = _canonical_label(header[1])
        if label is None:
            problems.append(f"line {number} has [{_shorten(header[1])}]")
        parts.append((label or "", [_clean_line(header[2])]))
    if problems:
        headers = ", ".join(f"[{label}]" for label in (*LABELS, "pre-chorus", "hook", "interlude", "solo"))
        raise UsageError(f"lyrics: {'; '.join(problems)}, which is no section: write one of {headers}")
    if not any(line for _, lines in parts for line in lines):
        raise UsageError("the lyrics hold no words: give some, or leave out lyrics and vocals")
    return [LyricsSection(label, "\n".join(lines).strip()) for label, lines in parts]


def instrumental_sections(count: int) -> list[LyricsSection]:
    """Make `count` ≥ 1 sections without lyrics: verse and chorus in turn, the last of three or more an outro.

    None is an intro: the model's authors find a start with it unstable.
    """
    labels = ["verse" if k % 2 == 0 else "chorus" for k in range(count)]
    if count >= 3:
        labels[-1] = "outro"
    return [LyricsSection(label) for label in labels]


def _canonical_label(name: str) -> str | None:
    """The model's label for a section of this name; None for an unknown name."""
    words = re.sub(r"[\s_–-]+", " ", re.split("[:：]", name)[0]).strip().lower()
    for candidate in (words, _NUMBER.sub("", words)):
        if candidate in LABELS:
            return candidate
        if candidate in ALIASES:
            return ALIASES[candidate]
        if candidate.endswith(" solo"):
            return "bridge"
    return None


def _clean_line(line: str) -> str:
    """`line` without brackets and control characters."""
    return "".join(c if c.isprintable() else " " for c in line.translate(_BRACKETS)).strip()


def _shorten(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:40]}…"
