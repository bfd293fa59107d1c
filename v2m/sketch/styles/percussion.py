"""Hand percussion, for styles without drums where the tags ask for some."""

from v2m.sketch.style import Kit

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
    min_energy=0.4,
    level_db=-9,
)
