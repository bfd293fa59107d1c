"""Answers of language models: the JSON schema of the tags, and the readers of tags and lyrics.

No reader raises: what is not understood is left out, and an answer that says nothing gives empty tags or no lyrics.
"""

from __future__ import annotations

import json
import re
import unicodedata
from contextlib import suppress
from typing import Any

from v2m.core.types import TEMPO_RANGE, Tags
from v2m.taggers import vocabulary
from v2m.taggers.vocabulary import find_keywords, fold, lookup

MAX_INPUT_LENGTH = 20_000  # characters: a hundred times a good answer
MAX_CAPTION_LENGTH, MAX_TAG_LENGTH = 300, 48  # characters
TAG_LISTS = {  # fewest and most words that are asked for, and how this is said
    "genres": (1, 2, "one or two"),
    "instruments": (2, 5, "two to five"),
    "moods": (1, 3, "two or three"),
    "timbres": (1, 3, "two or three"),
}
MAX_WORDS = {"genres": 4, "instruments": 8, "moods": 6, "timbres": 6, "negative": 8}  # that are read
SYNONYMS = {  # of the keys of a JSON object
    "genres": ("genre", "style", "subgenre"),
    "instruments": ("instrument", "instrumentation", "orchestration"),
    "moods": ("mood", "emotion", "feeling", "atmosphere", "vibe"),
    "timbres": ("timbre", "texture", "tone", "sound"),
    "tempo": ("tempo", "bpm", "speed", "pace"),
    "negative": ("negative", "avoid", "exclude"),
    "caption": ("caption", "description", "summary", "scene", "visual"),
    "key": ("key", "tonality"),
}
_PLACEHOLDERS = frozenset({"unknown", "various", "other", "others", "etc", "not specified", "unspecified", "any", "na"})
_CHATTER = re.compile(
    r"(?:sure|certainly|okay|ok|of course|here (?:is|are)|here's|title|song title|lyrics|note|i (?:hope|would|suggest)|"
    r"hope|let me|this song|these lyrics|the lyrics|genre|mood|tempo|style|instruments?|based on|feel free|enjoy)\b",
    re.IGNORECASE,
)
_NUMBER = r"(?<![\d.])(\d{2,3}(?:[.,]\d{1,2})?)(?!\d)"
_BPM = re.compile(rf"{_NUMBER}(?:\s?(?:bpm\s?)?(?:-|–|~|to)\s?{_NUMBER})?", re.IGNORECASE)
_STATED_BPM = re.compile(rf"(?:{_BPM.pattern})\s?(?:bpm|beats per minute)", re.IGNORECASE)
_KEY = re.compile(
    r"(?<![A-Za-z])([A-G])(?:\s?(#|♯|♭)|(b)|\s?-?\s?(sharp|flat))?[\s-]*(major|minor|maj|min)\b", re.IGNORECASE
)


def tags_schema(*, with_caption: bool) -> dict[str, Any]:
    """JSON schema of an answer. Every string is bounded, so that any model comes to an end.

    The caption comes first, for the model to have described the video when it chooses the music. Key and words to avoid
    are optional: the prompts do not ask for them.
    """
    word = {"type": "string", "pattern": r"^[A-Za-z][A-Za-z0-9&'-]{1,17}( [A-Za-z0-9&'-]{1,14}){0,2}$"}
    properties: dict[str, Any] = {}
    if with_caption:
        properties["caption"] = {"type": "string", "pattern": rf"^[A-Z][ !#-\[\]-~]{{1,{MAX_CAPTION_LENGTH - 1}}}$"}
    for name, (fewest, most, _) in TAG_LISTS.items():
        properties[name] = {"type": "array", "items": word, "minItems": fewest, "maxItems": most}
    low, high = map(int, TEMPO_RANGE)
    properties["tempo"] = {"type": "integer", "minimum": low, "maximum": high}
    required = list(properties)
    properties["key"] = {"type": "string", "pattern": "^[A-G](#|b)? (major|minor)$"}
    properties["negative"] = {"type": "array", "items": word, "maxItems": MAX_WORDS["negative"]}
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def answer_form(*, with_caption: bool) -> str:
    """Sentence that asks for an answer by `tags_schema`."""
    form: dict[str, Any] = {"caption": "one sentence"} if with_caption else {}
    form |= {name: [wording] for name, (_, _, wording) in TAG_LISTS.items()}
    example = json.dumps(form)[:-1] + ', "tempo": beats per minute as a number}'
    return f"Answer in English, with one JSON object and nothing else, in exactly this form: {example}"


def parse_tags(text: str) -> Tags:
    """Tags in an answer: its JSON, however wrapped; else the keywords in it.

    At most `MAX_WORDS` of each field, each once, in order. Words of a JSON field are taken though unknown, words of
    prose only where the vocabulary has them. A negation ("no drums") removes what it negates; voices are no
    instruments here. Tempo: beats per minute, the middle of a range, or the value of a term such as Andante.
    """
    collector = _TagCollector()
    text = _strip_reasoning(_normalize(text))
    collector.add_json(_first_json(text), None)
    if not collector.has_any:
        collector.add_prose(text)
    return collector.tags()


class _TagCollector:
    """Tags collected so far."""

    def __init__(self) -> None:
        self.words: dict[str, dict[str, str]] = {name: {} for name in MAX_WORDS}  # in the order of arrival
        self.caption = ""
        self.tempo: float | None = None
        self.key: str | None = None

    @property
    def has_any(self) -> bool:
        return any(self.words.values()) or bool(self.caption) or self.tempo is not None

    def tags(self) -> Tags:
        lists: dict[str, Any] = {name: tuple(words.values()) for name, words in self.words.items()}
        return Tags(caption=self.caption, tempo=self.tempo, key=self.key, **lists)

    def add_json(self, value: Any, field: str | None, depth: int = 0) -> None:
        """Add everything below `value`, which was the value of `field`."""
        if depth > 8 or value is None or isinstance(value, bool):
            return
        if isinstance(value, dict):
            named = {"name": value["name"]} if field and "name" in value else value  # {"name": "piano", "role": …}
            for key, inner in named.items():
                self.add_json(inner, _field_of(str(key)) or field, depth + 1)
        elif isinstance(value, list):
            for inner in value[:100]:
                self.add_json(inner, field, depth + 1)
        elif field == "caption":
            self.caption = self.caption or _shorten(str(value))
        elif field == "tempo":
            self.tempo = self.tempo or _parse_tempo(str(value))
        elif field == "key":
            self.key = self.key or _parse_key(str(value))
        elif field is not None:
            for item in re.split(r"[,;/\n]", str(value))[:200]:
                self._add_item(field, item)
        else:
            self.add_prose(str(value))

    def add_prose(self, text: str) -> None:
        """Add the keywords of sentences on music and of lists; the first other sentence is the caption."""
        for line in text.splitlines()[:2000]:
            for sentence in re.split(r"(?<=[.!?])\s+", line)[:200]:
                keywords, share = find_keywords(sentence)
                if share >= 0.5 or vocabulary.mentions_music(sentence):
                    for field, word in keywords:
                        self._add(field, word)
                    self._add_stated_tempo(sentence)
                    self.key = self.key or _parse_key(sentence)
                elif len(sentence.split()) > 3 and not _CHATTER.match(sentence.strip()):
                    label = r"^\W*(?:caption|description)\W*:"
                    self.caption = self.caption or _shorten(re.sub(label, "", sentence, flags=re.IGNORECASE))

    def _add_stated_tempo(self, sentence: str) -> None:
        labelled, stated = re.search(r"\btempo\b(.{1,80})", sentence, re.IGNORECASE), _STATED_BPM.search(sentence)
        for value in (labelled and labelled[1], stated and stated[0]):
            self.tempo = self.tempo or (_parse_tempo(value) if value else None)

    def _add_item(self, field: str, item: str) -> None:
        """Add an item of a list: as the vocabulary writes it, as it is, or the keywords of a long one."""
        item = " ".join(re.sub(r"[*_`\"]+|\([^()]*\)", " ", item).split()).strip(" .:!?'")
        if field == "negative":
            item = re.sub(r"^(?:no|without|any)\s+", "", item, flags=re.IGNORECASE)
        elif vocabulary.is_negated(item) or vocabulary.mentions_voice(item):
            return
        keyword = lookup(item)
        if keyword is not None:
            self._add(field, keyword[1])
        elif len(item.split()) > 4 or len(item) > MAX_TAG_LENGTH:
            for keyword_field, word in find_keywords(item)[0]:
                if keyword_field == field:
                    self._add(field, word)
        elif re.search(r"[^\W\d_]", item) and fold(item) not in _PLACEHOLDERS:
            self._add(field, item.lower())

    def _add(self, field: str, word: str) -> None:
        if len(self.words[field]) < MAX_WORDS[field]:
            self.words[field].setdefault(fold(word), word)


def _field_of(key: str) -> str | None:
    """Field of `Tags` that a key of a JSON object names, or None."""
    words = {word.removesuffix("s") for word in re.findall("[a-z]+", key.lower())}
    return next((field for field, names in SYNONYMS.items() if not words.isdisjoint(names)), None)


def _normalize(text: str) -> str:
    """Full-width forms as usual ones; no control characters but line ends."""
    text = unicodedata.normalize("NFKC", text[:MAX_INPUT_LENGTH])[:MAX_INPUT_LENGTH]
    text = text.replace("\r\n", "\n").replace("\t", " ")
    return "".join(c for c in text if c == "\n" or unicodedata.category(c)[0] != "C")


def _strip_reasoning(text: str) -> str:
    """Text after a reasoning model's thoughts; empty where they never end."""
    text = re.split(r"</think(?:ing)?>", text, flags=re.IGNORECASE)[-1]
    return re.split(r"<think(?:ing)?>", text, maxsplit=1, flags=re.IGNORECASE)[0]


def _first_json(text: str) -> Any:
    """First JSON object or array in the text, or None."""
    start = re.search(r"[{\[]", text)
    with suppress(ValueError, RecursionError):
        return json.JSONDecoder().raw_decode(text, start.start())[0] if start else None
    return None


def _parse_tempo(value: str) -> float | None:
    """Beats per minute of 92, "80-100 BPM" or "very fast"; None outside the range of a tempo."""
    match = _BPM.search(value)
    if match is not None:
        numbers = [float(number.replace(",", ".")) for number in match.groups() if number]
        in_range = all(TEMPO_RANGE[0] <= number <= TEMPO_RANGE[1] for number in numbers)
        return sum(numbers) / len(numbers) if in_range else None
    term = re.search(rf"\b(?:{'|'.join(vocabulary.TEMPO_TERMS)})\b", value.lower())
    return float(vocabulary.TEMPO_TERMS[term[0]]) if term else None


def _parse_key(text: str) -> str | None:
    match = _KEY.search(text)
    if match is None:
        return None
    letter, sign, flat, name, mode = match.groups()
    accidental = {"#": "#", "♯": "#", "sharp": "#", None: ""}.get(sign or (name and name.lower()), "b")
    return f"{letter.upper()}{'b' if flat else accidental} {'minor' if mode.lower().startswith('min') else 'major'}"


def _shorten(text: str) -> str:
    text = " ".join(re.sub(r"[*_`\"{}\[\]<>]+", " ", text).split()).strip(" ,-")
    return text if len(text) <= MAX_CAPTION_LENGTH else text[:MAX_CAPTION_LENGTH].rsplit(" ", 1)[0] + " …"


MAX_SECTIONS, MAX_SECTION_LINES, MAX_LINE_LENGTH = 8, 8, 100  # of lyrics; the last in characters
MIN_DISTINCT_LINES = 2  # below which it is no song
SECTION_NAMES = {
    **dict.fromkeys(("verse", "strophe"), "verse"),
    **dict.fromkeys(("chorus", "hook", "refrain"), "chorus"),
    **dict.fromkeys(("bridge", "interlude"), "bridge"),
    **dict.fromkeys(("intro", "introduction"), "intro"),
    **dict.fromkeys(("outro", "coda", "ending"), "outro"),
}
_FRAME = re.compile(r"^[\s*_#>\[({\"“”-]+|[\s*_#\])}\":“”-]+$")
_Sections = list[tuple[str | None, list[str]]]  # header, or None for a paragraph without one, and lines


def parse_lyrics(text: str) -> str:
    """Lyrics in an answer, "" where there are none: sections under headers such as [verse].

    Without headers its paragraphs become verses and choruses in turn. A section that is repeated word for word right
    after itself is kept once.
    """
    text = _strip_reasoning(unicodedata.normalize("NFC", text[:MAX_INPUT_LENGTH]))
    paragraphs: _Sections = [(None, [])]
    for line in text.splitlines()[:500]:
        header = _section_header(line)
        if header is not None or not line.strip():
            paragraphs.append((header, []))
        elif (words := _sung_words(line)) and len(paragraphs[-1][1]) < MAX_SECTION_LINES:
            paragraphs[-1][1].append(words)
    sections = _join_paragraphs(paragraphs)
    sections = [part for k, part in enumerate(sections) if k == 0 or part != sections[k - 1]][:MAX_SECTIONS]
    if len({fold(line) for _, lines in sections for line in lines}) < MIN_DISTINCT_LINES:
        return ""
    return "\n\n".join("\n".join([f"[{name}]", *lines]) for name, lines in sections)


def _section_header(line: str) -> str | None:
    """Section that a line opens, however it is written: "[Verse 1]", "**Chorus:**", "(Bridge)"."""
    bare = fold(_FRAME.sub("", line))
    if len(bare) > 24:
        return None
    bare = re.sub(r"\s*(?:\d+|[ivx]{1,3}|x\d)$", "", bare)
    return SECTION_NAMES.get(re.sub(r"^(?:pre|post|final|last)\s", "", bare))


def _sung_words(line: str) -> str:
    """Words of a line, or "" for a stage direction, chatter, or prose."""
    if re.fullmatch(r"\s*[\[(*].{0,80}[\])*]\s*", line) or "```" in line or _CHATTER.match(_FRAME.sub("", line)):
        return ""
    bare = re.sub(r"^\s*(?:[-•*]|\d{1,2}[.)])\s+", "", line)
    bare = "".join(" " if unicodedata.category(c)[0] == "C" else c for c in bare)
    bare = " ".join(re.sub(r"[*_`#<>\[\]{}|]+", " ", bare).split()).strip(' "“”')
    is_sung = len(bare) <= MAX_LINE_LENGTH and re.search(r"[^\W\d_]", bare) and not bare.endswith(":")
    return bare if is_sung else ""


def _join_paragraphs(paragraphs: _Sections) -> _Sections:
    """Sections with words; a paragraph without a header goes on with the one before, or gets one."""
    has_headers = any(header for header, _ in paragraphs)
    sections: _Sections = []
    current: str | None = None
    for header, lines in paragraphs:
        current = header or current
        if not lines or (has_headers and current is None):  # before the first header there is only chatter
            continue
        if has_headers and header is None and sections and sections[-1][0] == current:
            sections[-1] = (current, (sections[-1][1] + lines)[:MAX_SECTION_LINES])
        else:
            sections.append((current or ("verse", "chorus")[len(sections) % 2], lines))
    return sections
