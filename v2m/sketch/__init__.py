"""The Sketch composer: arranges and plays music without weights."""
