"""Frozen pretrained models: hub access, safe loading, encoders, codecs, source separation.

One convention for loading: a class of our own has a classmethod `load`; what makes an object of a library's class is a
function `load_<noun>` (`load_model`, `load_tokenizer`, `load_encodec`). Files are read by `safe_load.read_*`.
"""
