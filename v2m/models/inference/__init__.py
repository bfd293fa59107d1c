"""Fast decoding, shared by MusicGen, VidMuse and YuE."""
