"""A chat model's song text as lines under [verse], [chorus], … headers, without what it says around them."""

from __future__ import annotations

import re
import unicodedata

from v2m.taggers.keyword_matcher import fold

LIMIT = 20_000  # characters read
SECTIONS, LINES, WIDTH = 8, 8, 100  # at most so many sections, lines of a section, characters of a sung line
FEWEST = 2  # lines, below which it is no song

_NAMES = {
    "verse": ["verse", "strophe", "couplet", "estrofa", "verso", "主歌", "第一节", "第二节", "ヴァース", "aメロ"],
    "chorus": ["chorus", "hook", "refrain", "refrão", "estribillo", "副歌", "サビ", "コーラス"],
    "bridge": ["bridge", "interlude", "brücke", "pont", "puente", "桥段", "ブリッジ"],
    "intro": ["intro", "introduction", "前奏", "イントロ"],
    "outro": ["outro", "coda", "ending", "尾声", "アウトロ"],
}
_SECTION = {fold(name): section for section, names in _NAMES.items() for name in names}
_FRAME = re.compile(r"^[\s*_#>\[({【《\"“”-]+|[\s*_#\])}】》\":：“”-]+$")
_NUMBERED = re.compile(r"^\s*(?:[-•*]|\d{1,2}[.)])\s+")
_CHATTER = re.compile(
    r"^(?:sure|certainly|okay|ok|of course|here (?:is|are)|here's|title|song title|lyrics|note|i hope|hope|let me|"
    r"this song|these lyrics|the lyrics|genre|mood|tempo|style|instruments?|based on|feel free|enjoy)\b",
    re.IGNORECASE,
)


def clean(text: str) -> str:
    """`text` as a song: sections under headers, a blank line between; "" where there is none in it.

    Without headers its paragraphs become verses and choruses in turn. A section that has been repeated word for word
    more than once in a row is kept once.
    """
    text = unicodedata.normalize("NFC", text[:LIMIT])
    text = re.split(r"</think(?:ing)?>", text, flags=re.IGNORECASE)[-1]
    text = re.split(r"<think(?:ing)?>", text, maxsplit=1, flags=re.IGNORECASE)[0]
    sections: list[tuple[str | None, list[str]]] = [(None, [])]
    for line in text.splitlines()[:500]:
        name = _header(line)
        if name is not None:
            sections.append((name, []))
        elif not line.strip():
            sections.append((None, []))
        elif (sung := _sung(line)) and len(sections[-1][1]) < LINES:
            sections[-1][1].append(sung)
    return _written(_joined(sections))


def _header(line: str) -> str | None:
    """The section that a line opens, however it is written: "[Verse 1]", "**Chorus:**", "(Bridge)"."""
    bare = fold(_FRAME.sub("", line))
    if len(bare) > 24:
        return None
    bare = re.sub(r"\s*(?:\d+|[ivx]{1,3}|x\d)$", "", bare)
    bare = re.sub(r"^(?:pre|post|final|last)\s", "", bare)
    return _SECTION.get(bare)


def _sung(line: str) -> str:
    """The words of a line, or "" for a stage direction, chatter, or prose."""
    if re.fullmatch(r"\s*[\[(*].{0,80}[\])*]\s*", line) or "```" in line or _CHATTER.match(_FRAME.sub("", line)):
        return ""
    bare = _NUMBERED.sub("", line)
    bare = "".join(" " if unicodedata.category(c)[0] == "C" else c for c in bare)
    bare = " ".join(re.sub(r"[*_`#<>\[\]{}|]+", " ", bare).split()).strip(' "“”')
    return bare if len(bare) <= WIDTH and re.search(r"[^\W\d_]", bare) and not bare.endswith(":") else ""


def _joined(sections: list[tuple[str | None, list[str]]]) -> list[tuple[str, list[str]]]:
    """Named sections that hold words; a paragraph without a name belongs to the one before it, or gets one in turn."""
    named = any(name for name, _ in sections)
    made: list[tuple[str, list[str]]] = []
    open_name: str | None = None
    for name, lines in sections:
        open_name = name or open_name
        if not lines or (named and open_name is None):  # what stands before the first header is chatter
            continue
        if named and name is None and made and made[-1][0] == open_name:
            made[-1] = (made[-1][0], (made[-1][1] + lines)[:LINES])
        else:
            made.append((open_name if named and open_name else ("verse", "chorus")[len(made) % 2], lines))
    return made


def _written(sections: list[tuple[str, list[str]]]) -> str:
    kept = [each for place, each in enumerate(sections) if place == 0 or each != sections[place - 1]][:SECTIONS]
    lines = [line for _, section in kept for line in section]
    if len(set(map(fold, lines))) < FEWEST:
        return ""
    return "\n\n".join(f"[{name}]\n" + "\n".join(section) for name, section in kept)
