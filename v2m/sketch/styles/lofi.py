"""Lo-fi: ninth chords on an electric piano, a lazy swung beat, low-passed, with tape wow and vinyl noise."""

from v2m.sketch.style import Accent, Figure, Kit, Layer, Reverb, Style

LOFI = Style(
    name="lo-fi",
    tempo=(68, 78, 92),
    steadiness=0.7,
    minor_probability=0.5,
    scales={"minor": "dorian"},
    progressions={
        "major": (
            "ii9 | V13 | Imaj9 | vi9",
            "IVmaj9 | iii7 | ii9 | Imaj9",
            "Imaj9 | vi9 | ii9 | V13",
            "IVmaj7 | iv6 | Imaj9 | VI7b9",
            "Imaj7 iii7 | IVmaj7 | ii7 iii7 | IVmaj9",
        ),
        "minor": (
            "i9 | iv9 | bVImaj7 | V7b9",
            "i9 | bIIImaj7 | iv9 | v7",
            "bVImaj7 | v7 | i9 | i9",
            "i9 | IV9 | bIIImaj9 | bVImaj7",
            "iv9 | bVII13 | bIIImaj9 | i9",
        ),
    },
    cadences={
        "major": ("ii9 | V13 | Imaj9", "IVmaj7 | iv6 | Imaj9"),
        "minor": ("iv9 | V7b9 | i9", "bVImaj7 | v7 | i9"),
    },
    layers=(
        Layer(
            "harmony",
            "comp",
            (4, 5),
            (
                Figure("6---------------"),
                Figure("6-----5---......|6-----..4-5-----"),
                Figure("6--.5-..4---5-..|6-----5-..5-4---"),
            ),
            level_db=-6,
            low=50,
            high=74,
            voices=4,
            pan=-0.2,
        ),
        Layer(
            "bass",
            "bass",
            (35, 32, 33),
            (Figure("7-----..5-------", "r5"), Figure("8-----6-..5-6-5-|8---..6---5---5-", "rr5a")),
            min_energy=0.15,
            level_db=-2,
            low=28,
            high=48,
        ),
        Layer("pads", "pad", (89, 51), min_energy=0.5, level_db=-9, low=57, high=79, voices=3, pan=0.2),
        Layer("melody", "lead", (11, 24), level_db=1, low=62, high=84, pan=0.15),
        Layer("melody", "answer", (26, 108, 5), min_energy=0.3, level_db=-2, low=60, high=81, pan=0.4),
    ),
    kit=Kit(
        (8, 0),
        (
            {"kick": "8.........6.....", "rim": "....6.......6...", "hat": "4.3.4.3.4.3.4.3."},
            {
                "kick": "8......5..7.....|8..5......7..5..",
                "snare": "....7.......7...|....7..2....7...",
                "hat": "5.4.5.4.5.4.5.42",
            },
            {
                "kick": "8..5...5..7.....|8......5..7..6..",
                "snare": "....7..2.2..7...",
                "hat": "5.4353.45.4.5354",
                "shaker": "3434343434343434",
            },
        ),
        (
            {"snare": "........4.5.6.67", "kick": "........7......."},
            {"rim": "........5..5..5.", "kick": "........7......."},
        ),
        min_energy=0.2,
        level_db=0,
    ),
    rhythm_cells=(
        "..6-5-6---..5---",
        "6---..5-6-------",
        "6-5-..6---5-....",
        "....6-5-4-6-----",
        "6-----5-......5-",
        "..5-6---5-4-....",
    ),
    accent=Accent(("kick", "crash"), high_program=11),
    reverb=Reverb(rt60_s=1.2, damping=0.7, predelay_ms=12, wet_level=0.16),
    transition="none",
    swing=0.6,
    swing_unit=0.5,
    leap_probability=0.25,
    rest_probability=0.25,
    timing_std_beats=0.012,
    lowpass_hz=3600.0,
    wow_cents=7.0,
    vinyl_noise=1.0,
)
