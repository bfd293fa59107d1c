"""Notes: chords, melody, accompaniment and drums."""
