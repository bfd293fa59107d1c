"""Finds the words of `words` in free text.

A token is a run of letters and digits, or one of the marks that end a thought; words of Chinese and Japanese, which
have no spaces between them, are found by reading a run from the left, the longest first.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from v2m.taggers import vocabulary

LONGEST = 3  # tokens of a word
_CJK = "\u3040-\u30ff\u3400-\u9fff"
_TOKEN = re.compile(rf"[{_CJK}ー々]+|[^\W_{_CJK}]+(?:['&][^\W_{_CJK}]+)*|&|[.,;:!?。、\n]")
_ENDS = frozenset(".;:!?。\n")
_TURNS = frozenset({"but", "however", "with", "plus", "featuring", "aber", "mais", "pero"})


@dataclass(frozen=True)
class Known:
    """A word of the lists: the field of `Tags` it belongs to, how it is written there, and whether it was denied."""

    field: str
    word: str
    denied: bool


@dataclass(frozen=True)
class Reading:
    """Match of a text: known words in their order, and the number of its tokens they cover."""

    known: tuple[Known, ...]
    covered: int
    tokens: int

    @property
    def share(self) -> float:
        """0–1: how much of the text is known words; a list has much, a sentence little."""
        return self.covered / self.tokens if self.tokens else 0.0


def fold(text: str) -> str:
    """Lower case, full-width forms and accents taken off, hyphens as spaces: what words are compared by."""
    text = unicodedata.normalize("NFKD", text.casefold())
    return " ".join(re.sub(r"[‐‑–-]", " ", "".join(c for c in text if not unicodedata.combining(c))).split())


def listed(text: str) -> list[str]:
    """The items of a list written with commas."""
    return [item.strip() for item in text.split(",") if item.strip()]


@lru_cache(maxsize=1)
def term_table() -> dict[str, tuple[str, str]]:
    """Folded word → (field, word as it is listed)."""
    own = {word: name for name, text in vocabulary.FIELDS.items() for word in listed(text)}
    table = {fold(word): (name, word) for word, name in reversed(own.items())}
    for word, names in vocabulary.FOREIGN.items():
        table |= {fold(name): (own.get(word, "instruments"), word) for name in listed(names)}
    return table


@lru_cache(maxsize=1)
def _denials() -> frozenset[str]:
    return frozenset(map(fold, vocabulary.NOT))


def lookup(text: str) -> tuple[str, str] | None:
    """(field, word) of a whole expression, or None."""
    key = fold(text)
    table = term_table()
    return table.get(key) or (table.get(key[:-1]) if key.endswith("s") else None)


def says_no(text: str) -> bool:
    """Return whether an expression opens with a negation, or contains one in Chinese or Japanese."""
    key = fold(text)
    return any(key == no or key.startswith(f"{no} ") or (not no.isascii() and no in key) for no in _denials())


def mentions(text: str, expressions: Sequence[str]) -> bool:
    """Return whether one of `expressions` occurs in the text, as a whole word in scripts with spaces."""
    padded = f" {' '.join(_TOKEN.findall(fold(text)))} "
    return any((f" {name} " in padded) if name.isascii() else (name in padded) for name in map(fold, expressions))


def read(text: str) -> Reading:
    """Every known word of `text`. A denial holds up to the end of its thought: see `_denied`."""
    tokens = list(_tokens(fold_lines(text)))
    table, known, covered, place = term_table(), [], 0, 0
    denied = _denied(tokens)
    while place < len(tokens):
        for length in range(min(LONGEST + 1, len(tokens) - place), 0, -1):
            name = " ".join(tokens[place : place + length])
            found = table.get(name) or (table.get(name[:-1]) if name.endswith("s") else None)
            if found is not None:
                known.append(Known(*found, denied=place in denied))
                covered += length
                break
        else:
            length = 1
        place += length
    return Reading(tuple(known), covered, sum(token[0].isalnum() for token in tokens))


def fold_lines(text: str) -> str:
    """`fold`, line by line."""
    return "\n".join(map(fold, text.splitlines()))


def _tokens(text: str) -> Iterator[str]:
    table = term_table()
    for match in _TOKEN.finditer(text):
        run = match.group()
        if not re.match(f"[{_CJK}]", run):
            yield run
            continue
        place = 0
        while place < len(run):
            size = next((n for n in range(8, 1, -1) if run[place : place + n] in table), 1)
            yield run[place : place + size]
            place += size


def _denied(tokens: Sequence[str]) -> set[int]:
    """Places after a denial, up to a full stop, a turning word, or a comma behind which no "or" goes on with it."""
    denials, places, active = _denials(), set(), False
    alternatives = [False] * (len(tokens) + 1)  # whether "or" still comes before the thought ends
    for place in range(len(tokens) - 1, -1, -1):
        token = tokens[place]
        ends = token in _ENDS or token in _TURNS
        alternatives[place] = not ends and (token in {"or", "nor", "oder", "ou"} or alternatives[place + 1])
    for place, token in enumerate(tokens):
        if token in _ENDS or token in _TURNS or (token in {",", "、"} and not alternatives[place]):
            active = False
        elif token in denials or " ".join(tokens[place : place + 2]) in denials:
            active = True
        if active:
            places.add(place)
    return places
