"""Neural audio codecs and vocoders."""
