"""Tempo and key as people write them."""

from __future__ import annotations

import re

from v2m.core.types import TEMPO_RANGE
from v2m.taggers import vocabulary
from v2m.taggers.keyword_matcher import fold

LOOKED_AT = 2000  # characters
_BPM = r"(?:bpm|beats per minute|schläge pro minute|拍)"
_NUMBER = r"(\d{2,4}(?:[.,]\d{1,2})?)"
_RANGE = re.compile(
    rf"(?<![\d.]){_NUMBER}\s?(?:bpm\s?)?(?:-|–|—|~|to|bis|à|a|至|から)\s?{_NUMBER}(?!\d)", re.IGNORECASE
)
_SINGLE = re.compile(rf"(?<![\d.]){_NUMBER}(?![\d])")
_MEASURED = re.compile(rf"(?:{_RANGE.pattern}|(?<![\d.]){_NUMBER})\s?{_BPM}", re.IGNORECASE)
_KEY = re.compile(
    r"(?<![A-Za-z])([A-Ga-g])(?:\s?(#|♯|♭)|b|\s?-?\s?(sharp|flat))?[\s-]*(major|minor|maj|min|dur|moll)\b",
    re.IGNORECASE,
)


def tempo_of(text: str, *, labelled: bool) -> float | None:
    """Beats per minute, or None. Without a label a number needs its unit, a word "tempo" or "paced" behind it."""
    span, single = (_RANGE, _SINGLE) if labelled else (_MEASURED, _MEASURED)
    match = span.search(text[:LOOKED_AT]) or single.search(text[:LOOKED_AT])
    if match is not None:
        numbers = [float(number.replace(",", ".")) for number in match.groups() if number]
        tempo = sum(numbers) / len(numbers)
        return tempo if all(TEMPO_RANGE[0] <= number <= TEMPO_RANGE[1] for number in numbers) else None
    key = fold(text[:LOOKED_AT])
    named = {fold(word): tempo for word, tempo in vocabulary.TEMPI.items()}
    for word in sorted(named, key=len, reverse=True):
        shape = rf"(?<!\w){re.escape(word)}(?!\w)" if word.isascii() else re.escape(word)
        if not labelled and (not word.isascii() or named[word] in {70, 105, 125, 140, 55, 165, 85}):
            shape = rf"(?<!\w){re.escape(word)} (?:tempo|pace|paced)\b"
        if re.search(shape, key):
            return float(named[word])
    return None


def key_of(text: str) -> str | None:
    match = _KEY.search(text[:LOOKED_AT])
    if match is None:
        return None
    letter, sign, name, mode = match.groups()
    flat = "b" if re.match(r"[A-Ga-g]b", match.group()) or sign == "♭" or (name or "").lower() == "flat" else ""
    sharp = "#" if sign in {"#", "♯"} or (name or "").lower() == "sharp" else ""
    minor = mode.lower() in {"minor", "min", "moll"}
    return f"{letter.upper()}{sharp or flat} {'minor' if minor else 'major'}"
