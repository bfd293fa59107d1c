"""Sound: SoundFont synthesis, effects, reverb and MIDI export."""
