"""Measures of finished music: per clip, per set, with and without embeddings."""
