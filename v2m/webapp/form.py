"""Form fields of the page, as flags of infer.py."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

WORDS = ("genres", "instruments", "moods", "timbres", "negative")
MOST_TAKES = 4


@dataclass(frozen=True)
class Form:
    """Values of the page's fields: empty texts and None are "not given". Lists are words with commas.

    seconds: the longest video that is taken.
    """

    caption: str = ""
    genres: str = ""
    instruments: str = ""
    moods: str = ""
    timbres: str = ""
    tempo: float | None = None
    key: str = ""
    vocals: bool = False
    lyrics: str = ""
    negative: str = ""
    melody: str | None = None
    reference: str | None = None
    seed: float | None = 0
    takes: float = 1
    original: str = "replace"
    lufs: float | None = -14.0
    start: float | None = None
    end: float | None = None

    def words(self, seconds: float) -> tuple[str, ...]:
        return tuple(f"--{name}={value}" for name, value in self._flags(seconds) if value not in (None, "", False))

    def _flags(self, seconds: float) -> Iterator[tuple[str, Any]]:
        for name in ("caption", *WORDS, "key", "lyrics"):
            yield f"tags.{name}", " ".join(str(getattr(self, name) or "").split()) if name != "lyrics" else self.lyrics
        yield "tags.tempo", self.tempo or None
        yield "tags.vocals", "true" if self.vocals else None
        yield "melody", self.melody
        yield "reference", self.reference
        yield "seed", int(self.seed or 0)
        yield "candidates", min(MOST_TAKES, max(1, int(self.takes)))
        yield "mix.original", self.original
        yield "mix.lufs", "null" if self.lufs is None else f"{self.lufs:g}"
        yield "start", self.start or None
        yield "end", self.end or None
        yield "limits.duration", f"{seconds:g}"


FIELDS = tuple(field.name for field in fields(Form))


def shown(tags: Mapping[str, Any]) -> dict[str, Any]:
    """Tags as the fields show them."""
    found = {name: ", ".join(tags.get(name) or ()) for name in WORDS}
    return {**found, "caption": tags.get("caption", ""), "tempo": tags.get("tempo"), "key": tags.get("key") or ""}
