"""Acoustic styles: folk, jazz, waltz."""

from v2m.sketch.style import Accent, Figure, Kit, Layer, Reverb, Style

# A picked and a strummed guitar, an upright bass, a fiddle, a harmonica or a whistle; no drums.
FOLK = Style(
    name="acoustic folk",
    tempo=(80, 100, 126),
    steadiness=0.5,
    minor_probability=0.25,
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
        Layer("harmony", "arp", (25, 24), level_db=-1, low=48, high=76, voices=4, pan=-0.3, gate=1.6).with_figures(
            Figure("6---4-4-5---4-4-", "021321"),
            Figure("6-4-5-4-6-4-5-4-", "03213231"),
            Figure("6-455-456-455-45", "032103230321"),
        ),
        Layer(
            "harmony", "strum", (24, 25), min_energy=0.45, level_db=-8, low=45, high=72, voices=5, pan=0.4, gate=1.0
        ).with_figures(Figure("7---..5---5-6-5-"), Figure("8---5-57..575-57")),
        Layer("bass", "bass", (32, 33), min_energy=0.2, level_db=-5, low=28, high=48).with_figures(
            Figure("7-------6-------", "r5"), Figure("8-----5-7---6---", "rr5a"), Figure("8---6---7---6-6-", "r5ra5")
        ),
        Layer("pads", "pad", (21,), min_energy=0.6, level_db=-11, low=52, high=74, pan=0.1),
        Layer("melody", "lead", (110, 22, 78), level_db=4, low=62, high=86, pan=0.1),
        Layer("melody", "answer", (15, 105), min_energy=0.3, level_db=-1, low=60, high=81, pan=0.35),
    ),
    rhythm_cells=(
        "7---6-5-6---5---",
        "7-5-6---7-6-5---",
        "6-6-7---5---....",
        "7-----6-5-4-5---",
        "..5-6-7-6---5---",
        "7---5---6-------",
    ),
    accent=Accent(low_program=25, high_program=25),
    reverb=Reverb(rt60_s=1.3, damping=0.6, predelay_ms=14, wet_level=0.16),
    transition="none",
    leap_probability=0.2,
    rest_probability=0.12,
    timing_std_beats=0.01,
)

# A walking bass, a ride cymbal, shell voicings and a swinging horn.
JAZZ = Style(
    name="jazz",
    tempo=(92, 126, 168),
    steadiness=0.6,
    minor_probability=0.35,
    scales={"minor": "dorian"},
    progressions={
        "major": (
            "ii9 | V13 | Imaj9 | VI7b9",
            "Imaj7 vi7 | ii9 V13 | iii7 VI7b9 | ii9 V13",
            "Imaj9 | IV9 | iii7 VI7b9 | ii9 V13",
            "IVmaj7 | iv6 | iii7 VI7 | ii9 V13",
            "I69 | ii9 V13 | I69 | ii9 V7b9",
        ),
        "minor": (
            "i69 | iiø7 V7b9 | i69 | iiø7 V7b9",
            "i7 | iv9 | iiø7 | V7b9",
            "iv9 | bVII13 | bIIImaj9 | bVImaj7",
            "i69 | bVI7 V7b9 | i69 | V7b9",
        ),
    },
    cadences={"major": ("ii9 | V13 | I69", "ii9 V13 | I69"), "minor": ("iiø7 | V7b9 | i69", "bVI7 V7b9 | i69")},
    layers=(
        Layer("harmony", "comp", (0,), level_db=-3, low=50, high=72, voices=4, pan=-0.3, gate=0.8).with_figures(
            Figure("6-----------....|..5-----5-------"),
            Figure("6---..5-........|..6-....5---..5-"),
            Figure("7-..6---..6-..5-|..6-..6---..7-6-"),
        ),
        Layer("bass", "walk", (32,), level_db=1, low=28, high=50),
        Layer("melody", "lead", (66, 59, 11), low=58, high=82, pan=0.1),
        Layer("melody", "answer", (26, 57, 0), min_energy=0.3, level_db=-3, low=57, high=79, pan=0.4),
        Layer("pads", "comp", (61, 57), min_energy=0.72, level_db=-6, low=53, high=74, pan=0.25, gate=0.6).with_figures(
            Figure("..........7.....|......7-......7-")
        ),
    ),
    kit=Kit(
        (32,),
        (
            {"pedal hat": "....6.......6...", "ride": "7...7.5.7...7.5."},
            {"ride": "7...6.5.7...6.5.", "pedal hat": "....6.......6...", "kick": "3...3...3...3..."},
            {
                "ride": "8...7.6.8...7.6.",
                "pedal hat": "....7.......7...",
                "kick": "4...3...4...3...",
                "snare": "......3......4..|..3.....4.....3.",
            },
        ),
        (
            {"snare": "........4.5...6.", "kick": "............6..."},
            {"snare": "........5.5.....", "high tom": "............6...", "low tom": "..............6."},
        ),
        min_energy=0.1,
        level_db=0,
    ),
    rhythm_cells=(
        "..6-5-6-7---....",
        "7---5-6-..5-6---",
        "6-5-6-7-5-4-5---",
        "..5-6-5-....6-7-",
        "7-----6-5---....",
        "....6-5-6---7-5-",
        "6---7-------5-6-",
    ),
    accent=Accent(("crash", "kick"), high_program=0),
    reverb=Reverb(rt60_s=1.2, damping=0.6, predelay_ms=14, wet_level=0.14),
    transition="none",
    swing=0.64,
    rootless_voicings=True,
    leap_probability=0.3,
    rest_probability=0.25,
    timing_std_beats=0.01,
)

# Three in a bar, oom-pah-pah, an accordion or a violin.
WALTZ = Style(
    name="waltz",
    beats_per_bar=3,
    tempo=(96, 132, 172),
    steadiness=0.35,
    progressions={
        "major": ("I | I | V7 | V7", "I | vi | ii | V7", "I | VI7 | ii | V7", "IV | I | V7 | I"),
        "minor": ("i | i | V7 | V7", "i | iv | V7 | i", "i | bVI | iv | V7", "iv | i | V7 | i"),
    },
    cadences={"major": ("ii | V7 | I", "IV | V7 | I"), "minor": ("iv | V7 | i", "iiø7 | V7 | i")},
    layers=(
        Layer("bass", "bass", (32, 43), level_db=-3, low=28, high=48, gate=0.8).with_figures(
            Figure("7--...", "r"), Figure("8--...|7--...", "r"), Figure("8--...|7--...", "r")
        ),
        Layer("harmony", "comp", (24, 45), level_db=-4, low=52, high=74, pan=-0.25, gate=0.7).with_figures(
            Figure("..5-4-"), Figure("..6-5-|..6-5.")
        ),
        Layer("pads", "pad", (49,), level_db=-1, low=52, high=77, voices=4, pan=0.15),
        Layer("harmony", "arp", (46,), min_energy=0.6, level_db=-8, low=60, high=91, pan=0.35).with_figures(
            Figure("444444", "012345"), Figure("545454", "024531")
        ),
        Layer("melody", "lead", (48, 40), level_db=3, low=60, high=86, pan=0.05),
        Layer("melody", "answer", (21, 71, 42), min_energy=0.25, level_db=-3, low=57, high=79, pan=0.3),
    ),
    kit=Kit(
        (40,),
        (
            {"triangle": "4....."},
            {"pedal hat": "..5.5."},
            {"kick": "6.....", "pedal hat": "..5.5.", "snare": "..3.3.|..3.34"},
        ),
        ({"snare": "..3445"}, {"snare": "..4.55", "kick": "6....."}),
        min_energy=0.5,
        level_db=-7,
    ),
    rhythm_cells=("7---5-", "7-----", "7-6-5-", "5-6-7-", "7---..", "..5-6-"),
    accent=Accent(("crash", "kick"), high_program=8),
    reverb=Reverb(rt60_s=1.6, damping=0.55, predelay_ms=18, wet_level=0.2),
    treble_db=-8,
    loudness_share=0.7,
    transition="gliss",
    leap_probability=0.2,
    rest_probability=0.12,
    timing_std_beats=0.01,
    common_practice=True,
)
