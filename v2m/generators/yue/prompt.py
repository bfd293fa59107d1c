"""Prompts of stage 1: instruction, genre line, all lyrics, a reference, and each section's own text.

T frames of the reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import Tensor

from v2m.core.types import Tags, filter_unwanted
from v2m.generators.yue import tokens
from v2m.generators.yue.lyrics import LyricsSection
from v2m.generators.yue.tokenizer import Tokenizer

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


def genre_line(tags: Tags) -> str:
    """Build YuE's line of tags: genres, instruments, moods and timbres, separated by spaces.

    Without vocals every word for a voice is left out and "instrumental", a tag of the published list, is put first;
    with vocals each timbre describes the voice and ends in "vocal", as all of that list do. A slow or fast tempo
    becomes a word; neither beats per minute nor keys are among the tags of the model's training, so the key is left
    out. Words that `tags.negative` rules out are left out: the model has no negation.
    """
    timbres = [f"{timbre} vocal" for timbre in tags.timbres] if tags.vocals else tags.timbres
    allowed = filter_unwanted(
        (*tags.genres, *tags.instruments, *tags.moods, *_tempo_words(tags.tempo), *timbres), tags.negative
    )
    words = [_clean(tag) for tag in allowed]
    if tags.vocals:
        words = [re.sub(r"\bvocals? vocal$", "vocal", word) for word in words]
        if not any("vocal" in word.lower() for word in words):
            words.append("vocal")
        return " ".join(dict.fromkeys(filter(None, words)))
    return " ".join(dict.fromkeys(filter(None, ["instrumental", *map(_without_vocal_words, words)])))


def head_text(tags: Tags, sections: Iterable[LyricsSection]) -> str:
    """Build the text before all sections."""
    return f"{INSTRUCTION}\n[Genre] {genre_line(tags)}\n" + "\n".join(map(section_text, sections))


def section_text(section: LyricsSection) -> str:
    """Format a section, for the head and again before its music."""
    return f"[{section.label}]\n{section.text}\n\n"


class PromptEncoder:
    """Token ids of prompts. Each run of text is encoded alone: SentencePiece puts a space before each."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._encode = tokenizer.encode
        self.end_of_segment = tokenizer.encode("[end_of_segment]")  # stands between sections
        self._start_of_segment = tokenizer.encode("[start_of_segment]")
        self._reference = [tokenizer.encode("[start_of_reference]"), tokenizer.encode("[end_of_reference]")]

    def head(self, tags: Tags, sections: Iterable[LyricsSection], reference: Tensor | None = None) -> list[int]:
        """Encode the head, followed by the reference if there is one (see `reference`)."""
        return self._encode(head_text(tags, sections)) + ([] if reference is None else self.reference(reference))

    def reference(self, codes: Tensor) -> list[int]:
        """Encode a reference of style; only the checkpoints named "icl" were trained on it.

        Args:
            codes: Codebook 0, (1, T) of the mix or of one stem; or (2, T): voice, then the rest.
        """
        assert codes.ndim == 2, f"a reference is (1, T) or (2, T), not {tuple(codes.shape)}"
        assert codes.shape[0] in {1, 2}, f"a reference is (1, T) or (2, T), not {tuple(codes.shape)}"
        ids: list[int] = (codes.T.reshape(-1) + tokens.FIRST_CODE).tolist()
        start, end = self._reference
        return [*start, tokens.SOA, tokens.XCODEC, *ids, tokens.EOA, *end]

    def section(self, section: LyricsSection) -> list[int]:
        """Encode the opening of a section, before its codes; `end_of_segment` separates sections."""
        return [*self._start_of_segment, *self._encode(section_text(section)), tokens.SOA, tokens.XCODEC]


def _tempo_words(tempo: float | None) -> list[str]:
    if tempo is None or SLOW_BPM <= tempo <= FAST_BPM:
        return []
    return ["slow" if tempo < SLOW_BPM else "fast-paced"]


def _clean(tag: str) -> str:
    return " ".join(_PLAIN.sub(" ", tag).split())


def _without_vocal_words(tag: str) -> str:
    """`tag` without the words for a voice."""
    kinds = (_VOICES,) if _WIND.search(tag) else (_VOICES, _REGISTERS)
    words = (
        word
        for word in _PHRASES.sub(" ", tag).split()
        if not any(kind.match(piece) for kind in kinds for piece in re.split(r"[-/&+]", word))
    )
    return " ".join(words)
