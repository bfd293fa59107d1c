"""Ambient: slow overlapping chords, few notes above them, a long reverb."""

from v2m.sketch.style import Accent, Figure, Layer, Reverb, Style

AMBIENT = Style(
    name="ambient",
    tempo=(56, 70, 84),
    steadiness=0.2,
    minor_probability=0.4,
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
        Layer("pads", "pad", (89, 95, 91), level_db=-5, low=50, high=74, voices=4, pan=-0.15),
        Layer("pads", "pad", (51, 52, 94, 92), min_energy=0.4, level_db=-8, low=62, high=84, voices=3, pan=0.25),
        Layer("bass", "bass", (39, 43, 35), (Figure("6---------------", "r"),), level_db=-4, low=29, high=46, gate=1.0),
        Layer(
            "harmony",
            "arp",
            (0, 98, 108, 46),
            (
                Figure("5---..4-....3---|..5-....4---....", "02413"),
                Figure("5---4-..3-..5-..|5-..4-..3---4-..", "0213425"),
                Figure("5-4-3-4-5-4-3-4-", "02413524"),
            ),
            min_energy=0.15,
            level_db=-2,
            low=60,
            high=91,
            pan=0.3,
        ),
        Layer("melody", "lead", (11, 92, 99), level_db=1, low=64, high=84, gate=1.0),
        Layer("melody", "answer", (8, 9, 10), min_energy=0.3, level_db=-7, low=74, high=91, pan=-0.35),
    ),
    rhythm_cells=(
        "6-------5-------",
        "5---------------",
        "..6---5-----4---",
        "6-----5---......",
        "6-------....5---",
        "5-5---6-----....",
    ),
    accent=Accent(low_program=14, high_program=98),
    reverb=Reverb(rt60_s=4.2, damping=0.55, predelay_ms=30, wet_level=0.5),
    transition="none",
    leap_probability=0.25,
    rest_probability=0.3,
    timing_std_beats=0.02,
)
