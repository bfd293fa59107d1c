"""Acoustic folk: a picked and strummed guitar, an upright bass, a fiddle or a flute."""

from v2m.generators.sketch.style import Accent, Figure, Kit, Layer, Room, Style

PERCUSSION = Kit(
    (8, 0),
    (
        {"shaker": "5.3.4.3.5.3.4.3."},
        {"kick": "7.......7.......", "tambourine": "....5.......5...", "shaker": "5.3.4.3.5.3.4.3."},
        {
            "kick": "8.....5.8.......",
            "snare": "....6.......6..3",
            "tambourine": "..4...4...4...4.",
            "shaker": "5343534353435343",
        },
    ),
    (
        {"snare": "........4.4.5.66", "kick": "........7......."},
        {"low tom": "........6...6.7.", "kick": "........7...7..."},
    ),
    enters=0.4,
    level=-9,
)

FOLK = Style(
    name="acoustic folk",
    tempo=(80, 100, 126),
    steadiness=0.5,
    minor=0.25,
    scales={"minor": "dorian"},
    progressions={
        "major": (
            "I | V | vi | IV",
            "I | IV | I | V",
            "I | iii | IV | V",
            "vi | IV | I | V",
            "I | Iadd9 | IV | IV",
            "I V/3 | vi | IV | V",
        ),
        "minor": (
            "i | bVII | bVI | bVII",
            "i | bIII | bVII | IV",
            "i | iv | i | v",
            "i bVII | i | bIII bVII | i",
        ),
    },
    cadences={"major": ("IV | V | I", "ii | Vsus4 V | I"), "minor": ("bVI | bVII | i", "iv | v | i")},
    layers=(
        Layer(
            "harmony",
            "arp",
            (25, 24),
            (
                Figure("6---4-4-5---4-4-", "021321"),
                Figure("6-4-5-4-6-4-5-4-", "03213231"),
                Figure("6-455-456-455-45", "032103230321"),
            ),
            level=-5,
            low=48,
            high=72,
            voices=4,
            pan=-0.3,
            gate=1.6,
        ),
        Layer(
            "harmony",
            "strum",
            (25, 27),
            (Figure("7---..5---5-6-5-"), Figure("8---5-57..575-57")),
            enters=0.45,
            level=-8,
            low=45,
            high=72,
            voices=5,
            pan=0.4,
            gate=1.0,
        ),
        Layer(
            "bass",
            "bass",
            (32, 33),
            (Figure("7-------6-------", "r5"), Figure("8-----5-7---6---", "rr5a"), Figure("8---6---7---6-6-", "r5ra5")),
            enters=0.2,
            level=-5,
            low=28,
            high=48,
        ),
        Layer("pads", "pad", (48, 21, 16), enters=0.55, level=-9, low=52, high=74, voices=3, pan=0.1),
        Layer("melody", "lead", (110, 73, 22, 78, 15, 75), level=2, low=62, high=86, pan=0.1),
        Layer("melody", "answer", (15, 105, 74, 21), enters=0.3, level=-1, low=60, high=81, pan=0.35),
    ),
    kit=PERCUSSION,
    cells=(
        "7---6-5-6---5---",
        "7-5-6---7-6-5---",
        "6-6-7---5---....",
        "7-----6-5-4-5---",
        "..5-6-7-6---5---",
        "7---5---6-------",
    ),
    accent=Accent(("crash", "kick"), high=25),
    room=Room(seconds=1.3, damping=0.6, predelay=14, wet=0.16),
    transition="none",
    restless=0.2,
    silences=0.12,
    looseness=0.01,
)
