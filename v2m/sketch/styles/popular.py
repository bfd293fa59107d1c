"""Popular styles: electronic, funk, lo-fi, rock."""

from v2m.sketch.style import Accent, Figure, Kit, Layer, Reverb, Style

# Four on the floor, sequenced arpeggios, pads ducked by the kick.
ELECTRONIC = Style(
    name="electronic",
    tempo=(106, 120, 136),
    steadiness=1.0,
    accent_weights={0.5: 0.8, 0.25: 0.6, 0.75: 0.6},
    minor_probability=0.75,
    progressions={
        "major": ("vi | IV | I | V", "I | V | vi | IV", "IV | V | vi | I/3", "IVadd9 | Iadd9 | V | vi7"),
        "minor": (
            "i | bVI | bIII | bVII",
            "i | i | bVI | bVII",
            "i7 | bIIImaj7 | bVImaj7 | bVII",
            "i | v | bVI | iv",
            "bVI | bVII | i | bIII",
        ),
    },
    cadences={"major": ("IV | V | I", "bVI | bVII | I"), "minor": ("bVI | bVII | i", "iv | bVII | i")},
    layers=(
        Layer("pads", "pad", (95, 90, 50), level_db=-4, low=52, high=76, voices=4, pan=-0.1),
        Layer("bass", "bass", (38, 39), min_energy=0.2, level_db=-2, low=29, high=47, gate=0.8).with_figures(
            Figure("7---------------", "r"),
            Figure("..8...8...8...8.", "r"),
            Figure("..88..88..88..88|..88..88..8.8.88", "ro"),
            Figure("8.88.88.8.88.88.", "rrorro"),
        ),
        Layer(
            "harmony", "arp", (81, 80, 90), min_energy=0.1, level_db=-8, low=60, high=88, pan=0.35, gate=0.6
        ).with_figures(
            Figure("5.4.4.5.4.4.5.4.", "02413"),
            Figure("5343534353435343", "0213024302130254"),
            Figure("6446446446446446", "035142"),
        ),
        Layer(
            "harmony", "comp", (90, 62, 81), min_energy=0.6, level_db=-7, low=55, high=79, pan=-0.35, gate=0.6
        ).with_figures(Figure("7..7..7...7..7.."), Figure("7..7..7.7..7..77")),
        Layer("melody", "lead", (81, 80), level_db=-1, low=62, high=86, gate=0.9),
        Layer("melody", "answer", (98, 10, 88), min_energy=0.3, level_db=-4, low=69, high=93, pan=-0.3),
    ),
    kit=Kit(
        (24, 25),
        (
            {"kick": "8.......8.......", "hat": "..4...4...4...4."},
            {"kick": "9...9...9...9...", "hat": "..6...6...6...6.", "clap": "....6.......6..."},
            {
                "kick": "9...9...9...9...",
                "hat": "5354535453545354",
                "open hat": "..6...6...6...6.",
                "clap": "....8.......8...|....8.......8..4",
            },
        ),
        (
            {"snare": "........44556678", "kick": "........8...8..."},
            {"clap": "........6..6..67", "kick": "........9......."},
            {"high tom": "........7..7....", "mid tom": "...........7..7.", "low tom": "..............78"},
        ),
        min_energy=0.22,
        level_db=0,
    ),
    rhythm_cells=(
        "7--6--5-7--6--5-",
        "7-..5-6-..7-5---",
        "6-6-..7---5-6---",
        "7---..5---6-7---",
        "7-5-6-..7-5-6-..",
        "7-------5-6-7---",
    ),
    accent=Accent(("crash", "kick", "clap"), low_program=39),
    reverb=Reverb(rt60_s=1.7, damping=0.5, predelay_ms=18, wet_level=0.18),
    transition="riser",
    leap_probability=0.3,
    rest_probability=0.2,
    timing_std_beats=0.0,
    sidechain_depth=0.7,
)

# Sixteenths on clavinet and guitar, a slapped bass, answering brass.
FUNK = Style(
    name="funk",
    tempo=(92, 106, 122),
    steadiness=1.0,
    accent_weights={0.5: 0.8, 0.25: 0.6, 0.75: 0.6},
    minor_probability=0.7,
    scales={"major": "mixolydian", "minor": "dorian"},
    progressions={
        "major": ("I9 | I9 | IV9 | I9", "I7 | bVII | IV7 | I7", "I9 | iii7 | IV9 | V7sus4"),
        "minor": (
            "i7 | IV9 | i7 | IV9",
            "i9 | i9 | iv9 | i9",
            "i7 | bIIImaj7 | IV9 | bVII9",
            "i9 | bVImaj7 | bVII9 | i9",
        ),
    },
    cadences={"major": ("IV9 | V7sus4 | I9",), "minor": ("bVImaj7 | V7b9 | i9", "iv9 | bVII9 | i9")},
    layers=(
        Layer("bass", "bass", (33, 36), level_db=2, low=28, high=50, gate=0.7).with_figures(
            Figure("8--...6-..8.....", "rro"), Figure("8--6..6-..86..6.|8--6..6-..8.6.5-", "roror5a")
        ),
        Layer("harmony", "comp", (4, 7), level_db=-10, low=52, high=74, pan=-0.35, gate=0.5).with_figures(
            Figure("..6..4..6..4..6."), Figure("7.46.46.47.46.46")
        ),
        Layer(
            "harmony", "comp", (28, 27), min_energy=0.3, level_db=-15, low=57, high=79, pan=0.45, gate=0.4
        ).with_figures(Figure("..4.6.4...4.6.44"), Figure("4464446444644464")),
        Layer("pads", "comp", (61,), min_energy=0.2, level_db=1, low=55, high=79, pan=0.15, gate=0.6).with_figures(
            Figure("..............7-|7-......7..7...."), Figure("7..7....7..7..7-")
        ),
        Layer("pads", "pad", (16,), min_energy=0.7, level_db=-11, low=57, high=76),
        Layer("melody", "lead", (66, 56, 64), level_db=2, low=60, high=82, pan=0.05),
        Layer("melody", "answer", (61, 64), min_energy=0.3, level_db=0, low=58, high=79, pan=-0.2),
    ),
    kit=Kit(
        (0,),
        (
            {"kick": "8.....5...7.....", "snare": "....7..2.2..7..2", "hat": "5.3.5.3.5.3.5.3."},
            {"kick": "9..6......7..6..|9..6..6...7.....", "snare": "....8..2.2..8..2", "hat": "5.3.5.3.5.3.5.32"},
            {
                "kick": "9..6..6...7..6..",
                "snare": "....9..2.2..9.22",
                "hat": "5353535353535353",
                "open hat": "......6.......6.",
                "conga": "..5.4..5..5.4.55",
            },
        ),
        (
            {"snare": "........6.66.678", "kick": "........8..8...."},
            {"high tom": "........7.77....", "low tom": "............7788"},
        ),
        min_energy=0.1,
        level_db=4,
    ),
    rhythm_cells=("..6-7.5---..6-5-", "7-.6.5..7---....", "6.6.7-..5-6-....", "....7-6.5-7-....", "7--6--5-....6-7-"),
    accent=Accent(("crash", "kick"), low_program=36, high_program=61),
    reverb=Reverb(rt60_s=0.9, damping=0.6, predelay_ms=8, wet_level=0.1),
    transition="none",
    swing=0.54,
    swing_unit=0.5,
    leap_probability=0.3,
    rest_probability=0.3,
    timing_std_beats=0.007,
    lowpass_hz=7000.0,
)

# Ninth chords on an electric piano, a lazy swung beat, low-passed, with tape wow and vinyl noise.
LOFI = Style(
    name="lo-fi",
    tempo=(68, 78, 92),
    steadiness=1.0,
    accent_weights={0.5: 0.8, 0.25: 0.6, 0.75: 0.6},
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
        Layer("harmony", "comp", (4,), level_db=-8, low=50, high=74, voices=4, pan=-0.2).with_figures(
            Figure("6---------------"),
            Figure("6-----5---......|6-----..4-5-----"),
            Figure("6--.5-..4---5-..|6-----5-..5-4---"),
        ),
        Layer("bass", "bass", (35, 32, 33), min_energy=0.15, level_db=-2, low=28, high=48).with_figures(
            Figure("7-----..5-------", "r5"), Figure("8-----6-..5-6-5-|8---..6---5---5-", "rr5a")
        ),
        Layer("pads", "pad", (89,), level_db=-4, low=57, high=79, pan=0.2),
        Layer("melody", "lead", (11, 24), level_db=-3, low=62, high=84, pan=0.15),
        Layer("melody", "answer", (26, 108, 5), min_energy=0.3, level_db=-4, low=60, high=81, pan=0.4),
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
        min_energy=0.05,
        level_db=7,
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
    lowpass_hz=5500.0,
    wow_cents=7.0,
    vinyl_noise=0.7,
)

# Two guitars left and right, bass on the eighths, a backbeat.
ROCK = Style(
    name="rock",
    tempo=(98, 120, 152),
    steadiness=1.0,
    accent_weights={0.5: 0.8, 0.25: 0.6, 0.75: 0.6},
    scales={"major": "mixolydian"},
    progressions={
        "major": ("I | bVII | IV | I", "I | V | vi | IV", "I | IV | bVII | IV", "I | I | IV | V", "I iii | IV | I | V"),
        "minor": (
            "i | bVI | bVII | i",
            "i | bVI | bIII | bVII",
            "i | bVII | bVI | bVII",
            "i | i | iv bVI | bVII",
            "i | bIII | IV | bVI",
        ),
    },
    cadences={"major": ("IV | V | I", "bVII | IV | I"), "minor": ("bVI | bVII | i", "iv | bVII | i")},
    layers=(
        Layer("harmony", "arp", (27, 25), level_db=-5, low=50, high=76, pan=-0.35, gate=1.3).with_figures(
            Figure("6-4-5-4-6-4-5-4-", "02313231")
        ),
        Layer(
            "harmony", "power", (29, 30), min_energy=0.2, level_db=-5, low=40, high=59, pan=-0.6, gate=0.85
        ).with_figures(
            Figure("8---------------"), Figure("8-5-5-8-5-5-7-5-|8-5-5-8-5-7-7---"), Figure("8-7-7-8-7-7-8-7-")
        ),
        Layer(
            "harmony", "power", (30, 29), min_energy=0.5, level_db=-6, low=45, high=64, pan=0.6, gate=0.85
        ).with_figures(Figure("8-----7-8-------"), Figure("8-7-..8-7-..8-7-|8-7-..8-..7-8-7-")),
        Layer("bass", "bass", (34, 33), min_energy=0.15, level_db=-2, low=28, high=45, gate=0.9).with_figures(
            Figure("8-------7-------", "rr"), Figure("8-6-6-6-7-6-6-6-", "rrrrrr5a")
        ),
        Layer("pads", "pad", (16, 18, 48), min_energy=0.7, level_db=-11, low=55, high=76, pan=0.2),
        Layer("melody", "lead", (29, 30), level_db=3, low=59, high=83, pan=0.1),
        Layer("melody", "answer", (27, 16, 26), min_energy=0.35, low=57, high=79, pan=-0.2),
    ),
    kit=Kit(
        (16, 0),
        (
            {"kick": "8.......8.......", "hat": "6.4.6.4.6.4.6.4.", "rim": "....6.......6..."},
            {"kick": "9.....6.9.......|9.....6.9.6.....", "snare": "....9.......9...", "hat": "7.5.7.5.7.5.7.5."},
            {
                "kick": "9.....7.9.7.....|9..7..7.9.7...7.",
                "snare": "....9.......9..3",
                "ride": "8.6.8.6.8.6.8.6.",
                "open hat": "..............6.",
            },
        ),
        (
            {"snare": "........77..7788", "kick": "........8...8..."},
            {"snare": "........7777....", "high tom": "............88..", "low tom": "..............99"},
            {
                "high tom": "........88......",
                "mid tom": "..........88....",
                "low tom": "............8899",
                "kick": "........8...8...",
            },
        ),
        min_energy=0.25,
        level_db=-3,
    ),
    rhythm_cells=(
        "7---6-7-5-------",
        "7-7-..6-7---5---",
        "8-----7-6---5---",
        "..6-7-6-5---7---",
        "7-6-5-7-....6-7-",
        "8-------7-5-6---",
    ),
    accent=Accent(("crash", "kick", "snare"), low_program=30),
    reverb=Reverb(rt60_s=1.1, damping=0.55, predelay_ms=10, wet_level=0.12),
    transition="none",
    leap_probability=0.25,
    rest_probability=0.2,
    timing_std_beats=0.006,
)
