"""Ambient: slow chords that overlap, few notes above them, a wide room."""

from v2m.sketch.style import Accent, Figure, Layer, Room, Style

AMBIENT = Style(
    name="ambient",
    tempo=(56, 70, 84),
    steadiness=0.2,
    minor=0.4,
    scales={"major": "lydian", "minor": "dorian"},
    progressions={
        "major": (
            "Imaj7 | Imaj7 | IVmaj7 | IVmaj7",
            "Imaj9 | vi9 | IVmaj9 | IVmaj9",
            "Iadd9 | V/3 | vi7 | IVmaj7",
            "IVmaj7 | Imaj7 | IVmaj7 | vi7",
            "Imaj7 | iii7 | IVmaj7 | Vsus4",
        ),
        "minor": (
            "i9 | i9 | bVImaj7 | bVImaj7",
            "i7 | bIIImaj7 | bVImaj7 | bVII6",
            "i9 | IV7 | i9 | IV9",
            "bVImaj7 | bVII | i7 | i7",
            "i9 | v7 | bVImaj7 | iv9",
        ),
    },
    cadences={"major": ("IVmaj7 | Iadd9", "ii9 | IVadd9 | Imaj9"), "minor": ("bVImaj7 | iadd9", "iv9 | bVII | i9")},
    layers=(
        Layer("pads", "pad", (89, 95, 91), level=-5, low=50, high=74, voices=4, pan=-0.15),
        Layer("pads", "pad", (51, 52, 94, 92), enters=0.4, level=-8, low=62, high=84, voices=3, pan=0.25),
        Layer("bass", "bass", (39, 43, 35), (Figure("6---------------", "r"),), level=-4, low=29, high=46, gate=1.0),
        Layer(
            "harmony",
            "arp",
            (0, 98, 108, 46),
            (
                Figure("5---..4-....3---|..5-....4---....", "02413"),
                Figure("5---4-..3-..5-..|5-..4-..3---4-..", "0213425"),
                Figure("5-4-3-4-5-4-3-4-", "02413524"),
            ),
            enters=0.15,
            level=-2,
            low=60,
            high=91,
            pan=0.3,
        ),
        Layer("melody", "lead", (11, 92, 99), level=1, low=64, high=84, gate=1.0),
        Layer("melody", "answer", (8, 9, 10), enters=0.3, level=-7, low=74, high=91, pan=-0.35),
    ),
    cells=(
        "6-------5-------",
        "5---------------",
        "..6---5-----4---",
        "6-----5---......",
        "6-------....5---",
        "5-5---6-----....",
    ),
    accent=Accent(low=14, high=98),
    room=Room(seconds=4.2, damping=0.55, predelay=30, wet=0.5),
    transition="none",
    restless=0.25,
    silences=0.3,
    looseness=0.02,
)
