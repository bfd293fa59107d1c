"""Styles of film music: ambient, cinematic, orchestral."""

from v2m.sketch.style import Accent, Figure, Kit, Layer, Reverb, Style

# Slow overlapping chords, few notes above them, a long reverb.
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
        Layer("pads", "pad", (51, 52, 94, 92), min_energy=0.4, level_db=-8, low=62, high=84, pan=0.25),
        Layer("bass", "bass", (39, 43, 35), level_db=-4, low=29, high=46, gate=1.0).with_figures(
            Figure("6---------------", "r")
        ),
        Layer("harmony", "arp", (0, 46, 108), min_energy=0.15, level_db=-4, low=60, high=91, pan=0.3).with_figures(
            Figure("5---..4-....3---|..5-....4---....", "02413"),
            Figure("5---4-..3-..5-..|5-..4-..3---4-..", "0213425"),
            Figure("5-4-3-4-5-4-3-4-", "02413524"),
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
    loudness_share=0.7,
    transition="none",
    leap_probability=0.25,
    rest_probability=0.3,
    timing_std_beats=0.02,
)

# A pulse in the strings, a broad melody above it, large drums at high energy.
CINEMATIC = Style(
    name="cinematic",
    tempo=(72, 94, 124),
    steadiness=0.35,
    minor_probability=0.75,
    progressions={
        "major": (
            "I | V/3 | vi | IV",
            "I | iii | IV | iv",
            "vi | IV | I | V",
            "I | bVII | IV | I",
            "Iadd9 | vi | IVadd9 | Vsus4 V",
        ),
        "minor": (
            "i | bVI | bIII | bVII",
            "i | bVI | iv | Vsus4 V",
            "i | bIII | bVII | IV",
            "i | v/3 | bVI | bVII",
            "i | iv | bVI | V",
            "bVI | bVII | i | i",
        ),
    },
    cadences={"major": ("IV | Vsus4 V | I", "bVI | bVII | I"), "minor": ("bVI | bVII | i", "iv | Vsus4 V | i")},
    layers=(
        Layer("pads", "pad", (49,), level_db=-3, low=50, high=76, voices=4, pan=-0.1),
        Layer("bass", "bass", (43,), min_energy=0.12, level_db=0, low=31, high=45).with_figures(
            Figure("7---------------", "r"), Figure("8-------6-------", "ro"), Figure("8-6-6-6-7-6-6-6-", "r")
        ),
        Layer("harmony", "arp", (0, 46), level_db=-8, low=52, high=84, pan=0.25).with_figures(
            Figure("5---4---4---4---", "0213"),
            Figure("6-4-4-4-5-4-4-4-", "01324213"),
            Figure("6343534353435343", "0213021402130254"),
        ),
        Layer(
            "harmony", "comp", (48,), min_energy=0.15, level_db=-5, low=50, high=67, voices=2, gate=0.45, pan=-0.3
        ).with_figures(Figure("7...5...6...5..."), Figure("8.5.5.7.5.5.7.5."), Figure("85.585.585.585.7")),
        Layer("pads", "pad", (60, 61), min_energy=0.66, level_db=-6, low=50, high=69, pan=0.15),
        Layer("pads", "pad", (52,), min_energy=0.8, level_db=-7, low=55, high=79),
        Layer("melody", "lead", (48,), level_db=4, low=62, high=84),
        Layer("melody", "answer", (60, 42), min_energy=0.35, level_db=0, low=52, high=74, pan=0.25),
    ),
    kit=Kit(
        (48,),
        (
            {"bass drum": "7...............|7...........4..."},
            {"bass drum": "8.....5.....5...|8.....5...5...5.", "snare": "................|............2.23"},
            {
                "bass drum": "9..5..6.8..5..6.|9..5..6.8.5.6.7.",
                "snare": "..3...3...3.3.34",
                "cymbals": "6...............|................|................|................",
            },
        ),
        (
            {"bass drum": "........6.7.8.9."},
            {"snare": "........23344567", "bass drum": "........6...8..."},
        ),
        min_energy=0.3,
        level_db=-4,
    ),
    rhythm_cells=(
        "7-------6---5---",
        "7-----6-5-------",
        "7---6---7---5---",
        "6---6-5-7-------",
        "7-------------5-",
        "....5---6---7---",
    ),
    accent=Accent(("cymbals", "bass drum"), low_program=57),
    reverb=Reverb(rt60_s=2.6, damping=0.5, predelay_ms=25, wet_level=0.3),
    treble_db=-8,
    loudness_share=0.7,
    transition="swell",
    leap_probability=0.2,
    rest_probability=0.1,
    common_practice=True,
)

# Four-part strings, solo winds, horns and timpani; functional harmony with clean part-writing.
ORCHESTRAL = Style(
    name="orchestral",
    tempo=(76, 104, 138),
    steadiness=0.3,
    minor_probability=0.4,
    progressions={
        "major": (
            "I | IV | V7 | I",
            "I | vi | ii/3 | V7",
            "I | V/3 | vi | iii",
            "I | I/3 IV | ii V7 | I",
            "vi | ii | V7 | I",
            "I | IV/3 | V7/3 | I",
        ),
        "minor": (
            "i | iv | V7 | i",
            "i | bVI | iv | V7",
            "i | V/3 | i | iiø7 V7",
            "i | bVII | bVI | V",
            "i | bIII | iv | V7",
        ),
    },
    cadences={"major": ("ii/3 | V7 | I", "IV | I/5 V7 | I"), "minor": ("iv | V7 | i", "bVI | iiø7 V7 | i")},
    layers=(
        Layer("pads", "pad", (49,), level_db=-5, low=53, high=76, voices=4, pan=-0.15),
        Layer("bass", "bass", (43,), level_db=-1, low=33, high=48, pan=0.2, gate=0.9).with_figures(
            Figure("6-------5-------", "r5"), Figure("7---5---6---5---", "r5ra"), Figure("7-5-5-5-6-5-5-5-", "rrr5")
        ),
        Layer("harmony", "arp", (46,), min_energy=0.15, level_db=-8, low=50, high=86, pan=0.3).with_figures(
            Figure("5---4---4---4---", "0123"),
            Figure("6-4-5-4-5-4-5-4-", "01234321"),
            Figure("6-4-5-456-4-5-45", "0213243521"),
        ),
        Layer(
            "harmony", "comp", (45,), min_energy=0.15, level_db=-4, low=52, high=74, pan=-0.35, gate=0.5
        ).with_figures(Figure("..5...5...5...5."), Figure("7.5.6.5.7.5.6.5.")),
        Layer("pads", "pad", (60,), min_energy=0.55, level_db=-9, low=53, high=70, pan=0.2),
        Layer("pads", "pad", (61,), min_energy=0.78, level_db=-10, low=52, high=74, pan=0.1),
        Layer("melody", "lead", (48,), level_db=4, low=65, high=88, pan=-0.1),
        Layer("melody", "answer", (73, 68, 71, 60), min_energy=0.25, level_db=0, low=58, high=82, pan=0.2),
    ),
    kit=Kit(
        (48,),
        (
            {"triangle": "4..............."},
            {"bass drum": "7...............", "triangle": "....4.......4..."},
            {
                "bass drum": "8.......6.......",
                "snare": "..4.4.44..4.4.44",
                "cymbals": "6...............|................",
            },
        ),
        ({"snare": "........34455667"}, {"snare": "........4.4.5556", "bass drum": "........6...7..."}),
        min_energy=0.5,
        level_db=-5,
    ),
    rhythm_cells=(
        "7-----6-5---6---",
        "7---6-5-7-------",
        "6-6-6---7---5---",
        "7---5-6-7-6-5---",
        "6---7---6-5-4---",
        "..5-6-7-6-------",
    ),
    accent=Accent(("cymbals", "bass drum"), low_program=47),
    reverb=Reverb(rt60_s=2.2, damping=0.5, predelay_ms=24, wet_level=0.28),
    treble_db=-8,
    loudness_share=0.7,
    transition="gliss",
    common_practice=True,
)
