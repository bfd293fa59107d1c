"""The styles, and the choice of one for a set of tags."""

from __future__ import annotations

import re
from collections.abc import Iterable

from v2m.core.types import Tags
from v2m.sketch.style import Style
from v2m.sketch.styles.acoustic import FOLK, JAZZ, WALTZ
from v2m.sketch.styles.film import AMBIENT, CINEMATIC, ORCHESTRAL
from v2m.sketch.styles.popular import ELECTRONIC, FUNK, LOFI, ROCK

STYLES: dict[str, Style] = {
    style.name: style for style in (AMBIENT, CINEMATIC, LOFI, FOLK, ELECTRONIC, ROCK, JAZZ, ORCHESTRAL, WALTZ, FUNK)
}

# Matched from the top: the narrower word comes first ("indie folk" is folk, "symphonic rock" is rock).
_GENRES = {
    "lo-fi": "lo-?fi|hip[- ]?hop|chill ?hop|chill(ed|out)?|trip[- ]?hop|r ?& ?b|neo[- ]?soul|rap|boom bap|downtempo",
    "acoustic folk": "folk|acoustic|country|singer[- ]songwriter|americana|bluegrass|celtic|ukulele|campfire",
    "waltz": "waltz|musette|valse",
    "jazz": "jazz|blues|swing|bossa( nova)?|lounge|bebop|big band|ragtime",
    "funk": "funk(y)?|disco|soul|groove|motown|reggae|latin",
    "ambient": "ambient|drone|meditat\\w*|new[- ]age|relax\\w*|spa|soundscape|sleep|space music",
    "electronic": "electro\\w*|techno|house|edm|trance|synth[- ]?(wave|pop)|retrowave|dance|dubstep"
    "|drum (?:and|&|n) bass|dnb|vaporwave|club|eurodance|idm|future bass|trap",
    "rock": "rock|punk|metal|grunge|alternative|hardcore|garage|indie|pop",
    "orchestral": "orchestra\\w*|classical|symphon\\w*|baroque|chamber|romantic era|ballet|opera|fantasy",
    "cinematic": "cinema\\w*|film|epic|trailer|soundtrack|score|dramatic|suspense|piano|documentary|corporate|world",
}
_MOODS = {
    "ambient": "calm|peaceful|serene|dreamy|ethereal|meditative|tranquil|floating|still",
    "lo-fi": "chill|relaxed|mellow|cozy|laid[- ]back|lazy",
    "acoustic folk": "warm|happy|cheerful|hopeful|carefree|innocent|nostalgic|sunny|gentle|tender|heartwarming",
    "electronic": "futuristic|energetic|driving|hypnotic|urban|modern|pulsing",
    "rock": "aggressive|rebellious|angry|powerful|wild|fierce",
    "jazz": "smooth|sophisticated|sultry|elegant",
    "funk": "playful|funny|cheeky|quirky",
    "waltz": "romantic",
    "orchestral": "majestic|noble|heroic|triumphant|grand|magical|adventurous",
    "cinematic": "tense|dark|mysterious|sad|melancholic|emotional|inspiring|uplifting|dramatic|somber",
}


def choose_style(tags: Tags) -> Style:
    """Return the style named by the genres, else by the moods, else cinematic; `negative` excludes."""
    excluded = set(_matching_styles(_GENRES, tags.negative))
    for table, words in ((_GENRES, tags.genres), (_MOODS, tags.moods)):
        name = next((name for name in _matching_styles(table, words) if name not in excluded), None)
        if name is not None:
            return STYLES[name]
    return STYLES[next((name for name in ("cinematic", *STYLES) if name not in excluded), "cinematic")]


def _matching_styles(table: dict[str, str], words: Iterable[str]) -> list[str]:
    """Return style names for `words`, in their order; an exact style name counts before a synonym."""
    names: list[str] = []
    for word in words:
        if word.lower() in table:
            names.append(word.lower())
        names += [name for name, pattern in table.items() if re.search(rf"\b(?:{pattern})\b", word, re.IGNORECASE)][:1]
    return names
