"""English words for music, by field of `Tags`, and the search for them in free text."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

# separated by commas, in lower case; a hyphen may also be written as a space, and a plural s may follow
KEYWORDS = {
    "genres": """
        ambient, cinematic, orchestral, classical, neoclassical, baroque, romantic era, symphonic, chamber music, opera,
        film score, soundtrack, trailer music, epic, minimalist, minimalism, new age, drone, soundscape, experimental,
        avant-garde, electronic, electronica, electro, edm, techno, house, deep house, tropical house, trance, dubstep,
        drum and bass, drum & bass, drum n bass, dnb, jungle, breakbeat, garage, idm, glitch, downtempo, chillout,
        chill-out, chillwave, chillhop, trip-hop, lo-fi, lofi, lo-fi hip-hop, lofi hip-hop, hip-hop, rap, trap, drill,
        grime, boom bap, r&b, rnb, soul, neo-soul, funk, disco, gospel, blues, jazz, smooth jazz, swing, bebop,
        big band, bossa nova, samba, salsa, latin, tango, flamenco, reggae, reggaeton, dub, dancehall, ska, afrobeat,
        pop, indie pop, synth-pop, synthpop, electropop, dream pop, k-pop, j-pop, city pop, dance, eurodance, rock,
        soft rock, hard rock, indie rock, indie, alternative, alternative rock, post-rock, progressive rock,
        psychedelic, psychedelic rock, punk, grunge, shoegaze, metal, heavy metal, industrial, folk, indie folk,
        acoustic folk, country, americana, bluegrass, celtic, singer-songwriter, world music, ethnic, middle eastern,
        oriental, synthwave, retrowave, vaporwave, new wave, chiptune, 8-bit, lounge, easy listening, corporate, waltz,
        march, lullaby, children's music, holiday, christmas, meditation music, marching band, musical theatre,
        horror score
    """,
    "instruments": """
        piano, grand piano, upright piano, felt piano, electric piano, rhodes, wurlitzer, keyboard, organ, church organ,
        hammond organ, harpsichord, celesta, clavinet, accordion, harmonium, harmonica, melodica, guitar,
        acoustic guitar, electric guitar, classical guitar, nylon guitar, steel guitar, slide guitar, distorted guitar,
        distortion guitar, muted guitar, bass, bass guitar, electric bass, upright bass, double bass, acoustic bass,
        synth bass, sub bass, 808, banjo, mandolin, ukulele, dobro, lute, oud, sitar, koto, shamisen, erhu, guzheng,
        pipa, bouzouki, balalaika, string, strings, string ensemble, string section, string quartet, orchestra, violin,
        fiddle, viola, cello, harp, lyre, dulcimer, zither, brass, brass section, trumpet, muted trumpet, trombone,
        tuba, horn, french horn, flugelhorn, woodwind, woodwinds, flute, piccolo, pan flute, recorder, tin whistle,
        oboe, clarinet, bass clarinet, bassoon, cor anglais, saxophone, sax, alto saxophone, tenor saxophone,
        shakuhachi, duduk, ney, didgeridoo, bagpipe, synth, synthesizer, synthesiser, analog synth, modular synth,
        synth lead, synth pad, pad, warm pad, arpeggiator, sampler, turntable, drum, drums, drum kit, drum machine,
        brushed drums, kick, kick drum, snare, hi-hat, cymbal, percussion, hand percussion, taiko, timpani, tom, bongo,
        conga, djembe, tabla, cajon, tambourine, shaker, maracas, claps, hand claps, finger snaps, triangle, bell,
        bells, chimes, tubular bells, gong, singing bowl, glockenspiel, xylophone, vibraphone, marimba, kalimba,
        music box, steel drum, hang drum, handpan, mallet, choir, theremin, whistle
    """,
    "moods": """
        calm, peaceful, serene, tranquil, relaxed, relaxing, soothing, gentle, tender, dreamy, ethereal, meditative,
        contemplative, reflective, introspective, thoughtful, pensive, nostalgic, wistful, bittersweet, melancholic,
        melancholy, sad, somber, sombre, sorrowful, lonely, longing, romantic, intimate, sentimental, emotional, moving,
        touching, heartfelt, hopeful, optimistic, inspiring, inspirational, uplifting, motivational, triumphant, heroic,
        majestic, noble, powerful, happy, joyful, joyous, cheerful, playful, whimsical, quirky, funny, humorous,
        lighthearted, light-hearted, carefree, fun, festive, celebratory, exciting, excited, energetic, upbeat, lively,
        vibrant, dynamic, driving, adventurous, confident, cool, laid-back, chill, mellow, groovy, sexy, sensual,
        mysterious, mystical, magical, enchanting, suspenseful, tense, anxious, uneasy, ominous, eerie, creepy, scary,
        dark, brooding, menacing, dramatic, intense, aggressive, angry, urgent, chaotic, frantic, hypnotic, futuristic,
        determined, solemn, sacred, spiritual, curious, innocent, wondrous, awe-inspiring, restless, pastoral, quiet
    """,
    "timbres": """
        warm, bright, soft, airy, spacious, lush, rich, full, deep, thick, thin, crisp, clean, clear, crystalline,
        sparkling, shimmering, shiny, glassy, metallic, woody, wooden, breathy, smoky, smooth, silky, mellow tone,
        round, velvety, hazy, dusty, gritty, raw, rough, harsh, distorted, fuzzy, crunchy, saturated, punchy, tight,
        heavy, dense, sparse, minimal, layered, textured, atmospheric, reverberant, reverberated, echoing, resonant,
        wide, intimate tone, muted, muffled, plucked, bowed, sustained, percussive, staccato, legato, acoustic, organic,
        natural, synthetic, digital, analog, analogue, vintage, retro, grainy, lo-fi texture, vinyl crackle, glossy,
        polished, buzzing, humming, delicate, light, hollow, sharp, booming, thunderous, sweeping, swelling, pulsing
    """,
}

# beats per minute; longer terms stand before those that they contain
TEMPO_TERMS = {
    "very slow": 55, "slow to moderate": 85, "slow to medium": 85, "slow": 70, "moderate to fast": 125,
    "medium to fast": 125, "medium": 105, "moderate": 105, "mid": 105, "steady": 105, "upbeat": 125, "very fast": 165,
    "fast": 140, "grave": 40, "largo": 50, "lento": 52, "larghetto": 63, "adagio": 70, "andante": 90, "andantino": 96,
    "moderato": 112, "allegretto": 116, "allegro": 132, "vivace": 160, "prestissimo": 200, "presto": 180,
}  # fmt: skip

_MUSIC_WORD = re.compile(
    r"(?<![a-z])(?:music|musical|soundtrack|score|track|song|piece|melody|tempo|bpm|genre|style|mood|timbre|key|"
    r"instrument(?:s|al|ation)?|accompan(?:y|iment))\b"
)
_VOICE_WORD = re.compile(r"\b(?:vocals?|voices?|singers?|singing|lyrics|rapping)\b")
# a negation holds to the next comma, or over a list that ends in "or"; never beyond its clause
_NEGATION = (
    r"\b(?:no|not|without|avoid(?:ing)?|never|lack(?:s|ing)|free of|instead of|rather than|none|excluding|except)\b"
)
_CLAUSE = r"(?:(?!\b(?:but|however|with|plus|featuring)\b)[^.;!?\n])"
_NEGATED = re.compile(rf"{_NEGATION}(?:{_CLAUSE}{{0,80}}\bn?or\b)?(?:(?!,){_CLAUSE})*")


def fold(text: str) -> str:
    """Bring text into the form in which words are compared: lower case, no accents, hyphens as spaces."""
    text = unicodedata.normalize("NFKD", text.casefold())
    return " ".join(re.sub(r"[‐‑–-]", " ", "".join(c for c in text if not unicodedata.combining(c))).split())


@lru_cache(maxsize=1)
def _term_table() -> dict[str, tuple[str, str]]:
    """Folded word → (field, word as it is listed); a word of two fields belongs to the first."""
    pairs = [(name, word.strip()) for name, words in KEYWORDS.items() for word in words.split(",")]
    return {fold(word): (name, word) for name, word in reversed(pairs)}


@lru_cache(maxsize=1)
def _term_pattern() -> re.Pattern[str]:
    terms = sorted(_term_table(), key=len, reverse=True)  # "drum and bass" before "drum"
    return re.compile(rf"(?<!\w)({'|'.join(map(re.escape, terms))})s?(?!\w)")


def lookup(text: str) -> tuple[str, str] | None:
    """(field, word) of a whole expression, or None."""
    match = _term_pattern().fullmatch(fold(text))
    return _term_table()[match[1]] if match else None


def find_keywords(text: str) -> tuple[list[tuple[str, str]], float]:
    """(field, word) of every keyword that is not negated, and their share of the words, 0–1."""
    folded = fold(text)
    terms = _term_pattern().findall(_NEGATED.sub(" ", folded))
    num_words = len(re.findall(r"[^\W_]+(?:['&][^\W_]+)*", folded))
    share = sum(len(term.split()) for term in terms) / num_words if num_words else 0.0
    return [_term_table()[term] for term in terms], share


def is_negated(text: str) -> bool:
    """Return whether an expression begins with a negation."""
    return re.match(_NEGATION, fold(text)) is not None


def mentions_music(text: str) -> bool:
    """Return whether a text says anything about music."""
    return _MUSIC_WORD.search(fold(text)) is not None


def mentions_voice(text: str) -> bool:
    """Return whether a text names a voice, which is no instrument here."""
    return _VOICE_WORD.search(fold(text)) is not None
