"""Frozen pretrained models: hub access, safe loading, encoders and codecs."""
