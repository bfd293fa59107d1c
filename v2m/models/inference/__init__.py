"""Fast decoding with a KV cache, shared by MusicGen, VidMuse and YuE."""
