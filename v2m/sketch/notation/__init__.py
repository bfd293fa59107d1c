"""Scores as codes: vocabulary, voices, encoding, decoding, MIDI files, performance."""
