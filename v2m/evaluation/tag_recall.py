"""Recall of the asked genres and instruments among the tags that a tagger of music gives a piece.

The tags are those of musicnn's two networks. What they give to most of Sketch's pieces, whatever the style, stands for
no genre: slow, piano, guitar, instrumental, indie, and electronic (58 % of the pieces of `bench/heard.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from v2m.core.types import Tags

NUM_TOP_TAGS = 3  # of a piece, as the package of the networks gives
# Tags that name a genre or an instrument, by the words for it; the first line that matches counts.
GENRE_TAGS = {
    r"lo-?fi|hip[- ]?hop|chill\w*|trip[- ]?hop|r ?& ?b|downtempo": "Hip-Hop, chillout, chill, Mellow, rnb",
    r"folk|country|bluegrass|americana|singer-songwriter|celtic": "folk, acoustic, country",
    r"waltz|musette|valse": "classical, classic, strings, violin, folk",
    r"jazz|swing|bebop|big band|bossa nova|lounge": "jazz",
    r"blues": "blues",
    r"funk\w*|disco|soul|motown": "funk, soul",
    r"ambient|drone|meditat\w*|new[- ]age|soundscape": "ambient, new age, chillout",
    r"electro\w*|techno|house|edm|trance|synth\w*|dance|dubstep|drum and bass": (
        "techno, dance, synth, electro, electronica, House"
    ),
    r"rock|punk|metal|grunge|alternative|indie": (
        "rock, alternative rock, classic rock, indie rock, hard rock, Progressive rock, punk, metal, heavy metal"
    ),
    r"pop": "pop, indie pop",
    r"orchestra\w*|classical|symphon\w*|baroque|chamber": "classical, classic, strings, violin, cello, flute, harp",
    r"cinema\w*|film|soundtrack|trailer|epic": "classical, classic, strings, violin, cello, choir, choral",
}
INSTRUMENT_TAGS = {
    r"piano": "piano",
    r"guitar": "guitar",
    r"violin|fiddle": "violin, strings",
    r"cello": "cello, strings",
    r"synth\w*": "synth",
    r"strings?": "strings, violin, cello",
    r"flute": "flute",
    r"harp": "harp",
    r"harpsichord": "harpsichord",
    r"sitar": "sitar",
    r"choir|voices": "choir, choral",
    r"drums?|drum machine|percussion|taiko": "drums, beat, beats",
}


def expected_tags(word: str, table: Mapping[str, str]) -> frozenset[str]:
    """Return the tags that stand for a genre or an instrument in `table`; none for an unknown word."""
    tags = (tags for words, tags in table.items() if re.search(rf"\b(?:{words})\b", word, re.IGNORECASE))
    return frozenset(next(tags, "").split(", ")) - {""}


def top_tags(tag_probs: Mapping[str, float], count: int = NUM_TOP_TAGS) -> list[str]:
    """Return the most probable tags, the best first."""
    return sorted(tag_probs, key=lambda tag: -tag_probs[tag])[:count]


def tag_recall(tags: Tags, tag_probs: Sequence[Mapping[str, float]]) -> float | None:
    """Return the share of asked genres and instruments that stand among the top tags of a network, 0–1.

    `tag_probs` are the probabilities of all tags of each network; one network is enough. A genre or instrument counts
    where a tag of theirs stands for it; None where none does.
    """
    vocabulary = {tag for probs in tag_probs for tag in probs}
    best = {tag for probs in tag_probs for tag in top_tags(probs)}
    asked = [expected_tags(word, GENRE_TAGS) for word in tags.genres]
    asked += [expected_tags(word, INSTRUMENT_TAGS) for word in tags.instruments]
    known = [words for words in asked if words & vocabulary]
    return sum(bool(words & best) for words in known) / len(known) if known else None
