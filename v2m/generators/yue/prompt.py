"""Lyrics and prompts of YuE: the sections of a song, the genre line, and stage 1's token ids.

T frames of a reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from v2m.core.errors import UsageError
from v2m.core.types import Tags, filter_unwanted
from v2m.generators.yue.tokenizer import EOA, FIRST_CODE, SOA, XCODEC, Tokenizer

if TYPE_CHECKING:
    from torch import Tensor

ALIASES = {  # by the labels that the model's authors name
    "verse": "pre chorus, prechorus",
    "chorus": "post chorus, postchorus, refrain, hook, drop",
    "bridge": "interlude, middle eight, middle 8, inst, instrumental, break, breakdown, solo",
    "intro": "prelude, opening",
    "outro": "coda, ending, end",
}
LABELS = tuple(ALIASES)
LABEL_BY_NAME = {name: label for label, names in ALIASES.items() for name in (label, *names.split(", "))}
_HEADER = re.compile(r"\s*[\[［【]([^\]］】]*)[\]］】](.*)")
_NUMBER = re.compile(r"\s*(?:#\s*)?(?:\d+|[ivx]+)$")
_BRACKETS = str.maketrans("[]［］【】", "()()()")  # in the prompt they mark the sections' labels
INSTRUCTION = "Generate music from the given lyrics segment by segment."
SLOW_BPM, FAST_BPM = 76.0, 132.0  # BPM below and above which the genre line has a word for the tempo
_PLAIN = re.compile(r"[^\w\s&+'./#-]|_")  # neither commas, which part tags, nor brackets, which mark sections
_PHRASES = re.compile(r"\ba[\s-]?cappell?a\b|\bspoken[\s-]words?\b", re.IGNORECASE)
_VOICES = re.compile(
    r"vocal|voice|sing(?:ing|ers?)?$|rap(?:ping|pers?)?$|choir|choral|chant(?:s|ing)?$|lyrics?$|human$|(?:fe)?males?$"
    r"|child(?:ren)?(?:'s)?$|opera|beatbox|scream|speech|人声|女声|男声|童声|声乐|主唱|说唱|合唱",
    re.IGNORECASE,
)
_REGISTERS = re.compile(r"sopranos?$|mezzo$|contraltos?$|tenors?$|baritones?$", re.IGNORECASE)
_WIND = re.compile(r"sax|recorder|clarinet|trombone|flute|horn|oboe|guitar", re.IGNORECASE)  # these have registers too


@dataclass(frozen=True)
class LyricsSection:
    """A section: its label, one of `LABELS`, and its lines without the header, "" if instrumental."""

    label: str
    text: str = ""


def parse_lyrics(text: str) -> list[LyricsSection]:
    """Parse the sections of a song; UsageError without any words or with an unknown header.

    A section begins with a line that opens with its name in brackets: `[verse]`, `[Chorus 2]`, `[pre-chorus]`,
    `[guitar solo]`, `[verse 1: Anna]`. Names that the model was not trained on become the nearest of `LABELS`. Words
    before the first header are a verse.
    """
    sections: list[tuple[str, list[str]]] = []
    problems: list[str] = []
    for number, line in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        header = _HEADER.match(line)
        if header is None:
            if not sections and line.strip():
                sections.append(("verse", []))
            if sections:
                sections[-1][1].append(_clean_line(line))
            continue
        label = _canonical_label(header[1])
        if label is None:
            name = header[1] if len(header[1]) <= 40 else f"{header[1][:40]}…"
            problems.append(f"line {number} has [{name}]")
        sections.append((label or "", [_clean_line(header[2])]))
    if problems:
        headers = ", ".join(f"[{label}]" for label in (*LABELS, "pre-chorus", "hook", "interlude", "solo"))
        raise UsageError(f"lyrics: {'; '.join(problems)}, which is no section: write one of {headers}")
    if not any(line for _, lines in sections for line in lines):
        raise UsageError("the lyrics hold no words: give some, or leave out lyrics and vocals")
    return [LyricsSection(label, "\n".join(lines).strip()) for label, lines in sections]


def instrumental_sections(count: int) -> list[LyricsSection]:
    """Make `count` ≥ 1 sections without lyrics: verse and chorus in turn; of three or more, an outro last.

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
        label = "bridge" if candidate.endswith(" solo") else LABEL_BY_NAME.get(candidate)
        if label is not None:
            return label
    return None


def _clean_line(line: str) -> str:
    return "".join(c if c.isprintable() else " " for c in line.translate(_BRACKETS)).strip()


def genre_line(tags: Tags) -> str:
    """Build YuE's line of tags: genres, instruments, moods and timbres, separated by spaces.

    Without vocals every word for a voice is left out and "instrumental", a tag of the published list, is put first;
    with vocals each timbre describes the voice and ends in "vocal", as all of that list do. A slow or fast tempo
    becomes a word; neither beats per minute nor keys are among the tags of the model's training, so the key is left
    out. Words that `tags.negative` rules out are left out: the model has no negation.
    """
    timbres = [f"{timbre} vocal" for timbre in tags.timbres] if tags.vocals else tags.timbres
    tempo = []
    if tags.tempo is not None and not SLOW_BPM <= tags.tempo <= FAST_BPM:
        tempo = ["slow" if tags.tempo < SLOW_BPM else "fast-paced"]
    allowed = filter_unwanted((*tags.genres, *tags.instruments, *tags.moods, *tempo, *timbres), tags.negative)
    words = [" ".join(_PLAIN.sub(" ", tag).split()) for tag in allowed]
    if tags.vocals:
        words = [re.sub(r"\bvocals? vocal$", "vocal", word) for word in words]
        if not any("vocal" in word.lower() for word in words):
            words.append("vocal")
        return " ".join(dict.fromkeys(filter(None, words)))
    return " ".join(dict.fromkeys(filter(None, ["instrumental", *map(_without_vocal_words, words)])))


def head_text(tags: Tags, sections: Iterable[LyricsSection]) -> str:
    return f"{INSTRUCTION}\n[Genre] {genre_line(tags)}\n" + "\n".join(map(section_text, sections))


def section_text(section: LyricsSection) -> str:
    return f"[{section.label}]\n{section.text}\n\n"


class PromptEncoder:
    """Token ids of prompts. Each run of text is encoded alone: SentencePiece puts a space before each."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._encode = tokenizer.encode
        self.end_of_segment = tokenizer.encode("[end_of_segment]")  # stands between sections
        self._start_of_segment = tokenizer.encode("[start_of_segment]")
        self._reference = [tokenizer.encode("[start_of_reference]"), tokenizer.encode("[end_of_reference]")]

    def head(self, tags: Tags, sections: Iterable[LyricsSection], reference: Tensor | None = None) -> list[int]:
        return self._encode(head_text(tags, sections)) + ([] if reference is None else self.reference(reference))

    def reference(self, codes: Tensor) -> list[int]:
        """Encode codebook 0 of a reference: (1, T) of the mix or a stem, or (2, T): voice, then the rest."""
        assert codes.shape in {(1, codes.shape[-1]), (2, codes.shape[-1])}, f"not (1, T) or (2, T): {codes.shape}"
        ids: list[int] = (codes.T.reshape(-1) + FIRST_CODE).tolist()
        start, end = self._reference
        return [*start, SOA, XCODEC, *ids, EOA, *end]

    def section(self, section: LyricsSection) -> list[int]:
        """Encode the opening of a section, before its codes; `end_of_segment` separates sections."""
        return [*self._start_of_segment, *self._encode(section_text(section)), SOA, XCODEC]


def _without_vocal_words(tag: str) -> str:
    kinds = (_VOICES,) if _WIND.search(tag) else (_VOICES, _REGISTERS)
    words = (
        word
        for word in _PHRASES.sub(" ", tag).split()
        if not any(kind.match(part) for kind in kinds for part in re.split(r"[-/&+]", word))
    )
    return " ".join(words)
