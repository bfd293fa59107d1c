"""Media files: probing, decoding, muxing and verification."""
