"""Reads what a chat model answers when asked for music: JSON, labelled lines, lists, or prose, in several languages.

Nothing here raises: what is not understood is left out, and an answer that says nothing gives empty tags.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any

from v2m.core.types import Tags
from v2m.taggers import keyword_matcher, vocabulary
from v2m.taggers.keyword_matcher import fold, listed, lookup, mentions, read
from v2m.taggers.tempo_key import key_of, tempo_of

LIMIT = 20_000  # characters: a hundred times a good answer
MOST = {"genres": 4, "instruments": 8, "moods": 6, "timbres": 6, "negative": 8}
CAPTION = 300  # characters
LISTLIKE = 0.6  # a line is a list when so much of it is known words
_SEEN = (
    "video",
    "clip",
    "scene",
    "footage",
    "shows",
    "depicts",
    "视频",
    "画面",
    "映像",
    "动画",
    "動画",
    "vidéo",
    "vídeo",
)
_CHATTER = ("sure", "certainly", "okay", "ok ", "of course", "here is", "here are", "here's", "i would", "i suggest")
_EMPTY = frozenset({"unknown", "various", "other", "others", "etc", "not specified", "unspecified", "any", "na"})
_MARKUP = re.compile(r"[*_`\"“”„«»{}\[\]<>~]+")
_BULLET = re.compile(r"^\s*(?:[-•·+>|#*]+|\(?\d{1,2}[.)])\s*")
_SPLIT = re.compile(r"[,;/|、·•\n#]|\s(?:and|&|und|et|y)\s")


def parse(text: str) -> Tags:
    """Tags in `text`: at most 4 genres, 8 instruments, 6 moods, 6 timbres, each once, in order.

    Words under a label are taken as they are; words without one only where they are known (`words`). A denial ("no
    drums") takes what it denies away. Tempo: beats per minute, the middle of a range, or what a word such as Andante
    stands for; what lies outside 30 to 300 is left out. Voices are no instruments here.
    """
    found = _Found()
    text = _without_thinking(_plain(text))
    loaded = _json(text)
    if loaded is not None:
        _walk(found, loaded, None)
    if not found.says_something:
        _read_lines(found, text)
    return found.tags()


def first_json(text: str) -> Any:
    """The first JSON object or array in an answer; None if there is none."""
    return _json(_without_thinking(_plain(text)))


class _Found:
    """Tags collected so far."""

    def __init__(self) -> None:
        self.lists: dict[str, dict[str, str]] = {name: {} for name in MOST}
        self.caption = self.loose_caption = ""
        self.tempo: float | None = None
        self.key: str | None = None

    @property
    def says_something(self) -> bool:
        return any(self.lists.values()) or bool(self.caption) or self.tempo is not None

    def add(self, field: str, word: str) -> None:
        if len(self.lists[field]) < MOST[field]:
            self.lists[field].setdefault(fold(word), word)

    def add_known(self, text: str) -> None:
        for known in read(text).known:
            if not known.denied:
                self.add(known.field, known.word)

    def take(self, field: str, value: str) -> None:
        """A value that stood under a label."""
        if field == "caption":
            self.caption = self.caption or _sentence(value)
        elif field == "tempo":
            self.tempo = self.tempo or tempo_of(value, labelled=True)
        elif field == "key":
            self.key = self.key or key_of(value)
        elif field == "tags":
            self.add_known(value)
        elif field:
            self._take_items(field, value)

    def _take_items(self, field: str, value: str) -> None:
        for raw in _items(value):
            item = re.sub(r"^(?:no|without|any)\s+", "", raw, flags=re.IGNORECASE) if field == "negative" else raw
            if field != "negative" and (keyword_matcher.says_no(item) or mentions(item, vocabulary.VOICES)):
                continue
            known, size = lookup(item), len(item.split())
            if known is not None:
                self.add(field, known[1])
            elif size > 3 and (reading := read(item)).share == 1 and len(reading.known) > 2:
                self.add_known(item)  # a whole list that has been put under one label
            elif size > 4 or len(item) > 40:
                for each in read(item).known:
                    if each.field == field and not each.denied:
                        self.add(field, each.word)
            elif re.search(r"[^\W\d_]", item) and not (field != "negative" and fold(item) in {*_EMPTY, *_labels()}):
                self.add(field, item.lower())

    def tags(self) -> Tags:
        lists: dict[str, Any] = {name: tuple(found.values()) for name, found in self.lists.items()}
        return Tags(caption=self.caption or self.loose_caption, tempo=self.tempo, key=self.key, **lists)


def _plain(text: str) -> str:
    """Full-width forms as usual ones; no control characters but line ends."""
    text = unicodedata.normalize("NFKC", text[:LIMIT])[:LIMIT]
    text = text.replace("\r\n", "\n").replace("\t", " ")
    return "".join(c for c in text if c == "\n" or unicodedata.category(c)[0] != "C")


def _without_thinking(text: str) -> str:
    """Text after a reasoning model's thoughts; empty where they never end."""
    after = re.split(r"</think(?:ing)?>", text, flags=re.IGNORECASE)[-1]
    before = re.split(r"<think(?:ing)?>", after, maxsplit=1, flags=re.IGNORECASE)[0]
    return re.sub(r"<\|[^|<>\n]{1,40}\|>", " ", before)


def _json(text: str) -> Any:
    """The first JSON object or array in the text, comments and trailing commas forgiven; None if there is none."""
    kept = re.compile(r'"(?:[^"\\\n]|\\.)*+"?|//[^\n]*|/\*[^*]*\*/')
    bare = kept.sub(lambda match: match.group() if match.group().startswith('"') else " ", text)
    bare = re.sub(r",(?=\s{0,20}[}\]])", "", bare)
    place = min((place for bracket in "{[" if (place := bare.find(bracket)) >= 0), default=-1)
    with suppress(ValueError, RecursionError):
        value, _ = json.JSONDecoder().raw_decode(bare, place) if place >= 0 else (None, 0)
        return value
    return None


def _walk(found: _Found, value: Any, field: str | None, depth: int = 0) -> None:
    """Everything below `value`, which stood under the label of `field`."""
    if depth > 8 or value is None or isinstance(value, bool):
        return
    if isinstance(value, dict):
        named = {key: value[key] for key in ("name", "value") if field and key in value}
        for key, inner in (named or value).items():
            below = _label_of(str(key))
            _walk(found, inner, field if below is None else below, depth + 1)
    elif isinstance(value, list) and not (field in {None, "tags"} and all(isinstance(each, str) for each in value)):
        for inner in value[:100]:
            _walk(found, inner, field, depth + 1)
    else:
        text = ", ".join(value) if isinstance(value, list) else str(value)
        if field is None:
            _read_loose(found, text)
        else:
            found.take(field, text)


def _read_lines(found: _Found, text: str) -> None:
    """Line by line: a label and its value; items below a label; anything else."""
    open_field: str | None = None  # a label whose value goes on
    for line in "".join(_lines_at_labels(text)).splitlines()[:2000]:
        cut = line.rfind("]") + 1 if re.search(r":\s?\[", line) else 0  # an answer that broke off after a list
        bare = _MARKUP.sub(" ", line[: cut or None]).strip()
        shown = _BULLET.sub("", bare).strip(" |")
        if not shown:
            open_field = open_field if bare else None
            continue
        field, value = _labelled(shown)
        if field is not None:
            found.take(field, value)
            open_field = None if value else field
        elif open_field is not None:
            found.take(open_field, shown)
        else:
            _read_loose(found, shown)


def _lines_at_labels(text: str) -> Iterator[str]:
    """The text with a line end before every label that stands within a line."""
    done = 0
    for colon in list(re.finditer(":", text))[:200]:
        begin = max(done, colon.start() - 40)
        head = text[begin : colon.start()]
        begin += max((head.rfind(mark) + 1 for mark in ";.,|、。\n!?{"), default=0)
        names = text[begin : colon.start()].split()
        size = next((n for n in range(min(3, len(names)), 0, -1) if _exact(" ".join(names[-n:])) is not None), 0)
        if not size:
            continue
        before = names[:-size]
        if len(before) > 2 or any(lookup(_MARKUP.sub("", name)) for name in before):
            begin = text.rindex(names[-size], begin, colon.start())
        yield text[done:begin] + "\n"
        done = begin
    yield text[done:]


@lru_cache(maxsize=1)
def _labels() -> dict[str, str]:
    return {fold(label): field for field, text in vocabulary.LABELS.items() for label in listed(text)}


def _exact(head: str) -> str | None:
    """The field of a label, or None; of "instrument(s)" too."""
    return _labels().get(fold(re.sub(r"\([^()]{0,30}\)", "", _MARKUP.sub("", head))))


def _label_of(head: str) -> str | None:
    """The field that a heading names: a label, or a few words with one among them ("Suggested genre", "Key moods")."""
    exact = _exact(head.replace("_", " "))
    if exact is not None or len(head) > 60:
        return exact
    names = re.findall(r"[^\W_]+", head.replace("(s)", "s"))
    if len(names) > 6:
        return None
    spans = ((a, b) for a in range(len(names)) for b in range(min(a + 3, len(names)), a, -1))
    named = [field for a, b in spans if (field := _exact(" ".join(names[a:b]))) is not None]
    return next((field for field in named if field != "key"), named[0] if named else None)


def _labelled(line: str) -> tuple[str | None, str]:
    """(field, value) of "label: value", of a row "label | value", and of a label alone; (None, line) of others."""
    match = re.match(r"([^:=|]{1,80})[:=|](.*)", line, re.DOTALL)
    if match is not None and (field := _label_of(match[1])) is not None:
        return field, match[2].strip(" :=|,")
    head, _, value = line.partition(" - ")
    if (field := _exact(head)) is not None:
        return field, value.strip()
    return None, line


def _read_loose(found: _Found, text: str) -> None:
    """Text without a label: lists of known words, sentences on the music, and one on what is seen."""
    for whole in re.split(r"(?<=[.!?。])\s*(?!\d)", text)[:200]:
        sentence = whole[:2000]
        opening = fold(sentence[:40])
        if not opening:
            continue
        reading = read(sentence)
        told = mentions(sentence, vocabulary.MUSIC)
        if (reading.share >= LISTLIKE or _is_list(sentence)) and not (
            opening.startswith(("a ", "the ", "an ")) and not told
        ):
            found.add_known(sentence)
        elif told:
            found.add_known(_on_music(sentence))
        elif reading.tokens > 3 and not opening.startswith(_CHATTER) and not sentence.rstrip().endswith(":"):
            found.loose_caption = found.loose_caption or _sentence(sentence)
        found.tempo = found.tempo or tempo_of(sentence, labelled=False)
        found.key = found.key or (key_of(sentence) if told or reading.share >= LISTLIKE else None)


def _is_list(text: str) -> bool:
    """Return whether the text is three or more short items, half of them known words."""
    items = [_trimmed(item) for item in re.split(r"[,;/|、·]", text)]
    known = sum(lookup(item) is not None for item in items)
    return len(items) > 2 and all(len(item.split()) < 4 for item in items) and 2 * known >= len(items)


def _on_music(sentence: str) -> str:
    """The part of a sentence that speaks of music, where it begins with what is seen."""
    if not mentions(sentence, _SEEN):
        return sentence
    places = [
        match.start() for name in vocabulary.MUSIC if (match := re.search(rf"\b{re.escape(name)}", sentence, re.I))
    ]
    first = min(places, default=0)
    return sentence[max((match.end() for match in re.finditer(r",|;|\bso\b", sentence[:first])), default=0) :]


def _items(value: str) -> Iterator[str]:
    value = re.sub(r"\([^()]*\)", " ", _MARKUP.sub(" ", value))
    for part in re.split(r"[,;/|、·•\n#]", value)[:200]:
        whole = _trimmed(part)
        if lookup(whole):  # "drum and bass" is one
            yield whole
        else:
            yield from filter(None, map(_trimmed, _SPLIT.split(f" {part} ")))


def _trimmed(item: str) -> str:
    item = _BULLET.sub("", item).strip(" .:!?。'")
    return " ".join(re.sub(r"^(?:an?|the|some|and|with|und|et|y)\s+", "", item, flags=re.IGNORECASE).split())


def _sentence(text: str) -> str:
    text = " ".join(_MARKUP.sub(" ", text).split()).strip(" ,-")
    return text if len(text) <= CAPTION else text[:CAPTION].rsplit(" ", 1)[0] + " …"
