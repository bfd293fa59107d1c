"""Taggers: video to music tags."""
